package walcheck

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"sort"

	"github.com/pgmoneta/pgmoneta-go/internal/pg"
)

// readHistories reads the stored histories and compares them with each other.
func (c *checker) readHistories(ctx context.Context) error {
	listing, err := c.repo.ListWAL(ctx)
	if err != nil {
		return err
	}
	c.histories[1] = pg.History{Timeline: 1}
	for _, tli := range listing.Histories {
		h, err := c.repo.History(ctx, tli)
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case errors.Is(err, fs.ErrNotExist): // deleted, or C pgmoneta's
		case err != nil:
			c.find(Finding{Kind: BadHistory, Timeline: tli, Message: err.Error()})
		default:
			c.histories[tli] = h
		}
	}
	c.compareHistories()
	c.missingHistories()
	return nil
}

// compareHistories makes sure that a history that contains another timeline says
// the same about that one's ancestors.
func (c *checker) compareHistories() {
	timelines := slices.Sorted(maps.Keys(c.histories))
	for _, tli := range timelines {
		h := c.histories[tli]
		for i, a := range h.Ancestors {
			older, ok := c.histories[a.Timeline]
			if !ok || slices.EqualFunc(older.Ancestors, h.Ancestors[:i], samePlace) {
				continue
			}
			c.find(Finding{Kind: BadHistory, Timeline: tli, Message: fmt.Sprintf(
				"%s and %s disagree about the ancestors of timeline %d", pg.HistoryName(tli), pg.HistoryName(a.Timeline), a.Timeline)})
		}
	}
}

func samePlace(a, b pg.Switch) bool { return a.Timeline == b.Timeline && a.End == b.End }

// missingHistories reports timelines with segments and without a history. What a
// descendant's history says about them is used instead.
func (c *checker) missingHistories() {
	for _, tli := range c.timelines() {
		if _, ok := c.histories[tli]; ok {
			continue
		}
		c.histories[tli] = c.derived(tli)
		if !slices.ContainsFunc(c.report.Findings, func(f Finding) bool { return f.Kind == BadHistory && f.Timeline == tli }) {
			c.find(Finding{Kind: BadHistory, Timeline: tli, Message: pg.HistoryName(tli) + " is not stored: no recovery can follow this timeline"})
		}
	}
}

// derived returns what is known about the ancestors of a timeline.
func (c *checker) derived(tli pg.Timeline) pg.History {
	for _, younger := range slices.Sorted(maps.Keys(c.histories)) {
		h := c.histories[younger]
		i := slices.IndexFunc(h.Ancestors, func(s pg.Switch) bool { return s.Timeline == tli })
		if i >= 0 {
			return pg.History{Timeline: tli, Ancestors: h.Ancestors[:i]}
		}
	}
	return pg.History{Timeline: tli}
}

// timelines returns those that have segments, ascending.
func (c *checker) timelines() []pg.Timeline {
	var list []pg.Timeline
	for _, s := range c.segments {
		if n := len(list); n == 0 || list[n-1] != s.tli {
			list = append(list, s.tli)
		}
	}
	return list
}

// of returns the segments of one timeline, by position.
func (c *checker) of(tli pg.Timeline) []*segment {
	from := sort.Search(len(c.segments), func(i int) bool { return c.segments[i].tli >= tli })
	to := sort.Search(len(c.segments), func(i int) bool { return c.segments[i].tli > tli })
	return c.segments[from:to]
}

// confirmations bounds how often a gap is looked for again because new segments
// have arrived since the first look.
const confirmations = 3

// paths walks the path of every timeline and reports gaps. Segments may be stored
// out of order, and old ones deleted, so that a gap counts only if it is still
// there when the archive has stopped changing for a moment.
func (c *checker) paths(ctx context.Context) error {
	c.misplaced()
	gaps := c.gaps()
	for range confirmations {
		if none(gaps) {
			return nil
		}
		added, removed, err := c.relist(ctx)
		if err != nil {
			return err
		}
		if len(added) == 0 && !removed {
			break
		}
		if err := c.examine(ctx, added); err != nil {
			return err
		}
		gaps = c.gaps()
	}
	for _, tli := range slices.Sorted(maps.Keys(gaps)) {
		for _, gap := range gaps[tli] {
			c.find(c.missing(tli, gap))
		}
	}
	return nil
}

