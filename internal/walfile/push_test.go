package walfile

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/pgmoneta/pgmoneta-go/internal/container"
	"github.com/pgmoneta/pgmoneta-go/internal/durable"
	"github.com/pgmoneta/pgmoneta-go/internal/pg"
	"github.com/pgmoneta/pgmoneta-go/internal/repo"
	"github.com/pgmoneta/pgmoneta-go/internal/walpage"
)

func (b *bench) pusher() *Pusher {
	return &Pusher{FS: durable.OS{}, BaseDir: b.base, Server: testServer, Codec: container.Zstd, Level: 3}
}

// produce writes a file into pg_wal as a server would and returns its path.
func (b *bench) produce(file string, plain []byte) string {
	b.t.Helper()
	b.must(os.WriteFile(b.wal(file), plain, 0o600))
	return b.wal(file)
}

func push(p *Pusher, path string) error { return p.Push(context.Background(), path) }

func TestPushedFilesComeBack(t *testing.T) {
	t.Parallel()
	for codec := container.None; codec <= container.Bzip2; codec++ {
		t.Run(codec.String(), func(t *testing.T) {
			t.Parallel()
			b := newBench(t)
			p := b.pusher()
			p.Codec = codec
			files := map[string][]byte{
				name(1, 1):                      content(name(1, 1)),
				name(1, 2) + ".partial":         content(name(1, 2)),
				name(1, 1) + ".00000028.backup": []byte(testLabel),
				"00000002.history":              []byte(testHistory),
			}
			if codec == container.Zstd {
				for _, size := range []pg.SegmentSize{1 << 20, 16 << 20} {
					file := pg.SegmentName(2, 3*pg.LSN(size), size)
					files[file] = contentOf(file, testSystem, size)
				}
			}
			for file, plain := range files {
				path := b.produce(file, plain)
				b.must(push(p, path))
				b.must(push(p, path)) // the same again is no error
				b.delivers(b.getter(), file, plain)
			}
			if left, _ := os.ReadDir(filepath.Join(b.repo.Dir(), "tmp", "push")); len(left) > 0 {
				t.Errorf("stages left: %v", left)
			}
		})
	}
}

func TestPushBindsNewRepository(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	p := b.pusher()
	p.Server = "new"
	b.must(push(p, b.produce(name(1, 1), content(name(1, 1)))))
	err := push(p, b.produce(name(1, 2), contentOf(name(1, 2), 99, testSegment)))
	var foreign *ForeignError
	if !errors.As(err, &foreign) || foreign.System != "99" || foreign.Repository != "7123456789012345678" {
		t.Errorf("WAL of another cluster: %v", err)
	}
	p.BaseDir = filepath.Join(b.base, "nosuch")
	if err := push(p, b.wal(name(1, 1))); err == nil || IsRefusal(err) {
		t.Errorf("without base_dir: %v", err)
	}
	absent(t, p.BaseDir)
}

