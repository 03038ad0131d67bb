package retention

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/pgmoneta/pgmoneta-go/internal/pg"
	"github.com/pgmoneta/pgmoneta-go/internal/repo"
)

// A Policy says what is kept. Backups stay that any of its rules keeps.
type Policy struct {
	Days   int // all of the last Days times 24 hours
	Weeks  int // see Policy.weeks
	Months int // the newest of the 1st of each of the last Months months
	Years  int // the newest of 1 January of each of the last Years years
	Count  int // the newest Count
	Min    int // the newest Min valid ones; at least 1

	Window time.Duration  // every moment of it stays reachable; 0 = from the oldest backup that Days keeps
	WALAll bool           // keep all WAL from the oldest backup on
	Delay  time.Duration  // how long a deleted backup waits in the trash; 0 = it goes at once
	Zone   *time.Location // of days, weeks, months and years; nil for UTC
}

// A Backup is what is known about a backup.
type Backup struct {
	Label   repo.Label
	Base    repo.Label // of an incremental one
	Foreign bool       // an incremental one needs its base
	Known   bool       // what it needs is known
	Valid   bool       // it can be restored from; implies Known
	Kept    string     // why it is not to be deleted whatever the policy says; empty for no reason

	At       time.Time // when it began
	Stopped  time.Time // when it had ended, the first moment that can be restored
	Start    pg.LSN
	End      pg.LSN
	StartTLI pg.Timeline
	EndTLI   pg.Timeline
}

// A Range is a part of a timeline.
type Range struct {
	Timeline pg.Timeline
	From, To pg.LSN
}

// A Segment is a stored segment of WAL.
type Segment struct {
	Name string
	Range
	Fixed bool // it is not in the store, and never to be deleted
}

// A Trashed is a backup in the trash.
type Trashed struct {
	Backup
	DeletedAt time.Time // zero when that is not known
}

// A Catalogue is what there is of a server.
type Catalogue struct {
	Backups   []Backup
	Trash     []Trashed
	Histories map[pg.Timeline]pg.History // of timelines after the first
	Missing   []Range                    // WAL that is known to be missing or damaged
	Segments  []Segment                  // that are there; between them WAL is missing too

	SegmentSize pg.SegmentSize

	Unshipped bool   // copies of segments are made ...
	Shipped   pg.LSN // ... and were made up to here
}

// A Decision is what becomes of a backup, and why.
type Decision struct {
	Label   repo.Label
	Keep    bool
	Reasons []string
}

// A Waiting is what becomes of a backup in the trash.
type Waiting struct {
	Label     repo.Label
	DeletedAt time.Time // zero when that is not known
	Until     time.Time // from here on it may go; zero when that is not known
	Purge     bool      // it goes now
}

// A Window is the time that can be restored to without a gap up to now.
type Window struct {
	From   time.Time // zero when there is no valid backup
	Backup repo.Label
}

// A Plan is a decision about everything.
type Plan struct {
	Decisions     []Decision // by label
	Trash         []Waiting  // by label
	WAL           []Segment  // to delete, in the order in which to delete them
	WALKept       string     // why no WAL is deleted at all; empty if it is only needed
	Refused       []string   // deletions that the policy wanted and that must not be
	Before, After Window
}

// Delete returns the labels of the backups to delete, oldest first.
func (p *Plan) Delete() []repo.Label {
	var labels []repo.Label
	for _, d := range p.Decisions {
		if !d.Keep {
			labels = append(labels, d.Label)
		}
	}
	return labels
}

// Purge returns the labels of the backups in the trash that go for good, oldest first.
func (p *Plan) Purge() []repo.Label {
	var labels []repo.Label
	for _, w := range p.Trash {
		if w.Purge {
			labels = append(labels, w.Label)
		}
	}
	return labels
}

// newDecider prepares decisions about a catalogue.
func newDecider(c Catalogue, p Policy, now time.Time) *decider {
	d := &decider{Catalogue: c, Policy: p, now: now, reasons: map[repo.Label][]string{}}
	d.Min = max(d.Min, 1)
	if d.Zone == nil {
		d.Zone = time.UTC
	}
	d.Trash = slices.SortedFunc(slices.Values(c.Trash), func(a, b Trashed) int { return cmp.Compare(a.Label, b.Label) })
	d.Backups = slices.SortedFunc(slices.Values(c.Backups), func(a, b Backup) int { return cmp.Compare(a.Label, b.Label) })
	d.Segments = slices.SortedFunc(slices.Values(c.Segments), func(a, b Segment) int {
		return cmp.Or(cmp.Compare(a.Timeline, b.Timeline), cmp.Compare(a.From, b.From))
	})
	d.Missing = slices.Concat(c.Missing, d.absent())
	d.branches()
	return d
}

// Decide makes a plan.
func Decide(c Catalogue, p Policy, now time.Time) Plan {
	d := newDecider(c, p, now)
	for _, rule := range []func(){d.kept, d.days, d.weeks, d.months, d.years, d.count, d.least, d.window, d.bases} {
		rule()
	}
	return d.plan()
}

type decider struct {
	Catalogue
	Policy
	now     time.Time
	reasons map[repo.Label][]string // why backups stay
	split   []branch
}

func (d *decider) keep(b Backup, format string, args ...any) {
	d.reasons[b.Label] = append(d.reasons[b.Label], fmt.Sprintf(format, args...))
}

func (d *decider) stays(b Backup) bool { return len(d.reasons[b.Label]) > 0 }

func (d *decider) plan() Plan {
	plan := Plan{}
	gone := slices.ContainsFunc(d.Backups, func(b Backup) bool { return !d.stays(b) })
	held := ""
	for _, why := range []func() string{d.unreadable, d.implausible, d.broken} {
		if held == "" {
			held = why()
		}
	}
	if held != "" {
		plan.WALKept = held
		if gone {
			plan.Refused = append(plan.Refused, held)
		}
		for _, b := range d.Backups {
			if !d.stays(b) {
				d.keep(b, "refused: %s", held)
			}
		}
	}
	for _, b := range d.Backups {
		why := d.reasons[b.Label]
		if len(why) == 0 {
			plan.Decisions = append(plan.Decisions, Decision{b.Label, false, []string{"no rule keeps it"}})
			continue
		}
		plan.Decisions = append(plan.Decisions, Decision{b.Label, true, why})
	}
	plan.Trash = d.waiting(held != "")
	if held != "" && slices.ContainsFunc(d.waiting(false), func(w Waiting) bool { return w.Purge }) && len(plan.Refused) == 0 {
		plan.Refused = append(plan.Refused, held)
	}
	if held == "" {
		plan.WAL = d.wal(plan.Trash)
	}
	plan.Before = d.reach(d.Segments, func(Backup) bool { return true })
	plan.After = d.reach(without(d.Segments, plan.WAL), d.stays)
	return plan
}

// valid returns the valid backups.
func (d *decider) valid() []Backup {
	var list []Backup
	for _, b := range d.Backups {
		if b.Valid {
			list = append(list, b)
		}
	}
	return list
}
