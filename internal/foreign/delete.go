package foreign

import (
	"cmp"
	"context"
	"errors"
	"io"
	"io/fs"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/pgmoneta/pgmoneta-go/internal/durable"
	"github.com/pgmoneta/pgmoneta-go/internal/repo"
)

// trash is where a backup goes before it is removed, and where links are made. What a
// crash leaves in it is removed by [repo.Repository.Sweep].
const trash = "tmp/" + repo.OwnerJob

// Delete implements [repo.Foreign]. It fails with a [*ChildError], and has deleted nothing, while an
// incremental backup that is to stay needs one of these. For each of them:
//
//  1. Every link of another backup into this one becomes a hard link to the file it leads to, each in one step.
//  2. All of that is made durable.
//  3. The backup's directory is renamed out of backup/, and then removed.
func (r *Repository) Delete(ctx context.Context, gone ...repo.Label) error {
	children, err := r.Dependents(ctx, gone...)
	if err != nil {
		return err
	}
	if len(children) > 0 {
		return &ChildError{Server: r.server, Gone: r.rows(ctx, gone), Children: children}
	}
	parents, err := r.parents(ctx, gone)
	if err != nil {
		return err
	}
	for _, l := range childrenFirst(parents, gone) {
		if err := r.delete(ctx, l); err != nil {
			return err
		}
	}
	return r.Settle(ctx)
}

// parents returns what each incremental backup is based on, those among them that have become ours and are needed
// as they were. It fails when that cannot be read of one that is to stay.
func (r *Repository) parents(ctx context.Context, gone []repo.Label) (map[repo.Label]repo.Label, error) {
	labels, err := r.labelsOf(ctx, r.hasTheirs)
	if err != nil {
		return nil, err
	}
	parents := map[repo.Label]repo.Label{}
	for _, l := range labels {
		parent, err := r.parent(ctx, l)
		if err != nil && !slices.Contains(gone, l) {
			return nil, err
		}
		if parent != "" {
			parents[l] = repo.Label(parent)
		}
	}
	return parents, context.Cause(ctx)
}

// parent returns what a backup is based on, "" for nothing. That it cannot be restored as it is now, for
// want of a master key perhaps, does not mean that it needs no parent.
func (r *Repository) parent(ctx context.Context, l repo.Label) (string, error) {
	i, err := r.info(ctx, l)
	var unfinished *IncompleteError
	if err == nil || i.parent != "" || errors.As(err, &unfinished) {
		return i.parent, nil
	}
	label, err := r.small(backupDir(l)+"/"+dataName+"/"+labelName, labelLimit)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil // without it nobody restores the backup
	}
	if err != nil {
		return "", err
	}
	return r.parentByPosition(label, l), nil
}

// childrenFirst orders backups so that none comes before one that needs it. Their labels alone do not
// tell: they are local time, which runs twice through an hour in autumn.
func childrenFirst(parents map[repo.Label]repo.Label, list []repo.Label) []repo.Label {
	depth := map[repo.Label]int{}
	for _, l := range list {
		// Parents in a circle, which nobody but an editor makes, end at the number of all.
		for p, ok := parents[l]; ok && depth[l] < len(parents); p, ok = parents[p] {
			depth[l]++
		}
	}
	list = slices.Clone(list)
	slices.SortFunc(list, func(a, b repo.Label) int { return cmp.Or(depth[b]-depth[a], cmp.Compare(b, a)) })
	return slices.Compact(list)
}

func (r *Repository) rows(ctx context.Context, labels []repo.Label) []repo.Backup {
	list := make([]repo.Backup, len(labels))
	for i, l := range labels {
		list[i] = r.backup(ctx, l)
	}
	return list
}

// delete removes a backup that no other needs.
func (r *Repository) delete(ctx context.Context, l repo.Label) error {
	if err := r.releaseAll(ctx, l); err != nil {
		return err
	}
	return r.remove(l)
}

// releaseAll makes all other backups independent of one.
func (r *Repository) releaseAll(ctx context.Context, l repo.Label) error {
	labels, err := r.labelsOf(ctx, r.hasTheirs)
	if err != nil {
		return err
	}
	if err := durable.MkdirAll(r.fs, filepath.Join(r.dir, trash)); err != nil {
		return err
	}
	for _, other := range labels {
		if other != l {
			if err := r.relink(ctx, backupDir(other), l); err != nil {
				return err
			}
		}
	}
	return r.sync()
}

