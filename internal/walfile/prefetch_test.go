package walfile

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pgmoneta/pgmoneta-go/internal/durable"
)

// ahead returns a getter whose prefetchers run in goroutines of the test.
func (b *bench) ahead(n int) *Getter {
	var running sync.WaitGroup
	b.t.Cleanup(running.Wait)
	g := b.getter()
	g.Ahead = n
	g.Start = func(spool string) error {
		running.Go(func() {
			p := Prefetcher{BaseDir: b.base, Server: testServer, Dir: spool, Linger: 50 * time.Millisecond}
			if err := p.Run(context.Background()); err != nil {
				b.t.Errorf("prefetcher: %v", err)
			}
		})
		return nil
	}
	return g
}

func (b *bench) spool() *spool {
	b.t.Helper()
	a, err := openArchive(context.Background(), b.base, testServer, nil)
	b.must(err)
	s, err := newSpool(a, b.wal(spoolDirectory))
	b.must(err)
	return s
}

// prepared lists the segments in the spool, and every name there that is not an entry.
func (b *bench) prepared() (segments, others []string) {
	key := b.spool().key + "."
	entries, _ := os.ReadDir(b.wal(spoolDirectory))
	for _, e := range entries {
		segment, ok := strings.CutPrefix(e.Name(), key)
		switch {
		case ok && !strings.HasSuffix(segment, tempSuffix):
			segments = append(segments, segment)
		case e.Name() != lockName && e.Name() != wantName:
			others = append(others, e.Name())
		}
	}
	return segments, others
}

func (b *bench) waitFor(what string, ok func() bool) {
	b.t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			segments, others := b.prepared()
			b.t.Fatalf("waiting for %s; the spool has %v and %v", what, segments, others)
		}
	}
}

func (b *bench) waitPrepared(want ...string) {
	b.t.Helper()
	b.waitFor(fmt.Sprint("spool of ", want), func() bool {
		segments, others := b.prepared()
		return slices.Equal(segments, want) && others == nil
	})
}

func (b *bench) waitIdle() {
	b.t.Helper()
	b.waitFor("the prefetcher to end", func() bool { return !b.spool().busy() })
}

func TestSequentialGetsAreServedFromSpool(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	const segments = 30
	for i := range segments {
		b.store(name(1, i), content(name(1, i)))
	}
	g := b.ahead(4)
	for i := range segments {
		b.delivers(g, name(1, i), content(name(1, i)))
	}
	_, err := b.get(g, name(1, segments))
	if !errors.Is(err, ErrNotArchived) {
		t.Errorf("after the last: %v", err)
	}
	if _, err := b.get(g, "00000002.history"); !errors.Is(err, ErrNotArchived) {
		t.Errorf("history: %v", err)
	}
	if segments, others := b.prepared(); len(segments)+len(others) > 0 {
		t.Errorf("left in the spool: %v %v", segments, others)
	}
}

// Segments that were prepared are delivered even when the archive has lost them since:
// proof that delivering is a rename.
func TestPreparedSegmentIsRenamed(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	for i := range 6 {
		b.store(name(1, i), content(name(1, i)))
	}
	g := b.ahead(3)
	b.delivers(g, name(1, 0), content(name(1, 0)))
	b.waitPrepared(name(1, 1), name(1, 2), name(1, 3)) // and never more than three
	b.waitIdle()
	g.Start = func(string) error { return nil }
	for i := 1; i <= 3; i++ {
		b.must(os.Remove(b.object(name(1, i))))
		b.delivers(g, name(1, i), content(name(1, i)))
	}
	if _, err := b.get(g, name(1, 1)); err == nil {
		t.Error("the spool delivered a segment twice")
	}
	b.delivers(g, name(1, 4), content(name(1, 4)))
}

func TestPrefetcherFollowsReplay(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	for i := range 30 {
		b.store(name(1, i), content(name(1, i)))
	}
	b.store(name(2, 5), content(name(2, 5)))
	b.store(name(2, 6), content(name(2, 6)))
	g := b.ahead(2)
	b.delivers(g, name(1, 0), content(name(1, 0)))
	b.waitPrepared(name(1, 1), name(1, 2))
	b.delivers(g, name(1, 20), content(name(1, 20))) // it jumps
	b.waitPrepared(name(1, 21), name(1, 22))
	b.delivers(g, name(1, 3), content(name(1, 3))) // and back
	b.waitPrepared(name(1, 4), name(1, 5))
	if _, err := b.get(g, name(3, 4)); !errors.Is(err, ErrNotArchived) { // PostgreSQL tries the newest timeline first
		t.Error(err)
	}
	b.waitPrepared(name(1, 4), name(1, 5))
	b.delivers(g, name(2, 5), content(name(2, 5))) // to another timeline
	b.waitPrepared(name(2, 6))
	b.waitIdle() // nothing more is there
	b.delivers(g, name(2, 6), content(name(2, 6)))
	if _, err := b.get(g, "00000003.history"); !errors.Is(err, ErrNotArchived) {
		t.Error(err)
	}
	b.waitPrepared()
}

