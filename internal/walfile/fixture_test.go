package walfile

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/pgmoneta/pgmoneta-go/internal/container"
	"github.com/pgmoneta/pgmoneta-go/internal/durable"
	"github.com/pgmoneta/pgmoneta-go/internal/pg"
	"github.com/pgmoneta/pgmoneta-go/internal/repo"
	"github.com/pgmoneta/pgmoneta-go/internal/storage"
	"github.com/pgmoneta/pgmoneta-go/internal/walpage"
)

const (
	testServer  = "primary"
	testSystem  = 7123456789012345678
	testSegment = pg.SegmentSize(2 << 20) // two frames
	testHistory = "1\t0/3000000\tno recovery target specified\n"
	testLabel   = "START WAL LOCATION: 0/2000028 (file 000000010000000000000002)\n" +
		"STOP WAL LOCATION: 0/2000138 (file 000000010000000000000002)\n" +
		"CHECKPOINT LOCATION: 0/2000060\nBACKUP METHOD: streamed\nBACKUP FROM: primary\n" +
		"START TIME: 2026-11-21 12:00:00 UTC\nLABEL: base\nSTART TIMELINE: 1\nSTOP TIMELINE: 1\n"
)

// A bench is an archive and a data directory that wants something from it.
type bench struct {
	t    testing.TB
	base string
	repo *repo.Repository
	data string
}

func newBench(t testing.TB) *bench {
	t.Helper()
	b := &bench{t: t, base: t.TempDir(), data: t.TempDir()}
	var err error
	if b.repo, err = repo.Open(durable.OS{}, b.base, testServer); err != nil {
		t.Fatal(err)
	}
	b.must(b.repo.Bind(context.Background(), "test", strconv.Itoa(testSystem)))
	b.must(os.MkdirAll(b.repo.ReceiveDir(), 0o700))
	b.must(os.MkdirAll(filepath.Join(b.data, "pg_wal", "archive_status"), 0o700))
	return b
}

func (b *bench) must(err error) {
	b.t.Helper()
	if err != nil {
		b.t.Fatal(err)
	}
}

// name returns the name of the n-th segment of a timeline.
func name(tli pg.Timeline, n int) string {
	return pg.SegmentName(tli, pg.LSN(n)*pg.LSN(testSegment), testSegment)
}

// content makes the bytes of a segment: a true first page and, behind it, bytes that depend on the name.
func content(segment string) []byte { return contentOf(segment, testSystem, testSegment) }

func contentOf(segment string, system uint64, size pg.SegmentSize) []byte {
	tli, start, err := pg.ParseSegmentName(segment, size)
	if err != nil {
		panic(err)
	}
	h := walpage.Header{Magic: 0xD116, Info: walpage.LongHeader, Timeline: tli, Address: start,
		System: system, SegmentSize: uint32(size), BlockSize: 8192}
	b := h.Append(make([]byte, 0, size))
	noise := rand.New(rand.NewPCG(uint64(start), uint64(tli)))
	for len(b) < int(size) {
		b = append(b, byte(noise.Uint32()), 0, 0, 1, byte(noise.Uint32()), 2, 3, 4)
	}
	return b[:size]
}

// store stores a segment, or a partial one, with the given content.
func (b *bench) store(file string, plain []byte) {
	b.t.Helper()
	ctx := context.Background()
	object, ok := repo.WALObject(file)
	if !ok {
		b.t.Fatalf("%s is no file of WAL", file)
	}
	stage, err := b.repo.Engine().Stage(ctx, "test")
	b.must(err)
	up, err := stage.Create(ctx, object)
	b.must(err)
	w, err := container.NewStreamWriter(up, container.Header{Kind: container.Segment, Codec: container.Zstd}, 3)
	b.must(err)
	_, err = w.Write(plain)
	b.must(errors.Join(err, w.Finish(), up.Close(), stage.Commit(ctx)))
}

func (b *bench) put(file, content string) {
	b.t.Helper()
	object, _ := repo.WALObject(file)
	b.must(storage.Put(context.Background(), b.repo.Engine(), "test", object, []byte(content)))
}

func (b *bench) receive(file string, plain []byte) {
	b.t.Helper()
	b.must(os.WriteFile(filepath.Join(b.repo.ReceiveDir(), file), plain, 0o600))
}

// object returns the path of a stored file.
func (b *bench) object(file string) string {
	object, _ := repo.WALObject(file)
	return filepath.Join(b.repo.Dir(), object)
}

func (b *bench) wal(name string) string { return filepath.Join(b.data, "pg_wal", name) }
func (b *bench) target() string         { return b.wal("RECOVERYXLOG") }

func (b *bench) getter() *Getter { return &Getter{BaseDir: b.base, Server: testServer} }

// get delivers a file and returns its content. When there is an error it checks that nothing was left.
func (b *bench) get(g *Getter, file string) ([]byte, error) {
	b.t.Helper()
	_ = os.Remove(b.target())
	err := g.Get(context.Background(), file, b.target())
	if err != nil {
		if left, _ := filepath.Glob(b.target() + "*"); len(left) > 0 {
			b.t.Errorf("get %s fails with %v and leaves %v", file, err, left)
		}
		return nil, err
	}
	got, err := os.ReadFile(b.target())
	b.must(err)
	return got, nil
}

// delivers fails the test if file is not delivered with that content.
func (b *bench) delivers(g *Getter, file string, want []byte) {
	b.t.Helper()
	got, err := b.get(g, file)
	if err != nil {
		b.t.Fatalf("get %s: %v", file, err)
	}
	if !bytes.Equal(got, want) {
		b.t.Fatalf("get %s delivers %d bytes that differ from the %d archived", file, len(got), len(want))
	}
}

// stops fails the test unless the error is one that stops a recovery and says where.
func stops(t testing.TB, err error, says string) {
	t.Helper()
	var where *FileError
	switch {
	case err == nil:
		t.Error("no error, want one")
	case errors.Is(err, ErrNotArchived), !errors.As(err, &where):
		t.Errorf("%v does not stop recovery", err)
	case !strings.Contains(err.Error(), says) || !strings.Contains(err.Error(), testServer):
		t.Errorf("%v does not name server and %q", err, says)
	}
}

func absent(t testing.TB, path string) {
	t.Helper()
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%s is there: %v", path, err)
	}
}
