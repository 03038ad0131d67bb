package retention

import (
	"fmt"
	"time"
)

// clockSlack is by how much a clock may have been set back.
const clockSlack = 5 * time.Minute

// unreadable says which backup may need anything, packs of others and WAL; empty if none.
func (d *decider) unreadable() string {
	for _, b := range d.Backups {
		if !b.Known && !b.Foreign {
			return fmt.Sprintf("backup %s cannot be read, and so it is not known what it needs: delete it if it is lost", b.Label)
		}
	}
	for _, b := range d.Trash {
		if !b.Known && !b.Foreign {
			return fmt.Sprintf("backup %s in the trash cannot be read, and so it is not known what it needs: delete it with --force if it is lost", b.Label)
		}
	}
	return ""
}

// implausible says why the clock, or that of a backup, cannot be right; empty if it may.
// Whoever decides by a wrong clock deletes everything.
func (d *decider) implausible() string {
	valid := d.valid()
	if len(valid) == 0 {
		return "there is no valid backup"
	}
	newest := valid[len(valid)-1]
	if d.now.Before(newest.At.Add(-clockSlack)) {
		return fmt.Sprintf("the clock says %s, and backup %s began after that: set the clock right, or delete that backup", stamp(d.now), newest.Label)
	}
	gap, longest := gaps(valid)
	days := time.Duration(d.Days) * 24 * time.Hour
	if age := d.now.Sub(newest.At); age > max(days, 2*longest) {
		return fmt.Sprintf("the newest valid backup %s is %s old: take a backup, or set the clock right", newest.Label, age.Round(time.Minute))
	}
	if len(valid) > 2 && gap > max(days, 4*longest) {
		return fmt.Sprintf("backup %s is the first after %s: nothing is deleted before another one follows, because its clock may have been wrong", newest.Label, gap.Round(time.Minute))
	}
	return ""
}

// gaps returns the time between the two newest backups, and the longest between others
// that follow each other, or between those two if there are no others.
func gaps(valid []Backup) (newest, longest time.Duration) {
	for i := 1; i < len(valid); i++ {
		newest = valid[i].At.Sub(valid[i-1].At)
		if i < len(valid)-1 || len(valid) == 2 {
			longest = max(longest, newest)
		}
	}
	return newest, longest
}

func stamp(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05Z07:00") }

// broken says which promise the decisions would break; empty if none. It looks at what
// would be left and not at how the rules came to it.
func (d *decider) broken() string {
	have := len(d.valid())
	left := 0
	for _, b := range d.valid() {
		if d.stays(b) {
			left++
		}
	}
	if left < min(have, d.Min) {
		return fmt.Sprintf("%d of %d valid backups would be left, retention_min is %d", left, have, d.Min)
	}
	for _, g := range d.split {
		if moment, lost := d.loses(g); lost {
			return fmt.Sprintf("moments from %s on could not be restored any more", stamp(moment))
		}
	}
	return ""
}

// loses reports whether a branch reaches a moment of the window, and what is left of it
// does not; and from which moment on.
func (d *decider) loses(g branch) (time.Time, bool) {
	from := maxTime(d.begin(), g.since[0])
	if !g.until.IsZero() && !g.until.After(from) {
		return time.Time{}, false
	}
	for i, b := range g.backups {
		if d.stays(b) && !g.since[i].After(from) {
			return time.Time{}, false
		}
	}
	return from, true
}