func TestPrefetcherTakesCompleteButNeverPartialSegments(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.store(name(1, 0), content(name(1, 0)))
	b.receive(name(1, 1), content(name(1, 1)))
	b.receive(name(1, 2)+".partial", content(name(1, 2)))
	g := b.ahead(4)
	g.Partial = true
	b.delivers(g, name(1, 0), content(name(1, 0)))
	b.waitIdle()
	b.waitPrepared(name(1, 1))
	b.delivers(g, name(1, 1), content(name(1, 1)))
	b.delivers(g, name(1, 2), content(name(1, 2)))
}

// What lies in the spool and was not made there by this repository since the machine started is not delivered.
func TestStrangeSpoolEntriesAreNotDelivered(t *testing.T) {
	t.Parallel()
	wrong := slices.Clone(content(name(1, 1)))
	wrong[len(wrong)-1] ^= 1
	tests := []struct {
		name  string
		entry func(*spool) string
		bytes []byte
	}{
		{"of another repository or boot", func(s *spool) string { return s.path("0123456789abcdef." + name(1, 1)) }, wrong},
		{"being prepared by a killed prefetcher", func(s *spool) string { return s.entry(name(1, 1)) + tempSuffix }, wrong},
		{"cut short", func(s *spool) string { return s.entry(name(1, 1)) }, wrong[:1<<20]},
		{"empty", func(s *spool) string { return s.entry(name(1, 1)) }, nil},
		{"zeros", func(s *spool) string { return s.entry(name(1, 1)) }, make([]byte, testSegment)},
		{"another segment", func(s *spool) string { return s.entry(name(1, 1)) }, content(name(1, 2))},
		{"of another cluster", func(s *spool) string { return s.entry(name(1, 1)) }, contentOf(name(1, 1), 99, testSegment)},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t)
			for i := range 3 {
				b.store(name(1, i), content(name(1, i)))
			}
			s := b.spool()
			b.must(os.Mkdir(s.dir, 0o700))
			b.must(os.WriteFile(s.path(lockName), nil, 0o600))
			b.must(os.WriteFile(tt.entry(s), tt.bytes, 0o600))
			b.delivers(b.ahead(2), name(1, 1), content(name(1, 1)))
			b.waitIdle()
			b.waitPrepared(name(1, 2))
		})
	}
}

func TestGetWorksWithoutSpool(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.store(name(1, 1), content(name(1, 1)))
	b.must(os.WriteFile(b.wal(spoolDirectory), nil, 0o600)) // in the way
	b.delivers(b.ahead(2), name(1, 1), content(name(1, 1)))
	if _, err := b.get(b.ahead(2), "00000002.history"); !errors.Is(err, ErrNotArchived) {
		t.Error(err)
	}
	// Outside of pg_wal nothing is prepared.
	b.must(b.ahead(2).Get(context.Background(), name(1, 1), filepath.Join(b.data, "here")))
	absent(t, filepath.Join(b.data, spoolDirectory))
}

func TestPrefetcherLeavesDamageToGet(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	for i := range 4 {
		b.store(name(1, i), content(name(1, i)))
	}
	b.must(os.Truncate(b.object(name(1, 2)), 5000))
	g := b.ahead(3)
	var ended sync.WaitGroup
	g.Start = func(dir string) error {
		ended.Go(func() {
			p := Prefetcher{BaseDir: b.base, Server: testServer, Dir: dir}
			stops(t, p.Run(context.Background()), "damaged")
		})
		return nil
	}
	b.delivers(g, name(1, 0), content(name(1, 0)))
	ended.Wait()
	b.delivers(g, name(1, 1), content(name(1, 1)))
	ended.Wait()
	_, err := b.get(g, name(1, 2))
	stops(t, err, "damaged")
}

func TestOnePrefetcherAtATime(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	s := b.spool()
	b.must(os.Mkdir(s.dir, 0o700))
	lock, err := durable.TryLock(s.path(lockName))
	b.must(err)
	if !s.busy() {
		t.Error("the spool is locked and not busy")
	}
	b.must((&Prefetcher{BaseDir: b.base, Server: testServer, Dir: s.dir}).Run(context.Background()))
	b.must(lock.Release())
	if s.busy() {
		t.Error("the spool is free and busy")
	}
}

