package config

import (
	"testing"
	"time"
)

func TestScheduleGrammar(t *testing.T) {
	t.Parallel()
	berlin, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Fatal(err)
	}
	s, err := parseSchedule(`full: "CRON_TZ=Europe/Berlin 30 2 * * 0", incremental:"0 1 * * 1-6" , verify: "@daily"`)
	if err != nil || len(s) != 3 {
		t.Fatal(s, err)
	}
	if again, err := parseSchedule(s.String()); err != nil || again.String() != s.String() {
		t.Errorf("%s comes back as %s, %v", s, again, err)
	}
	// 02:30 does not exist on 29 March 2026, and exists twice on 25 October.
	for _, tt := range []struct{ from, want string }{{"2026-03-28 12:00", "2026-03-29 03:00"}, {"2026-10-24 12:00", "2026-10-25 02:30"}} {
		from, _ := time.ParseInLocation("2006-01-02 15:04", tt.from, berlin)
		if got := s[0].Next(from).In(berlin).Format("2006-01-02 15:04"); got != tt.want {
			t.Errorf("after %s comes %s, want %s", tt.from, got, tt.want)
		}
	}
	for _, bad := range []string{"full", `full: 0 1 * * 0`, `full: "0 1 * *"`, `weekly: "@daily"`, `full: "@daily" verify: "@daily"`, `full: "TZ=UTC"`, `full: "0 25 * * *"`} {
		if s, err := parseSchedule(bad); err == nil {
			t.Errorf("%q is accepted as %s", bad, s)
		}
	}
}

func FuzzSchedule(f *testing.F) {
	f.Add(`full: "0 1 * * 0", incremental: "0 1 * * 1-6"`)
	f.Add(`full: "CRON_TZ=UTC"`)
	f.Add(`verify: "@every 1h"`)
	f.Add(`verify: "CRON_TZ=Europe/Berlin @daily"`)
	f.Fuzz(func(t *testing.T, text string) {
		s, err := parseSchedule(text)
		if err != nil {
			return
		}
		again, err := parseSchedule(s.String())
		if err != nil || again.String() != s.String() {
			t.Errorf("%q comes back as %q, %v", s, again, err)
		}
	})
}
