package retention

import (
	"maps"
	"slices"
	"time"

	"github.com/pgmoneta/pgmoneta-go/internal/pg"
)

// A branch is a row of valid backups with unbroken WAL from each to the last. Branches
// that part later have their first backups in common.
type branch struct {
	backups []Backup
	since   []time.Time // the first moment that each of them surely reaches
	until   time.Time   // no moment from here on is reached; zero for one that goes on
}

// branches finds one branch for each valid backup that no other follows, and one for each
// timeline after the newest of them. The last leads to the present.
func (d *decider) branches() {
	valid, since := d.valid(), d.since()
	add := func(until time.Time, on func(Backup) bool) {
		g := branch{until: until}
		for i, b := range valid {
			if on(b) {
				g.backups, g.since = append(g.backups, b), append(g.since, since[i])
			}
		}
		if len(g.backups) > 0 {
			d.split = append(d.split, g)
		}
	}
	for i, leaf := range valid {
		later := valid[i+1:]
		if slices.ContainsFunc(later, func(b Backup) bool { return d.follows(leaf, b) }) {
			continue
		}
		until := time.Time{}
		if len(later) > 0 {
			// Whatever can be reached from this one was written before the next began.
			until = maxTime(later[0].At, since[i+1])
		}
		add(until, func(b Backup) bool { return b.Label == leaf.Label || b.Label < leaf.Label && d.follows(b, leaf) })
	}
	if len(valid) == 0 {
		return
	}
	for _, tli := range slices.Sorted(maps.Keys(d.Histories)) {
		if h := d.Histories[tli]; tli > valid[len(valid)-1].EndTLI {
			add(time.Time{}, func(b Backup) bool { return passes(h, b) })
		}
	}
}

// passes reports whether a history goes through the end of a backup.
func passes(h pg.History, b Backup) bool {
	left, on := h.End(b.EndTLI)
	return on && left >= b.End
}

// since returns the first moments that the valid backups reach, corrected for clocks that
// were wrong: never too early, because then a moment could get lost. A backup reaches
// nothing earlier than one before it, and one from the future reaches what is now.
func (d *decider) since() []time.Time {
	var list []time.Time
	latest := time.Time{}
	for _, b := range d.valid() {
		if b.Stopped.After(d.now) {
			list = append(list, d.now)
			continue
		}
		latest = maxTime(latest, b.Stopped)
		list = append(list, latest)
	}
	return list
}

func maxTime(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// base returns the backup that moments from begin on are reached from: the newest that
// had ended by then, else the oldest. A branch that ended before needs none.
func (g branch) base(begin time.Time) (Backup, bool) {
	if !g.until.IsZero() && !g.until.After(begin) {
		return Backup{}, false
	}
	base := g.backups[0]
	for i, b := range g.backups {
		if !g.since[i].After(begin) {
			base = b
		}
	}
	return base, true
}

// follows reports whether WAL leads from a backup to a later one without a gap.
func (d *decider) follows(a, b Backup) bool {
	h, ok := d.history(b.StartTLI)
	if !ok || b.Start < a.Start || !passes(h, a) {
		return false
	}
	return !slices.ContainsFunc(d.Missing, func(m Range) bool {
		begin, end, on := d.part(h, m.Timeline)
		return on && max(m.From, begin, a.Start) < min(m.To, end, b.Start)
	})
}

// part returns the positions at which a recovery along h reads segments of a timeline.
func (d *decider) part(h pg.History, tli pg.Timeline) (begin, end pg.LSN, on bool) {
	for _, s := range h.Ancestors {
		// The next timeline repeats the segment in which this one was left.
		left := s.End
		if d.SegmentSize.Valid() {
			left = d.SegmentSize.Start(left)
		}
		if s.Timeline == tli {
			return begin, left, true
		}
		begin = left
	}
	return begin, theEnd, tli == h.Timeline
}

// absent returns what lies between the segments that are there, on each timeline.
func (d *decider) absent() []Range {
	var list []Range
	for i, s := range d.Segments {
		first := i == 0 || d.Segments[i-1].Timeline != s.Timeline
		if first && i > 0 {
			list = append(list, Range{d.Segments[i-1].Timeline, d.Segments[i-1].To, theEnd})
		}
		from := pg.LSN(0)
		if !first {
			from = d.Segments[i-1].To
		}
		if from < s.From {
			list = append(list, Range{s.Timeline, from, s.From})
		}
	}
	return list
}

func (d *decider) history(tli pg.Timeline) (pg.History, bool) {
	if tli == 1 {
		return pg.History{Timeline: 1}, true
	}
	h, ok := d.Histories[tli]
	return h, ok
}

// reach returns the time that can be restored to up to now with some of the backups and
// segments.
func (d *decider) reach(segments []Segment, have func(Backup) bool) Window {
	if len(d.split) == 0 {
		return Window{}
	}
	lost := without(d.Segments, segments)
	g := d.split[len(d.split)-1]
	for i, b := range g.backups {
		if !have(b) || slices.ContainsFunc(lost, func(s Segment) bool { return open(b).covers(s) }) {
			continue
		}
		return Window{From: g.since[i], Backup: b.Label}
	}
	return Window{}
}
