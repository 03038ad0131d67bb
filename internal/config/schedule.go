package config

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/robfig/cron/v3"
)

// A Schedule says when the daemon does what by itself.
type Schedule []Scheduled

// A Scheduled is one job of a schedule.
type Scheduled struct {
	Job  string // full, incremental, verify, rehearse or walcheck
	Text string // as written

	times cron.Schedule
}

// Next returns the first time after t at which the job is due, zero for never.
func (s Scheduled) Next(t time.Time) time.Time { return s.times.Next(t) }

// String returns the schedule in the form of the file.
func (s Schedule) String() string {
	words := make([]string, len(s))
	for i, e := range s {
		words[i] = fmt.Sprintf("%s: %q", e.Job, e.Text)
	}
	return strings.Join(words, ", ")
}

// Every returns the job that is due again some time after it was done.
func Every(job string, interval time.Duration) Scheduled {
	return Scheduled{Job: job, Text: "@every " + interval.String(), times: cron.Every(interval)}
}

// ScheduledJobs lists the words for jobs.
func ScheduledJobs() []string {
	return []string{"full", "incremental", "verify", "rehearse", "walcheck"}
}

// parseSchedule reads a list such as
//
//	full: "0 1 * * 0", incremental: "0 1 * * 1-6", verify: "CRON_TZ=UTC @daily"
//
// of jobs with the five fields of cron, or its words @hourly, @daily, @weekly, @monthly, @yearly and @every.
func parseSchedule(value string) (Schedule, error) {
	const form = `a schedule is a list such as full: "0 1 * * 0", incremental: "0 1 * * 1-6"`
	var list Schedule
	for rest := strings.TrimSpace(value); rest != ""; {
		job, after, ok := strings.Cut(rest, ":")
		job, after = strings.TrimSpace(job), strings.TrimSpace(after)
		if !ok || !strings.HasPrefix(after, `"`) {
			return nil, errors.New(form)
		}
		text, after, _ := strings.Cut(after[1:], `"`) // the file loses a quote at the end of its line
		if !slices.Contains(ScheduledJobs(), job) {
			return nil, fmt.Errorf("unknown job %q; accepted are %s", job, strings.Join(ScheduledJobs(), ", "))
		}
		times, err := parseTimes(text)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", job, err)
		}
		list = append(list, Scheduled{job, text, times})
		rest = strings.TrimSpace(after)
		if rest == "" {
			break
		}
		if rest, ok = strings.CutPrefix(rest, ","); !ok {
			return nil, errors.New(form)
		}
		rest = strings.TrimSpace(rest)
	}
	return list, nil
}

func parseTimes(text string) (times cron.Schedule, err error) {
	// The library panics for a zone without anything after it.
	zone, fields, _ := strings.Cut(strings.TrimSpace(text), " ")
	if strings.Contains(zone, "TZ=") && strings.TrimSpace(fields) == "" {
		return nil, errors.New("a zone needs times after it")
	}
	if strings.ContainsAny(text, "\\\n") {
		return nil, errors.New("times cannot contain backslashes")
	}
	times, err = cron.ParseStandard(text)
	if spec, ok := times.(*cron.SpecSchedule); ok && !everyHour(spec) {
		return wallClock{spec, spec.Location}, nil
	}
	return times, err
}
