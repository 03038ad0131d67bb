package walfile

import (
	"context"
	"errors"
	"io/fs"
	"slices"

	"github.com/pgmoneta/pgmoneta-go/internal/foreign"
	"github.com/pgmoneta/pgmoneta-go/internal/pg"
	"github.com/pgmoneta/pgmoneta-go/internal/walpage"
)

// behind tells what it means that a segment is missing with no later one on its own
// timeline. That is the end of the archive, and nil, unless more is known: a
// [*RemovedError] when the retention removed WAL of the timeline from there on, a
// [*HoleError] when a timeline that continues this one further on is archived.
func (a *archive) behind(ctx context.Context, name string) error {
	names, err := a.segments(ctx)
	if err != nil {
		return err
	}
	removed, err := a.repo.RemovedWAL(ctx)
	if err != nil {
		return err
	}
	if len(removed) == 0 && (len(names) == 0 || names[len(names)-1][:8] <= name[:8]) {
		return nil
	}
	size := a.segmentSize(ctx, names)
	tli, start, err := pg.ParseSegmentName(name, size)
	if err != nil {
		return err
	}
	for _, v := range slices.Backward(removed) {
		if v.Timeline == tli && start < v.To {
			return &RemovedError{Timeline: tli, Until: v.To}
		}
	}
	next, err := a.continued(ctx, names, tli, start, size)
	if err == nil && next != "" {
		err = &HoleError{Next: next}
	}
	return err
}

// segments lists the complete segments of all timelines.
func (a *archive) segments(ctx context.Context) ([]string, error) {
	// They move from the receive directory to the store: looking in this order misses none.
	names, _, err := a.repo.Received()
	if err != nil {
		return nil, err
	}
	listing, err := a.repo.ListWAL(ctx)
	if err != nil {
		return nil, err
	}
	theirs, err := a.foreignSegments(ctx)
	names = slices.Concat(names, listing.Segments, theirs)
	slices.Sort(names)
	return slices.Compact(names), err
}

// segmentSize returns the size of segments, which the first page of any of them tells.
// Where none is left it is the smallest possible, by which positions of other segments
// are taken for earlier ones: nothing is then taken for the end that may not be it.
func (a *archive) segmentSize(ctx context.Context, names []string) pg.SegmentSize {
	for _, name := range slices.Backward(names) {
		page, err := a.firstPageOf(ctx, name)
		if err != nil {
			continue // deleted meanwhile, or damaged, which is reported to who asks for it
		}
		h, err := walpage.Parse(page)
		if size := pg.SegmentSize(h.SegmentSize); err == nil && size.Valid() {
			return size
		}
	}
	return pg.MinSegmentSize
}

// firstPageOf reads the header of a complete segment, wherever it lies.
func (a *archive) firstPageOf(ctx context.Context, name string) (page []byte, err error) {
	in, err := a.openReceived(ctx, name)
	if err == nil {
		defer func() { _ = in.Close() }()
		return readFirst(in)
	}
	if !errors.Is(err, ErrNotArchived) {
		return nil, err
	}
	c, object, err := a.openContainer(ctx, name)
	if err == nil {
		stream := c.Stream()
		page, err = readFirst(stream)
		return page, errors.Join(err, stream.Close(), object.Close())
	}
	if !errors.Is(err, ErrNotArchived) {
		return nil, err
	}
	err = a.beside(func(f *foreign.Repository) error {
		in, err := f.OpenWAL(ctx, name)
		if err != nil {
			return err
		}
		page, err = readFirst(in)
		return errors.Join(err, in.Close())
	})
	return page, err
}

// continued returns a segment of a timeline that goes through all of the segment at
// start and on, "" if there is none. The segment in which a timeline was left does not
// count: the next one has its own copy of it, and who follows the old one ends there.
func (a *archive) continued(ctx context.Context, names []string, tli pg.Timeline, start pg.LSN, size pg.SegmentSize) (string, error) {
	asked := pg.Timeline(0)
	through := false
	for _, name := range names {
		t, _, err := pg.ParseSegmentName(name, size)
		if err != nil || t <= tli {
			continue
		}
		if t != asked {
			if through, err = a.through(ctx, t, tli, start, size); err != nil {
				return "", err
			}
			asked = t
		}
		if through {
			return name, nil
		}
	}
	return "", nil
}

// through reports whether the history of t was on timeline tli beyond the segment at start.
func (a *archive) through(ctx context.Context, t, tli pg.Timeline, start pg.LSN, size pg.SegmentSize) (bool, error) {
	content, err := a.small(ctx, pg.HistoryName(t))
	if errors.Is(err, ErrNotArchived) || errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	h, err := pg.ParseHistory(t, content)
	if err != nil {
		return false, err
	}
	left, on := h.End(tli)
	return on && size.Start(left) > start, nil
}
