package restore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"github.com/pgmoneta/pgmoneta-go/internal/container"
	"github.com/pgmoneta/pgmoneta-go/internal/pg"
	"github.com/pgmoneta/pgmoneta-go/internal/repo"
)

const walDirectory, statusDirectory = "pg_wal", "pg_wal/archive_status"

// wal writes the plan's segments and histories to pg_wal.
func (j *runner) wal(ctx context.Context) error {
	for _, dir := range []string{walDirectory, statusDirectory} {
		if err := j.tree.mkdir(dir); err != nil {
			return err
		}
	}
	for _, tli := range j.plan.Histories {
		if err := j.timeline(ctx, tli); err != nil {
			return err
		}
	}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(j.Workers)
	var done atomic.Int64
	for _, s := range j.plan.Segments {
		g.Go(func() error {
			if err := j.segment(ctx, s); err != nil {
				return fmt.Errorf("WAL segment %s: %w", s.Name, err)
			}
			j.progress("WAL", j.plan.FileBytes+done.Add(int64(j.plan.Backup.SegmentSize)), j.plan.Bytes())
			return nil
		})
	}
	return g.Wait()
}

func (j *runner) timeline(ctx context.Context, tli pg.Timeline) error {
	content, err := j.plan.repo.HistoryContent(ctx, tli)
	if err != nil {
		return err
	}
	name := pg.HistoryName(tli)
	if err := j.tree.write(walDirectory+"/"+name, content); err != nil {
		return err
	}
	return j.archived(name)
}

// archived tells a server with archive_mode on that a file of pg_wal came from an
// archive and need not go there again.
func (j *runner) archived(name string) error {
	return j.tree.write(statusDirectory+"/"+name+".done", nil)
}

// segment writes one segment.
func (j *runner) segment(ctx context.Context, s Segment) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	root, name, err := j.tree.locate(walDirectory + "/" + s.Name)
	if err != nil {
		return err
	}
	out, err := j.tree.create(root, name, 0o600)
	if err != nil {
		return err
	}
	if err := j.tree.op("write", out.Name()); err != nil {
		return errors.Join(err, out.Close())
	}
	whole, err := j.source().segment(ctx, s, out)
	if err == nil {
		err = j.cut(s, out)
	}
	if err := errors.Join(err, out.Close()); err != nil || !whole {
		return err
	}
	return j.archived(s.Name)
}

// source reads segments at the rate of the restore.
func (j *runner) source() walSource {
	return walSource{repo: j.plan.repo, size: j.plan.Backup.SegmentSize, spend: j.spend, tree: j.foreignTree}
}

// A walSource reads segments of an archive, wherever they lie.
type walSource struct {
	repo  *repo.Repository
	size  pg.SegmentSize
	spend func(ctx context.Context, n int) error // nil for as fast as possible
	tree  repo.Tree                              // of a backup that another program made, else nil
}

// segment copies the bytes of a segment and reports whether it was complete. While the
// plan was waiting it may have moved from the receive directory to the store, so both
// are asked until one has it.
func (w walSource) segment(ctx context.Context, s Segment, out io.Writer) (whole bool, err error) {
	for range 3 {
		err = w.stored(ctx, s, out)
		if !errors.Is(err, fs.ErrNotExist) {
			return true, err
		}
		if err = w.received(ctx, s.Name, out); !errors.Is(err, fs.ErrNotExist) {
			return true, err
		}
		if err = w.received(ctx, s.Name+partialSuffix, out); !errors.Is(err, fs.ErrNotExist) {
			return false, err
		}
	}
	return w.foreign(ctx, s, out)
}

func (w walSource) stored(ctx context.Context, s Segment, out io.Writer) error {
	seg, err := w.repo.OpenSegment(ctx, s.Name)
	if err != nil {
		return err
	}
	defer func() { _ = seg.Close() }()
	if seg.Plain() != int64(w.size) {
		return &container.DamagedError{Object: seg.Name(), Frame: -1,
			Err: fmt.Errorf("it has %d plain bytes, want %d", seg.Plain(), w.size)}
	}
	var scratch container.Scratch
	defer scratch.Close()
	for i := range seg.Frames() {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		plain, err := seg.ReadFrame(i, &scratch)
		if err != nil {
			return err
		}
		if err := w.wait(ctx, len(plain)); err != nil {
			return err
		}
		if _, err := out.Write(plain); err != nil {
			return err
		}
	}
	return nil
}

// received copies a file of the receive directory.
func (w walSource) received(ctx context.Context, name string, out io.Writer) error {
	in, err := w.repo.OpenReceived(ctx, name)
	if err != nil {
		return err
	}
	defer func() { _ = in.Close() }()
	if err := w.wait(ctx, int(w.size)); err != nil {
		return err
	}
	_, err = io.Copy(out, io.LimitReader(in, int64(w.size)))
	return err
}

func (w walSource) wait(ctx context.Context, n int) error {
	if w.spend == nil {
		return nil
	}
	return w.spend(ctx, n)
}

// cut replaces what lies past the end of a timeline by zeros and brings the file
// to its full size. What arrived after the plan was made may stay.
func (j *runner) cut(s Segment, out *os.File) error {
	size := j.plan.Backup.SegmentSize
	if left, _ := j.plan.follows.End(s.Timeline); left < s.Start+pg.LSN(size) {
		if err := out.Truncate(int64(left - s.Start)); err != nil {
			return err
		}
	}
	return out.Truncate(int64(size))
}
