package worker

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"github.com/pgmoneta/pgmoneta-go/internal/expire"
	"github.com/pgmoneta/pgmoneta-go/internal/foreign"
	"github.com/pgmoneta/pgmoneta-go/internal/job"
	"github.com/pgmoneta/pgmoneta-go/internal/repo"
)

// deleteBackups deletes one backup or several: all of them, or none when one is unknown,
// or is not to be deleted.
func (w *worker) deleteBackups(ctx context.Context) (job.Result, error) {
	if len(w.Job.Backups) == 0 && w.Job.Force {
		return w.delete(ctx)
	}
	list, err := w.named(ctx)
	if err != nil {
		return job.Result{}, err
	}
	if err := w.deletable(ctx, list); err != nil {
		return job.Result{}, err
	}
	if len(w.Job.Backups) == 0 {
		return w.delete(ctx)
	}
	w.progress()("Delete backup", 0, int64(len(list)))
	if err := w.removeAll(ctx, list); err != nil {
		return job.Result{}, fmt.Errorf("server %q: delete backups: %w: see which are left (list-backup) and repeat the command with those", w.Server, err)
	}
	return job.Result{Backups: labels(list)}, nil
}

// named returns the backups that are to be deleted, oldest first and each once.
func (w *worker) named(ctx context.Context) ([]repo.Backup, error) {
	ids := w.Job.Backups
	if len(ids) == 0 {
		ids = []string{w.Job.Backup}
	}
	var list []repo.Backup
	for _, id := range ids {
		b, err := w.repo.Find(ctx, id)
		if err != nil {
			return nil, err
		}
		if !slices.ContainsFunc(list, func(o repo.Backup) bool { return o.Label == b.Label }) {
			list = append(list, b)
		}
	}
	slices.SortFunc(list, func(a, b repo.Backup) int { return cmp.Compare(a.Label, b.Label) })
	return list, nil
}

func labels(list []repo.Backup) []repo.Label {
	labels := make([]repo.Label, len(list))
	for i, b := range list {
		labels[i] = b.Label
	}
	return labels
}

// deletable returns an error when one of the backups is not to be deleted.
func (w *worker) deletable(ctx context.Context, list []repo.Backup) error {
	all, err := w.repo.Backups(ctx)
	if err != nil {
		return err
	}
	gone := labels(list)
	for _, o := range all {
		if base := o.Summary.Base; o.Foreign && base != "" && slices.Contains(gone, base) && !slices.Contains(gone, o.Label) {
			return &foreign.ChildError{Label: base, Child: o.Label}
		}
	}
	if w.Job.Force {
		return nil
	}
	for _, b := range list {
		keep, err := b.Keep, error(nil)
		if !b.Foreign {
			var n repo.Note
			n, err = w.repo.Note(ctx, b.Label)
			keep = n.Keep
		}
		if keep || err != nil {
			return &repo.KeptError{Server: w.Server, Label: b.Label, Err: err}
		}
	}
	return expire.Guard(ctx, w.expireOptions(), gone...)
}

// removeAll deletes backups and collects once what they leave behind. The youngest of C
// pgmoneta goes first: it may need an older one.
func (w *worker) removeAll(ctx context.Context, list []repo.Backup) error {
	var own []repo.Label
	for _, b := range slices.Backward(list) {
		if !b.Foreign {
			own = append(own, b.Label)
			continue
		}
		if err := w.repo.Foreign().Delete(ctx, b.Label); err != nil {
			return err
		}
	}
	if len(own) == 0 {
		return nil
	}
	slices.Reverse(own)
	packs := w.repo.PacksOf(ctx, own...)
	var err error
	if w.Job.Force {
		err = w.repo.Delete(ctx, own...)
	} else {
		_, err = w.repo.Expire(ctx, own...)
	}
	if err != nil {
		return err
	}
	w.compact(ctx, packs)
	return nil
}
