package walcheck

import (
	"cmp"
	"context"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/pgmoneta/pgmoneta-go/internal/pg"
	"github.com/pgmoneta/pgmoneta-go/internal/repo"
)

// Options tell how to check. The zero value is a quick check that changes nothing.
type Options struct {
	Deep     bool // read all content
	Record   bool // keep the record of holes up to date
	Workers  int  // 0 = one per CPU
	Progress func(phase string, done, total int64)

	By  string           // who records holes; "wal check" if empty
	Now func() time.Time // time.Now if nil
}

func (o Options) withDefaults() Options {
	if o.Workers <= 0 {
		o.Workers = runtime.GOMAXPROCS(0)
	}
	if o.Progress == nil {
		o.Progress = func(string, int64, int64) {}
	}
	o.By = cmp.Or(o.By, "wal check")
	if o.Now == nil {
		o.Now = time.Now
	}
	return o
}

// Check checks the archived WAL of a server. The error is set only when checking
// itself was impossible, or holes could not be recorded; what is wrong with the
// archive is in the report.
func Check(ctx context.Context, r *repo.Repository, o Options) (Report, error) {
	c := &checker{Options: o.withDefaults(), repo: r, known: map[string]bool{}, histories: map[pg.Timeline]pg.History{}, removed: map[pg.Timeline][]interval{}}
	c.report.Server, c.report.Deep = r.Server(), o.Deep
	for _, step := range []func(context.Context) error{c.identity, c.list, c.content, c.readHistories, c.paths, c.holes} {
		if err := step(ctx); err != nil {
			return Report{}, err
		}
	}
	c.count()
	return c.report, nil
}

type checker struct {
	Options
	repo      *repo.Repository
	size      pg.SegmentSize // 0 while there is no segment
	segments  []*segment     // by timeline and position
	known     map[string]bool
	histories map[pg.Timeline]pg.History // those that can be read, and timeline 1
	removed   map[pg.Timeline][]interval // that nothing needed
	report    Report

	mu   sync.Mutex // guards what the workers of content share
	done int64
}

func (c *checker) find(f Finding) { c.report.Findings = append(c.report.Findings, f) }

func (c *checker) identity(ctx context.Context) (err error) {
	c.report.System, err = c.repo.SystemIdentifier(ctx)
	return err
}

// count fills in what the report says about the archive as a whole.
func (c *checker) count() {
	c.report.SegmentSize = c.size
	for _, s := range c.segments {
		switch s.place {
		case stored:
			c.report.Segments++
		case received:
			c.report.Received++
		case partial:
			c.report.Partial++
		}
	}
	c.ranges()
	slices.SortStableFunc(c.report.Findings, func(a, b Finding) int {
		return cmp.Or(cmp.Compare(a.Timeline, b.Timeline), cmp.Compare(a.From, b.From), cmp.Compare(a.To, b.To))
	})
}

// ranges joins the segments of each timeline.
func (c *checker) ranges() {
	for _, s := range c.segments {
		n := len(c.report.Ranges)
		if s.end == s.start {
			continue // nothing has arrived in it
		}
		if n > 0 && c.report.Ranges[n-1].Timeline == s.tli && c.report.Ranges[n-1].To == s.start {
			c.report.Ranges[n-1].To = s.end
			c.report.Ranges[n-1].Segments++
			continue
		}
		c.report.Ranges = append(c.report.Ranges, Range{Timeline: s.tli, From: s.start, To: s.end, Segments: 1})
	}
}
