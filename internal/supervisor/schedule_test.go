package supervisor

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pgmoneta/pgmoneta-go/internal/config"
	"github.com/pgmoneta/pgmoneta-go/internal/durable"
	"github.com/pgmoneta/pgmoneta-go/internal/repo"
)

// scheduleOf reads a schedule from a configuration.
func scheduleOf(t *testing.T, text string) []config.Scheduled {
	t.Helper()
	dir := t.TempDir()
	path := filepath.Join(dir, "pgmoneta.conf")
	conf := "[pgmoneta]\nhost = localhost\nbase_dir = " + dir + "\nunix_socket_dir = " + dir + "\n[primary]\nhost = localhost\nport = 5432\nuser = repl\nwal_slot = repl\nschedule = " + text + "\n"
	if err := os.WriteFile(path, []byte(conf), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := config.Load(path)
	if err != nil {
		t.Fatal(err)
	}
	sc, _ := c.Server("primary")
	return sc.Schedule
}

// TestAYearOfSchedule lets a clock run through a year and both changes of its hour.
func TestAYearOfSchedule(t *testing.T) {
	t.Parallel()
	list := scheduleOf(t, `full: "CRON_TZ=Europe/Berlin 0 1 * * 0", incremental: "CRON_TZ=Europe/Berlin 0 1 * * 1-6"`)
	c := calendar{runs: map[string]*run{}}
	berlin, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Fatal(err)
	}
	begin := time.Date(2026, 1, 1, 12, 0, 0, 0, berlin)
	days := map[string]string{}
	for now := begin; now.Before(begin.AddDate(1, 0, 0)); now = now.Add(10 * time.Minute) {
		e, due := c.due("primary", list, 0, now)
		if !due {
			continue
		}
		day := now.In(berlin).Format("2006-01-02 Monday")
		if days[day] != "" {
			t.Errorf("%s after %s on %s", e.Job, days[day], day)
		}
		days[day] = e.Job
		if want := now.In(berlin).Weekday() == time.Sunday; want != (e.Job == "full") {
			t.Errorf("%s on %s", e.Job, day)
		}
		c.of(e, now).ended(now, now.Add(time.Minute), nil)
	}
	if len(days) != 365 {
		t.Errorf("%d days of 365", len(days))
	}
}

// TestAYearOfNights lets a clock run through a year in zones that move theirs at the hour
// of the schedule, and changes the zone of the configuration in between: each night has
// one backup, also those without that hour, and those that have it twice.
func TestAYearOfNights(t *testing.T) {
	t.Parallel()
	for _, zone := range []string{"Europe/Berlin", "America/Santiago", "Australia/Lord_Howe"} {
		text := map[string]string{"Europe/Berlin": "30 2 * * *", "America/Santiago": "15 0 * * *", "Australia/Lord_Howe": "15 2 * * *"}[zone]
		list := scheduleOf(t, `full: "CRON_TZ=`+zone+" "+text+`"`)
		c := calendar{runs: map[string]*run{}}
		begin := time.Date(2027, 7, 1, 12, 0, 0, 0, time.UTC)
		nights := map[string]int{}
		for now := begin; now.Before(begin.AddDate(1, 0, 0)); now = now.Add(5 * time.Minute) {
			e, due := c.due("primary", list, 0, now)
			if !due {
				continue
			}
			nights[now.UTC().Add(-12*time.Hour).Format("2006-01-02")]++ // noon to noon, which no zone here comes near
			c.of(e, now).ended(now, now.Add(time.Minute), nil)
		}
		once := 0
		for night, n := range nights {
			if n != 1 {
				t.Errorf("%s: %d backups in the night of %s", zone, n, night)
			}
			once++
		}
		if once != 366 {
			t.Errorf("%s: backups in %d nights of 366", zone, once)
		}
	}
}