// Dependents implements [repo.Foreign].
func (r *Repository) Dependents(ctx context.Context, gone ...repo.Label) ([]repo.Backup, error) {
	parents, err := r.parents(ctx, gone)
	if err != nil {
		return nil, err
	}
	children := map[repo.Label][]repo.Label{}
	for child, parent := range parents {
		children[parent] = append(children[parent], child)
	}
	seen := map[repo.Label]bool{}
	for _, l := range gone {
		seen[l] = true
	}
	var found []repo.Label
	for next := slices.Clone(gone); len(next) > 0; next = next[1:] {
		for _, child := range children[next[0]] {
			if !seen[child] {
				seen[child] = true
				found, next = append(found, child), append(next, child)
			}
		}
	}
	// One that has become ours needs nobody, but is a way to those that need it as it was.
	found = slices.DeleteFunc(found, r.isOurs)
	slices.Sort(found)
	return r.rows(ctx, found), context.Cause(ctx)
}

// sync makes all links durable, and with them the files that they keep: C pgmoneta
// syncs none.
func (r *Repository) sync() error {
	if err := r.op("sync", "backup"); err != nil {
		return err
	}
	return durable.SyncFS(filepath.Join(r.dir, "backup"))
}

// relink makes everything below dir independent of a backup.
func (r *Repository) relink(ctx context.Context, dir string, l repo.Label) error {
	d, err := r.root.Open(dir)
	if err != nil {
		return err
	}
	entries, err := d.ReadDir(-1)
	if err := errors.Join(err, d.Close(), context.Cause(ctx)); err != nil {
		return err
	}
	for _, e := range entries {
		name := dir + "/" + e.Name()
		switch {
		case e.IsDir():
			err = r.relink(ctx, name, l)
		case e.Type()&fs.ModeSymlink != 0:
			err = r.release(name, l)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// release replaces a link by the file it leads to if the way goes into a backup. One that
// leads to nothing is left as it is: nothing is lost with the backup.
func (r *Repository) release(name string, l repo.Label) error {
	target, err := r.root.Readlink(name)
	if err != nil {
		return err
	}
	next, ok := r.translate(name, target)
	if !ok || labelOf(next) != l {
		return nil
	}
	real, info, err := r.locate(next)
	var odd *LinkError
	if errors.Is(err, fs.ErrNotExist) || errors.As(err, &odd) {
		return nil
	}
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return &LinkError{name, target, "only links to files are shared between backups"}
	}
	return r.replace(name, real)
}

// replace puts a hard link to a file, or a copy of it, in the place of a symbolic link.
func (r *Repository) replace(name, real string) error {
	temp := trash + "/relink"
	if err := r.root.Remove(temp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := r.op("link", name); err != nil {
		return err
	}
	if err := r.root.Link(real, temp); err != nil {
		// The file system has no hard links, or not so many.
		if cerr := r.copy(real, temp); cerr != nil {
			return errors.Join(err, cerr)
		}
	}
	if err := r.op("rename", name); err != nil {
		return err
	}
	return r.root.Rename(temp, name)
}

func (r *Repository) copy(from, to string) error {
	in, err := r.openPlain(from)
	if err != nil {
		return err
	}
	defer func() { _ = in.Close() }()
	out, err := r.fs.Create(filepath.Join(r.dir, to))
	if err != nil {
		return err
	}
	if _, err = io.Copy(out, in); err == nil {
		err = out.Sync()
	}
	return errors.Join(err, out.Close())
}

// remove takes a backup out of the catalog in one step, and then its files.
func (r *Repository) remove(l repo.Label) error {
	from, to := filepath.Join(r.dir, backupDir(l)), filepath.Join(r.dir, trash, "foreign-"+string(l))
	if err := durable.RemoveAll(r.fs, to); err != nil {
		return err
	}
	if err := r.op("rename", backupDir(l)); err != nil {
		return err
	}
	if err := r.fs.Rename(from, to); err != nil {
		return err
	}
	r.forget(backupDir(l))
	for _, dir := range []string{filepath.Dir(from), filepath.Dir(to)} {
		if err := r.op("syncdir", dir); err != nil {
			return err
		}
		if err := r.fs.SyncDir(dir); err != nil {
			return err
		}
	}
	if err := r.op("remove", path.Base(to)); err != nil {
		return err
	}
	return durable.RemoveAll(r.fs, to)
}

// forget drops the directories of a backup that is gone.
func (r *Repository) forget(dir string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for name, real := range r.dirs {
		if strings.HasPrefix(name, dir+"/") || strings.HasPrefix(real, dir+"/") {
			delete(r.dirs, name)
		}
	}
}
