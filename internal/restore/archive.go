package restore

import (
	"context"
	"errors"
	"io/fs"
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
	left      map[string]bool // partial ones that another program left as they are
	histories []pg.Timeline   // ascending
	holes     []repo.Hole     // recorded ones
}

// readArchive lists the WAL. Segments move from the receive directory to the
// store, and a directory that changes while it is read may show neither the old
// name of a file nor the new one. Looking twice in this order misses none.
func readArchive(ctx context.Context, r *repo.Repository) (*archive, error) {
	a := &archive{repo: r, whole: map[string]bool{}, partial: map[string]bool{}, left: map[string]bool{}}
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
	err := a.withForeign(ctx)
	if err != nil {
		return nil, err
	}
	slices.Sort(a.histories)
	a.histories = slices.Compact(a.histories)
	a.holes, err = r.Holes(ctx)
	return a, err
}

// here reports whether there is anything of a segment.
func (a *archive) here(name string) bool { return a.whole[name] || a.partial[name] }

// A hole is a gap between two pieces of archived WAL.
type hole struct {
	timeline pg.Timeline
	from, to pg.LSN
}

// walk returns the segments along h from the one that holds from up to the
// position to, or as far as there are any when to is 0. end is where their
// bytes end. gap tells whether the walk ended at a hole, seen or recorded, rather
// than at the end of all WAL.
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
			if next := a.resumes(h, at, end); next != 0 {
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
		case a.partial[s.Name] && !a.left[s.Name] && a.here(pg.SegmentName(tli, start+pg.LSN(a.size), a.size)):
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
		// What a server wrote after its timeline was left is not part of h, and what
		// is recorded as lost or damaged is not there.
		s.End = min(s.End, left, a.intact(tli, start))
		if s.End > start && s.End >= best.End {
			best = s
		}
		if tli == newest {
			break
		}
	}
	return best, nil
}

// received returns where the bytes of a partial segment end.
func (a *archive) received(name string, start pg.LSN) (pg.LSN, error) {
	end, err := a.repo.PartialEnd(name, start, a.size)
	if errors.Is(err, fs.ErrNotExist) { // completed while we look
		return start + pg.LSN(a.size), nil
	}
	return end, err
}

const partialSuffix = ".partial"

// intact returns where the first recorded hole of a timeline after the position
// at, or around it, begins: at itself at the least, and the largest LSN when
// there is none.
func (a *archive) intact(tli pg.Timeline, at pg.LSN) pg.LSN {
	first := ^pg.LSN(0)
	for _, h := range a.holes {
		if h.Timeline == tli && h.To > at {
			first = min(first, max(h.From, at))
		}
	}
	return first
}

// resumes returns where WAL goes on behind the end of a walk in the segment at
// start: at the next segment that is here, or behind a recorded hole if that is
// later. It is 0 when there is neither, so that end is the end of all WAL.
func (a *archive) resumes(h pg.History, start, end pg.LSN) pg.LSN {
	at := a.next(h, start)
	// Holes are in order, so that one pass meets neighbours.
	for _, lost := range a.holes {
		left, ok := h.End(lost.Timeline)
		to := min(lost.To, left)
		if !ok || to <= max(at, end) || h.At(to-1) < lost.Timeline {
			continue // not on the way, or behind us
		}
		if at == 0 || lost.From <= at {
			at = to
		}
	}
	return at
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
