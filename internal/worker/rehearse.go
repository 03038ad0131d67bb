package worker

import (
	"context"
	"fmt"

	"github.com/pgmoneta/pgmoneta-go/internal/job"
	"github.com/pgmoneta/pgmoneta-go/internal/rehearse"
	"github.com/pgmoneta/pgmoneta-go/internal/restore"
)

func (w *worker) rehearse(ctx context.Context) (job.Result, error) {
	target, err := restore.ParsePosition(w.Job.Position)
	if err != nil {
		return job.Result{}, err
	}
	o := w.Rehearsal
	if o.Scratch == "" {
		return job.Result{}, fmt.Errorf("server %q: with encryption nothing is restored below base_dir: set workspace to a directory in which the database may lie in plain text for a while", w.Server)
	}
	backup, result, err := rehearse.Run(ctx, rehearse.Options{
		Repo: w.repo, Backup: w.Job.Backup, Target: target,
		Scratch: o.Scratch, BinDir: o.BinDir, Settings: o.Settings, Checks: o.Checks, NoAmcheck: !o.Amcheck,
		User: w.User, Workers: w.Workers, Progress: w.progress(), Log: w.log,
	})
	if err != nil {
		return job.Result{}, err
	}
	if result.Proven() {
		w.log.Info("rehearsed", "label", string(backup.Label), "target", result.Target, "rto", result.RTO, "checks", len(result.Checks))
	} else {
		w.log.Error("rehearsal failed", "label", string(backup.Label), "target", result.Target, "started", result.Started, "err", result.Failure)
	}
	return job.Result{Backup: &backup, Rehearsal: &result}, nil
}