// A delivery that comes between the prefetcher's last look and the end of its lock
// starts nobody, because the spool is taken. The ending one must see it.
func TestPrefetcherSeesDeliveryWhileItEnds(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name         string
		archived     int // segments
		damaged      int // one of them, 0 for none
		linger, life time.Duration
		then         int // the segment delivered while it ends
		want         []int
	}{
		{"because the spool is full", 9, 0, time.Millisecond, time.Hour, 2, []int{3, 4}},
		{"because its time is up", 9, 0, time.Hour, 50 * time.Millisecond, 2, []int{3, 4}},
		{"because the archive has no more", 2, 0, time.Hour, time.Hour, 4, []int{5, 6}},
		{"because of damage", 9, 1, time.Hour, time.Hour, 2, []int{3, 4}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t)
			for i := range tt.archived {
				b.store(name(1, i), content(name(1, i)))
			}
			if tt.damaged != 0 {
				b.must(os.Truncate(b.object(name(1, tt.damaged)), 5000))
			}
			s := b.spool()
			b.must(s.setWant(want{key: s.key, segment: name(1, 0), size: testSegment, ahead: 2}))

			g := b.getter()
			g.Ahead = 2
			g.Start = func(string) error {
				t.Error("the delivery found the spool free")
				return nil
			}
			p := Prefetcher{BaseDir: b.base, Server: testServer, Dir: s.dir, Linger: tt.linger, Life: tt.life}
			p.ending = func() {
				p.ending = nil
				p.Linger, p.Life = time.Millisecond, time.Hour
				for i := tt.archived; i < 9; i++ {
					b.store(name(1, i), content(name(1, i)))
				}
				b.delivers(g, name(1, tt.then), content(name(1, tt.then)))
			}
			b.must(p.Run(context.Background()))
			var want []string
			for _, i := range tt.want {
				want = append(want, name(1, i))
			}
			b.waitPrepared(want...)
		})
	}
}

// A delivery asks for another timeline just when the prefetcher ends and tidies up:
// if its want were removed while it is written, nobody would prepare that timeline.
func TestPrefetcherLeavesWantBeingWritten(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	for i := range 3 {
		b.store(name(1, i), content(name(1, i)))
	}
	s := b.spool()
	b.must(s.setWant(want{key: s.key, segment: name(1, 0), size: testSegment, ahead: 1}))
	next := s.path(wantName + ".1" + tempSuffix)
	left := s.entry(name(1, 2)) + tempSuffix
	b.must(os.WriteFile(next, nil, 0o600))
	b.must(os.WriteFile(left, nil, 0o600))
	p := Prefetcher{BaseDir: b.base, Server: testServer, Dir: s.dir, Linger: time.Millisecond}
	b.must(p.Run(context.Background()))
	if _, err := os.Stat(next); err != nil {
		t.Errorf("the want being written: %v", err)
	}
	absent(t, left)
	s.clear(context.Background())
	absent(t, next)
}

// Deliveries that look at the same time do not take each other for a prefetcher.
func TestLookingAtSpoolIsNotBeingBusy(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	s := b.spool()
	b.must(os.Mkdir(s.dir, 0o700))
	b.must(os.WriteFile(s.path(lockName), nil, 0o600))
	var looking sync.WaitGroup
	for range 8 {
		looking.Go(func() {
			for range 200 {
				if s.busy() {
					t.Error("the spool is free and busy")
					return
				}
			}
		})
	}
	looking.Wait()
}

func TestPrefetcherEndsWhenItsTimeIsUp(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	for i := range 3 {
		b.store(name(1, i), content(name(1, i)))
	}
	s := b.spool()
	b.must(s.setWant(want{key: s.key, segment: name(1, 0), size: testSegment, ahead: 1}))
	p := Prefetcher{BaseDir: b.base, Server: testServer, Dir: s.dir, Linger: time.Hour, Life: 200 * time.Millisecond}
	b.must(p.Run(context.Background()))
	b.waitPrepared(name(1, 1))

	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	p.Life = time.Hour
	if err := p.Run(ctx); err != nil && !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

func TestGetDoesNotWaitForKilledPrefetcher(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.store(name(1, 1), content(name(1, 1)))
	s := b.spool()
	b.must(os.Mkdir(s.dir, 0o700))
	temp := s.entry(name(1, 1)) + tempSuffix
	b.must(os.WriteFile(temp, nil, 0o600))
	lock, err := durable.TryLock(s.path(lockName))
	b.must(err)
	delivered := make(chan struct{})
	go func() {
		defer close(delivered)
		b.delivers(b.ahead(2), name(1, 1), content(name(1, 1)))
	}()
	select { // while the prefetcher lives, its segment is waited for
	case <-delivered:
		t.Error("the segment in preparation was not waited for")
	case <-time.After(100 * time.Millisecond):
	}
	b.must(lock.Release())
	<-delivered
}

func FuzzParseWant(f *testing.F) {
	f.Add("0123456789abcdef 000000010000000000000001 16777216 4\n")
	f.Add("k 0000000100000000000000FF 16777216 4\n")
	f.Add("k FFFFFFFFFFFFFFFF00000FFF 1048576 99999999\n")
	f.Add("k 000000010000000000000001 3 4\n")
	f.Add("")
	f.Fuzz(func(t *testing.T, text string) {
		w, err := parseWant(text)
		if err != nil {
			return
		}
		window := w.window()
		if len(window) > w.ahead || int64(len(window)-1)*int64(w.size) > spoolBytes {
			t.Errorf("%q: a window of %d segments", text, len(window))
		}
		if len(window) > 0 && (window[0] <= w.segment || window[0][:8] != w.segment[:8]) {
			t.Errorf("%q: %s does not follow", text, window[0])
		}
		if again, err := parseWant(w.text()); err != nil || again != w {
			t.Errorf("%q becomes %+v, %v", text, again, err)
		}
	})
}
