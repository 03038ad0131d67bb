package wal

import (
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

// resumeAt returns the start of the first incomplete segment: after the last
// complete one of the highest timeline, or at that timeline's partial one.
// ok is false when there is no WAL at all.
func resumeAt(complete, partial []string, size pg.SegmentSize) (at position, ok bool, err error) {
	consider := func(names []string, past pg.LSN) error {
		for _, name := range names {
			tli, lsn, err := pg.ParseSegmentName(name, size)
			if err != nil {
				return err
			}
			if p := (position{tli, lsn + past}); !ok || p.after(at) {
				at, ok = p, true
			}
		}
		return nil
	}
	if err := consider(complete, pg.LSN(size)); err != nil {
		return position{}, false, err
	}
	err = consider(partial, 0)
	return at, ok, err
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
