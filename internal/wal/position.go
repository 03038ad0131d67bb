package wal

import (
	"fmt"
	"slices"
	"strings"

	"github.com/pgmoneta/pgmoneta-go/internal/pg"
)

// A position is a place in a server's history.
type position struct {
	tli pg.Timeline
	lsn pg.LSN
}

func (p position) after(q position) bool {
	return p.tli > q.tli || p.tli == q.tli && p.lsn > q.lsn
}

// resumeAt returns the start of the first incomplete segment on the highest
// timeline: after the last complete one, else the first partial one. Several
// may be partial, because the next segment is begun before the last is synced.
// ok is false when there is no WAL at all.
func resumeAt(complete, partial []string, size pg.SegmentSize) (at position, ok bool, err error) {
	for _, name := range complete {
		tli, lsn, err := pg.ParseSegmentName(name, size)
		if err != nil {
			return position{}, false, err
		}
		if p := (position{tli, lsn + pg.LSN(size)}); !ok || p.after(at) {
			at, ok = p, true
		}
	}
	for _, name := range partial {
		tli, lsn, err := pg.ParseSegmentName(name, size)
		if err != nil {
			return position{}, false, err
		}
		p := position{tli, lsn}
		if !ok || p.tli > at.tli || p.tli == at.tli && at.after(p) && !completeOn(complete, tli) {
			at, ok = p, true
		}
	}
	return at, ok, nil
}

// firstGap returns the first segment from restart on, on the timeline of at, that
// is not complete, or at if there is none before it. The slot's restart LSN is
// the last position that was acknowledged; segments after it that are complete
// already came another way, from archive_command, and may have left a gap.
func firstGap(at position, restart pg.LSN, complete []string, size pg.SegmentSize) position {
	if restart == 0 {
		return at
	}
	have := map[string]bool{}
	for _, name := range complete {
		have[name] = true
	}
	for lsn := size.Start(restart); lsn < at.lsn; lsn += pg.LSN(size) {
		if !have[pg.SegmentName(at.tli, lsn, size)] {
			return position{at.tli, lsn}
		}
	}
	return at
}

// completeOn reports whether a segment of a timeline is complete.
func completeOn(complete []string, tli pg.Timeline) bool {
	prefix := fmt.Sprintf("%08X", uint32(tli))
	return slices.ContainsFunc(complete, func(name string) bool { return strings.HasPrefix(name, prefix) })
}

// continueOn maps the place where the archive ends onto the server's history:
// the same place if the server's timeline went through it, else the start of the
// segment in which the next timeline begins.
//
// It is a [*DivergedError] when the server's history does not contain the
// archive's timeline.
func continueOn(server string, at position, h pg.History, size pg.SegmentSize) (position, error) {
	end, ok := h.End(at.tli)
	if !ok {
		return position{}, &DivergedError{Server: server, Stored: at.tli, Current: h.Timeline}
	}
	if at.lsn < end {
		return at, nil
	}
	// The old primary wrote past the point where it was left, or exactly up to
	// it. What it wrote alone stays in the archive on its own timeline.
	next, begin, _ := h.Next(at.tli)
	return continueOn(server, position{next, size.Start(begin)}, h, size)
}
