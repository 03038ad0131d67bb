package repo

import (
	"context"
	"fmt"
	"slices"

	"github.com/pgmoneta/pgmoneta-go/internal/container"
	"github.com/pgmoneta/pgmoneta-go/internal/storage"
)

// Delete removes backups: their manifests first, so that they are no longer listed,
// then, in one collection, what only they needed. The caller holds [Repository.Lock].
// After a crash [Repository.Sweep] finishes the work.
func (r *Repository) Delete(ctx context.Context, labels ...Label) error {
	if err := r.settle(ctx, labels...); err != nil {
		return err
	}
	for _, l := range labels {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err := r.engine.Delete(ctx, manifestName(l)); err != nil {
			return err
		}
	}
	return r.Sweep(ctx)
}

// Sweep removes what unfinished jobs and deletions left: stages, packs no
// manifest refers to, PostgreSQL manifests and records without our manifest,
// marks of damage to objects that are gone, and what is left of foreign backups that have become ours. Packs of a backup that was begun and is
// neither listed nor forgotten ([Repository.ForgetUnfinished]) stay. The caller holds
// [Repository.Lock], so no job is in progress. It removes nothing while a
// manifest cannot be read, because that one might refer to anything.
func (r *Repository) Sweep(ctx context.Context) error {
	if err := r.settle(ctx); err != nil {
		return err
	}
	if err := r.engine.Sweep(ctx, OwnerJob); err != nil {
		return err
	}
	if err := r.dropSuperseded(ctx); err != nil {
		return err
	}
	objects, err := r.orphans(ctx)
	if err != nil {
		return err
	}
	for _, name := range objects {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err := r.engine.Delete(ctx, name); err != nil {
			return err
		}
	}
	return r.sweepDamage(ctx)
}

// orphans lists the objects that no backup needs.
func (r *Repository) orphans(ctx context.Context) ([]string, error) {
	listed, err := r.labels(ctx)
	if err != nil {
		return nil, err
	}
	orphans, err := r.strayRecords(ctx, listed)
	if err != nil {
		return nil, err
	}
	marks, err := r.strayMarks(ctx, listed)
	if err != nil {
		return nil, err
	}
	orphans = append(orphans, marks...)
	unfinished, err := r.settled(ctx, listed)
	if err != nil {
		return nil, err
	}
	packs, err := r.strayPacks(ctx, listed, unfinished)
	if err != nil || len(packs) == 0 {
		return orphans, err
	}
	needed, err := r.needed(ctx, listed)
	if err != nil {
		return nil, err
	}
	for _, name := range packs {
		if !needed[PackOf(name)] {
			orphans = append(orphans, name)
		}
	}
	return orphans, nil
}

// strayRecords lists PostgreSQL's manifests and the records of backups that are not
// listed. What C pgmoneta keeps below backup/ is not ours to remove.
func (r *Repository) strayRecords(ctx context.Context, listed []Label) ([]string, error) {
	begun, err := r.begun(ctx)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, l := range begun {
		if _, found := slices.BinarySearch(listed, l); found {
			continue
		}
		name := PostgresManifestName(l)
		there, err := r.exists(ctx, name)
		if err != nil {
			return nil, err
		}
		if there {
			names = append(names, name)
		}
		for _, series := range []string{noteSeries, rehearsalSeries, verificationSeries} {
			numbers, err := r.records(ctx, l, series)
			if err != nil {
				return nil, err
			}
			for _, n := range numbers {
				names = append(names, recordName(l, series, n))
			}
		}
	}
	return names, nil
}

// strayPacks lists the packs of backups that are not listed any more. Those of a listed
// backup cannot be dead before it is deleted, those of an unfinished one wait for the next.
func (r *Repository) strayPacks(ctx context.Context, listed, unfinished []Label) ([]string, error) {
	dirs, err := storage.Children(ctx, r.engine, "pack")
	if err != nil {
		return nil, err
	}
	var names []string
	for _, dir := range dirs {
		if _, found := slices.BinarySearch(listed, Label(dir)); found || slices.Contains(unfinished, Label(dir)) {
			continue
		}
		packs, err := storage.Children(ctx, r.engine, "pack/"+dir)
		if err != nil {
			return nil, err
		}
		for _, n := range packs {
			names = append(names, "pack/"+dir+"/"+n)
		}
	}
	return names, nil
}

// needed returns the packs that backups refer to.
func (r *Repository) needed(ctx context.Context, labels []Label) (map[string]bool, error) {
	var s container.Scratch
	defer s.Close()
	needed := map[string]bool{}
	for _, l := range labels {
		m, err := r.openManifest(ctx, l, &s)
		if err != nil {
			return nil, fmt.Errorf("nothing is removed while a manifest cannot be read: %w", err)
		}
		for _, p := range m.Packs {
			needed[p.Name] = true
		}
		_ = m.Close()
	}
	return needed, nil
}