func TestPushRefuses(t *testing.T) {
	t.Parallel()
	segment := name(1, 1)
	good := content(segment)
	changed := func(at int, to byte) []byte { b := slices.Clone(good); b[at] = to; return b }
	tests := []struct {
		name  string
		file  string
		bytes []byte
		says  string
	}{
		{"other content under the name", segment, changed(len(good)-1, good[len(good)-1]+1), "differs from"},
		{"another cluster", name(1, 2), contentOf(name(1, 2), 99, testSegment), "system identifier 99"},
		{"cut short", name(1, 3), content(name(1, 3))[:1<<20], "its first page says"},
		{"no size of a segment", name(1, 3), content(name(1, 3))[:1_000_000], "no size of a segment"},
		{"empty", name(1, 3), nil, "no size of a segment"},
		{"name of another segment", name(1, 4), good, "first page"},
		{"a page of a later timeline", name(1, 1)[:8] + name(2, 3)[8:], content(name(2, 3)), "timeline 2"},
		{"zeros", name(1, 4), make([]byte, testSegment), "page header"},
		{"no WAL", name(1, 4), bytes.Repeat([]byte("x"), int(testSegment)), "first page"},
		{"no name of WAL", "postgresql.conf", nil, "not a name"},
		{"other history", "00000002.history", []byte("1\t0/4000000\tother\n"), "differs from"},
		{"no history", "00000003.history", []byte("x\n"), "00000003.history"},
		{"other partial", name(1, 9) + ".partial", changed(99, 1), "first page"},
		{"no backup history", segment + ".00000028.backup", []byte("x\n"), ".backup"},
		{"huge history", "00000004.history", make([]byte, smallLimit+1), "at most"},
	}
	b := newBench(t)
	b.must(push(b.pusher(), b.produce(segment, good)))
	b.must(push(b.pusher(), b.produce("00000002.history", []byte(testHistory))))
	before := b.listing()
	for _, tt := range tests {
		err := push(b.pusher(), b.produce(tt.file, tt.bytes))
		stops(t, err, tt.says)
		if !IsRefusal(err) {
			t.Errorf("%s: %v is no refusal", tt.name, err)
		}
	}
	if after := b.listing(); !slices.Equal(before, after) {
		t.Errorf("refused files changed the repository from %v to %v", before, after)
	}
	// Damage in the archive is not "identical", and must keep the server's copy.
	b.must(os.Truncate(b.object(segment), 9000))
	if err := push(b.pusher(), b.produce(segment, good)); !IsRefusal(err) {
		t.Errorf("stored object is damaged: %v", err)
	}
}

// listing returns the objects of the repository with their sizes.
func (b *bench) listing() []string {
	b.t.Helper()
	objects, err := b.repo.Engine().List(context.Background(), "wal")
	b.must(err)
	var list []string
	for _, o := range objects {
		list = append(list, o.Name)
	}
	return list
}

// A history file has no system identifier in it; that of the data directory it comes from counts.
func TestPushKnowsClusterOfHistory(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	path := b.produce("00000002.history", []byte(testHistory))
	b.must(os.Mkdir(filepath.Join(b.data, "global"), 0o700))
	b.must(os.WriteFile(filepath.Join(b.data, "global", "pg_control"), append([]byte{99, 0, 0, 0, 0, 0, 0, 0}, make([]byte, 8184)...), 0o600))
	var foreign *ForeignError
	if err := push(b.pusher(), path); !errors.As(err, &foreign) || foreign.System != "99" {
		t.Errorf("%v, want a ForeignError", err)
	}
}

