package foreign

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/pgmoneta/pgmoneta-go/internal/durable"
	"github.com/pgmoneta/pgmoneta-go/internal/pg"
	"github.com/pgmoneta/pgmoneta-go/internal/repo"
	"github.com/pgmoneta/pgmoneta-go/internal/walpage"
)

// Settle implements [repo.Foreign]. The manifest of ours stays, and so nothing of this is seen in a listing.
func (r *Repository) Settle(ctx context.Context, all ...repo.Label) error {
	labels, err := r.labelsOf(ctx, func(l repo.Label) bool { return r.isOurs(l) && len(r.leftovers(l)) > 0 })
	if err != nil {
		return err
	}
	for _, l := range labels {
		needing, err := r.Dependents(ctx, l)
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case err == nil && len(needing) == 0:
			err = r.settle(ctx, l)
		case !slices.Contains(all, l):
			continue // it can wait
		case err == nil:
			err = &ChildError{Server: r.server, Gone: []repo.Backup{{Label: l}}, Children: needing}
		}
		if err != nil {
			return fmt.Errorf("remove what C pgmoneta kept of backup %s: %w", l, err)
		}
	}
	return nil
}

func (r *Repository) settle(ctx context.Context, l repo.Label) error {
	if err := r.releaseAll(ctx, l); err != nil {
		return err
	}
	for _, name := range r.leftovers(l) {
		if err := r.op("remove", name); err != nil {
			return err
		}
		if err := durable.RemoveAll(r.fs, filepath.Join(r.dir, name)); err != nil {
			return err
		}
	}
	r.forget(backupDir(l))
	return nil
}

// leftovers returns what C pgmoneta wrote in the directory of a backup: backup.info first, without which it
// takes the directory for no backup. Files that it fetched from elsewhere, in extra/, are not part of the backup
// that is ours, and stay.
func (r *Repository) leftovers(l repo.Label) []string {
	dir, err := r.root.Open(backupDir(l))
	if err != nil {
		return nil
	}
	entries, err := dir.ReadDir(-1)
	if errors.Join(err, dir.Close()) != nil {
		return nil
	}
	var names []string
	for _, e := range entries {
		name := e.Name()
		if name == dataName || strings.HasPrefix(name, "backup.") || strings.HasPrefix(name, tablespacePrefix) {
			names = append(names, backupDir(l)+"/"+name)
		}
	}
	slices.Sort(names)
	if i := slices.Index(names, backupDir(l)+"/"+infoName); i > 0 {
		names[0], names[i] = names[i], names[0]
	}
	return names
}

// KeepWAL implements [repo.Foreign]: it copies segments as they are stored. Each must be what backup.sha512 says of it, and
// each of its pages what belongs there: beside the backup it counts for others too.
func (r *Repository) KeepWAL(ctx context.Context, l repo.Label, segments []string) error {
	i, err := r.info(ctx, l)
	if err != nil {
		return err
	}
	dir := backupDir(l) + "/" + dataName + "/" + walName
	kept, names := map[string]*stored{}, map[string]bool{}
	for _, name := range segments {
		s, err := r.onlyIn(dir, name, &i)
		if err != nil {
			return fmt.Errorf("WAL segment %s: %w", name, err)
		}
		if s != nil {
			kept[name], names[dir+"/"+path.Base(s.name)] = s, true
		}
	}
	if len(kept) == 0 {
		return nil
	}
	err = r.recordedSums(ctx, l, func(name, sum string) error {
		if !names[name] {
			return nil
		}
		if err := r.compare(ctx, name, sum); err != nil {
			return &FileError{name, err}
		}
		return nil
	})
	if cut := (*sumsError)(nil); errors.As(err, &cut) {
		err = &FileError{backupDir(l) + "/" + sumsName, err}
	}
	for _, name := range slices.Sorted(maps.Keys(kept)) {
		if err == nil {
			err = r.keepSegment(ctx, l, name, kept[name])
		}
	}
	return err
}

// onlyIn returns the stored file of a segment that lies in a directory and not in wal/, nil for another one.
func (r *Repository) onlyIn(dir, name string, i *info) (*stored, error) {
	_, err := r.find("wal/"+name, i.codec(), i.encryption != 0, keySizes(i.encryption))
	if !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	s, err := r.find(dir+"/"+name, i.codec(), i.encryption != 0, keySizes(i.encryption))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return s, err
}

func (r *Repository) keepSegment(ctx context.Context, l repo.Label, name string, s *stored) error {
	size := r.backup(ctx, l).Summary.SegmentSize
	tli, start, err := pg.ParseSegmentName(name, size)
	if err != nil {
		return err
	}
	in, err := r.open(ctx, s)
	if err != nil {
		return err
	}
	err = walpage.CheckSegment(in, walpage.Want{Timeline: tli, Start: start, Size: size}) // reads to the end
	if err := errors.Join(err, in.Close()); err != nil {
		return &FileError{s.name, err}
	}
	return r.copyWAL(s.name, path.Base(s.name))
}

// copyWAL gives wal/ a copy of a stored file.
func (r *Repository) copyWAL(from, name string) error {
	temp, dir := trash+"/wal", filepath.Join(r.dir, "wal")
	for _, d := range []string{filepath.Join(r.dir, trash), dir} {
		if err := durable.MkdirAll(r.fs, d); err != nil {
			return err
		}
	}
	if err := r.fs.Remove(filepath.Join(r.dir, temp)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := r.copy(from, temp); err != nil {
		return err
	}
	return durable.Publish(r.fs, filepath.Join(r.dir, temp), filepath.Join(dir, name))
}
