package foreign

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
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

// KeepWAL implements [repo.Foreign]: it copies segments as they are stored. Each of their pages must be what belongs
// there, because beside the backup they count for others too.
func (r *Repository) KeepWAL(ctx context.Context, l repo.Label, segments []string) error {
	i, err := r.info(ctx, l)
	if err != nil {
		return err
	}
	for _, name := range segments {
		_, err := r.find("wal/"+name, i.codec(), i.encryption != 0, keySizes(i.encryption))
		if err == nil {
			continue
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		s, err := r.find(backupDir(l)+"/"+dataName+"/"+walName+"/"+name, i.codec(), i.encryption != 0, keySizes(i.encryption))
		if errors.Is(err, fs.ErrNotExist) {
			continue // it is looked for elsewhere
		}
		if err == nil {
			err = r.keepSegment(ctx, l, name, s)
		}
		if err != nil {
			return fmt.Errorf("WAL segment %s: %w", name, err)
		}
	}
	return nil
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
	return r.copyWAL(s.name, name+strings.TrimPrefix(path.Base(s.name), name))
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
