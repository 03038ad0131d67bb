package walfile

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/pgmoneta/pgmoneta-go/internal/container"
	"github.com/pgmoneta/pgmoneta-go/internal/pg"
)

func TestGetDeliversEveryKindOfFile(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.store(name(1, 1), content(name(1, 1)))
	b.receive(name(1, 2), content(name(1, 2)))
	b.receive(name(1, 3)+".partial", append(content(name(1, 3))[:100_000], make([]byte, int(testSegment)-100_000)...))
	b.receive(name(2, 3)+".partial", content(name(2, 3))[:70_000])
	b.receive(name(3, 1)+".partial", make([]byte, testSegment))
	b.receive(name(3, 2)+".partial", nil)
	b.store(name(1, 3)+".partial", content(name(1, 3)))
	b.put("00000002.history", testHistory)
	b.put(name(1, 1)+".00000028.backup", testLabel)
	short := append(content(name(1, 3))[:100_000], make([]byte, int(testSegment)-100_000)...)
	shorter := append(content(name(2, 3))[:70_000], make([]byte, int(testSegment)-70_000)...)
	tests := []struct {
		file    string
		partial bool
		want    []byte // nil: not in the archive
	}{
		{name(1, 1), false, content(name(1, 1))},
		{name(1, 1), true, content(name(1, 1))},
		{name(1, 2), false, content(name(1, 2))},
		{name(1, 3), false, nil},
		{name(1, 3), true, short},
		{name(2, 3), true, shorter},
		{name(3, 1), true, nil}, // space is reserved, nothing has come
		{name(3, 2), true, nil},
		{name(1, 4), true, nil},
		{name(4, 1), false, nil},
		{name(1, 3) + ".partial", false, content(name(1, 3))},
		{name(1, 4) + ".partial", true, nil},
		{"00000002.history", false, []byte(testHistory)},
		{"00000003.history", false, nil},
		{"FFFFFFFF.history", false, nil},
		{name(1, 1) + ".00000028.backup", false, []byte(testLabel)},
		{name(1, 1) + ".00000060.backup", false, nil},
	}
	for _, tt := range tests {
		g := b.getter()
		g.Partial = tt.partial
		got, err := b.get(g, tt.file)
		switch {
		case tt.want == nil && !errors.Is(err, ErrNotArchived):
			t.Errorf("get %s, partial %v: %v, want ErrNotArchived", tt.file, tt.partial, err)
		case tt.want != nil && (err != nil || !bytes.Equal(got, tt.want)):
			t.Errorf("get %s, partial %v: %d bytes, %v; want %d", tt.file, tt.partial, len(got), err, len(tt.want))
		}
	}
}

func TestGetStopsAtWhatIsNoNameOfWAL(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	for _, file := range []string{"", "x", "../format", "format", "00000000.history", "0000000a.history", "00000002.history.x",
		"../../" + name(1, 1), name(1, 1) + ".", name(1, 1) + ".backup", name(1, 1) + ".0000002.backup", name(1, 1) + ".partial.partial", name(1, 1)[1:]} {
		_, err := b.get(b.getter(), file)
		stops(t, err, "not a name")
	}
}

