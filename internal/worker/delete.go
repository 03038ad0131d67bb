package worker

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/pgmoneta/pgmoneta-go/internal/adopt"
	"github.com/pgmoneta/pgmoneta-go/internal/expire"
	"github.com/pgmoneta/pgmoneta-go/internal/foreign"
	"github.com/pgmoneta/pgmoneta-go/internal/job"
	"github.com/pgmoneta/pgmoneta-go/internal/repo"
)

// deleteBackups deletes one backup or several: all of them, or none when one is unknown,
// or is not to be deleted. With a delay they go into the trash; by force those that are in it go
// for good.
func (w *worker) deleteBackups(ctx context.Context) (job.Result, error) {
	d, err := w.named(ctx)
	if err != nil {
		return job.Result{}, err
	}
	if err := w.deletable(ctx, slices.Concat(d.foreign, d.own)); err != nil {
		return job.Result{}, err
	}
	taken, err := w.takeOver(ctx, d)
	if err != nil {
		return job.Result{}, err
	}
	w.progress()("Delete backup", 0, 0)
	until, err := w.remove(ctx, d)
	switch {
	case err != nil && len(w.Job.Backups) > 0:
		return job.Result{}, fmt.Errorf("server %q: delete backups: %w: see which are left (list-backup) and repeat the command with those", w.Server, err)
	case err != nil:
		return job.Result{}, fmt.Errorf("server %q: delete backup %s: %w", w.Server, w.Job.Backup, err)
	case len(w.Job.Backups) > 0:
		return job.Result{Backups: d.labels(), Until: until, TakenOver: taken}, nil
	}
	return job.Result{Backup: d.one(), Until: until, TakenOver: taken}, nil
}

// A deletion is what goes, each part oldest first and each backup once.
type deletion struct {
	own     []repo.Backup
	foreign []repo.Backup // of C pgmoneta
	trashed []repo.Label  // own ones that wait in the trash
}

func (d *deletion) labels() []repo.Label {
	return slices.Sorted(slices.Values(slices.Concat(labels(d.own), labels(d.foreign), d.trashed)))
}

// one describes the only backup.
func (d *deletion) one() *repo.Summary {
	for _, b := range slices.Concat(d.own, d.foreign) {
		b.Summary.Label = b.Label // also of a manifest that cannot be read
		return &b.Summary
	}
	return &repo.Summary{Label: d.trashed[0]}
}

// named returns what is to be deleted.
func (w *worker) named(ctx context.Context) (*deletion, error) {
	ids := w.Job.Backups
	if len(ids) == 0 {
		ids = []string{w.Job.Backup}
	}
	d, seen := &deletion{}, map[repo.Label]bool{}
	for _, id := range ids {
		b, err := w.repo.Find(ctx, id)
		var waiting *repo.TrashedError
		trashed := w.Job.Force && errors.As(err, &waiting)
		if trashed {
			b.Label, err = waiting.Label, nil
		}
		if err != nil {
			return nil, err
		}
		switch {
		case seen[b.Label]:
		case trashed:
			d.trashed = append(d.trashed, b.Label)
		case b.Foreign:
			d.foreign = append(d.foreign, b)
		default:
			d.own = append(d.own, b)
		}
		seen[b.Label] = true
	}
	for _, part := range [][]repo.Backup{d.own, d.foreign} {
		slices.SortFunc(part, func(a, b repo.Backup) int { return cmp.Compare(a.Label, b.Label) })
	}
	slices.Sort(d.trashed)
	return d, nil
}

func labels(list []repo.Backup) []repo.Label {
	labels := make([]repo.Label, len(list))
	for i, b := range list {
		labels[i] = b.Label
	}
	return labels
}

// takeOver makes those backups of C pgmoneta ours that would stay without one that they need. It
// is a [*foreign.ChildError] when that cannot be done.
func (w *worker) takeOver(ctx context.Context, d *deletion) ([]repo.Label, error) {
	if len(d.foreign) == 0 {
		return nil, nil
	}
	gone := labels(d.foreign)
	taken, why := adopt.Dependents(ctx, adopt.Options{
		Repo: w.repo, Codec: w.Codec, Level: w.Level, Workers: w.Workers, Progress: w.progress(), Now: time.Now, Log: w.log}, gone...)
	switch {
	case why == nil:
		return taken, nil
	case ctx.Err() != nil:
		return nil, fmt.Errorf("server %q: take over what needs them: %w", w.Server, why)
	}
	children, err := w.repo.Foreign().Dependents(ctx, gone...)
	if err != nil || len(children) == 0 {
		return nil, errors.Join(why, err)
	}
	return nil, &foreign.ChildError{
		Server: w.Server, Gone: d.foreign, Children: children,
		Also: slices.Concat(labels(d.own), d.trashed), Force: w.Job.Force, Err: why,
	}
}

// deletable returns an error when one of the backups is not to be deleted.
func (w *worker) deletable(ctx context.Context, list []repo.Backup) error {
	if w.Job.Force {
		return nil
	}
	gone := labels(list)
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

// remove deletes, and collects once what is left behind. until is how long backups can be brought
// back, zero when they cannot.
func (w *worker) remove(ctx context.Context, d *deletion) (until time.Time, err error) {
	if len(d.foreign) > 0 {
		if err := w.repo.Foreign().Delete(ctx, labels(d.foreign)...); err != nil {
			return time.Time{}, err
		}
	}
	now, readable, atOnce := time.Now(), []repo.Label(nil), []repo.Label(nil)
	for _, b := range d.own {
		// One that cannot be read is not worth a place in the trash: until it is gone it stops the retention.
		if w.Policy.Delay > 0 && b.Err == nil {
			readable = append(readable, b.Label)
		} else {
			atOnce = append(atOnce, b.Label)
		}
	}
	// Nothing is purged while a manifest cannot be read: those go first.
	if err := w.removeAtOnce(ctx, atOnce); err != nil {
		return time.Time{}, err
	}
	if err := w.purge(ctx, d.trashed); err != nil {
		return time.Time{}, err
	}
	if len(readable) > 0 {
		if _, err := w.repo.Trash(ctx, now, w.Job.Force, readable...); err != nil {
			return time.Time{}, err
		}
		until = now.Add(w.Policy.Delay)
	}
	return until, nil
}

func (w *worker) removeAtOnce(ctx context.Context, gone []repo.Label) error {
	if len(gone) == 0 {
		return nil
	}
	packs := w.repo.PacksOf(ctx, gone...)
	var err error
	if w.Job.Force {
		err = w.repo.Delete(ctx, gone...)
	} else {
		_, err = w.repo.Expire(ctx, gone...)
	}
	if err != nil {
		return err
	}
	w.compact(ctx, packs)
	return nil
}

// purge deletes backups in the trash for good.
func (w *worker) purge(ctx context.Context, trashed []repo.Label) error {
	if len(trashed) == 0 {
		return nil
	}
	packs := w.repo.PacksOf(ctx, trashed...)
	gone, err := w.repo.Purge(ctx, trashed...)
	if err != nil {
		return err
	}
	for _, l := range trashed {
		if !slices.Contains(gone, l) {
			return fmt.Errorf("backup %s was brought back from the trash meanwhile", l)
		}
	}
	w.compact(ctx, packs)
	return nil
}
