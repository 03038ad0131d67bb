package config

import (
	"time"

	"github.com/robfig/cron/v3"
)

// A wallClock is a schedule of hours on a clock on the wall, whose hands are moved twice
// a year. The library leaves out what lies in an hour that is left out, and does twice
// what lies in one that comes twice. Here every time of the schedule is done once: one
// that does not exist at the first moment after the gap, one that comes twice the first
// time.
type wallClock struct {
	spec *cron.SpecSchedule
	zone *time.Location
}

// everyHour reports whether a schedule has all hours of a day: that one goes by elapsed
// time, in the hour that comes twice too.
func everyHour(spec *cron.SpecSchedule) bool {
	const hours = 1<<24 - 1
	return spec.Hour&hours == hours
}

// Next implements [cron.Schedule].
func (w wallClock) Next(t time.Time) time.Time {
	// The library counts on a clock whose hands are never moved.
	spec := *w.spec
	spec.Location = time.UTC
	for wall := face(t.In(w.zone)); ; {
		if wall = spec.Next(wall); wall.IsZero() {
			return time.Time{}
		}
		// One from the first of two equal hours may be behind t.
		if at := moment(wall, w.zone); at.After(t) {
			return at
		}
	}
}

// face returns what the clock shows, as a time in UTC.
func face(t time.Time) time.Time {
	return time.Date(t.Year(), t.Month(), t.Day(), t.Hour(), t.Minute(), t.Second(), t.Nanosecond(), time.UTC)
}

// moment returns when the clock of a zone shows a time first, or when it passes it over.
func moment(wall time.Time, zone *time.Location) time.Time {
	t := time.Date(wall.Year(), wall.Month(), wall.Day(), wall.Hour(), wall.Minute(), wall.Second(), wall.Nanosecond(), zone)
	begin, end := t.ZoneBounds()
	switch shown := face(t); {
	case shown.After(wall): // the gap is before t
		return begin
	case shown.Before(wall):
		return end
	}
	if begin.IsZero() {
		return t
	}
	_, now := t.Zone()
	_, before := begin.Add(-time.Second).Zone()
	if first := t.Add(time.Duration(now-before) * time.Second); first.Before(begin) && face(first.In(zone)).Equal(wall) {
		return first
	}
	return t
}
