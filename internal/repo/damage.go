package repo

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"
	"time"
)

// damagePrefix comes before the name of an object that was found damaged.
const damagePrefix = "damaged/"

// A Damage is the content of the object "damaged/<object>": while it exists, no new
// backup refers to the object.
type Damage struct {
	FoundAt time.Time `json:"found_at"`
	Cause   string    `json:"cause"`
}

// Damaged returns the names of the objects that were found damaged.
func (r *Repository) Damaged(ctx context.Context) (map[string]bool, error) {
	list, err := r.engine.List(ctx, strings.TrimSuffix(damagePrefix, "/"))
	if err != nil {
		return nil, err
	}
	names := map[string]bool{}
	for _, o := range list {
		names[strings.TrimPrefix(o.Name, damagePrefix)] = true
	}
	return names, nil
}

// RecordDamage records what a check of the checked objects found, so that damage does
// not spread into new backups. An object that was found whole loses its mark. The
// caller holds [Repository.Lock].
func (r *Repository) RecordDamage(ctx context.Context, now time.Time, checked []string, found map[string]error) error {
	have, err := r.Damaged(ctx)
	if err != nil {
		return err
	}
	for _, name := range checked {
		if have[name] && found[name] == nil {
			if err := r.engine.Delete(ctx, damagePrefix+name); err != nil {
				return err
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(found)) {
		if have[name] {
			continue
		}
		content, err := json.Marshal(Damage{FoundAt: now.UTC(), Cause: found[name].Error()})
		if err != nil {
			return err
		}
		err = r.PutRecord(ctx, OwnerJob, damagePrefix+name, append(content, '\n'))
		if err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	return nil
}

// sweepDamage removes the marks of objects that are gone.
func (r *Repository) sweepDamage(ctx context.Context) error {
	marks, err := r.Damaged(ctx)
	if err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(marks)) {
		there, err := r.existsInSome(ctx, name)
		if err == nil && !there {
			err = r.engine.Delete(ctx, damagePrefix+name)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// existsInSome reports whether an object exists, a pack in some generation.
func (r *Repository) existsInSome(ctx context.Context, name string) (bool, error) {
	there, err := r.exists(ctx, name)
	if there || err != nil || !strings.HasPrefix(name, "pack/") {
		return there, err
	}
	packs, err := r.generations(ctx, path.Base(path.Dir(name)))
	return len(packs[name]) > 0, err
}