func TestPushesAtTheSameTime(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	const segments = 4
	for i := range segments {
		b.produce(name(1, i), content(name(1, i)))
	}
	ctx := context.Background()
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			for i := range segments {
				if err := push(b.pusher(), b.wal(name(1, i))); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Go(func() { // the receiver stores the same segments and sweeps its own stages
		for i := range segments {
			if err := b.repo.Engine().Sweep(ctx, "wal"); err != nil {
				t.Error(err)
			}
			_, err := b.repo.StoreSegment(ctx, name(1, i), testSegment, bytes.NewReader(content(name(1, i))), container.Zstd, 3)
			if err != nil && !errors.Is(err, fs.ErrExist) {
				t.Error(err)
			}
		}
	})
	wg.Wait()
	for i := range segments {
		b.delivers(b.getter(), name(1, i), content(name(1, i)))
	}
}

// After a power cut at any operation of a push the file is archived whole or not at all, it is when push has
// returned, and the next push works.
func TestPushSurvivesPowerCutAtEveryOperation(t *testing.T) {
	t.Parallel()
	for _, file := range []string{pg.SegmentName(1, 1<<20, 1<<20), "00000002.history"} {
		plain := []byte(testHistory)
		if pg.IsSegmentName(file) {
			plain = contentOf(file, testSystem, 1<<20)
		}
		for cut, done := 1, false; !done; cut++ {
			b := newBench(t)
			fsys, err := durable.NewPowerCut(b.base, cut)
			b.must(err)
			p := b.pusher()
			p.FS = fsys
			pushed := push(p, b.produce(file, plain))
			done = pushed == nil

			after := *b
			after.base = t.TempDir()
			b.must(fsys.Image(after.base))
			got, err := after.get(after.getter(), file)
			if err == nil && !bytes.Equal(got, plain) || err != nil && (done || !errors.Is(err, ErrNotArchived)) {
				t.Fatalf("%s, cut at operation %d, push returned %v: get returns %d bytes, %v", file, cut, pushed, len(got), err)
			}
			b.must(push(after.pusher(), b.wal(file)))
			after.delivers(after.getter(), file, plain)
		}
	}
}

func TestPushSweepsWhatKilledPushesLeft(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	stage := filepath.Join(b.repo.Dir(), "tmp", "push", "123")
	b.must(os.MkdirAll(stage, 0o700))
	b.must(os.WriteFile(filepath.Join(stage, "0"), []byte("x"), 0o600))
	b.must(push(b.pusher(), b.produce(name(1, 1), content(name(1, 1)))))
	absent(t, stage)
}

func TestQueueLimit(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	for i := range 4 {
		b.produce(name(1, i), content(name(1, i)))
		b.produce(filepath.Join("archive_status", name(1, i)+".ready"), nil)
	}
	b.produce(filepath.Join("archive_status", name(1, 9)+".ready"), nil) // gone already
	b.produce(filepath.Join("archive_status", name(1, 8)+".done"), nil)
	b.produce("00000002.history", []byte(testHistory))
	const waiting = 4 * int64(testSegment)

	var warnings []string
	p := b.pusher()
	p.Warn = func(text string) { warnings = append(warnings, text) }
	p.MaxQueue = waiting
	b.must(push(p, b.wal(name(1, 0))))
	if len(warnings) > 0 {
		t.Errorf("at the limit: %v", warnings)
	}
	p.MaxQueue--
	b.must(push(p, b.wal(name(1, 1))))
	if len(warnings) != 1 || !strings.Contains(warnings[0], name(1, 1)) {
		t.Errorf("above the limit: %v", warnings)
	}
	p.Drop = true
	err := push(p, b.wal(name(1, 2)))
	var dropped *DroppedError
	if !errors.As(err, &dropped) || dropped.Queued != waiting || dropped.Limit != waiting-1 || dropped.Err != nil {
		t.Errorf("above the limit, dropping: %v", err)
	}
	absent(t, b.object(name(1, 2)))
	b.holes(name(1, 2))
	b.must(push(p, b.wal(name(1, 1))))         // archived already: nothing is lost
	b.must(push(p, b.wal("00000002.history"))) // never dropped
	b.delivers(b.getter(), "00000002.history", []byte(testHistory))
	b.must(push(p, b.produce(name(1, 3)+".partial", content(name(1, 3)))))
	b.receive(name(1, 3), content(name(1, 3))) // the receiver has it and will store it
	if err := push(p, b.wal(name(1, 3))); !errors.As(err, &dropped) {
		t.Errorf("above the limit, dropping: %v", err)
	}
	b.holes(name(1, 2))
}

// holes fails the test unless these segments are recorded as dropped, and nothing else is.
func (b *bench) holes(segments ...string) {
	b.t.Helper()
	list, err := b.repo.Holes(context.Background())
	b.must(err)
	var have []string
	for _, h := range list {
		have = append(have, pg.SegmentName(h.Timeline, h.From, testSegment))
		if h.Cause != repo.CauseDropped || h.To-h.From != pg.LSN(testSegment) || time.Since(h.NoticedAt).Abs() > time.Hour {
			b.t.Errorf("recorded: %+v", h)
		}
	}
	if !slices.Equal(have, segments) {
		b.t.Errorf("recorded as dropped: %v, want %v", have, segments)
	}
}

// pages makes a segment in which every page has its header, as a check wants it.
func pages(segment string) []byte {
	b := content(segment)
	tli, start, _ := pg.ParseSegmentName(segment, testSegment)
	for at := 8192; at < len(b); at += 8192 {
		h := walpage.Header{Magic: 0xD116, Timeline: tli, Address: start + pg.LSN(at)}
		copy(b[at:], h.Append(nil))
	}
	return b
}

// full makes b a server whose queue is over the limit and returns a pusher that drops.
func (b *bench) full(segments ...string) *Pusher {
	for _, s := range segments {
		b.produce(s, pages(s))
		b.produce(filepath.Join("archive_status", s+".ready"), nil)
	}
	p := b.pusher()
	p.MaxQueue, p.Drop = 1, true
	return p
}

func (b *bench) dropped(err error) *DroppedError {
	b.t.Helper()
	var dropped *DroppedError
	if !errors.As(err, &dropped) {
		b.t.Fatalf("push returns %v, want a DroppedError", err)
	}
	return dropped
}

func TestLaterPushFillsHoleOfDroppedSegment(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	p := b.full(name(1, 1), name(1, 2), name(1, 3))
	for i := 1; i <= 3; i++ {
		b.dropped(push(p, b.wal(name(1, i))))
	}
	b.holes(name(1, 1), name(1, 2), name(1, 3))
	p.Drop = false
	b.must(push(p, b.wal(name(1, 2))))
	b.holes(name(1, 1), name(1, 3))
	ctx := context.Background()
	_, err := b.repo.StoreSegment(ctx, name(1, 3), testSegment, bytes.NewReader(pages(name(1, 3))), container.Zstd, 3)
	b.must(err) // the receiver
	b.holes(name(1, 1))
	b.must(push(p, b.wal(name(1, 1))))
	b.holes()
}

// The repository's disk takes no hole either: what was dropped is remembered in
// pg_wal until it can be recorded. When even that fails nothing is dropped.
func TestDroppedSegmentIsRememberedWhenDiskIsFull(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	full := true
	fsys, err := durable.NewFault(b.base, func(op durable.Op) error {
		if full && op.Kind == "create" {
			return syscall.ENOSPC
		}
		return nil
	})
	b.must(err)
	p := b.full(name(1, 1), name(1, 2), name(1, 3), name(1, 4))
	p.FS = fsys
	var warnings []string
	p.Warn = func(text string) { warnings = append(warnings, text) }

	b.produce(droppedDirectory, nil) // in the way
	if err := push(p, b.wal(name(1, 1))); !errors.Is(err, syscall.ENOSPC) || IsRefusal(err) || errors.As(err, new(*DroppedError)) {
		t.Errorf("neither recorded nor remembered: %v", err)
	}
	b.must(os.Remove(b.wal(droppedDirectory)))

	for i := 1; i <= 2; i++ {
		d := b.dropped(push(p, b.wal(name(1, i))))
		if info, err := os.Stat(d.Remembered); err != nil || info.Size() != 0 || !errors.Is(d.Err, syscall.ENOSPC) || !strings.Contains(d.Error(), d.Remembered) {
			t.Errorf("remembered as %+v: %v", d, err)
		}
	}
	b.must(os.WriteFile(b.wal(droppedDirectory)+"/0123456789abcdef."+name(1, 9)+".1048576", nil, 0o600)) // of another repository
	b.holes()
	if len(warnings) != 2 || !strings.Contains(warnings[1], "still not recorded") {
		t.Errorf("said: %q", warnings)
	}
	full = false
	b.receive(name(1, 2), pages(name(1, 2))) // came another way in between
	b.dropped(push(p, b.wal(name(1, 3))))
	b.holes(name(1, 1), name(1, 3))
	if left, err := os.ReadDir(b.wal(droppedDirectory)); err != nil || len(left) != 1 {
		t.Errorf("left: %v, %v", left, err)
	}
}

func FuzzParseDropped(f *testing.F) {
	f.Add("k.000000010000000000000001.16777216")
	f.Add("k.000000010000000000000001.0")
	f.Add("k.0000000100000000000000FF.1073741824")
	f.Add("other.000000010000000000000001.16777216")
	f.Add("k..-1")
	f.Fuzz(func(t *testing.T, name string) {
		g, ok := parseDropped("k", name)
		if !ok {
			return
		}
		tli, start, err := pg.ParseSegmentName(g.segment, g.size)
		if err != nil || pg.SegmentName(tli, start, g.size) != g.segment || !g.size.Valid() {
			t.Errorf("%q stands for %+v", name, g)
		}
	})
}
