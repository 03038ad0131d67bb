// Package verify proves that a backup can be restored from what the repository
// holds: every frame against its hash, every reference resolvable, the WAL from
// start to end complete.
//
// # Guarantees
//
// Nothing is changed. A report names every damaged or missing object and the
// files it affects. Memory is bounded by the number of distinct damaged frames.
package verify

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"runtime"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/pgmoneta/pgmoneta-go/internal/container"
	"github.com/pgmoneta/pgmoneta-go/internal/pg"
	"github.com/pgmoneta/pgmoneta-go/internal/repo"
)

// A Problem is something that stands in the way of a restore.
type Problem struct {
	Object string   // name of the damaged or missing object
	Files  []string // paths it affects, at most maxFiles
	Err    error
}

const maxFiles = 100

// A Report is the result of [Backup].
type Report struct {
	Files    int64 // regular files checked
	Bytes    int64 // plain bytes of the frames read
	Segments int   // WAL segments checked
	Problems []Problem
}

// Options tell how to verify.
type Options struct {
	Workers  int // 0 = one per CPU
	Progress func(phase string, done, total int64)
	// File is told each regular file and whether it is whole; may be nil. It is
	// called from one goroutine.
	File func(f repo.File, err error)
}

// Backup checks one backup. The error is set only when checking itself was
// impossible; damage is in the report.
func Backup(ctx context.Context, r *repo.Repository, label repo.Label, o Options) (Report, error) {
	if o.Workers <= 0 {
		o.Workers = runtime.GOMAXPROCS(0)
	}
	if o.Progress == nil {
		o.Progress = func(string, int64, int64) {}
	}
	m, err := r.OpenManifest(ctx, label)
	if err != nil {
		return Report{}, err
	}
	defer func() { _ = m.Close() }()
	c := &checker{repo: r, manifest: m, o: o, bad: map[frameID]error{}, dropped: map[frameID]bool{}}
	if err := c.packs(ctx); err != nil {
		return Report{}, err
	}
	if err := c.files(); err != nil {
		return Report{}, err
	}
	c.manifestOfPostgres(ctx)
	if err := c.wal(ctx); err != nil {
		return Report{}, err
	}
	return c.report, nil
}

// Stored reads what a backup that is not listed yet refers to: every frame of some of its packs, and
// PostgreSQL's manifest. The first damage is a [*Problem].
func Stored(ctx context.Context, r *repo.Repository, s repo.Summary, packs []repo.PackRef, o Options) (*Problem, error) {
	if o.Workers <= 0 {
		o.Workers = runtime.GOMAXPROCS(0)
	}
	c := &checker{repo: r, manifest: &repo.Manifest{Summary: s, Packs: packs}, o: o, bad: map[frameID]error{}, dropped: map[frameID]bool{}}
	if err := c.packs(ctx); err != nil {
		return nil, err
	}
	for id, err := range c.bad {
		return &Problem{Object: packs[id.pack].Name, Err: err}, nil
	}
	if c.manifestOfPostgres(ctx); len(c.report.Problems) > 0 {
		return &c.report.Problems[0], nil
	}
	return nil, nil
}

type frameID struct {
	pack  int
	frame int // -1: the whole pack
}

type checker struct {
	repo     *repo.Repository
	manifest *repo.Manifest
	o        Options
	report   Report

	mu      sync.Mutex
	bad     map[frameID]error
	dropped map[frameID]bool
	frames  [][]uint32 // plain lengths, by pack
	done    int64
}

// packs reads every frame of every pack the backup refers to, several packs at once.
func (c *checker) packs(ctx context.Context) error {
	c.frames = make([][]uint32, len(c.manifest.Packs))
	frames := container.NewChecker(c.o.Workers)
	defer frames.Close()
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(c.o.Workers)
	set := c.repo.PackSet(c.manifest.Packs, c.o.Workers+1)
	defer set.Close()
	for i := range c.manifest.Packs {
		g.Go(func() error {
			err := set.Use(ctx, i, func(p *container.Reader) error { return c.pack(ctx, i, p, frames) })
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			if err != nil {
				c.mark(frameID{i, -1}, err)
			}
			return nil
		})
	}
	return g.Wait()
}

func (c *checker) pack(ctx context.Context, i int, p *container.Reader, frames *container.Checker) error {
	lengths := make([]uint32, p.Frames())
	for n := range lengths {
		lengths[n] = p.Frame(n).Plain
		if p.Frame(n).Dropped() {
			c.drop(frameID{i, n})
		}
	}
	c.frames[i] = lengths // each goroutine its own pack
	return frames.Check(ctx, p, func(n int, err error) {
		if err != nil {
			c.mark(frameID{i, n}, err)
		}
		c.count(int64(lengths[n]))
	})
}

func (c *checker) count(n int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.done += n
	c.report.Bytes = c.done
	c.o.Progress("Verify", c.done, max(c.done, c.manifest.Summary.Logical))
}

// drop notes a frame that is no problem unless a file needs it.
func (c *checker) drop(id frameID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.dropped[id] = true
}

func (c *checker) mark(id frameID, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.bad[id] = err
}

