package config

import (
	"strings"
	"testing"
	"time"
)

// TestScheduleWhenTheClockIsMoved has times that a change of the clock leaves out, or
// that come twice, in zones that do it in different ways.
func TestScheduleWhenTheClockIsMoved(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, zone, times string
		from              string // in UTC
		want              string // in UTC, the next ones
	}{
		{"in the gap: the first moment after it", "Europe/Berlin", "30 2 * * *", "2026-03-28T00:00:00Z", "03-28T01:30 03-29T01:00 03-30T00:30"},
		{"in the hour that comes twice: once", "Europe/Berlin", "30 2 * * *", "2026-10-24T00:00:00Z", "10-24T00:30 10-25T00:30 10-26T01:30"},
		{"from its second time on: the next day", "Europe/Berlin", "30 2 * * *", "2026-10-25T01:10:00Z", "10-26T01:30 10-27T01:30"},
		{"two in the gap are done once, with the one behind it", "Europe/Berlin", "0,30 2,3 * * *", "2026-03-29T00:00:00Z", "03-29T01:00 03-29T01:30 03-30T00:00"},
		{"once a week, in the gap", "Europe/Berlin", "15 2 * * 0", "2026-03-23T00:00:00Z", "03-29T01:00 04-05T00:15"},
		{"every hour goes by elapsed time, forward", "Europe/Berlin", "30 * * * *", "2026-03-29T00:00:00Z", "03-29T00:30 03-29T01:30 03-29T02:30"},
		{"every hour goes by elapsed time, back", "Europe/Berlin", "30 * * * *", "2026-10-25T00:00:00Z", "10-25T00:30 10-25T01:30 10-25T02:30"},
		{"New York forward", "America/New_York", "0 2 * * *", "2026-03-07T12:00:00Z", "03-08T07:00 03-09T06:00"},
		{"New York back", "America/New_York", "59 1 * * *", "2026-10-31T12:00:00Z", "11-01T05:59 11-02T06:59"},
		{"midnight does not exist", "America/Santiago", "0 0 * * *", "2026-09-05T12:00:00Z", "09-06T04:00 09-07T03:00"},
		{"half an hour", "Australia/Lord_Howe", "15 2 * * *", "2026-10-03T00:00:00Z", "10-03T15:30 10-04T15:15"},
		{"a whole day is left out", "Pacific/Apia", "0 12 * * *", "2011-12-29T00:00:00Z", "12-29T22:00 12-30T10:00 12-30T22:00"},
		{"leap day", "Europe/Berlin", "0 1 29 2 *", "2026-01-01T00:00:00Z", "02-29T00:00"},
		{"never", "Europe/Berlin", "0 1 30 2 *", "2026-01-01T00:00:00Z", ""},
	} {
		times, err := parseTimes("CRON_TZ=" + tt.zone + " " + tt.times)
		if err != nil {
			t.Fatal(err)
		}
		at, err := time.Parse(time.RFC3339, tt.from)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for range strings.Fields(tt.want) {
			at = times.Next(at)
			got = append(got, at.UTC().Format("01-02T15:04"))
		}
		if tt.want == "" && !times.Next(at).IsZero() {
			t.Errorf("%s: %s", tt.name, times.Next(at))
		}
		if strings.Join(got, " ") != tt.want {
			t.Errorf("%s: %v, want %s", tt.name, got, tt.want)
		}
	}
}

// TestEveryTimeOfAScheduleIsDoneOnce counts the days of a year on which a time comes, in
// zones whose clocks are moved at that time.
func TestEveryTimeOfAScheduleIsDoneOnce(t *testing.T) {
	t.Parallel()
	for _, zone := range []string{"UTC", "Europe/Berlin", "America/New_York", "America/Santiago", "Australia/Lord_Howe", "Africa/Cairo", "America/Havana"} {
		for _, text := range []string{"0 0 * * *", "30 0 * * *", "0 1 * * *", "30 1 * * *", "0 2 * * *", "10 2 * * *", "30 2 * * *", "0 3 * * *", "59 23 * * *"} {
			times, err := parseTimes("CRON_TZ=" + zone + " " + text)
			if err != nil {
				t.Fatal(err)
			}
			begin := time.Date(2027, 7, 1, 10, 0, 0, 0, time.UTC)
			last, n := begin, 0
			for at := times.Next(begin); at.Before(begin.AddDate(1, 0, 0)); at = times.Next(at) {
				if gap := at.Sub(last); n > 0 && (gap < 22*time.Hour || gap > 26*time.Hour) {
					t.Errorf("%s %s: %s after %s", zone, text, at, last)
				}
				last = at
				n++
			}
			if n != 366 { // there is a leap day in it
				t.Errorf("%s %s: %d times a year", zone, text, n)
			}
		}
	}
}
