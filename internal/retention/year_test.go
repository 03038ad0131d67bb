package retention

import (
	"slices"
	"testing"
	"time"

	"github.com/pgmoneta/pgmoneta-go/internal/repo"
)

// TestAYearOfRetention takes a backup every night of two years, one of them with a leap
// day, in zones whose clocks are moved at different hours, lets the retention run every
// day, and compares what is left with the dates of a calendar without hours.
func TestAYearOfRetention(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"UTC", "Europe/Berlin", "America/New_York", "America/Santiago", "Africa/Cairo", "Australia/Lord_Howe", "Pacific/Auckland"} {
		zone, err := time.LoadLocation(name)
		if err != nil {
			t.Fatal(err)
		}
		p := Policy{Days: 3, Weeks: 4, Months: 6, Years: 2, Window: 24 * time.Hour, Zone: zone}
		have := map[repo.Label]Backup{}
		date := map[repo.Label]time.Time{} // on a calendar without hours
		var want []string                  // dates; what is gone does not come back
		for day := time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC); day.Year() < 2029; day = day.AddDate(0, 0, 1) {
			b := at(time.Date(day.Year(), day.Month(), day.Day(), 4, 0, 0, 0, zone))
			have[b.Label], date[b.Label] = b, day
			now := time.Date(day.Year(), day.Month(), day.Day(), 5, 30, 0, 0, zone)
			c := Catalogue{}
			for _, b := range have {
				c.Backups = append(c.Backups, b)
			}
			plan := Decide(c, p, now)
			if len(plan.Refused) > 0 {
				t.Fatalf("%s, %s: refused %v", name, day, plan.Refused)
			}
			for _, l := range plan.Delete() {
				delete(have, l)
			}
			var got []string
			for l := range have {
				got = append(got, date[l].Format("2006-01-02"))
			}
			slices.Sort(got)
			keep := wanted(day)
			want = slices.DeleteFunc(append(want, day.Format("2006-01-02")), func(d string) bool { return !keep[d] })
			if !slices.Equal(got, want) {
				t.Fatalf("%s, %s: left are %v, want %v", name, day.Format("2006-01-02"), got, want)
			}
		}
	}
}

// wanted are the dates that the policy of TestAYearOfRetention keeps. Days are looked at
// an hour and a half after the backup: the third night ago is more than three times 24 hours ago. A
// change of the clock in between does not reach over that.
func wanted(day time.Time) map[string]bool {
	dates := map[string]bool{}
	add := func(d time.Time) {
		if d.Year() >= 2027 {
			dates[d.Format("2006-01-02")] = true
		}
	}
	for i := range 3 {
		add(day.AddDate(0, 0, -i))
	}
	monday := day.AddDate(0, 0, -(int(day.Weekday())+6)%7)
	for _, weeks := range []int{0, 1, 3, 6} {
		d := monday.AddDate(0, 0, -7*weeks)
		add(d)
	}
	for i := range 6 {
		add(time.Date(day.Year(), day.Month()-time.Month(i), 1, 0, 0, 0, 0, time.UTC))
	}
	for i := range 2 {
		add(time.Date(day.Year()-i, 1, 1, 0, 0, 0, 0, time.UTC))
	}
	return dates
}

// TestClockThatJumps lets the clock of a server jump while backups go on being taken, and
// come back: nothing is lost that the policy keeps by the right clock, and each time
// somebody is told.
func TestClockThatJumps(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
	daily := days(time.UTC, now.AddDate(0, 0, -30), now)
	p := Policy{Days: 7, Window: 48 * time.Hour}
	for name, jump := range map[string]time.Time{
		"1970":               time.Unix(3600, 0),
		"a year back":        now.AddDate(-1, 0, 0),
		"an hour back":       now.Add(-13 * time.Hour),
		"ten days forward":   now.AddDate(0, 0, 10),
		"ten years forward":  now.AddDate(10, 0, 0),
		"2038 and one month": time.Date(2038, 2, 19, 0, 0, 0, 0, time.UTC),
	} {
		c := Catalogue{Backups: daily, Segments: segments(1, daily[0].Start, position(now))}
		plan := Decide(c, p, jump)
		if len(plan.Delete()) > 0 || len(plan.WAL) > 0 || plan.WALKept == "" {
			t.Errorf("%s: %v and %d segments go", name, plan.Delete(), len(plan.WAL))
		}
		if jump.After(now) && len(plan.Refused) == 0 {
			t.Errorf("%s: nobody is told", name)
		}
		// A backup is taken by the wrong clock; labels ascend all the same.
		wrong := at(jump)
		wrong.Label = repo.NewLabel(jump, daily[len(daily)-1].Label)
		wrong.Start, wrong.End = position(now), position(now)+300
		c.Backups = append(slices.Clone(daily), wrong)
		// And then the clock is right again.
		for _, clock := range []time.Time{jump.Add(time.Minute), now.Add(time.Hour)} {
			plan = Decide(c, p, clock)
			for _, l := range plan.Delete() {
				if l.Time().After(now.AddDate(0, 0, -7)) && l != wrong.Label {
					t.Errorf("%s, after a backup, at %s: %s goes", name, clock, l)
				}
			}
			for _, s := range plan.WAL {
				if s.To > position(now.Add(-p.Window)) {
					t.Errorf("%s, after a backup, at %s: %s goes", name, clock, s.Name)
					break
				}
			}
		}
	}
}
