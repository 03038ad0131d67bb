package repo

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/pgmoneta/pgmoneta-go/internal/container"
	"github.com/pgmoneta/pgmoneta-go/internal/durable"
)

const segmentBytes = 1 << 20

// receiving is a repository with a receive directory.
func receiving(t testing.TB, dir string, k Keys) *Repository {
	t.Helper()
	r := bound(t, dir, k)
	if err := os.MkdirAll(r.ReceiveDir(), 0o700); err != nil {
		t.Fatal(err)
	}
	return r
}

// journalOf opens a partial segment as the receiver does.
func journalOf(fsys durable.FS, r *Repository, n int) (durable.File, error) {
	path := filepath.Join(r.ReceiveDir(), segmentName(n)+".partial")
	rfs := r.ReceiveFS(fsys)
	f, err := rfs.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		f, err = rfs.Create(path)
	}
	if err != nil {
		return nil, err
	}
	if err := f.Allocate(segmentBytes); err != nil {
		return nil, err
	}
	return f, rfs.SyncDir(r.ReceiveDir())
}

// fill writes plain in pieces of some hundred bytes, syncs now and then, and returns how much of it is durable.
func fill(f durable.File, plain []byte) (synced int64, err error) {
	defer func() { err = errors.Join(err, f.Close()) }()
	rng := rand.New(rand.NewPCG(1, uint64(len(plain))))
	for at := 0; at < len(plain); {
		n := min(1+rng.IntN(100_000), len(plain)-at)
		if _, err := f.WriteAt(plain[at:at+n], int64(at)); err != nil {
			return synced, err
		}
		at += n
		if rng.IntN(2) == 0 || at == len(plain) {
			if err := f.Datasync(); err != nil {
				return synced, err
			}
			synced = int64(at)
		}
	}
	return synced, nil
}

func noise(n int) []byte {
	rng := rand.New(rand.NewPCG(3, 3))
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(rng.Uint32()) | 1
	}
	return b
}

func readReceived(t testing.TB, r *Repository, name string) []byte {
	t.Helper()
	in, err := r.OpenReceived(context.Background(), name)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	got, err := io.ReadAll(in)
	if err != nil || int64(len(got)) != in.Size() {
		t.Fatalf("%d bytes of %d, %v", len(got), in.Size(), err)
	}
	if err := in.Rewind(); err != nil {
		t.Fatal(err)
	}
	again, err := io.ReadAll(in)
	if err != nil || !bytes.Equal(got, again) {
		t.Fatalf("read again: %d bytes, %v", len(again), err)
	}
	return got
}

// expect checks a partial segment that holds plain and zeros.
func expect(t testing.TB, r *Repository, n int, plain []byte) {
	t.Helper()
	want := append(bytes.Clone(plain), make([]byte, segmentBytes-len(plain))...)
	if got := readReceived(t, r, segmentName(n)+".partial"); !bytes.Equal(got, want) {
		t.Fatalf("%d bytes came back, which are not the %d written and zeros", len(got), len(plain))
	}
	end, err := r.PartialEnd(segmentName(n), 0, segmentBytes)
	if err != nil || int64(end) != int64(len(plain)+7)&^7 {
		t.Fatalf("PartialEnd is %s, %v; want %d", end, err, len(plain))
	}
}

