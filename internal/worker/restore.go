package worker

import (
	"context"
	"os"

	"github.com/pgmoneta/pgmoneta-go/internal/job"
	"github.com/pgmoneta/pgmoneta-go/internal/restore"
)

func (w *worker) restore(ctx context.Context) (job.Result, error) {
	spec := w.Job.Restore
	o, err := restore.ParseSpec(w.Job.Backup, spec)
	if err != nil {
		return job.Result{}, err
	}
	// Not our slot: a replica that used it would move it past WAL we have not received.
	o.PrimaryConninfo = restore.Conninfo(w.Server, w.Host, w.Port, w.User)
	program, _ := os.Executable()
	o.Command = restore.FindCommand(program, w.Config)
	run := restore.RunOptions{Workers: spec.Workers, MaxRate: spec.MaxRate, Progress: w.progress(), Log: w.log,
		Planned: func(p *restore.Plan) {
			w.segment.JobSlot(w.JobSlot).Label.Store(string(p.Backup.Label))
			if n := p.Backup.CorruptPages; n > 0 {
				w.log.Warn("the backup holds pages with a wrong checksum", "label", string(p.Backup.Label), "pages", n)
			}
		}}
	if run.Workers == 0 {
		run.Workers = w.Workers
	}
	report, err := restore.Do(ctx, w.repo, o, w.Kind == job.PlanRestore, run)
	return job.Result{Restore: report}, err
}
