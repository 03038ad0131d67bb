package worker

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"slices"
	"time"

	"github.com/pgmoneta/pgmoneta-go/internal/backup"
	"github.com/pgmoneta/pgmoneta-go/internal/durable"
	"github.com/pgmoneta/pgmoneta-go/internal/expire"
	"github.com/pgmoneta/pgmoneta-go/internal/job"
	"github.com/pgmoneta/pgmoneta-go/internal/repo"
	"github.com/pgmoneta/pgmoneta-go/internal/restore"
	"github.com/pgmoneta/pgmoneta-go/internal/shmem"
	"github.com/pgmoneta/pgmoneta-go/internal/verify"
)

// job does one job and never fails itself: failures are part of the result.
func (w *worker) job(ctx context.Context) job.Result {
	started := time.Now()
	result, err := w.locked(ctx)
	done, failed := slog.LevelInfo, slog.LevelError
	if w.Kind.Quiet() { // who asked says so, and not each time
		done, failed = slog.LevelDebug, slog.LevelDebug
	}
	if err != nil {
		result = job.Result{Failure: failure(w.Kind, err), Restore: result.Restore}
		w.log.Log(ctx, failed, "job failed", "job", string(w.Kind), "elapsed", time.Since(started).Round(time.Millisecond), "err", err)
		return result
	}
	attrs := []any{"job", string(w.Kind), "elapsed", time.Since(started).Round(time.Millisecond)}
	if result.Backup != nil {
		attrs = append(attrs, "label", string(result.Backup.Label))
	} else if r := result.Restore; r != nil && r.Backup != nil {
		attrs = append(attrs, "label", string(r.Backup.Label))
	} else if result.Path != "" {
		attrs = append(attrs, "file", result.Path)
	}
	w.log.Log(ctx, done, "job done", attrs...)
	return result
}

func failure(kind job.Kind, err error) *job.Failure {
	f := &job.Failure{Class: job.Failed, Message: err.Error()}
	var (
		locked *durable.LockedError
		base   *backup.BaseError
		kept   *repo.KeptError
	)
	switch {
	case errors.As(err, &locked):
		f.Class = job.Busy
	case errors.Is(err, repo.ErrNoBackup):
		f.Class = job.NoBackup
	case restore.IsRefusal(err):
		f.Class = job.BadInput
	case errors.As(err, &base):
		f.Class = job.BadBase
	case errors.As(err, &kept), errors.As(err, new(*expire.GuardError)):
		f.Class = job.Retained
	case kind.OfFile() && errors.Is(err, fs.ErrNotExist):
		f.Class = job.NoFile
	}
	return f
}

// lockPatience covers the moment in which a starting WAL worker sweeps.
const lockPatience = 5 * time.Second

// locked does the job while holding the repository's lock, if it needs that.
func (w *worker) locked(ctx context.Context) (job.Result, error) {
	switch w.Kind {
	case job.CheckWAL:
		return w.checkWAL(ctx)
	case job.PlanRestore:
		return w.restore(ctx)
	case job.PlanRetention:
		return w.planRetention(ctx)
	case job.Usage:
		return w.usage(ctx)
	case job.Encrypt, job.Decrypt, job.Compress, job.Decompress:
		return w.convert(ctx)
	}
	lock, err := w.lock(ctx)
	if err != nil {
		return job.Result{}, fmt.Errorf("server %q: %w", w.Server, err)
	}
	defer func() { _ = lock.Release() }()
	switch w.Kind {
	case job.Backup:
		return w.backup(ctx)
	case job.Restore:
		return w.restore(ctx)
	case job.Verify:
		return w.verify(ctx)
	case job.Delete:
		return w.deleteBackups(ctx)
	case job.CheckRepo:
		return w.checkRepo(ctx)
	case job.Archive:
		return w.archive(ctx)
	case job.Rehearse:
		return w.rehearse(ctx)
	case job.Retention:
		return w.retention(ctx)
	case job.Compact:
		return w.compactAll(ctx)
	}
	return job.Result{}, fmt.Errorf("unknown job %q", w.Kind)
}

