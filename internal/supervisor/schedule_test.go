package supervisor

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/pgmoneta/pgmoneta-go/internal/config"
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

func TestMissedRunsAreDoneOnce(t *testing.T) {
	t.Parallel()
	list := scheduleOf(t, `full: "@hourly"`)
	path := filepath.Join(t.TempDir(), calendarFile)
	now := time.Date(2026, 11, 21, 12, 30, 0, 0, time.UTC)
	var c calendar
	if err := c.load(path); err != nil {
		t.Fatal(err)
	}
	c.know(list[0], now)
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
