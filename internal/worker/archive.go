package worker

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"path/filepath"

	"github.com/pgmoneta/pgmoneta-go/internal/container"
	"github.com/pgmoneta/pgmoneta-go/internal/durable"
	"github.com/pgmoneta/pgmoneta-go/internal/job"
	"github.com/pgmoneta/pgmoneta-go/internal/restore"
)

// archive writes a restorable cluster as one tar. It has its name when it is complete
// and durable, and not before.
func (w *worker) archive(ctx context.Context) (job.Result, error) {
	spec := w.Job.Restore
	if w.Cipher != container.Plain && !w.Job.Plain {
		return job.Result{}, &restore.OptionError{Option: "archive", Why: "the repository is encrypted and the tar would not be: say --plain if it may be written so"}
	}
	target, err := restore.ParsePosition(spec.Position)
	if err != nil {
		return job.Result{}, err
	}
	plan, err := restore.MakePlan(ctx, w.repo, restore.Options{Backup: w.Job.Backup, Target: target, Tar: true,
		PrimaryConninfo: restore.Conninfo(w.Server, w.Host, w.Port, w.User)})
	if err != nil {
		return job.Result{}, err
	}
	w.segment.JobSlot(w.JobSlot).Label.Store(string(plan.Backup.Label))
	name := filepath.Join(spec.Directory, "archive-"+w.Server+"-"+string(plan.Backup.Label)+".tar"+suffix(w.Codec))
	err = w.writeArchive(ctx, plan, name)
	return job.Result{Backup: &plan.Backup, Path: name}, err
}

// suffix is that of C pgmoneta.
func suffix(c container.Codec) string {
	return map[container.Codec]string{container.Gzip: ".gz", container.Zstd: ".zstd", container.LZ4: ".lz4", container.Bzip2: ".bz2"}[c]
}

const archiveBuffer = 1 << 20

func (w *worker) writeArchive(ctx context.Context, plan *restore.Plan, name string) (err error) {
	fsys := durable.OS{}
	temp := filepath.Join(filepath.Dir(name), "."+filepath.Base(name)+".part")
	_ = fsys.Remove(temp) // of an archive that was interrupted: we hold the lock of the repository
	f, err := fsys.Create(temp)
	if err != nil {
		return fmt.Errorf("archive: %w", err)
	}
	defer func() {
		if err != nil {
			_ = fsys.Remove(temp) // the next archive of the backup tries again
		}
	}()
	out := bufio.NewWriterSize(f, archiveBuffer)
	err = restore.WriteTar(ctx, plan, out, w.Codec, w.Level, restore.RunOptions{Workers: w.Workers, Progress: w.progress(), Log: w.log})
	if err == nil {
		err = out.Flush()
	}
	if err == nil {
		err = f.Sync()
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	return durable.Publish(fsys, temp, name)
}
