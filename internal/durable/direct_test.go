package durable_test

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/pgmoneta/pgmoneta-go/internal/durable"
)

func bytesOf(seed uint64, n int) []byte {
	b := make([]byte, n) // of this size the memory is aligned
	r := rand.NewChaCha8([32]byte{byte(seed)})
	_, _ = r.Read(b)
	return b
}

// write is what callers do.
func write(t *testing.T, f *os.File, d *durable.Direct, b []byte, at int64) (direct bool) {
	t.Helper()
	done, err := d.WriteAt(b, at)
	if err != nil {
		t.Fatal(err)
	}
	if !done {
		if _, err := f.WriteAt(b, at); err != nil {
			t.Fatal(err)
		}
	}
	return done
}

// TestDirectWritesEverythingWhereItBelongs covers aligned and other pieces side by side, by several goroutines, in a
// file that is renamed meanwhile.
func TestDirectWritesEverythingWhereItBelongs(t *testing.T) {
	dir := t.TempDir()
	f, err := os.Create(filepath.Join(dir, "file"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	const block, blocks = 128 << 10, 24
	want := bytesOf(1, block*blocks+777)
	if err := durable.Reserve(f, int64(len(want))); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(f.Name()); err != nil || !bytes.Equal(got, make([]byte, len(want))) {
		t.Fatalf("reserved bytes do not read as zero: %v", err)
	}
	d := durable.NewDirect(f)
	if err := os.Rename(f.Name(), filepath.Join(dir, "renamed")); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(f.Name(), []byte("another file"), 0o600); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for i := range blocks {
		wg.Go(func() { write(t, f, d, bytes.Clone(want[i*block:(i+1)*block]), int64(i*block)) })
	}
	wg.Wait()
	if write(t, f, d, want[block*blocks:], block*blocks) {
		t.Error("an end that is no whole block was written past the page cache")
	}
	write(t, f, d, want[block+8:2*block+8], 0) // memory that is not aligned, which the disk takes or leaves
	if got, err := os.ReadFile(filepath.Join(dir, "renamed")); err != nil || !bytes.Equal(got[:block], want[block+8:2*block+8]) {
		t.Errorf("what is not aligned in memory was not written: %v", err)
	}
	write(t, f, d, want[:block], 0)
	for _, at := range []int64{0, block, blocks * block} {
		got := make([]byte, block)
		n, done, err := d.ReadAt(got, at)
		if done && (err != nil && !errors.Is(err, io.EOF) || !bytes.Equal(got[:n], want[at:at+int64(n)]) || n < block && at < blocks*block) {
			t.Errorf("%d bytes from %d are not those of the file: %v", n, at, err)
		}
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	if _, done, err := d.ReadAt(make([]byte, block), 0); done || err != nil {
		t.Errorf("a closed one read: %v", err)
	}
	if write(t, f, d, want[:block], 0) {
		t.Error("a closed one wrote")
	}
	if got, err := os.ReadFile(filepath.Join(dir, "renamed")); err != nil || !bytes.Equal(got, want) {
		t.Fatalf("the file differs: %v", err)
	}
	if got, err := os.ReadFile(f.Name()); err != nil || string(got) != "another file" {
		t.Fatalf("the file of its former name is %q: %v", got, err)
	}
}

// TestDirectLeavesWhatItCannotWrite: to the caller, and to no file.
func TestDirectLeavesWhatItCannotWrite(t *testing.T) {
	f, err := os.Create(filepath.Join(t.TempDir(), "file"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	d := durable.NewDirect(f)
	defer func() { _ = d.Close() }()
	b := bytesOf(2, 1<<20)
	for name, try := range map[string]struct {
		b  []byte
		at int64
	}{
		"small":              {b[:32<<10], 0},
		"offset":             {b[:128<<10], 512},
		"length":             {b[:128<<10+512], 0},
		"nothing":            {nil, 0},
		"an offset too high": {b, 1<<63 - 4096},
	} {
		if done, err := d.WriteAt(try.b, try.at); done || err != nil && name != "an offset too high" {
			t.Errorf("%s: done %v, %v", name, done, err)
		}
	}
	if info, err := f.Stat(); err != nil || info.Size() != 0 {
		t.Errorf("the file has %d bytes, %v", info.Size(), err)
	}
	dir := t.TempDir()
	power, err := durable.NewPowerCut(dir, 1000)
	if err != nil {
		t.Fatal(err)
	}
	other, err := power.Create(filepath.Join(dir, "file"))
	if err != nil {
		t.Fatal(err)
	}
	if done, err := durable.NewDirect(other).WriteAt(b, 0); done || err != nil {
		t.Errorf("a file that forgets was written behind its back: %v, %v", done, err)
	}
}

// TestDirectTellsErrors: by the write that meets them.
func TestDirectTellsErrors(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	signal.Ignore(unix.SIGXFSZ)
	defer signal.Reset(unix.SIGXFSZ)
	var was unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_FSIZE, &was); err != nil {
		t.Fatal(err)
	}
	if err := unix.Setrlimit(unix.RLIMIT_FSIZE, &unix.Rlimit{Cur: 1 << 20, Max: was.Max}); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Setrlimit(unix.RLIMIT_FSIZE, &was) }()
	d := durable.NewDirect(f)
	defer func() { _ = d.Close() }()
	if _, err := d.WriteAt(bytesOf(3, 1<<20), 1<<20); err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("a file that may not grow: %v", err)
	}
	if err := durable.Reserve(f, 2<<20); err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("space that may not be had: %v", err)
	}
}