// Each case damages an archive of one segment and must stop recovery, whatever is asked for.
func TestGetStopsAtDamage(t *testing.T) {
	t.Parallel()
	segment := name(1, 1)
	edit := func(path string, change func([]byte) []byte) error {
		plain, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		return os.WriteFile(path, change(plain), 0o600)
	}
	flip := func(at func(size int) int) func(*bench) error {
		return func(b *bench) error {
			return edit(b.object(segment), func(p []byte) []byte { p[at(len(p))] ^= 1; return p })
		}
	}
	tests := []struct {
		name   string
		damage func(*bench) error
		says   string
	}{
		{"bit in the header", flip(func(int) int { return 9 }), segment},
		{"bit in the first frame", flip(func(int) int { return 200 }), "frame 0"},
		{"bit in the second frame", flip(func(n int) int { return n * 3 / 4 }), "frame 1"},
		{"bit in the index", flip(func(n int) int { return n - 100 }), "checksum"},
		{"bit in the trailer", flip(func(n int) int { return n - 20 }), segment},
		{"cut in half", func(b *bench) error { return os.Truncate(b.object(segment), 5000) }, "damaged"},
		{"empty", func(b *bench) error { return os.Truncate(b.object(segment), 0) }, "damaged"},
		{"another segment's object", func(b *bench) error {
			b.store(name(1, 2), content(name(1, 2)))
			return os.Rename(b.object(name(1, 2)), b.object(segment))
		}, "first page"},
		{"a segment of another size", func(b *bench) error {
			b.must(os.Remove(b.object(segment)))
			b.store(segment, content(segment)[:1<<20])
			return nil
		}, "damaged"},
		{"no size of a segment", func(b *bench) error {
			b.must(os.Remove(b.object(segment)))
			b.store(segment, content(segment)[:70_000])
			return nil
		}, "no size of a segment"},
		{"no bytes", func(b *bench) error {
			b.must(os.Remove(b.object(segment)))
			b.store(segment, nil)
			return nil
		}, "empty"},
		{"WAL of another cluster", func(b *bench) error {
			b.must(os.Remove(b.object(segment)))
			b.store(segment, contentOf(segment, 99, testSegment))
			return nil
		}, "system identifier 99"},
		{"a directory", func(b *bench) error {
			b.must(os.Remove(b.object(segment)))
			return os.Mkdir(b.object(segment), 0o700)
		}, "regular file"},
		{"received segment cut short", func(b *bench) error {
			b.must(os.Remove(b.object(segment)))
			b.receive(segment, content(segment)[:1<<20])
			return nil
		}, "its first page says"},
		{"received garbage", func(b *bench) error {
			b.must(os.Remove(b.object(segment)))
			b.receive(segment, bytes.Repeat([]byte("x"), int(testSegment)))
			return nil
		}, "first page"},
		{"partial garbage", func(b *bench) error {
			b.must(os.Remove(b.object(segment)))
			b.receive(segment+".partial", bytes.Repeat([]byte("x"), int(testSegment)))
			return nil
		}, "move it away"},
		{"partial too long", func(b *bench) error {
			b.must(os.Remove(b.object(segment)))
			b.receive(segment+".partial", append(content(segment), 0))
			return nil
		}, "its first page says"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t)
			b.store(segment, content(segment))
			b.must(tt.damage(b))
			g := b.getter()
			g.Partial = true
			_, err := b.get(g, segment)
			stops(t, err, tt.says)
		})
	}
	t.Run("timeline history", func(t *testing.T) {
		t.Parallel()
		b := newBench(t)
		b.put("00000002.history", "not a history\n")
		b.put("00000003.history", "")
		for _, file := range []string{"00000002.history", "00000003.history"} {
			_, err := b.get(b.getter(), file)
			var damaged *container.DamagedError
			stops(t, err, "damaged")
			if !errors.As(err, &damaged) {
				t.Errorf("%s: %v", file, err)
			}
		}
	})
}

func TestGetStopsWhereNoArchiveIs(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.must(os.Mkdir(filepath.Join(b.base, "unmounted"), 0o700))
	b.must(os.Mkdir(filepath.Join(b.base, "strange"), 0o700))
	b.must(os.WriteFile(filepath.Join(b.base, "strange", "format"), []byte("{"), 0o600))
	for server, base := range map[string]string{"nosuch": b.base, "unmounted": b.base, "strange": b.base, testServer: "/nonexistent"} {
		err := (&Getter{BaseDir: base, Server: server}).Get(context.Background(), name(1, 1), b.target())
		if err == nil || errors.Is(err, ErrNotArchived) {
			t.Errorf("server %s in %s: %v does not stop recovery", server, base, err)
		}
	}
	absent(t, filepath.Join(b.base, "nosuch"))
	// A target that cannot be written is our failure too, although the reason is "no such file".
	b.store(name(1, 1), content(name(1, 1)))
	b.put("00000002.history", testHistory)
	for _, file := range []string{name(1, 1), "00000002.history"} {
		err := b.getter().Get(context.Background(), file, filepath.Join(b.data, "nosuch", "RECOVERYXLOG"))
		stops(t, err, "nosuch")
	}
	b.must(os.Mkdir(b.target(), 0o700))
	stops(t, b.getter().Get(context.Background(), name(1, 1), b.target()), "RECOVERYXLOG")
}

func TestGetStopsAtHole(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		with func(*bench, *Getter)
		stop bool
	}{
		{"later segment stored", func(b *bench, _ *Getter) { b.store(name(1, 5), content(name(1, 5))) }, true},
		{"later segment received", func(b *bench, _ *Getter) { b.receive(name(1, 4), content(name(1, 4))) }, true},
		{"nothing later", func(*bench, *Getter) {}, false},
		{"later on another timeline", func(b *bench, _ *Getter) { b.store(name(2, 5), content(name(2, 5))) }, false},
		{"later one not complete", func(b *bench, _ *Getter) { b.receive(name(1, 4)+".partial", nil) }, false},
		{"being received", func(b *bench, _ *Getter) {
			b.receive(name(1, 3)+".partial", nil)
			b.receive(name(1, 4), content(name(1, 4)))
		}, false},
		{"standby", func(b *bench, _ *Getter) {
			b.store(name(1, 5), content(name(1, 5)))
			b.must(os.WriteFile(filepath.Join(b.data, "standby.signal"), nil, 0o600))
		}, false},
		{"in pg_wal", func(b *bench, _ *Getter) {
			b.store(name(1, 5), content(name(1, 5)))
			b.must(os.WriteFile(b.wal(name(1, 3)), nil, 0o600))
		}, false},
		{"end accepted", func(b *bench, g *Getter) {
			b.store(name(1, 5), content(name(1, 5)))
			g.EndAtHole = true
		}, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t)
			g := b.getter()
			b.store(name(1, 2), content(name(1, 2)))
			tt.with(b, g)
			_, err := b.get(g, name(1, 3))
			if !tt.stop {
				if !errors.Is(err, ErrNotArchived) {
					t.Errorf("%v, want ErrNotArchived", err)
				}
				return
			}
			var hole *HoleError
			if !errors.As(err, &hole) || hole.Next <= name(1, 3) {
				t.Errorf("%v, want a HoleError", err)
			}
			stops(t, err, name(1, 3))
		})
	}
}

