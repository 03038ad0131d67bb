package supervisor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/pgmoneta/pgmoneta-go/internal/config"
	"github.com/pgmoneta/pgmoneta-go/internal/durable"
	"github.com/pgmoneta/pgmoneta-go/internal/job"
	"github.com/pgmoneta/pgmoneta-go/internal/mgmt"
)

// calendarFile is where a server's calendar is kept. It is local, no object of the
// repository; without it, what was missed meanwhile is not made up for.
const calendarFile = "schedule.json"

// A calendar is what was done by the schedule of a server, by job and time.
type calendar struct {
	mu    sync.Mutex
	runs  map[string]*run
	begun bool // a run that the file does not have
}

// A run is the last run of one line of a schedule.
type run struct {
	Until    time.Time `json:"until"` // up to here nothing is due any more
	Started  time.Time `json:"started"`
	Elapsed  float64   `json:"elapsed"`  // seconds
	Failure  string    `json:"failure"`  // why the last run failed; empty when it did not
	Failures int       `json:"failures"` // without success in between
	RetryAt  time.Time `json:"retry_at"` // zero when nothing is to be repeated
}

// Delays before a run that failed is repeated.
const (
	scheduleRetryMin = time.Minute
	scheduleRetryMax = time.Hour
)

// next returns when a line is due. Whatever was missed is done once.
func (r *run) next(e config.Scheduled, jitter time.Duration) time.Time {
	due := e.Next(r.Until)
	if !due.IsZero() {
		due = due.Add(jitter)
	}
	if !r.RetryAt.IsZero() && (due.IsZero() || r.RetryAt.Before(due)) {
		return r.RetryAt
	}
	return due
}

// ended notes how a run ended.
func (r *run) ended(started, now time.Time, err error) {
	r.Until, r.Started, r.Elapsed = now, started, now.Sub(started).Seconds()
	r.Failure, r.RetryAt = "", time.Time{}
	if err == nil {
		r.Failures = 0
		return
	}
	delay := min(scheduleRetryMin<<min(r.Failures, 10), scheduleRetryMax)
	r.Failures++
	r.Failure, r.RetryAt = err.Error(), now.Add(delay)
}

// clockSlack is by how much a clock is set back without anything being due anew.
const clockSlack = time.Minute

// line names a line of a schedule.
func line(e config.Scheduled) string { return e.Job + " " + e.Text }

// jitter spreads jobs of many servers: always the same for one line of one server.
func jitter(server string, e config.Scheduled, most time.Duration) time.Duration {
	if most <= 0 {
		return 0
	}
	h := fnv.New64a()
	_, _ = h.Write([]byte(server + "\x00" + line(e)))
	return time.Duration(h.Sum64() % uint64(most))
}

// of returns the run of a line. One that is new begins now, and so does one of the
// future, when the clock was set back.
func (c *calendar) of(e config.Scheduled, now time.Time) *run {
	r := c.runs[line(e)]
	if r == nil {
		r = &run{Until: now}
		c.runs[line(e)], c.begun = r, true
	}
	if r.Until.After(now.Add(clockSlack)) {
		r.Until, r.RetryAt, c.begun = now, time.Time{}, true
	}
	return r
}

// due returns the line that has been due for the longest time.
func (c *calendar) due(server string, lines []config.Scheduled, most time.Duration, now time.Time) (config.Scheduled, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	var first config.Scheduled
	var at time.Time
	for _, e := range lines {
		next := c.of(e, now).next(e, jitter(server, e, most))
		if next.IsZero() || next.After(now) || !at.IsZero() && !next.Before(at) {
			continue
		}
		first, at = e, next
	}
	return first, !at.IsZero()
}

// load reads what was done before the daemon was started.
func (c *calendar) load(path string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.runs = map[string]*run{}
	b, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err == nil {
		err = json.Unmarshal(b, &c.runs)
	}
	if err != nil {
		c.runs = map[string]*run{}
		return err
	}
	for name, r := range c.runs {
		if r == nil {
			delete(c.runs, name)
		}
	}
	return nil
}

// save replaces the file in one step.
func (c *calendar) save(path string) error {
	c.mu.Lock()
	b, err := json.Marshal(c.runs)
	c.mu.Unlock()
	if err != nil {
		return err
	}
	return durable.Replace(path, append(b, '\n'))
}

// lines returns the schedule of a server, verification included.
func lines(c *config.Config, sc *config.Server) []config.Scheduled {
	list := append([]config.Scheduled(nil), sc.Schedule...)
	if every := c.Main.Verification; every > 0 {
		list = append(list, config.Every("verify", every))
	}
	return list
}

// backupDue returns when the schedule has the first backup after one that began at a time;
// zero when it has none.
func backupDue(server string, list []config.Scheduled, most time.Duration, last time.Time) (due time.Time) {
	for _, e := range list {
		if e.Job != "full" && e.Job != "incremental" {
			continue
		}
		late := jitter(server, e, most)
		next := e.Next(last.Add(-late))
		if !next.IsZero() && (due.IsZero() || next.Add(late).Before(due)) {
			due = next.Add(late)
		}
	}
	return due
}

// scheduleInterval is how often the clock is looked at. It may be set at any time.
const scheduleInterval = time.Second

