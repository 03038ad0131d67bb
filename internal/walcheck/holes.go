package walcheck

import (
	"context"
	"errors"
	"slices"

	"github.com/pgmoneta/pgmoneta-go/internal/pg"
	"github.com/pgmoneta/pgmoneta-go/internal/repo"
)

// holes compares the findings with the recorded holes and, if asked, brings the
// record up to date.
func (c *checker) holes(ctx context.Context) error {
	recorded, err := c.repo.Holes(ctx)
	if err != nil {
		return err
	}
	if c.Record && c.Deep {
		if recorded, err = c.fill(ctx, recorded); err != nil {
			return err
		}
	}
	if c.Record {
		if err := c.record(ctx, recorded); err != nil {
			return err
		}
		if recorded, err = c.repo.Holes(ctx); err != nil {
			return err
		}
	}
	c.report.Holes = len(recorded)
	c.mark(recorded)
	c.others(recorded)
	return nil
}

// fill removes the records of holes in which nothing is wrong any more, and
// returns the others.
func (c *checker) fill(ctx context.Context, recorded []repo.Hole) ([]repo.Hole, error) {
	var open []repo.Hole
	for _, h := range recorded {
		if c.size == 0 || c.shown(h) {
			open = append(open, h)
			continue
		}
		c.Progress("Check holes", int64(len(open)), int64(len(recorded)))
		err := c.repo.FillHole(ctx, h, c.size)
		var still *repo.OpenHoleError
		switch {
		case err == nil:
			c.report.Filled++
		case errors.As(err, &still):
			open = append(open, h)
		default:
			return nil, err
		}
	}
	return open, nil
}

// shown reports whether a finding lies in a hole.
func (c *checker) shown(h repo.Hole) bool {
	return slices.ContainsFunc(c.report.Findings, func(f Finding) bool {
		return f.Kind.lost() && f.Timeline == h.Timeline && f.From < h.To && f.To > h.From
	})
}

// record records what is lost and not recorded yet.
func (c *checker) record(ctx context.Context, recorded []repo.Hole) error {
	for _, kind := range []Kind{Missing, Damaged} {
		for tli, lost := range c.lost(kind.cause()) {
			for _, v := range lost {
				if err := c.recordOne(ctx, tli, v, kind.cause(), recorded); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

func (c *checker) recordOne(ctx context.Context, tli pg.Timeline, v interval, cause repo.Cause, recorded []repo.Hole) error {
	have := on(recorded, tli)
	if c.accounted(v, have) {
		return nil
	}
	for _, part := range v.without(have) {
		h := repo.Hole{Timeline: tli, From: part.from, To: part.to, Cause: cause, NoticedAt: c.Now(), By: c.By}
		if err := c.repo.RecordHole(ctx, h); err != nil {
			return err
		}
		c.report.New++
	}
	return nil
}

// lost returns the ranges that are lost for one cause, by timeline. Neighbours
// are one range.
func (c *checker) lost(cause repo.Cause) map[pg.Timeline][]interval {
	lost := map[pg.Timeline][]interval{}
	for _, f := range c.report.Findings {
		if f.Kind.lost() && f.Kind.cause() == cause && !c.arriving(f) {
			lost[f.Timeline] = append(lost[f.Timeline], interval{f.From, f.To})
		}
	}
	for tli := range lost {
		lost[tli] = union(lost[tli])
	}
	return lost
}

// arriving reports whether a finding is about a segment that is being received: it
// will be written over, from its beginning.
func (c *checker) arriving(f Finding) bool {
	return f.Kind != Missing && slices.ContainsFunc(c.of(f.Timeline), func(s *segment) bool {
		return s.start == f.From && s.place == partial
	})
}

// mark notes which findings are recorded.
func (c *checker) mark(recorded []repo.Hole) {
	for i := range c.report.Findings {
		f := &c.report.Findings[i]
		f.Recorded = f.Kind.lost() && c.accounted(interval{f.From, f.To}, on(recorded, f.Timeline))
	}
}

// accounted reports whether the intervals of have say what v says. A receiver and
// a check may disagree by less than a segment about where a hole begins: the
// former counts bytes that it received, the latter those that it finds.
func (c *checker) accounted(v interval, have []interval) bool {
	rest := v.without(have)
	if len(rest) == 1 && rest[0] == v {
		return false
	}
	return !slices.ContainsFunc(rest, func(r interval) bool { return r.to-r.from >= pg.LSN(c.size) })
}

// others reports recorded holes that no other finding shows.
func (c *checker) others(recorded []repo.Hole) {
	for _, h := range recorded {
		if c.shown(h) {
			continue
		}
		f := Finding{Kind: Recorded, Timeline: h.Timeline, From: h.From, To: h.To, Recorded: true, Message: c.explain(h)}
		if c.size != 0 {
			f.Segment = pg.SegmentName(h.Timeline, h.From, c.size)
		}
		c.find(f)
	}
}

func (c *checker) explain(h repo.Hole) string {
	if h.Err != nil {
		return "recorded, but its object cannot be read: " + h.Err.Error()
	}
	text := string(h.Cause) + ", recorded " + h.NoticedAt.Format("2006-01-02 15:04:05Z07:00")
	if h.By != "" {
		text += " by " + h.By
	}
	return text
}

// on returns the union of the holes of one timeline.
func on(holes []repo.Hole, tli pg.Timeline) []interval {
	var list []interval
	for _, h := range holes {
		if h.Timeline == tli {
			list = append(list, interval{h.From, h.To})
		}
	}
	return union(list)
}
