package repo

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/pgmoneta/pgmoneta-go/internal/vault"
)

// OwnerKey owns the stages of who rotates keys; see [storage.Engine.Sweep].
const OwnerKey = "key"

// HasKeys reports whether the repository has keys: whether it ever was sealed.
func (r *Repository) HasKeys(ctx context.Context) (bool, error) {
	names, err := r.listKeys(ctx)
	return len(names) > 0, err
}

// RotateKey adds a key to a repository that has some and returns its number. New
// objects are sealed with it: by a WAL worker from the next segment on, by jobs
// from their start on. What is stored stays as it is and can be read.
func (r *Repository) RotateKey(ctx context.Context) (uint32, error) {
	var number uint32
	err := r.changeKeys(ctx, func(names map[uint32][]string) error {
		if len(names) == 0 {
			return fmt.Errorf("server %q: the repository has no key yet: it gets its first when something is stored with encryption on", r.server)
		}
		plain, err := r.plainAllowed(ctx)
		if err != nil {
			return err
		}
		id, err := r.id(ctx)
		if err != nil {
			return err
		}
		master, err := r.master()
		if err != nil {
			return err
		}
		number = slices.Max(slices.Collect(maps.Keys(names))) + 1
		return r.newKey(ctx, OwnerKey, id, number, plain, master)
	})
	return number, err
}

// WrapKeys wraps every key with master as well. When it returns nil, the former
// master key and this one both open the repository.
func (r *Repository) WrapKeys(ctx context.Context, master *vault.MasterKey) error {
	return r.changeKeys(ctx, func(names map[uint32][]string) error {
		_, err := r.wrapAll(ctx, names, master)
		return err
	})
}

// DropWraps removes all wraps of keys but those with master. Keys that are not
// wrapped with it are wrapped first, so that each key stays readable at any moment.
func (r *Repository) DropWraps(ctx context.Context, master *vault.MasterKey) error {
	return r.changeKeys(ctx, func(names map[uint32][]string) error {
		keep, err := r.wrapAll(ctx, names, master)
		if err != nil {
			return err
		}
		for number, list := range names {
			for _, name := range list {
				if name == keep[number] {
					continue
				}
				if err := r.engine.Delete(ctx, name); err != nil {
					return err
				}
			}
		}
		return nil
	})
}

// wrapAll makes sure that each key has a wrap with master that says all that its
// other wraps say, and returns the names of those.
func (r *Repository) wrapAll(ctx context.Context, names map[uint32][]string, master *vault.MasterKey) (map[uint32]string, error) {
	want, err := master.Fingerprint()
	if err != nil {
		return nil, err
	}
	keep := map[uint32]string{}
	for _, number := range slices.Sorted(maps.Keys(names)) {
		_, opened, err := r.openWraps(ctx, number, names[number])
		if err != nil {
			return nil, err
		}
		plain := slices.ContainsFunc(opened, func(w *wrap) bool { return w.Plain })
		i := slices.IndexFunc(opened, func(w *wrap) bool { return w.Master == want && w.Plain == plain })
		if i >= 0 {
			keep[number] = opened[i].object()
			continue
		}
		if keep[number], err = r.addWrap(ctx, OwnerKey, number, names[number], plain, master); err != nil {
			return nil, err
		}
	}
	return keep, nil
}

// changeKeys calls change, with the names of the key objects by number, while
// nobody else rotates keys.
func (r *Repository) changeKeys(ctx context.Context, change func(names map[uint32][]string) error) error {
	lock, err := r.waitLock(ctx, "key.lock")
	if err != nil {
		return fmt.Errorf("server %q: %w", r.server, err)
	}
	// The lock is ours, so nobody's stage is open: what is there was left by a crash.
	err = r.engine.Sweep(ctx, OwnerKey)
	var names map[uint32][]string
	if err == nil {
		names, err = r.listKeys(ctx)
	}
	if err == nil {
		err = change(names)
	}
	return errors.Join(err, lock.Release())
}
