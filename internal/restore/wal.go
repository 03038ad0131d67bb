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
)

const walDirectory, statusDirectory = "pg_wal", "pg_wal/archive_status"

// wal writes the plan's segments and histories to pg_wal.
func (j *job) wal(ctx context.Context) error {
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
			j.progress("WAL", done.Add(int64(j.plan.Backup.SegmentSize)), j.plan.WALBytes)
			return nil
		})
	}
	return g.Wait()
}

func (j *job) timeline(ctx context.Context, tli pg.Timeline) error {
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
func (j *job) archived(name string) error {
	return j.tree.write(statusDirectory+"/"+name+".done", nil)
}

// segment writes one segment. While the plan was waiting it may have moved from
// the receive directory to the store, so both are asked until one has it.
func (j *job) segment(ctx context.Context, s Segment) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	out, err := j.tree.create(j.tree.data, walDirectory+"/"+s.Name, 0o600)
	if err != nil {
		return err
	}
	if err := j.tree.op("write", out.Name()); err != nil {
		return errors.Join(err, out.Close())
	}
	whole, err := j.fill(ctx, s, out)
	if err == nil {
		err = j.cut(s, out)
	}
	if err := errors.Join(err, out.Close()); err != nil || !whole {
		return err
	}
	return j.archived(s.Name)
}

// fill copies the bytes of a segment and reports whether it was complete.
func (j *job) fill(ctx context.Context, s Segment, out *os.File) (whole bool, err error) {
	for range 3 {
		err = j.stored(ctx, s, out)
		if !errors.Is(err, fs.ErrNotExist) {
			return true, err
		}
		if err = j.received(ctx, s.Name, out); !errors.Is(err, fs.ErrNotExist) {
			return true, err
		}
		if err = j.received(ctx, s.Name+partialSuffix, out); !errors.Is(err, fs.ErrNotExist) {
			return false, err
		}
	}
	return j.foreignSegment(ctx, s, out)
}

func (j *job) stored(ctx context.Context, s Segment, out *os.File) error {
	seg, err := j.plan.repo.OpenSegment(ctx, s.Name)
	if err != nil {
		return err
	}
	defer func() { _ = seg.Close() }()
	if seg.Plain() != int64(j.plan.Backup.SegmentSize) {
		return &container.DamagedError{Object: seg.Name(), Frame: -1,
			Err: fmt.Errorf("it has %d plain bytes, want %d", seg.Plain(), j.plan.Backup.SegmentSize)}
	}
	var scratch container.Scratch
	defer scratch.Close()
	at := int64(0)
	for i := range seg.Frames() {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		plain, err := seg.ReadFrame(i, &scratch)
		if err != nil {
			return err
		}
		if _, err := out.WriteAt(plain, at); err != nil {
			return err
		}
		at += int64(len(plain))
	}
	return nil
}

// received copies a file of the receive directory.
func (j *job) received(ctx context.Context, name string, out *os.File) error {
	in, err := j.plan.repo.OpenReceived(ctx, name)
	if err != nil {
		return err
	}
	defer func() { _ = in.Close() }()
	_, err = io.Copy(io.NewOffsetWriter(out, 0), io.LimitReader(in, int64(j.plan.Backup.SegmentSize)))
	return err
}

// cut replaces what lies past the end of a timeline by zeros and brings the file
// to its full size. What arrived after the plan was made may stay.
func (j *job) cut(s Segment, out *os.File) error {
	size := j.plan.Backup.SegmentSize
	if left, _ := j.plan.follows.End(s.Timeline); left < s.Start+pg.LSN(size) {
		if err := out.Truncate(int64(left - s.Start)); err != nil {
			return err
		}
	}
	return out.Truncate(int64(size))
}
