package retention

import (
	"slices"
	"strings"
	"time"

	"github.com/pgmoneta/pgmoneta-go/internal/repo"
)

// kept keeps what somebody asked to keep, and what cannot be judged.
func (d *decider) kept() {
	for _, b := range d.Backups {
		if b.Kept != "" {
			d.keep(b, "%s", b.Kept)
		}
		if !b.Known && !b.Foreign {
			d.keep(b, "it cannot be read")
		}
	}
}

func (d *decider) days() {
	for _, b := range d.Backups {
		if d.Days > 0 && !b.At.Before(d.daysAgo()) {
			d.keep(b, "days: it is not older than %d", d.Days)
		}
	}
}

// daysAgo is the beginning of what Days keeps: hours, not dates of a calendar.
func (d *decider) daysAgo() time.Time { return d.now.Add(-time.Duration(d.Days) * 24 * time.Hour) }

// weeks keeps the newest backup of one Monday for each week: of the Monday of this week,
// and then, for j = 1, 2, ..., of the Monday j weeks before the last, which makes 0, 1,
// 3, 6, 10, ... weeks back, as in pgmoneta 0.22.
func (d *decider) weeks() {
	back := 0
	now := d.now.In(d.Zone)
	sinceMonday := (int(now.Weekday()) + 6) % 7
	for j := range d.Weeks {
		back += j
		// At noon: there are days without a midnight.
		d.newestOf(time.Date(now.Year(), now.Month(), now.Day()-sinceMonday-7*back, 12, 0, 0, 0, d.Zone), "weeks")
	}
}

func (d *decider) months() {
	now := d.now.In(d.Zone)
	for j := range d.Months {
		d.newestOf(time.Date(now.Year(), now.Month()-time.Month(j), 1, 12, 0, 0, 0, d.Zone), "months")
	}
}

func (d *decider) years() {
	now := d.now.In(d.Zone)
	for j := range d.Years {
		d.newestOf(time.Date(now.Year()-j, time.January, 1, 12, 0, 0, 0, d.Zone), "years")
	}
}

// newestOf keeps the newest backup of a date. One that is valid goes before others.
func (d *decider) newestOf(day time.Time, rule string) {
	var of []Backup
	for _, b := range d.Backups {
		y, m, n := b.At.In(d.Zone).Date()
		if wy, wm, wn := day.Date(); y == wy && m == wm && n == wn {
			of = append(of, b)
		}
	}
	if valid := slices.DeleteFunc(slices.Clone(of), func(b Backup) bool { return !b.Valid }); len(valid) > 0 {
		of = valid
	}
	if len(of) > 0 {
		d.keep(of[len(of)-1], "%s: the newest of %s", rule, day.Format("Monday 2006-01-02"))
	}
}

func (d *decider) count() {
	for _, b := range d.Backups[max(len(d.Backups)-max(d.Count, 0), 0):] {
		d.keep(b, "retention_count: one of the newest %d", d.Count)
	}
}

func (d *decider) least() {
	valid := d.valid()
	for _, b := range valid[max(len(valid)-d.Min, 0):] {
		d.keep(b, "retention_min: one of the newest %d that are valid", d.Min)
	}
}

// window keeps what the window is reached from, and what lies in it: without those the
// window would be reached from the same old backup for ever, and no WAL could go.
func (d *decider) window() {
	for _, g := range d.split {
		b, ok := g.base(d.begin())
		if !ok {
			continue
		}
		if !slices.ContainsFunc(d.reasons[b.Label], isWindow) {
			d.keep(b, "%s: moments after it are reached from it", windowRule)
		}
		for i, b := range g.backups {
			if d.Window > 0 && g.since[i].After(d.begin()) && !slices.ContainsFunc(d.reasons[b.Label], isWindow) {
				d.keep(b, "%s: it lies in it", windowRule)
			}
		}
	}
}

const windowRule = "recovery_window"

func isWindow(reason string) bool { return strings.HasPrefix(reason, windowRule) }

// begin is the beginning of the window.
func (d *decider) begin() time.Time { return d.now.Add(-d.Window) }

// bases keeps the bases of foreign backups, which need them. One may have a later label than what
// needs it: those are local time.
func (d *decider) bases() {
	bases, seen := map[repo.Label]Backup{}, map[repo.Label]bool{}
	for _, b := range d.Backups {
		bases[b.Label] = b
	}
	for _, b := range slices.Backward(d.Backups) {
		for ok := d.stays(b); ok && b.Foreign && b.Base != "" && !seen[b.Base]; {
			by := b.Label
			seen[b.Base] = true
			if b, ok = bases[b.Base]; ok {
				d.keep(b, "backup %s needs it", by)
			}
		}
	}
}
