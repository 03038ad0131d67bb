package worker

import (
	"context"

	"github.com/pgmoneta/pgmoneta-go/internal/job"
	"github.com/pgmoneta/pgmoneta-go/internal/restore"
)

// archive writes a restorable cluster as one tar.
func (w *worker) archive(ctx context.Context) (job.Result, error) {
	target, err := restore.ParsePosition(w.Job.Restore.Position)
	if err != nil {
		return job.Result{}, err
	}
	plan, err := restore.MakePlan(ctx, w.repo, restore.Options{Backup: w.Job.Backup, Target: target, Tar: true,
		PrimaryConninfo: restore.Conninfo(w.Server, w.Host, w.Port, w.User)})
	if err != nil {
		return job.Result{}, err
	}
	w.segment.JobSlot(w.JobSlot).Label.Store(string(plan.Backup.Label))
	cipher, err := restore.ArchiveCipher(plan, w.Cipher, w.Job.Plain)
	if err != nil {
		return job.Result{}, err
	}
	path, err := restore.WriteArchive(ctx, plan, w.Job.Restore.Directory, restore.ArchiveOptions{
		Codec: w.Codec, Level: w.Level, Cipher: cipher, Master: w.Keys().Master,
		Run: restore.RunOptions{Workers: w.Workers, Progress: w.progress(), Log: w.log},
	})
	return job.Result{Backup: &plan.Backup, Path: path}, err
}
