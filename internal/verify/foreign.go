package verify

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"runtime"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/pgmoneta/pgmoneta-go/internal/pg"
	"github.com/pgmoneta/pgmoneta-go/internal/repo"
)

// Foreign checks a backup that another program made: each file as a restore would read it
// and as it is stored, and the WAL from its start to its end.
func Foreign(ctx context.Context, r *repo.Repository, label repo.Label, o Options) (Report, error) {
	if o.Workers <= 0 {
		o.Workers = runtime.GOMAXPROCS(0)
	}
	if o.Progress == nil {
		o.Progress = func(string, int64, int64) {}
	}
	if o.File == nil {
		o.File = func(repo.File, error) {}
	}
	t, err := r.Foreign().Open(ctx, label)
	if err != nil {
		return Report{}, err
	}
	defer func() { _ = t.Close() }()
	c := &foreignChecker{repo: r, tree: t, o: o}
	if err := c.files(ctx); err != nil {
		return Report{}, err
	}
	if err := t.CheckStored(ctx, c.problem); err != nil {
		if ctx.Err() != nil {
			return Report{}, context.Cause(ctx)
		}
		c.problem("backup/"+string(label), err)
	}
	return c.report, c.wal(ctx)
}

type foreignChecker struct {
	repo *repo.Repository
	tree repo.Tree
	o    Options

	mu     sync.Mutex // held during calls of o.File and o.Progress
	report Report
}

func (c *foreignChecker) problem(name string, err error) {
	c.report.Problems = append(c.report.Problems, Problem{Object: name, Err: err})
}

func (c *foreignChecker) files(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(c.o.Workers)
	for f, err := range c.tree.Files() {
		if ctx.Err() != nil {
			return errors.Join(g.Wait(), context.Cause(ctx))
		}
		if err != nil {
			c.mu.Lock()
			c.problem("backup/"+string(c.tree.Summary().Label), err)
			c.mu.Unlock()
			break
		}
		if f.Kind == repo.Regular {
			g.Go(func() error {
				n, err := c.read(ctx, f)
				if ctx.Err() != nil {
					return context.Cause(ctx)
				}
				c.checked(f, n, err)
				return nil
			})
		}
	}
	return g.Wait()
}

func (c *foreignChecker) read(ctx context.Context, f repo.File) (int64, error) {
	in, err := c.tree.OpenFile(ctx, f)
	if err != nil {
		return 0, err
	}
	n, err := io.Copy(discard{}, in)
	if err == nil && n != f.Size {
		err = fmt.Errorf("it has %d bytes, want %d", n, f.Size)
	}
	return n, errors.Join(err, in.Close())
}

func (c *foreignChecker) checked(f repo.File, n int64, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.report.Files++
	c.report.Bytes += n
	c.o.Progress("Verify", c.report.Bytes, max(c.report.Bytes, c.tree.Summary().Logical))
	c.o.File(f, err)
	if err != nil {
		c.report.Problems = append(c.report.Problems, Problem{Object: "backup/" + string(c.tree.Summary().Label), Files: []string{f.Path}, Err: err})
	}
}

// wal reads the segments that make the backup consistent, from the backup itself, the WAL
// beside it, or ours.
func (c *foreignChecker) wal(ctx context.Context) error {
	s := c.tree.Summary()
	plan, err := PlanWAL(ctx, c.repo, s)
	if err != nil {
		c.problem("wal", err)
		return nil
	}
	for i, name := range plan {
		c.o.Progress("Verify WAL", int64(i), int64(len(plan)))
		if err := c.segment(ctx, name, s.SegmentSize); err != nil {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			c.problem("wal/"+name, err)
		}
		c.report.Segments++
	}
	return nil
}

func (c *foreignChecker) segment(ctx context.Context, name string, size pg.SegmentSize) error {
	in, err := c.tree.OpenWAL(ctx, name)
	if errors.Is(err, fs.ErrNotExist) {
		return checkSegment(ctx, c.repo, name, size)
	}
	if err != nil {
		return err
	}
	return readSegment(in, name, size)
}

// foreignSegment checks a segment that another program keeps.
func foreignSegment(ctx context.Context, f repo.Foreign, name string, size pg.SegmentSize) error {
	in, err := f.OpenWAL(ctx, name)
	if err != nil {
		return err
	}
	return readSegment(in, name, size)
}

func readSegment(in io.ReadCloser, name string, size pg.SegmentSize) error {
	n, err := io.Copy(discard{}, in)
	if err == nil && n != int64(size) {
		err = fmt.Errorf("WAL segment %s has %d bytes, want %d", name, n, size)
	}
	return errors.Join(err, in.Close())
}