// keepSchedule does what is due, one after the other, until ctx ends.
func (s *Supervisor) keepSchedule(ctx context.Context, v *server) {
	path := filepath.Join(v.repo.Dir(), calendarFile)
	if err := v.calendar.load(path); err != nil {
		v.log.Warn("it is not known what was done by the schedule", "file", path, "err", err)
	}
	t := time.NewTicker(scheduleInterval)
	defer t.Stop()
	for {
		c := s.config.Load()
		sc, ok := c.Server(v.name)
		if ok {
			list := lines(c, sc)
			if v.calendar.know(list, time.Now()) {
				v.keepCalendar(path)
			}
			if e, due := v.calendar.due(v.name, list, sc.ScheduleJitter, time.Now()); due && v.busy.Load() == nil {
				s.runScheduled(ctx, v, e, path)
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
	}
}

// know begins the runs of lines that are new, and reports whether there are any since it
// was asked last: from when they count must outlive the daemon, or one that is started
// again more often than a line is due never comes to it.
func (c *calendar) know(list []config.Scheduled, now time.Time) (begun bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, e := range list {
		c.of(e, now)
	}
	begun, c.begun = c.begun, false
	return begun
}

func (v *server) keepCalendar(path string) {
	if err := v.calendar.save(path); err != nil {
		v.log.Warn("what was done by the schedule cannot be noted", "err", err)
	}
}

func (s *Supervisor) runScheduled(ctx context.Context, v *server, e config.Scheduled, path string) {
	started := time.Now()
	err := s.scheduled(ctx, v, e.Job)
	if ctx.Err() != nil || errors.As(err, new(*busyError)) {
		return // it stays due
	}
	if err != nil {
		v.log.Error("scheduled job failed", "job", e.Job, "schedule", e.Text, "err", err)
	}
	v.calendar.mu.Lock()
	v.calendar.of(e, started).ended(started, time.Now(), err)
	v.calendar.mu.Unlock()
	v.keepCalendar(path)
}

// scheduled does a job of the schedule.
func (s *Supervisor) scheduled(ctx context.Context, v *server, word string) error {
	list, err := v.repo.Backups(ctx)
	if err != nil {
		return err
	}
	newest := newestValid(list)
	switch word {
	case "full":
		return s.done(v, job.Backup, job.Spec{})
	case "incremental":
		spec := job.Spec{}
		if newest != nil && !newest.Foreign {
			spec.Backup = string(newest.Label)
		}
		return s.done(v, job.Backup, spec)
	case "verify", "rehearse":
		if newest == nil {
			return fmt.Errorf("server %q has no valid backup", v.name)
		}
		return s.proven(v, job.Kind(word), string(newest.Label))
	case "walcheck":
		result, err := handler{Supervisor: s, asking: asking{wait: true}}.job(v, job.CheckWAL, job.Spec{})
		if err == nil && result.WAL != nil && result.WAL.Total > 0 {
			err = fmt.Errorf("the archived WAL is not whole: %s", result.WAL.Findings[0].Text)
		}
		return err
	}
	return fmt.Errorf("unknown job %q", word)
}

// proven verifies or rehearses a backup.
func (s *Supervisor) proven(v *server, kind job.Kind, label string) error {
	spec := job.Spec{Backup: label}
	if kind == job.Rehearse {
		spec.Position = "latest"
	}
	result, err := handler{Supervisor: s, asking: asking{wait: true}}.job(v, kind, spec)
	switch {
	case err != nil:
		return err
	case len(result.Report) > 0:
		return fmt.Errorf("backup %s is damaged: %s", label, result.Report[0])
	case result.Rehearsal != nil && !result.Rehearsal.Proven():
		return fmt.Errorf("backup %s is not proven: %s", label, result.Rehearsal.Failure)
	}
	return nil
}

// schedule answers the command, for one server or all.
func (h handler) schedule(req *mgmt.Request) (mgmt.Response, error) {
	rows := []mgmt.Document{}
	c, now := h.config.Load(), time.Now()
	if name := req.Server(); name != "" && h.server(name) == nil {
		return nil, &mgmt.Error{Code: mgmt.CodeScheduleNoServer, Err: fmt.Errorf("server %q is not configured", name)}
	}
	for _, v := range h.servers {
		sc, ok := c.Server(v.name)
		if !ok || req.Server() != "" && req.Server() != v.name {
			continue
		}
		for _, e := range lines(c, sc) {
			rows = append(rows, v.calendar.row(v.name, e, sc.ScheduleJitter, now))
		}
	}
	return mgmt.Response{"NumberOfJobs": len(rows), "Jobs": rows}, nil
}

func (c *calendar) row(server string, e config.Scheduled, most time.Duration, now time.Time) mgmt.Document {
	c.mu.Lock()
	defer c.mu.Unlock()
	r := run{Until: now}
	if have := c.runs[line(e)]; have != nil {
		r = *have
	}
	d := mgmt.Document{"Server": server, "Job": e.Job, "Schedule": e.Text, "Next": "", "Last": "", "Outcome": "", "Failures": r.Failures, "Elapsed": r.Elapsed}
	if next := r.next(e, jitter(server, e, most)); !next.IsZero() {
		d["Next"] = next.Format(time.RFC3339)
	}
	if !r.Started.IsZero() {
		d["Last"], d["Outcome"] = r.Started.Format(time.RFC3339), "done"
	}
	if r.Failure != "" {
		d["Outcome"] = r.Failure
	}
	return d
}