func receive(t testing.TB, r *Repository, n int, plain []byte) {
	t.Helper()
	f, err := journalOf(durable.OS{}, r, n)
	if err == nil {
		_, err = fill(f, plain)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func TestReceivedSegmentIsSealed(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	k := keysOf(masterKey(t, "a"), container.AES256)
	r := receiving(t, dir, k)
	receive(t, r, 1, content(1)[:700_000])
	b, err := os.ReadFile(filepath.Join(r.ReceiveDir(), segmentName(1)+".partial"))
	if err != nil || bytes.Contains(b, []byte("planted")) {
		t.Errorf("the partial segment is legible: %v", err)
	}
	expect(t, sealed(t, durable.OS{}, dir, k), 1, content(1)[:700_000])
	if _, err := sealed(t, durable.OS{}, dir, Keys{}).OpenReceived(context.Background(), segmentName(1)+".partial"); !errors.As(err, new(*NoMasterError)) {
		t.Errorf("without the master key: %v, want a NoMasterError", err)
	}

	// Received again from its beginning, as after every lost connection: nothing is written twice.
	receive(t, r, 1, content(1)[:300_000])
	expect(t, r, 1, content(1)[:700_000])
	receive(t, r, 1, content(1)[:800_000])
	expect(t, r, 1, content(1)[:800_000])
	again, err := os.ReadFile(filepath.Join(r.ReceiveDir(), segmentName(1)+".partial"))
	if err != nil || len(again) != len(b) {
		t.Errorf("the file has %d bytes, then %d, %v", len(b), len(again), err)
	}
	// A server that lost its last WAL in a crash sends other bytes.
	changed := append(bytes.Clone(content(1)[:500_000]), noise(100_000)...)
	receive(t, r, 1, changed)
	expect(t, r, 1, changed)

	receive(t, r, 1, content(1))
	partial := filepath.Join(r.ReceiveDir(), segmentName(1)+".partial")
	complete := filepath.Join(r.ReceiveDir(), segmentName(1))
	if err := os.Rename(partial, complete); err != nil {
		t.Fatal(err)
	}
	if got := readReceived(t, r, segmentName(1)); !bytes.Equal(got, content(1)) {
		t.Error("the complete segment is another one")
	}
	if err := os.Truncate(complete, 600_000); err != nil {
		t.Fatal(err)
	}
	var d *container.DamagedError
	if _, err := r.OpenReceived(context.Background(), segmentName(1)); !errors.As(err, &d) || d.Object != "receive/"+segmentName(1) {
		t.Errorf("a complete segment cut short: %v, want a DamagedError", err)
	}
	if err := os.WriteFile(complete, content(2), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := r.OpenReceived(context.Background(), segmentName(1)); !errors.Is(err, ErrPlain) {
		t.Errorf("a plain segment put there: %v, want ErrPlain", err)
	}
}

func TestPartialSegmentFollowsTheConfiguration(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	master := masterKey(t, "a")
	plain := noise(900_000)
	receive(t, receiving(t, dir, Keys{}), 1, plain[:800_000])
	for i, c := range []container.Cipher{container.AES256, container.Plain, container.AES128} {
		r := bound(t, dir, keysOf(master, c))
		f, err := journalOf(durable.OS{}, r, 1)
		if err != nil {
			t.Fatal(err)
		}
		expect(t, r, 1, plain[:800_000+i*100]) // before anything is received again
		if _, err := fill(f, plain[:800_100+i*100]); err != nil {
			t.Fatal(err)
		}
		expect(t, r, 1, plain[:800_100+i*100])
		b, err := os.ReadFile(filepath.Join(r.ReceiveDir(), segmentName(1)+".partial"))
		if err != nil || bytes.Contains(b, plain[1000:1100]) != (c == container.Plain) {
			t.Errorf("%s: the file is of the wrong kind, %v", c, err)
		}
	}
}

// TestNoSyncedByteOfASealedSegmentIsLost cuts the power at each operation while a segment is received, for the first time, again, and when
// encryption was switched on in between. What was synced once is there at any time.
func TestNoSyncedByteOfASealedSegmentIsLost(t *testing.T) {
	t.Parallel()
	master := masterKey(t, "a")
	k := keysOf(master, container.AES256)
	plain := noise(900_000)
	for _, tt := range []struct {
		name   string
		before int // bytes that are there
		keys   Keys
	}{
		{"new", 0, k},
		{"again", 600_000, k},
		{"encryption switched on", 600_000, Keys{}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			template := t.TempDir()
			r := receiving(t, template, tt.keys)
			if tt.before > 0 {
				receive(t, r, 1, plain[:tt.before])
			}
			for cut := 1; ; cut++ {
				dir, after := t.TempDir(), t.TempDir()
				if err := os.CopyFS(dir, os.DirFS(template)); err != nil {
					t.Fatal(err)
				}
				r := bound(t, dir, k)
				fsys, err := durable.NewPowerCut(dir, cut)
				if err != nil {
					t.Fatal(err)
				}
				synced := int64(0)
				f, err := journalOf(fsys, r, 1)
				if err == nil {
					synced, err = fill(f, plain)
				}
				done := err == nil
				fsys.Cut()
				if err := fsys.Image(after); err != nil {
					t.Fatal(err)
				}
				survivor := sealed(t, durable.OS{}, after, k)
				if err := survivor.Bind(context.Background(), OwnerWAL, testSystem); err != nil {
					t.Fatal(err)
				}
				want := max(synced, int64(tt.before))
				// The receiver opens the file first of all, which ends a conversion that was cut short.
				if f, err := journalOf(durable.OS{}, survivor, 1); err != nil {
					t.Fatalf("cut %d: %v", cut, err)
				} else if err := f.Close(); err != nil {
					t.Fatal(err)
				}
				in, err := survivor.OpenReceived(context.Background(), segmentName(1)+".partial")
				if err != nil {
					t.Fatalf("cut %d: %v", cut, err)
				}
				got, err := io.ReadAll(io.LimitReader(in, want))
				if err != nil || !bytes.Equal(got, plain[:want]) {
					t.Fatalf("cut %d: %d bytes of %d that were synced came back, %v", cut, len(got), want, err)
				}
				_ = in.Close()
				if done {
					return
				}
			}
		})
	}
}
