package walfile

import (
	"context"
	"errors"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/pgmoneta/pgmoneta-go/internal/container"
	"github.com/pgmoneta/pgmoneta-go/internal/durable"
	"github.com/pgmoneta/pgmoneta-go/internal/vault"
)

// A Prefetcher fills a spool. It follows the deliveries and ends by itself: when
// the archive has no more, when the spool has been full for a while, when its
// time is up, or when the want is taken away. Another [Getter] starts the next one.
type Prefetcher struct {
	BaseDir string
	Server  string // section name in pgmoneta.conf
	Dir     string // spool directory
	// MasterKey returns the master key; it is called when the archive is encrypted.
	MasterKey func() (*vault.MasterKey, error)

	// Linger is how long a full spool is watched; one second when 0.
	Linger time.Duration
	// Life is how long it works at most; one minute when 0.
	Life time.Duration

	ending func() // for tests: nothing is left to do, and the lock is still held
}

const (
	defaultLinger = time.Second
	defaultLife   = time.Minute
	// startPatience is how long a prefetcher tries to get the lock: a delivery
	// that only looks whether it is free has it for a moment too.
	startPatience = 50 * time.Millisecond
	// lingerEvery is how often a full spool is looked at.
	lingerEvery = 5 * time.Millisecond
	// spareSegments is how many segments' worth of space is left to the server
	// on the file system of pg_wal.
	spareSegments = 16
)

// Run works until there is nothing left to do. It returns nil when another
// prefetcher has the spool.
func (p *Prefetcher) Run(ctx context.Context) error {
	a, err := openArchive(ctx, p.BaseDir, p.Server, p.MasterKey)
	if err != nil {
		return annotate(p.Server, "prefetch", err)
	}
	s, err := newSpool(a, p.Dir)
	if err != nil {
		return annotate(p.Server, "prefetch", err)
	}
	for {
		seen, held, err := p.hold(ctx, a, s)
		// A delivery that found the lock taken has started nobody, and may have come
		// after our last look at the want. It set its want before it looked at the
		// lock; we look at the want after we gave the lock up. One of us sees the other.
		now, ok := s.wanted()
		if ctx.Err() != nil || !held || !ok || now == seen {
			return annotate(p.Server, "prefetch", err)
		}
	}
}

// hold fills the spool for as long as there is work, if it gets the lock. seen is
// the want on which it decided that there is none.
func (p *Prefetcher) hold(ctx context.Context, a *archive, s *spool) (seen want, held bool, err error) {
	lock, err := s.lock(ctx, startPatience)
	var locked *durable.LockedError
	if errors.As(err, &locked) {
		return want{}, false, nil
	}
	if err != nil {
		return want{}, false, err
	}
	f := &filler{archive: a, spool: s, active: map[string]bool{}}
	err = f.run(ctx, orDefault(p.Linger, defaultLinger), orDefault(p.Life, defaultLife))
	if p.ending != nil {
		p.ending()
	}
	return f.seen, true, errors.Join(err, lock.Release())
}

func orDefault(d, otherwise time.Duration) time.Duration {
	if d == 0 {
		return otherwise
	}
	return d
}

// A filler is a prefetcher that has the lock: one goroutine plans, the others prepare.
type filler struct {
	archive *archive
	spool   *spool
	seen    want // by plan, at its last look; zero when there was none

	mu     sync.Mutex
	active map[string]bool // segments handed out and not finished
}

func (f *filler) run(ctx context.Context, linger, life time.Duration) error {
	f.tidy() // temporary files a killed prefetcher left
	g, ctx := errgroup.WithContext(ctx)
	todo := make(chan string) // unbuffered: a segment is chosen when somebody is free for it
	g.Go(func() error {
		defer close(todo)
		f.plan(ctx, todo, linger, time.Now().Add(life))
		return nil
	})
	for range runtime.GOMAXPROCS(0) {
		g.Go(func() error { return f.work(ctx, todo) })
	}
	err := g.Wait()
	f.tidy()
	return err
}

// plan hands out the first segment of the window that nobody has prepared, again and again.
func (f *filler) plan(ctx context.Context, todo chan<- string, linger time.Duration, end time.Time) {
	moved := time.Now()
	for time.Now().Before(end) {
		w, ok := f.spool.wanted()
		last := f.seen
		f.seen = w
		if !ok {
			return
		}
		if w != last {
			moved = time.Now()
			f.tidy()
		}
		name := f.next(w)
		switch {
		case name == "":
			if time.Since(moved) > linger || !pause(ctx, lingerEvery) {
				return
			}
			continue
		case !f.archive.has(ctx, name) || !f.room(w):
			return
		}
		f.set(name, true)
		select {
		case todo <- name:
		case <-ctx.Done():
			f.set(name, false)
			return
		}
	}
}

// next returns the first segment of the window that is neither ready nor in
// work, "" when there is none.
func (f *filler) next(w want) string {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, name := range w.window() {
		if !f.active[name] && !f.spool.ready(name) {
			return name
		}
	}
	return ""
}

func (f *filler) set(name string, active bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if active {
		f.active[name] = true
	} else {
		delete(f.active, name)
	}
}

// room reports whether a full window leaves enough space to the server.
func (f *filler) room(w want) bool {
	var st unix.Statfs_t
	if err := unix.Statfs(f.spool.dir, &st); err != nil {
		return false
	}
	free := st.Bavail * uint64(st.Bsize)
	return free/uint64(w.size) > uint64(len(w.window())+spareSegments)
}

func (f *filler) work(ctx context.Context, todo <-chan string) error {
	scratch := make([]container.Scratch, 1)
	defer closeAll(scratch)
	for name := range todo {
		err := f.prepare(ctx, name, scratch)
		f.set(name, false)
		if err != nil {
			return err
		}
	}
	return nil
}

// prepare leaves out a segment that was delivered while it waited.
func (f *filler) prepare(ctx context.Context, name string, scratch []container.Scratch) error {
	if w, ok := f.spool.wanted(); !ok || name <= w.segment && name[:8] == w.segment[:8] {
		return nil
	}
	return f.spool.prepare(ctx, f.archive, name, scratch)
}

// tidy removes what is outside of the window: segments delivered by other
// means, of other timelines and repositories, and what a killed prefetcher left.
func (f *filler) tidy() {
	keep := map[string]bool{}
	if w, ok := f.spool.wanted(); ok {
		for _, name := range w.window() {
			keep[f.spool.key+"."+name] = true
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for name := range f.active {
		keep[f.spool.key+"."+name+tempSuffix] = true
	}
	// A delivery may be writing a want. Without it nobody would prepare what it asks for.
	f.spool.tidy(func(name string) bool { return keep[name] || isNextWant(name) })
}
