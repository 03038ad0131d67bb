package supervisor

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/pgmoneta/pgmoneta-go/internal/job"
	"github.com/pgmoneta/pgmoneta-go/internal/mgmt"
	"github.com/pgmoneta/pgmoneta-go/internal/repo"
)

// A usage is what the backups of a server took at a moment.
type usage struct {
	repo.Usage
	at time.Time
}

// watchUsage finds out what the backups of a server take whenever they have changed, and has packs
// that are mostly dead written again, until ctx ends. That reads every manifest, so it is done in the
// background by processes of their own, and with the same pauses as walking through directories.
func (s *Supervisor) watchUsage(ctx context.Context, v *server) {
	t := time.NewTicker(spaceInterval)
	defer t.Stop()
	known, said := "", ""
	var next time.Time
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		list := v.catalog.Load()
		if list == nil || v.busy.Load() != nil || time.Now().Before(next) || v.signature(*list) == known {
			continue
		}
		began := time.Now()
		seen := v.signature(*list)
		err := s.surveyUsage(v, *list)
		if err == nil {
			known = seen // what cannot be compacted is left alone until something changes
			err = s.compact(v)
		}
		switch {
		case err == nil:
			said = ""
		case ctx.Err() == nil && !errors.As(err, new(*busyError)) && err.Error() != said:
			said = err.Error()
			v.log.Warn("space in the repository", "err", err)
		}
		next = time.Now().Add(max(walkInterval, walkShare*time.Since(began)))
	}
}

// surveyUsage runs the job, unless there is nothing to look at.
func (s *Supervisor) surveyUsage(v *server, list []repo.Backup) error {
	if len(list) == 0 {
		v.usage.Store(&usage{at: time.Now()})
		return nil
	}
	if _, err := (handler{Supervisor: s}).job(v, job.Usage, job.Spec{}); err != nil {
		return fmt.Errorf("what the backups take is not known: %w", err)
	}
	return nil
}

// compact has packs that are mostly dead written again. A deletion does that too, for those that it
// leaves so; here come those for which its budget was too small, or that it could not write. What frees
// space changes the signature, so that what is left after one budget has its turn in the next round.
func (s *Supervisor) compact(v *server) error {
	if u := v.usage.Load(); u == nil || u.Sparse == 0 {
		return nil
	}
	if _, err := (handler{Supervisor: s}).job(v, job.Compact, job.Spec{}); err != nil {
		return fmt.Errorf("packs that are mostly dead stay for now: %w", err)
	}
	return nil
}

// signature names the backups of a list and counts the jobs that freed space.
func (v *server) signature(list []repo.Backup) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d %d", v.freed.Load(), len(list))
	for _, row := range list {
		b.WriteString(" " + string(row.Label))
	}
	return b.String()
}

// usageOf describes what the repository of a server takes, as far as that is known.
func (s *Supervisor) usageOf(v *server) mgmt.Document {
	d := mgmt.Document{}
	if m := s.measured.Load(); m != nil {
		d["UsedSize"], d["FreeSpace"] = m.servers[v.name].own, m.storage.Free
	}
	if u := v.usage.Load(); u != nil {
		d["LogicalSize"], d["StoredSize"], d["SharedSize"], d["DeadSize"] = u.Logical, u.Stored, u.Shared, u.Dead
		d["At"] = u.at.UTC().Format(time.RFC3339)
	}
	return d
}