func TestGetsAtTheSameTimeNeverShowAPart(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	var want [4][]byte
	for i := range want {
		want[i] = content(name(1, i))
		b.store(name(1, i), want[i])
	}
	var wg sync.WaitGroup
	for i := range 4 * len(want) {
		wg.Go(func() {
			segment := i % len(want)
			own := b.wal(fmt.Sprintf("own%d", i))
			for range 5 {
				for _, target := range []string{own, b.target()} {
					if err := b.getter().Get(context.Background(), name(1, segment), target); err != nil {
						t.Error(err)
					}
				}
				if got, err := os.ReadFile(own); err != nil || !bytes.Equal(got, want[segment]) {
					t.Errorf("own target: %d bytes, %v", len(got), err)
				}
				got, err := os.ReadFile(b.target())
				whole := false
				for _, w := range want {
					whole = whole || bytes.Equal(got, w)
				}
				if err != nil || !whole {
					t.Errorf("shared target is none of the segments: %d bytes, %v", len(got), err)
				}
			}
		})
	}
	wg.Wait()
	if left, _ := filepath.Glob(b.wal("*.pgmoneta*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestTargetOfAKilledGetIsUsedAgain(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.store(name(1, 1), content(name(1, 1)))
	b.must(os.WriteFile(b.target()+".pgmoneta0", bytes.Repeat([]byte("x"), 3<<20), 0o600))
	b.delivers(b.getter(), name(1, 1), content(name(1, 1)))
	absent(t, b.target()+".pgmoneta0")

	// One that lives is left alone.
	f, err := os.Create(b.target() + ".pgmoneta0")
	b.must(err)
	defer f.Close()
	b.must(unix.Flock(int(f.Fd()), unix.LOCK_EX))
	b.delivers(b.getter(), name(1, 1), content(name(1, 1)))
	if _, err := os.Stat(f.Name()); err != nil {
		t.Error("the file of another process was taken")
	}
}

// Segments go from partial to complete to stored while they are asked for.
func TestGetFindsSegmentThatMoves(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	const segments = 40
	for i := range segments {
		b.store(name(1, i), content(name(1, i)))
		b.must(os.Rename(b.object(name(1, i)), b.object(name(1, i))+".later"))
		b.receive(name(1, i)+".partial", content(name(1, i)))
	}
	moved := make(chan error, 1)
	go func() {
		var err error
		for i := range segments {
			received, stored := filepath.Join(b.repo.ReceiveDir(), name(1, i)), b.object(name(1, i))
			err = errors.Join(err, os.Rename(received+".partial", received), os.Rename(stored+".later", stored), os.Remove(received))
		}
		moved <- err
	}()
	g := b.getter()
	g.Partial = true
	for i := range segments {
		b.delivers(g, name(1, i), content(name(1, i)))
	}
	b.must(<-moved)
}

func FuzzFirstPage(f *testing.F) {
	good := content(name(1, 1))
	f.Add(name(1, 1), good[:40], int64(testSegment))
	f.Add(name(2, 1), good[:40], int64(testSegment))
	f.Add(name(1, 2), good[:40], int64(testSegment))
	f.Add(name(1, 1), good[:39], int64(1<<20))
	f.Add(name(1, 1), make([]byte, 40), int64(testSegment))
	f.Add("FFFFFFFFFFFFFFFFFFFFFFFF", good[:40], int64(3))
	f.Fuzz(func(t *testing.T, segment string, page []byte, bytes int64) {
		h, err := firstPage(segment, page, bytes)
		if err != nil {
			return
		}
		size := pg.SegmentSize(bytes)
		tli, _, err := pg.ParseSegmentName(segment, size)
		if err != nil || pg.SegmentName(tli, h.Address, size) != segment || int64(h.SegmentSize) != bytes {
			t.Errorf("%s of %d bytes is accepted with %+v", segment, bytes, h)
		}
	})
}

func BenchmarkGet(b *testing.B) {
	const size = 16 << 20
	in := newBench(b)
	file := pg.SegmentName(1, 0, size)
	in.store(file, contentOf(file, testSystem, size))
	b.SetBytes(size)
	b.ReportAllocs()
	for b.Loop() {
		if err := in.getter().Get(context.Background(), file, in.target()); err != nil {
			b.Fatal(err)
		}
	}
}
