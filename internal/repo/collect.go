package repo

import (
	"context"
	"fmt"
	"strings"

	"github.com/pgmoneta/pgmoneta-go/internal/container"
)

// Delete removes a backup: its manifest first, so that it is no longer listed,
// then what only it needed. The caller holds [Repository.Lock]. After a crash
// [Repository.Sweep] finishes the work.
func (r *Repository) Delete(ctx context.Context, label Label) error {
	if err := r.engine.Delete(ctx, manifestName(label)); err != nil {
		return err
	}
	return r.Sweep(ctx)
}

// Sweep removes what unfinished jobs and deletions left: stages, packs no
// manifest refers to, PostgreSQL manifests and records without our manifest, and
// marks of damage to objects that are gone. The caller holds
// [Repository.Lock], so no job is in progress. It removes nothing while a
// manifest cannot be read, because that one might refer to anything.
func (r *Repository) Sweep(ctx context.Context) error {
	if err := r.engine.Sweep(ctx, OwnerJob); err != nil {
		return err
	}
	objects, err := r.orphans(ctx)
	if err != nil {
		return err
	}
	for _, name := range objects {
		if err := r.engine.Delete(ctx, name); err != nil {
			return err
		}
	}
	return r.sweepDamage(ctx)
}

// orphans lists the objects that no backup needs.
func (r *Repository) orphans(ctx context.Context) ([]string, error) {
	candidates, err := r.candidates(ctx)
	if err != nil || len(candidates) == 0 {
		return nil, err
	}
	needed, err := r.needed(ctx)
	if err != nil {
		return nil, err
	}
	var orphans []string
	for _, name := range candidates {
		if !needed[name] {
			orphans = append(orphans, name)
		}
	}
	return orphans, nil
}

// candidates are packs, PostgreSQL manifests and records whose own backup is not listed
// any more; those of a listed backup cannot be dead before it is deleted.
func (r *Repository) candidates(ctx context.Context) ([]string, error) {
	labels, err := r.labels(ctx)
	if err != nil {
		return nil, err
	}
	listed := map[string]bool{}
	for _, l := range labels {
		listed[string(l)] = true
	}
	var names []string
	for _, prefix := range []string{"pack", "backup"} {
		objects, err := r.engine.List(ctx, prefix)
		if err != nil {
			return nil, err
		}
		for _, o := range objects {
			parts := strings.Split(o.Name, "/")
			if len(parts) < 3 || listed[parts[1]] {
				continue
			}
			// What C pgmoneta keeps below backup/ is not ours to remove.
			ours := len(parts) == 3 && (prefix == "pack" || parts[2] == "backup_manifest")
			if ours || prefix == "backup" && isRecord(parts[2:]) {
				names = append(names, o.Name)
			}
		}
	}
	return names, nil
}

func (r *Repository) needed(ctx context.Context) (map[string]bool, error) {
	labels, err := r.labels(ctx)
	if err != nil {
		return nil, err
	}
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
