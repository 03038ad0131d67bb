package retention

import (
	"slices"

	"github.com/pgmoneta/pgmoneta-go/internal/pg"
)

// A span is the WAL that something needs: of timelines from one to another, positions
// from one to another.
type span struct {
	first, last pg.Timeline
	from, to    pg.LSN
}

const (
	anyTimeline = ^pg.Timeline(0)
	theEnd      = ^pg.LSN(0)
)

func (s span) covers(g Segment) bool {
	return g.Timeline >= s.first && g.Timeline <= s.last && g.From < s.to && g.To > s.from
}

// open is the WAL that leads from a backup to everything after it, on its timeline and
// on all that may descend from it.
func open(b Backup) span { return span{b.StartTLI, anyTimeline, b.Start, theEnd} }

// closed is the WAL that makes a backup consistent. A later timeline may have the only
// whole copy of the segment in which the backup's own was left.
func closed(b Backup) span { return span{b.StartTLI, anyTimeline, b.Start, b.End} }

// wal returns the segments that nothing needs any more, oldest first.
func (d *decider) wal(trash []Waiting) []Segment {
	var gone []Segment
	needs := append(d.needs(), d.trashNeeds(trash)...)
	for _, s := range d.Segments {
		if !s.Fixed && !slices.ContainsFunc(needs, func(n span) bool { return n.covers(s) }) {
			gone = append(gone, s)
		}
	}
	return gone
}

// needs returns what is needed. There is a valid backup, or nothing would be deleted.
func (d *decider) needs() []span {
	var list []span
	for _, b := range d.Backups {
		if !b.Known || !d.stays(b) {
			continue
		}
		if d.toTheEnd(b) {
			list = append(list, open(b))
		}
		list = append(list, closed(b))
	}
	valid := d.valid()
	newest := valid[len(valid)-1]
	list = append(list, open(newest), span{newest.StartTLI + 1, anyTimeline, 0, theEnd})
	for _, g := range d.split {
		if b, ok := g.base(d.begin()); ok {
			list = append(list, open(b))
		}
	}
	if d.Unshipped {
		list = append(list, span{0, anyTimeline, d.Shipped, theEnd})
	}
	return list
}

// toTheEnd reports whether all WAL after a backup is kept for its sake.
func (d *decider) toTheEnd(b Backup) bool {
	return d.WALAll || d.Window == 0 && !b.At.Before(d.daysAgo())
}

func without(all, gone []Segment) []Segment {
	if len(gone) == 0 {
		return all
	}
	drop := make(map[string]bool, len(gone))
	for _, s := range gone {
		drop[s.Name] = true
	}
	return slices.DeleteFunc(slices.Clone(all), func(s Segment) bool { return drop[s.Name] })
}
