package worker

import (
	"context"
	"fmt"
	"time"

	"github.com/pgmoneta/pgmoneta-go/internal/job"
	"github.com/pgmoneta/pgmoneta-go/internal/repo"
)

// checkRepo checks what backups refer to, and remembers what is damaged so that no later
// backup refers to it.
func (w *worker) checkRepo(ctx context.Context) (job.Result, error) {
	report, err := w.repo.Check(ctx, repo.CheckOptions{Full: !w.Job.Quick, Workers: w.Workers, Progress: w.progress()})
	if err != nil {
		return job.Result{}, err
	}
	if err := w.repo.RecordDamage(ctx, time.Now(), report.Checked, report.Damaged()); err != nil {
		return job.Result{}, fmt.Errorf("server %q: record what was found damaged: %w", w.Server, err)
	}
	out := &job.RepoReport{Full: !w.Job.Quick, Usage: report.Usage, Read: report.Read, Total: len(report.Findings)}
	for i, f := range report.Findings {
		if i < loggedFindings {
			w.log.Error("repository is not whole", "file", f.Object, "backups", len(f.Backups), "err", f.Err)
		}
		if i < job.MaxFindings {
			out.Findings = append(out.Findings, job.RepoFinding{Object: f.Object, Backups: f.Backups, Files: f.Files, Message: f.Err.Error()})
		}
	}
	w.log.Info("checked repository", "full", out.Full, "packs", report.Packs, "frames", report.Frames, "bytes", report.Read,
		"findings", out.Total, "stored", report.Stored, "shared", report.Shared, "dead", report.Dead)
	return job.Result{Repo: out}, nil
}

// usage finds out what the backups take. It holds no lock: what another job removes
// meanwhile looks damaged, so that nothing is said of damage.
func (w *worker) usage(ctx context.Context) (job.Result, error) {
	report, err := w.repo.Check(ctx, repo.CheckOptions{Workers: 1, Progress: w.progress()})
	if err != nil {
		return job.Result{}, err
	}
	return job.Result{Repo: &job.RepoReport{Usage: report.Usage}}, nil
}
