package walfile

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/pgmoneta/pgmoneta-go/internal/container"
	"github.com/pgmoneta/pgmoneta-go/internal/pg"
	"github.com/pgmoneta/pgmoneta-go/internal/repo"
	"github.com/pgmoneta/pgmoneta-go/internal/vault"
)

// walDirectory is the name of the directory in which PostgreSQL wants restored files.
const walDirectory = "pg_wal"

// A Getter delivers archived files. It is used once or many times, by any
// number of goroutines.
type Getter struct {
	BaseDir string
	Server  string // section name in pgmoneta.conf
	// MasterKey returns the master key; it is called when the archive is encrypted.
	MasterKey func() (*vault.MasterKey, error)

	// Partial also delivers the segment that is being received.
	Partial bool
	// EndAtHole treats a hole as the end of the archive.
	EndAtHole bool

	// Ahead is how many segments after the asked one are prepared; 0 for none.
	Ahead int
	// Start starts a [Prefetcher] with that spool directory in a process of
	// its own and returns at once. It is called when there is work for one.
	Start func(spool string) error
}

// Get writes the file of that name to target. The error is a [*FileError] around
// [ErrNotArchived], a [*HoleError], a [*RemovedError] or what went wrong; target is then untouched.
func (g *Getter) Get(ctx context.Context, file, target string) error {
	return annotate(g.Server, file, g.get(ctx, file, target))
}

// Check reports whether a file could be delivered: that it is there, and that it can be
// opened, for which a sealed one takes the master key. Errors are those of [Getter.Get].
func (g *Getter) Check(ctx context.Context, file string) error {
	return annotate(g.Server, file, g.check(ctx, file))
}

func (g *Getter) check(ctx context.Context, file string) error {
	if _, ok := repo.WALObject(file); !ok {
		return errors.New("not a name of a file of WAL: the arguments are SERVER %f")
	}
	a, err := openArchive(ctx, g.BaseDir, g.Server, g.MasterKey)
	if err != nil {
		return err
	}
	if !pg.IsSegmentName(file) {
		_, err := a.small(ctx, file)
		return err
	}
	_, object, err := a.openContainer(ctx, file)
	if err == nil {
		return object.Close()
	}
	for _, name := range []string{file, file + partialSuffix} {
		if !errors.Is(err, ErrNotArchived) {
			return err
		}
		var in *repo.Received
		if in, err = a.openReceived(ctx, name); err == nil {
			return in.Close()
		}
	}
	return err
}

func (g *Getter) get(ctx context.Context, file, target string) error {
	if _, ok := repo.WALObject(file); !ok {
		return errors.New("not a name of a file of WAL: the arguments are SERVER %f %p")
	}
	a, err := openArchive(ctx, g.BaseDir, g.Server, g.MasterKey)
	if err != nil {
		return err
	}
	switch {
	case pg.IsSegmentName(file):
		return g.segment(ctx, a, file, target)
	case strings.HasSuffix(file, partialSuffix):
		return deliver(target, func(out *os.File) error {
			scratch := make([]container.Scratch, runtime.GOMAXPROCS(0))
			defer closeAll(scratch)
			_, err := a.stored(ctx, file, strings.TrimSuffix(file, partialSuffix), out, scratch)
			return err
		})
	}
	err = g.small(ctx, a, file, target)
	if _, isHistory := pg.ParseHistoryName(file); isHistory && errors.Is(err, ErrNotArchived) {
		// At the end of every recovery PostgreSQL looks for a timeline that is
		// still free. What was prepared for replay is of no use any more.
		g.clearSpool(ctx, a, target)
	}
	return err
}

func (g *Getter) small(ctx context.Context, a *archive, file, target string) error {
	content, err := a.small(ctx, file)
	if err != nil {
		return err
	}
	return deliver(target, func(out *os.File) error {
		_, err := out.Write(content)
		return err
	})
}

// deliver publishes what fill writes, or nothing.
func deliver(path string, fill func(out *os.File) error) error {
	t, err := createTarget(path)
	if err != nil {
		return err
	}
	if err := fill(t.File); err != nil {
		t.discard()
		return err
	}
	return t.publish()
}