func TestAnotherZoneInTheConfigurationBeginsAnew(t *testing.T) {
	t.Parallel()
	berlin, tokyo := scheduleOf(t, `full: "CRON_TZ=Europe/Berlin 0 1 * * *"`), scheduleOf(t, `full: "CRON_TZ=Asia/Tokyo 0 1 * * *"`)
	c := calendar{runs: map[string]*run{}}
	now := time.Date(2026, 11, 21, 0, 5, 0, 0, time.UTC) // five past one in Berlin
	c.know(berlin, now.Add(-time.Hour))
	e, due := c.due("primary", berlin, 0, now)
	if !due {
		t.Fatal("nothing is due in Berlin")
	}
	c.of(e, now).ended(now, now.Add(time.Minute), nil)
	now = now.Add(10 * time.Minute)
	if _, due := c.due("primary", tokyo, 0, now); due {
		t.Error("the other zone makes something due at once")
	}
	runs := 0
	for end := now.AddDate(0, 0, 7); now.Before(end); now = now.Add(5 * time.Minute) {
		if e, due := c.due("primary", tokyo, 0, now); due {
			c.of(e, now).ended(now, now.Add(time.Minute), nil)
			runs++
		}
	}
	if runs != 7 {
		t.Errorf("%d runs in a week", runs)
	}
}

// TestScheduleWhenTheClockJumps has a clock that comes up in 1970 and is set right, and
// one that goes to the future and back: a run is done once each time it is right, and
// never one after the other.
func TestScheduleWhenTheClockJumps(t *testing.T) {
	t.Parallel()
	list := scheduleOf(t, `full: "CRON_TZ=UTC 0 1 * * *"`)
	now := time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
	c := calendar{runs: map[string]*run{}}
	c.know(list, now)
	runs := func(from time.Time, hours int) (n int) {
		for at := from; at.Before(from.Add(time.Duration(hours) * time.Hour)); at = at.Add(5 * time.Minute) {
			if e, due := c.due("primary", list, 0, at); due {
				c.of(e, at).ended(at, at.Add(time.Minute), nil)
				n++
			}
		}
		return n
	}
	for _, step := range []struct {
		what  string
		from  time.Time
		hours int
		want  int
	}{
		{"right", now, 48, 2},
		{"1970", time.Unix(0, 0), 48, 2},
		{"right again: what was missed is done once", now.AddDate(0, 0, 2), 48, 3},
		{"ten years later", now.AddDate(10, 0, 4), 24, 2},
		{"back", now.AddDate(0, 0, 4), 48, 2},
	} {
		if got := runs(step.from, step.hours); got != step.want {
			t.Errorf("%s: %d runs in %d hours, want %d", step.what, got, step.hours, step.want)
		}
	}
}

func TestMissedRunsAreDoneOnce(t *testing.T) {
	t.Parallel()
	list := scheduleOf(t, `full: "@hourly"`)
	path := filepath.Join(t.TempDir(), calendarFile)
	now := time.Date(2026, 11, 21, 12, 30, 0, 0, time.UTC)
	var c calendar
	if err := c.load(path); err != nil {
		t.Fatal(err)
	}
	c.know(list, now)
	if err := c.save(path); err != nil {
		t.Fatal(err)
	}
	now = now.Add(10 * time.Hour) // the daemon was down
	c = calendar{}
	if err := c.load(path); err != nil {
		t.Fatal(err)
	}
	for n := range 3 {
		e, due := c.due("primary", list, 0, now)
		if due != (n == 0) {
			t.Errorf("look %d: due %v", n, due)
		}
		if due {
			c.of(e, now).ended(now, now, nil)
		}
	}
	if _, due := c.due("primary", list, 0, now.AddDate(-50, 0, 0)); due {
		t.Error("a clock that is set back makes something due")
	}
	if _, due := c.due("primary", list, 0, now.AddDate(-50, 0, 0).Add(time.Hour)); !due {
		t.Error("nothing is due any more after the clock was set back")
	}
}

