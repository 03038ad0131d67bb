package worker

import (
	"context"
	"fmt"
	"time"

	"github.com/pgmoneta/pgmoneta-go/internal/job"
	"github.com/pgmoneta/pgmoneta-go/internal/repo"
)

// trash deletes a backup so that it can be brought back for a while. One that cannot be
// read is not worth that: until it is gone it stops the retention.
func (w *worker) trash(ctx context.Context, b repo.Backup) (job.Result, error) {
	now := time.Now()
	if _, err := w.repo.Trash(ctx, now, w.Job.Force, b.Label); err != nil {
		return job.Result{}, fmt.Errorf("server %q: delete backup %s: %w", w.Server, b.Label, err)
	}
	return job.Result{Backup: &b.Summary, Until: now.Add(w.Policy.Delay)}, nil
}

// purge deletes a backup in the trash for good.
func (w *worker) purge(ctx context.Context, l repo.Label) (job.Result, error) {
	packs := w.repo.PacksOf(ctx, l)
	gone, err := w.repo.Purge(ctx, l)
	if err != nil {
		return job.Result{}, fmt.Errorf("server %q: delete backup %s: %w", w.Server, l, err)
	}
	if len(gone) == 0 {
		return job.Result{}, fmt.Errorf("server %q: backup %s was brought back from the trash meanwhile", w.Server, l)
	}
	w.compact(ctx, packs)
	return job.Result{Backup: &repo.Summary{Label: l}}, nil
}