func (w *worker) lock(ctx context.Context) (*durable.Lock, error) {
	deadline := time.Now().Add(lockPatience)
	for {
		lock, err := w.repo.Lock()
		var locked *durable.LockedError
		if !errors.As(err, &locked) || time.Now().After(deadline) {
			return lock, err
		}
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// progress publishes in the job's slot. The phase is stored when it changes.
func (w *worker) progress() func(phase string, done, total int64) {
	slot := w.segment.JobSlot(w.JobSlot)
	last := ""
	return func(phase string, done, total int64) {
		if phase != last {
			slot.Phase.Store(phase)
			last = phase
		}
		slot.DoneBytes.Store(uint64(done))
		slot.TotalBytes.Store(uint64(total))
		slot.UpdatedAt.StoreTime(time.Now())
	}
}

func (w *worker) backup(ctx context.Context) (job.Result, error) {
	server := w.segment.ServerSlot(w.ServerSlot)
	var base repo.Label
	if w.Job.Backup != "" {
		b, err := w.repo.Find(ctx, w.Job.Backup)
		if err != nil {
			return job.Result{}, err
		}
		base = b.Label
	}
	s, err := backup.Run(ctx, backup.Options{
		Base: base, Source: backup.Source(w.Source), OnWire: w.OnWire, CrossCheck: w.CrossCheck, AllowCorrupt: w.AllowCorrupt || w.Job.Corrupt,
		Params: w.Params(), Repo: w.repo, Codec: w.Codec, Level: w.Level, Workers: w.Workers, MaxRate: w.MaxRate,
		Streaming: func() (bool, string) { return streaming(server) },
		Progress:  w.progress(), Now: time.Now, Log: w.log,
	})
	if err != nil {
		return job.Result{}, err
	}
	return job.Result{Backup: &s}, nil
}

func streaming(server *shmem.Server) (bool, string) {
	if server.Streaming.Load() == 1 {
		return true, ""
	}
	why, _ := server.LastError.Load()
	return false, why
}

// compactBudget is how many stored bytes are written again by one job.
const compactBudget = 4 << 30

// compact writes packs that a deletion left mostly dead again. The backup is deleted
// whether that succeeds or not, so that trouble is only told: a [job.Compact] comes back to it.
func (w *worker) compact(ctx context.Context, packs []string) {
	if _, err := w.compactPacks(ctx, packs); err != nil {
		w.log.Warn("packs that are mostly dead stay for now", "err", err)
	}
}

func (w *worker) compactPacks(ctx context.Context, packs []string) (repo.Compaction, error) {
	done, err := w.repo.Compact(ctx, repo.CompactOptions{Packs: packs, Share: repo.MostlyDead, Budget: compactBudget, Progress: w.progress()})
	if done.Packs > 0 || done.Waiting > 0 {
		w.log.Info("compacted packs that were mostly dead", "packs", done.Packs, "bytes", done.Copied, "freed", done.Freed, "waiting", done.Waiting)
	}
	return done, err
}

// compactAll compacts whichever packs of the repository are mostly dead, as far as the budget goes.
func (w *worker) compactAll(ctx context.Context) (job.Result, error) {
	packs, err := w.repo.Packs(ctx)
	if err != nil {
		return job.Result{}, err
	}
	done, err := w.compactPacks(ctx, packs)
	return job.Result{Freed: done.Freed}, err
}

func (w *worker) verify(ctx context.Context) (job.Result, error) {
	b, err := w.repo.Find(ctx, w.Job.Backup)
	if err != nil {
		return job.Result{}, err
	}
	if b.Err != nil {
		return job.Result{}, b.Err
	}
	result := job.Result{Backup: &b.Summary, Verification: &repo.Verification{}}
	done := result.Verification
	check := verify.Backup
	if b.Foreign {
		check = verify.Foreign
	}
	report, err := check(ctx, w.repo, b.Label, verify.Options{
		Workers: w.Workers, Progress: w.progress(),
		File: func(f repo.File, err error) {
			done.Files++
			if err != nil {
				done.BadFiles++
			}
			if err == nil && !w.Job.AllFiles {
				return
			}
			row := job.File{Directory: "data", Name: f.Path, Original: f.CRC}
			if f.Sum != "" {
				row.Original, row.Algorithm = f.Sum, "SHA512"
			}
			if err != nil {
				row.Problem = err.Error()
			}
			result.Files = append(result.Files, row)
		},
	})
	if err != nil {
		return job.Result{}, err
	}
	if !b.Foreign { // no new backup refers to those
		err = w.recordDamage(ctx, b.Label, report)
	}
	if err != nil {
		return job.Result{}, err
	}
	done.At, done.Problems = time.Now().UTC(), len(report.Problems)
	for _, p := range report.Problems {
		result.Report = append(result.Report, fmt.Sprintf("%s: %v", p.Object, p.Err))
		w.log.Error("verification found damage", "label", string(b.Label), "file", p.Object, "affected", len(p.Files), "err", p.Err)
	}
	if len(result.Report) > 0 {
		done.Problem = result.Report[0]
	}
	if b.Foreign {
		return result, nil
	}
	if err := w.repo.AddVerification(ctx, b.Label, *done); err != nil {
		w.log.Warn("what the verification came to is not noted", "label", string(b.Label), "err", err)
	}
	return result, nil
}

// recordDamage remembers what a verification found, so that no later backup refers to it.
func (w *worker) recordDamage(ctx context.Context, label repo.Label, report verify.Report) error {
	m, err := w.repo.OpenManifest(ctx, label)
	if err != nil {
		return err
	}
	defer func() { _ = m.Close() }()
	checked, found := []string{repo.PostgresManifestName(label)}, map[string]error{}
	for _, p := range m.Packs {
		checked = append(checked, p.Name)
	}
	for _, p := range report.Problems {
		if slices.Contains(checked, p.Object) && !errors.Is(p.Err, fs.ErrNotExist) {
			found[p.Object] = p.Err
		}
	}
	if err := w.repo.RecordDamage(ctx, time.Now(), checked, found); err != nil {
		return fmt.Errorf("server %q: record what was found damaged: %w", w.Server, err)
	}
	return nil
}
