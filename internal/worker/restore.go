package worker

import (
	"context"
	"fmt"
	"strings"

	"github.com/pgmoneta/pgmoneta-go/internal/job"
	"github.com/pgmoneta/pgmoneta-go/internal/restore"
)

func (w *worker) restore(ctx context.Context) (job.Result, error) {
	target, err := restore.ParsePosition(w.Job.Position)
	if err != nil {
		return job.Result{}, err
	}
	plan, err := restore.MakePlan(ctx, w.repo, restore.Options{
		Backup: w.Job.Backup, Target: target, Directory: w.Job.Directory,
		// Not our slot: a replica that used it would move it past WAL we have not received.
		PrimaryConninfo: w.conninfo(),
	})
	if err != nil {
		return job.Result{}, err
	}
	if n := plan.Backup.CorruptPages; n > 0 {
		w.log.Warn("the backup holds pages with a wrong checksum", "label", string(plan.Backup.Label), "pages", n)
	}
	w.segment.JobSlot(w.JobSlot).Label.Store(string(plan.Backup.Label))
	if err := restore.Run(ctx, plan, restore.RunOptions{Workers: w.Workers, Progress: w.progress(), Log: w.log}); err != nil {
		return job.Result{}, err
	}
	return job.Result{Backup: &plan.Backup, Path: plan.Directory}, nil
}

// conninfo is how a restored replica reaches the server. The password belongs in
// the replica's own password file.
func (w *worker) conninfo() string {
	quote := func(s string) string {
		return "'" + strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(s) + "'"
	}
	return fmt.Sprintf("host=%s port=%d user=%s application_name=%s", quote(w.Host), w.Port, quote(w.User), quote(w.Server+"_replica"))
}