// files checks that the extents of every file resolve to whole frames.
func (c *checker) files() error {
	affected := map[frameID][]string{}
	for f, err := range c.manifest.Files() {
		if err != nil {
			c.report.Problems = append(c.report.Problems, Problem{Object: "backup/" + string(c.manifest.Summary.Label) + "/manifest", Err: err})
			break
		}
		if f.Kind != repo.Regular {
			continue
		}
		c.report.Files++
		err := c.extents(f, affected)
		if c.o.File != nil {
			c.o.File(f, err)
		}
	}
	for id, err := range c.bad {
		c.report.Problems = append(c.report.Problems, Problem{Object: c.manifest.Packs[id.pack].Name, Files: affected[id], Err: err})
	}
	return nil
}

func (c *checker) extents(f repo.File, affected map[frameID][]string) error {
	var first error
	note := func(id frameID, err error) {
		if len(affected[id]) < maxFiles {
			affected[id] = append(affected[id], f.Path)
		}
		if first == nil {
			first = err
		}
	}
	for _, x := range f.Extents {
		if err := c.bad[frameID{x.Pack, -1}]; err != nil {
			note(frameID{x.Pack, -1}, err)
			continue
		}
		frame, left := x.Frame, x.Length+x.Skip
		for ; left > 0; frame++ {
			if frame >= len(c.frames[x.Pack]) {
				id := frameID{x.Pack, frame}
				if c.bad[id] == nil {
					c.bad[id] = fmt.Errorf("the manifest refers to frame %d, the pack has %d", frame, len(c.frames[x.Pack]))
				}
				note(id, c.bad[id])
				break
			}
			if id := (frameID{x.Pack, frame}); c.dropped[id] {
				c.bad[id] = &container.DamagedError{Object: c.manifest.Packs[x.Pack].Name, Frame: frame, Err: container.ErrDropped}
			}
			if err := c.bad[frameID{x.Pack, frame}]; err != nil {
				note(frameID{x.Pack, frame}, err)
			}
			left -= int64(c.frames[x.Pack][frame])
		}
	}
	return first
}

func (c *checker) manifestOfPostgres(ctx context.Context) {
	name := repo.PostgresManifestName(c.manifest.Summary.Label)
	if err := c.repo.ReadPostgresManifest(ctx, c.manifest.Summary.Label, discard{}); err != nil {
		c.report.Problems = append(c.report.Problems, Problem{Object: name, Err: err})
	}
}

type discard struct{}

func (discard) Write(p []byte) (int, error) { return len(p), nil }

func (c *checker) wal(ctx context.Context) error {
	s := c.manifest.Summary
	plan, err := PlanWAL(ctx, c.repo, s)
	if err != nil {
		c.report.Problems = append(c.report.Problems, Problem{Object: "wal", Err: err})
		return nil
	}
	for i, name := range plan {
		c.o.Progress("Verify WAL", int64(i), int64(len(plan)))
		if err := checkSegment(ctx, c.repo, name, s.SegmentSize); err != nil {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			c.report.Problems = append(c.report.Problems, Problem{Object: "wal/" + name[:8] + "/" + name, Err: err})
		}
		c.report.Segments++
	}
	return nil
}

// PlanWAL returns the names of the segments that recovery of a backup needs to
// become consistent, in order.
func PlanWAL(ctx context.Context, r *repo.Repository, s repo.Summary) ([]string, error) {
	if s.End <= s.Start {
		return nil, fmt.Errorf("backup %s ends at %s, before its start at %s", s.Label, s.End, s.Start)
	}
	h, err := r.History(ctx, s.EndTLI)
	if err != nil {
		return nil, err
	}
	if !h.Contains(s.StartTLI) {
		return nil, fmt.Errorf("backup %s begins on timeline %d, which is no ancestor of timeline %d where it ends", s.Label, s.StartTLI, s.EndTLI)
	}
	var plan []string
	for at := s.SegmentSize.Start(s.Start); at < s.End; at += pg.LSN(s.SegmentSize) {
		// The last segment may belong to a timeline that was left in it.
		tli := h.SegmentTimeline(at, s.SegmentSize)
		plan = append(plan, pg.SegmentName(tli, at, s.SegmentSize))
	}
	return plan, nil
}

// FirstMissing returns the first segment of plan that is not stored, or "".
func FirstMissing(ctx context.Context, r *repo.Repository, plan []string) (string, error) {
	for _, name := range plan {
		ok, err := r.HasSegment(ctx, name)
		if err != nil {
			return "", err
		}
		if !ok {
			return name, nil
		}
	}
	return "", nil
}

// Segments checks that every segment of plan is stored, whole and of the right size.
func Segments(ctx context.Context, r *repo.Repository, plan []string, size pg.SegmentSize, workers int) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(max(workers, 1))
	for _, name := range plan {
		g.Go(func() error { return checkSegment(ctx, r, name, size) })
	}
	return g.Wait()
}

func checkSegment(ctx context.Context, r *repo.Repository, name string, size pg.SegmentSize) error {
	seg, err := r.OpenSegment(ctx, name)
	if f := r.Foreign(); f != nil && errors.Is(err, fs.ErrNotExist) {
		if err := foreignSegment(ctx, f, name, size); !errors.Is(err, fs.ErrNotExist) {
			return err // that of a backup that was taken over, perhaps
		}
	}
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("WAL segment %s is missing", name)
	}
	if err != nil {
		return err
	}
	defer func() { _ = seg.Close() }()
	if seg.Plain() != int64(size) {
		return fmt.Errorf("WAL segment %s has %d bytes, want %d", name, seg.Plain(), size)
	}
	stream := seg.Stream()
	defer func() { _ = stream.Close() }()
	_, err = stream.WriteTo(discard{})
	return err
}