func none(gaps map[pg.Timeline][]interval) bool {
	for _, list := range gaps {
		if len(list) > 0 {
			return false
		}
	}
	return true
}

// misplaced reports segments that lie wholly before their timeline begins.
func (c *checker) misplaced() {
	for _, tli := range c.timelines() {
		begin := beginning(c.histories[tli])
		for _, s := range c.of(tli) {
			if s.start+pg.LSN(c.size) > begin {
				break
			}
			c.find(Finding{Kind: Misplaced, Timeline: tli, From: s.start, To: s.start + pg.LSN(c.size), Segment: s.name,
				Message: fmt.Sprintf("timeline %d begins at %s, after this segment", tli, begin)})
		}
	}
}

// beginning returns the position where the history's own timeline begins.
func beginning(h pg.History) pg.LSN {
	if n := len(h.Ancestors); n > 0 {
		return h.Ancestors[n-1].End
	}
	return 0
}

// gaps returns what is missing on all paths and was not removed because nothing needed
// it, by timeline.
func (c *checker) gaps() map[pg.Timeline][]interval {
	found := map[pg.Timeline][]interval{}
	for _, tli := range c.timelines() {
		h := c.histories[tli]
		for _, gap := range c.walk(h) {
			split(h, gap, func(tli pg.Timeline, part interval) { found[tli] = append(found[tli], part) })
		}
	}
	for tli := range found {
		var gaps []interval
		for _, v := range union(found[tli]) {
			gaps = append(gaps, v.without(c.removed[tli])...)
		}
		found[tli] = gaps
	}
	return found
}

// walk returns the gaps between the first and the last segment on the path of h.
func (c *checker) walk(h pg.History) []interval {
	covered := c.covered(h)
	var gaps []interval
	for i := 1; i < len(covered); i++ {
		gaps = append(gaps, interval{covered[i-1].to, covered[i].from})
	}
	return gaps
}

// covered returns what the archive has of the path of h. A segment counts from its
// first byte, because it repeats what came before its timeline began, and up to
// where its timeline was left.
func (c *checker) covered(h pg.History) []interval {
	var list []interval
	begin := pg.LSN(0)
	for tli, ok := oldest(h), true; ok; tli, begin, ok = h.Next(tli) {
		left, _ := h.End(tli)
		for _, s := range c.of(tli) {
			end := min(s.end, left)
			if end > max(s.start, begin) {
				list = append(list, interval{s.start, end})
			}
		}
	}
	return union(list)
}

func oldest(h pg.History) pg.Timeline {
	if len(h.Ancestors) > 0 {
		return h.Ancestors[0].Timeline
	}
	return h.Timeline
}

// split cuts an interval of a path where its timelines were left.
func split(h pg.History, v interval, use func(pg.Timeline, interval)) {
	for v.from < v.to {
		tli := h.At(v.from)
		left, _ := h.End(tli)
		part := interval{v.from, min(v.to, left)}
		use(tli, part)
		v.from = part.to
	}
}

func (c *checker) missing(tli pg.Timeline, gap interval) Finding {
	first, last := pg.SegmentName(tli, gap.from, c.size), pg.SegmentName(tli, gap.to-1, c.size)
	message := "WAL segment " + first + " is missing"
	if first != last {
		n := (c.size.Start(gap.to-1)-c.size.Start(gap.from))/pg.LSN(c.size) + 1
		message = fmt.Sprintf("%d WAL segments are missing, %s to %s", n, first, last)
	}
	return Finding{Kind: Missing, Timeline: tli, From: gap.from, To: gap.to, Segment: first, Message: message}
}