func (g *Getter) segment(ctx context.Context, a *archive, name, target string) error {
	s := g.spool(a, target)
	if s != nil {
		if size, ok := s.take(ctx, a, name, target); ok {
			g.prefetch(ctx, a, s, name, size)
			return nil
		}
		s.skip(name)
	}
	size, err := g.direct(ctx, a, name, target)
	if errors.Is(err, ErrNotArchived) {
		size, err = g.missing(ctx, a, name, target)
	}
	if err == nil && s != nil {
		g.prefetch(ctx, a, s, name, size)
	}
	return err
}

// direct delivers a segment from the archive.
func (g *Getter) direct(ctx context.Context, a *archive, name, target string) (size pg.SegmentSize, err error) {
	scratch := make([]container.Scratch, runtime.GOMAXPROCS(0))
	defer closeAll(scratch)
	err = deliver(target, func(out *os.File) error {
		var err error
		size, err = a.segment(ctx, name, out, scratch)
		if !errors.Is(err, ErrNotArchived) || !g.Partial {
			return err
		}
		if size, err = a.partial(ctx, name, out); !errors.Is(err, ErrNotArchived) {
			return err
		}
		// It may have become complete between the two looks.
		size, err = a.segment(ctx, name, out, scratch)
		return err
	})
	return size, err
}

// missing decides what it means that a segment is not there, and delivers it if
// it has come in the meantime.
func (g *Getter) missing(ctx context.Context, a *archive, name, target string) (pg.SegmentSize, error) {
	if g.EndAtHole || elsewhere(name, target) {
		return 0, ErrNotArchived
	}
	// The receiver may be at work on this one and, until it has synced it, on
	// the next one as well.
	if _, err := os.Stat(filepath.Join(a.repo.ReceiveDir(), name+partialSuffix)); err == nil {
		return 0, ErrNotArchived
	}
	next, err := a.after(ctx, name)
	if err != nil {
		return 0, err
	}
	var why error = &HoleError{Next: next}
	if next == "" {
		if why = a.behind(ctx, name); why == nil {
			return 0, ErrNotArchived
		}
	}
	size, err := g.direct(ctx, a, name, target)
	if errors.Is(err, ErrNotArchived) {
		err = why
	}
	return size, err
}

// elsewhere reports whether PostgreSQL can get a segment without us: from its
// own pg_wal, or as a standby from its primary.
func elsewhere(name, target string) bool {
	dir := filepath.Dir(target)
	for _, path := range []string{filepath.Join(dir, name), filepath.Join(filepath.Dir(dir), "standby.signal")} {
		if _, err := os.Stat(path); err == nil && filepath.Clean(path) != filepath.Clean(target) {
			return true
		}
	}
	return false
}

// spool returns the spool for a target, nil when nothing is prepared there.
func (g *Getter) spool(a *archive, target string) *spool {
	dir := filepath.Dir(target)
	if g.Ahead <= 0 || g.Start == nil || filepath.Base(dir) != walDirectory {
		return nil
	}
	s, err := newSpool(a, filepath.Join(dir, spoolDirectory))
	if err != nil {
		return nil
	}
	return s
}

func (g *Getter) clearSpool(ctx context.Context, a *archive, target string) {
	if s := g.spool(a, target); s != nil {
		s.clear(ctx)
	}
}

// prefetch tells the prefetcher how far replay has come and starts one if there
// is none and it would have work. That it cannot be done only costs time.
func (g *Getter) prefetch(ctx context.Context, a *archive, s *spool, name string, size pg.SegmentSize) {
	w := want{key: s.key, segment: name, size: size, ahead: g.Ahead}
	if s.setWant(w) != nil || s.busy() {
		return
	}
	window := w.window()
	ready := 0
	for _, n := range window {
		if s.ready(n) {
			ready++
		}
	}
	// Not for every segment: half a window at a time keeps the cost of starting a
	// process small when replay is slow.
	if ready > len(window)/2 || ready == len(window) || !a.has(ctx, window[ready]) {
		return
	}
	_ = g.Start(s.dir)
}
