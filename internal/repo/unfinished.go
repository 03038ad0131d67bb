package repo

import (
	"context"
	"maps"
	"path"
	"slices"
	"time"
)

// unfinishedPrefix comes before the label of a backup that was begun.
const unfinishedPrefix = "unfinished"

// KeepUnfinished is how long the packs of a backup that did not come to its end are kept
// for the next one.
const KeepUnfinished = 24 * time.Hour

// Begin notes that a backup begins. Whatever it has stored when it is interrupted stays,
// so that the next one need not store it again. The caller holds [Repository.Lock].
func (r *Repository) Begin(ctx context.Context, l Label) error {
	return r.PutRecord(ctx, OwnerJob, path.Join(unfinishedPrefix, string(l)), []byte("{}\n"))
}

// Unfinished returns the labels of backups that were begun and have not ended, oldest first.
func (r *Repository) Unfinished(ctx context.Context) ([]Label, error) {
	return r.labelsBelow(ctx, unfinishedPrefix)
}

// ForgetUnfinished gives up what backups before a moment have left; the next sweep
// removes it. The caller holds [Repository.Lock].
func (r *Repository) ForgetUnfinished(ctx context.Context, before time.Time) error {
	labels, err := r.Unfinished(ctx)
	if err != nil {
		return err
	}
	for _, l := range labels {
		if !l.Time().Before(before) {
			continue
		}
		if err := r.engine.Delete(ctx, path.Join(unfinishedPrefix, string(l))); err != nil {
			return err
		}
	}
	return nil
}

// UnfinishedPacks returns the packs that interrupted backups have stored. Some may have
// been compacted, when a later backup refers to them and its end did not come as far as
// forgetting the interrupted one.
func (r *Repository) UnfinishedPacks(ctx context.Context) ([]PackRef, error) {
	labels, err := r.Unfinished(ctx)
	if err != nil {
		return nil, err
	}
	var packs []PackRef
	for _, l := range labels {
		generations, err := r.generations(ctx, string(l))
		if err != nil {
			return nil, err
		}
		for _, name := range slices.Sorted(maps.Keys(generations)) {
			packs = append(packs, PackRef{Name: name})
		}
	}
	return packs, nil
}

// settled removes the notes of backups that are listed, and returns the labels of the others.
func (r *Repository) settled(ctx context.Context, listed []Label) ([]Label, error) {
	begun, err := r.Unfinished(ctx)
	if err != nil {
		return nil, err
	}
	var open []Label
	for _, l := range begun {
		if _, found := slices.BinarySearch(listed, l); !found {
			open = append(open, l)
			continue
		}
		if err := r.engine.Delete(ctx, path.Join(unfinishedPrefix, string(l))); err != nil {
			return nil, err
		}
	}
	return open, nil
}
