package restore

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/pgmoneta/pgmoneta-go/internal/pg"
	"github.com/pgmoneta/pgmoneta-go/internal/repo"
)

// A Segment is WAL that a restore puts into pg_wal.
type Segment struct {
	Name     string
	Timeline pg.Timeline
	Start    pg.LSN
	End      pg.LSN // position up to which its bytes count; beyond, zeros are written
	Partial  bool   // still being received when the plan was made
}

// An archive is what there is of a server's WAL.
type archive struct {
	repo      *repo.Repository
	size      pg.SegmentSize
	whole     map[string]bool // stored, or complete in the receive directory
	partial   map[string]bool
	last      map[pg.Timeline]pg.LSN // start of the last segment of each timeline
	histories []pg.Timeline          // ascending
}

// readArchive lists the WAL. Segments move from the receive directory to the
// store, and a directory that changes while it is read may show neither the old
// name of a file nor the new one. Looking twice in this order misses none.
func readArchive(ctx context.Context, r *repo.Repository) (*archive, error) {
	a := &archive{repo: r, whole: map[string]bool{}, partial: map[string]bool{}}
	for range 2 {
		complete, partial, err := r.Received()
		if err != nil {
			return nil, err
		}
		listing, err := r.ListWAL(ctx)
		if err != nil {
			return nil, err
		}
		for _, name := range append(complete, listing.Segments...) {
			a.whole[name] = true
		}
		for _, name := range partial {
			a.partial[name] = true
		}
		a.histories = listing.Histories
	}
	slices.Sort(a.histories)
	return a, nil
}

// knowSize tells the archive the size of segments.
func (a *archive) knowSize(size pg.SegmentSize) {
	a.size, a.last = size, map[pg.Timeline]pg.LSN{}
	for _, names := range []map[string]bool{a.whole, a.partial} {
		for name := range names {
			if tli, start, err := pg.ParseSegmentName(name, size); err == nil {
				a.last[tli] = max(a.last[tli], start)
			}
		}
	}
}

// A hole is a gap between two pieces of archived WAL.
type hole struct {
	timeline pg.Timeline
	from, to pg.LSN
}

// walk returns the segments along h from the one that holds from up to the
// position to, or as far as there are any when to is 0. end is where their
// bytes end. gap tells whether the walk ended at a hole rather than at the end
// of all WAL.
func (a *archive) walk(h pg.History, from, to pg.LSN) (segments []Segment, end pg.LSN, gap *hole, err error) {
	end = from
	for at := a.size.Start(from); to == 0 || at < to; at += pg.LSN(a.size) {
		s, err := a.find(h, at)
		if err != nil {
			return nil, 0, nil, err
		}
		if s.End > at {
			segments, end = append(segments, s), s.End
		}
		if s.End < at+pg.LSN(a.size) {
			if next := a.next(h, at); next != 0 {
				gap = &hole{h.At(end), end, next}
			}
			break
		}
	}
	return segments, end, gap, nil
}

// find returns the copy of the segment at start that reaches farthest. That is
// the one of the newest timeline with bytes in it, unless that has only begun
// to arrive. End is start when there is none.
func (a *archive) find(h pg.History, start pg.LSN) (Segment, error) {
	best := Segment{Start: start, End: start}
	oldest, newest := h.At(start), h.SegmentTimeline(start, a.size)
	for tli, ok := oldest, true; ok; tli, _, ok = h.Next(tli) {
		s := Segment{Name: pg.SegmentName(tli, start, a.size), Timeline: tli, Start: start, End: start}
		left, _ := h.End(tli)
		switch {
		case a.whole[s.Name]:
			s.End = start + pg.LSN(a.size)
		case a.partial[s.Name] && start < a.last[tli]:
			// The next segment was begun while this one waits for its sync: all of
			// it was received.
			s.End, s.Partial = start+pg.LSN(a.size), true
		case a.partial[s.Name]:
			var err error
			if s.End, err = a.received(s.Name, start); err != nil {
				return Segment{}, err
			}
			s.Partial = true
		}
		// What a server wrote after its timeline was left is not part of h.
		s.End = min(s.End, left)
		if s.End > start && s.End >= best.End {
			best = s
		}
		if tli == newest {
			break
		}
	}
	return best, nil
}

// received returns where the bytes of a partial segment end. The file has been
// a full segment of zeros before it was filled, and a record never ends in more
// zeros than its alignment adds.
func (a *archive) received(name string, start pg.LSN) (pg.LSN, error) {
	f, err := os.Open(filepath.Join(a.repo.ReceiveDir(), name+partialSuffix))
	if errors.Is(err, fs.ErrNotExist) { // completed while we look
		return start + pg.LSN(a.size), nil
	}
	if err != nil {
		return 0, err
	}
	defer func() { _ = f.Close() }()
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	n, err := lastByte(f, min(info.Size(), int64(a.size)))
	return start + pg.LSN(n+7)&^7, err
}

const partialSuffix = ".partial"

// lastByte returns the length of f, at most size, without the zeros at its end.
func lastByte(f *os.File, size int64) (int64, error) {
	block := make([]byte, 64<<10)
	for size > 0 {
		n := min(size, int64(len(block)))
		if _, err := f.ReadAt(block[:n], size-n); err != nil {
			return 0, err
		}
		for i := n - 1; i >= 0; i-- {
			if block[i] != 0 {
				return size - n + i + 1, nil
			}
		}
		size -= n
	}
	return 0, nil
}

// next returns the start of the first segment after the one at start that h
// goes through and that is here, or 0.
func (a *archive) next(h pg.History, start pg.LSN) pg.LSN {
	var first pg.LSN
	for _, names := range []map[string]bool{a.whole, a.partial} {
		for name := range names {
			tli, at, err := pg.ParseSegmentName(name, a.size)
			if err != nil || at <= start || first != 0 && at >= first || !h.Contains(tli) {
				continue
			}
			if tli >= h.At(at) && tli <= h.SegmentTimeline(at, a.size) {
				first = at
			}
		}
	}
	return first
}

// latest returns the history of the highest timeline that goes through the end
// of a backup.
func (a *archive) latest(ctx context.Context, s repo.Summary) (pg.History, error) {
	for _, tli := range slices.Backward(a.histories) {
		if tli <= s.EndTLI {
			break
		}
		h, err := a.repo.History(ctx, tli)
		if err != nil {
			return pg.History{}, err
		}
		if through(h, s) {
			return h, nil
		}
	}
	return a.repo.History(ctx, s.EndTLI)
}

// through reports whether h contains the whole of a backup.
func through(h pg.History, s repo.Summary) bool {
	end, ok := h.End(s.EndTLI)
	return ok && end >= s.End && h.Contains(s.StartTLI)
}

// highest returns the highest timeline of the archive.
func (a *archive) highest() pg.Timeline {
	if n := len(a.histories); n > 0 {
		return a.histories[n-1]
	}
	return 1
}