// TestDaemonThatIsStartedOftenComesToItsSchedule starts it again more often than what it is
// to do every hour is due for the first time.
func TestDaemonThatIsStartedOftenComesToItsSchedule(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	conf := "[pgmoneta]\nhost = localhost\nbase_dir = " + dir + "\nunix_socket_dir = " + dir + "\nverification = 1h\n" +
		"[primary]\nhost = localhost\nport = 5432\nuser = repl\nwal_slot = repl\n"
	c, err := config.ParseBytes("pgmoneta.conf", []byte(conf), os.LookupEnv)
	if err != nil {
		t.Fatal(err)
	}
	r, err := repo.Open(durable.OS{}, dir, "primary")
	if err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		var v *server
		for range 3 {
			s := &Supervisor{}
			s.config.Store(c)
			v = &server{name: "primary", repo: r, log: slog.New(slog.DiscardHandler)}
			ctx, cancel := context.WithTimeout(t.Context(), 25*time.Minute)
			s.keepSchedule(ctx, v)
			cancel()
		}
		e := config.Every("verify", time.Hour)
		// There is no backup to verify, which is said each time it is tried.
		if run := v.calendar.runs[line(e)]; run == nil || run.Failures == 0 {
			t.Errorf("nothing was done in %s: %+v", time.Since(began), run)
		}
	})
}

func TestFailedRunsAreRepeatedLaterAndLater(t *testing.T) {
	t.Parallel()
	e := scheduleOf(t, `full: "@yearly"`)[0]
	now := time.Date(2026, 11, 21, 12, 30, 0, 0, time.UTC)
	r := &run{Until: now}
	var delays []time.Duration
	for range 8 {
		r.ended(now, now, errors.New("refused"))
		delays = append(delays, r.next(e, 0).Sub(now))
		now = r.next(e, 0)
	}
	if delays[0] != time.Minute || delays[1] != 2*time.Minute || delays[7] != time.Hour {
		t.Errorf("repeated after %v", delays)
	}
	if r.ended(now, now, nil); r.next(e, 0).Year() != 2027 {
		t.Errorf("after success: %v", r.next(e, 0))
	}
}

func TestJitterSpreads(t *testing.T) {
	t.Parallel()
	e := scheduleOf(t, `full: "@daily"`)[0]
	a, b := jitter("a", e, time.Hour), jitter("b", e, time.Hour)
	if a == b || a >= time.Hour || b >= time.Hour || a != jitter("a", e, time.Hour) || jitter("a", e, 0) != 0 {
		t.Errorf("a %s, b %s", a, b)
	}
}

func TestWhenABackupIsDue(t *testing.T) {
	t.Parallel()
	weekly := `full: "CRON_TZ=UTC 0 1 * * 0", incremental: "CRON_TZ=UTC 0 1 * * 1-6", verify: "@hourly"`
	for _, tt := range []struct {
		schedule string
		most     time.Duration
		last     string
		want     string // empty for never
	}{
		{weekly, 0, "2026-11-20T01:00:02Z", "2026-11-21T01:00:00Z"},
		{weekly, 0, "2026-11-20T00:59:00Z", "2026-11-20T01:00:00Z"}, // taken by hand
		{`full: "CRON_TZ=UTC 0 1 * * 0"`, 0, "2026-11-15T01:00:02Z", "2026-11-22T01:00:00Z"},
		{`full: "@every 6h"`, 0, "2026-11-15T01:00:00Z", "2026-11-15T07:00:00Z"},
		{`verify: "@hourly"`, 0, "2026-11-15T01:00:00Z", ""},
	} {
		last, err := time.Parse(time.RFC3339, tt.last)
		if err != nil {
			t.Fatal(err)
		}
		got := ""
		if due := backupDue("primary", scheduleOf(t, tt.schedule), tt.most, last); !due.IsZero() {
			got = due.UTC().Format(time.RFC3339)
		}
		if got != tt.want {
			t.Errorf("%s, after %s: %s, want %s", tt.schedule, tt.last, got, tt.want)
		}
	}
	list := scheduleOf(t, `full: "CRON_TZ=UTC 0 1 * * *"`)
	late := jitter("primary", list[0], time.Hour)
	first := time.Date(2026, 11, 20, 1, 0, 0, 0, time.UTC).Add(late)
	if due := backupDue("primary", list, time.Hour, first.Add(time.Second)); !due.Equal(first.AddDate(0, 0, 1)) {
		t.Errorf("after one at %s, which is %s later by the jitter: %s", first, late, due)
	}
}
