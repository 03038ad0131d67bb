package worker

import (
	"context"
	"fmt"
	"time"

	"github.com/pgmoneta/pgmoneta-go/internal/expire"
	"github.com/pgmoneta/pgmoneta-go/internal/job"
	"github.com/pgmoneta/pgmoneta-go/internal/pg"
	"github.com/pgmoneta/pgmoneta-go/internal/retention"
)

func (w *worker) expireOptions() expire.Options {
	p := w.Policy
	return expire.Options{
		Repo: w.repo, Now: time.Now, Progress: w.progress(),
		Policy: retention.Policy{Days: p.Days, Weeks: p.Weeks, Months: p.Months, Years: p.Years, Count: p.Count, Min: p.Min,
			Window: p.Window, WALAll: p.WALAll, Delay: p.Delay, Zone: time.Local},
		Unshipped: w.ShipTo != "", Shipped: pg.LSN(w.segment.ServerSlot(w.ServerSlot).ShippedLSN.Load()),
	}
}

// planRetention tells what the retention would delete. It needs no lock.
func (w *worker) planRetention(ctx context.Context) (job.Result, error) {
	result, err := expire.Look(ctx, w.expireOptions())
	if err != nil {
		return job.Result{}, fmt.Errorf("server %q: %w", w.Server, err)
	}
	return job.Result{Retention: w.retentionReport(result)}, nil
}

// retention deletes what is not needed any more.
func (w *worker) retention(ctx context.Context) (job.Result, error) {
	result, err := expire.Run(ctx, w.expireOptions())
	if err != nil {
		return job.Result{}, fmt.Errorf("server %q: %w", w.Server, err)
	}
	for _, d := range result.Decisions {
		if !d.Keep {
			w.log.Info("retention deleted a backup", "label", string(d.Label), "delay", w.Policy.Delay)
		}
	}
	for _, l := range result.Purge() {
		w.log.Info("retention deleted a backup in the trash for good", "label", string(l))
	}
	if n := len(result.WAL); n > 0 {
		w.log.Info("retention deleted WAL", "segments", n, "first", result.WAL[0].Name, "last", result.WAL[n-1].Name, "bytes", result.WALBytes)
	}
	w.compact(ctx, result.Packs)
	return job.Result{Retention: w.retentionReport(result)}, nil
}

func (w *worker) retentionReport(r expire.Result) *job.RetentionReport {
	report := &job.RetentionReport{Delayed: w.Policy.Delay, Segments: len(r.WAL), WALKept: r.WALKept, Refused: r.Refused, BackupBytes: r.BackupBytes, WALBytes: r.WALBytes,
		Before: job.Window{From: r.Before.From, Backup: r.Before.Backup}, After: job.Window{From: r.After.From, Backup: r.After.Backup}}
	for _, d := range r.Decisions {
		report.Decisions = append(report.Decisions, job.Decision{Backup: d.Label, Keep: d.Keep, Reasons: d.Reasons})
	}
	for _, t := range r.Trash {
		report.Trash = append(report.Trash, job.Waiting{Backup: t.Label, DeletedAt: t.DeletedAt, Until: t.Until, Purge: t.Purge})
	}
	return report
}
