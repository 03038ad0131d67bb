package datadir

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"

	"github.com/pgmoneta/pgmoneta-go/internal/pg"
)

// ControlFile is the file that [Walk] yields last.
const ControlFile = "global/pg_control"

type walker struct {
	ctx   context.Context
	tree  Tree
	major int
	yield func(File) error
}

// Walk calls yield for every file, directory and link of the tree that belongs
// into a backup of a server of the given version, directories before what they
// hold and [ControlFile] at the end. Memory grows with the largest directory.
func Walk(ctx context.Context, tree Tree, version pg.Version, yield func(File) error) error {
	w := &walker{ctx: ctx, tree: tree, major: version.Major(), yield: yield}
	if err := w.directory("."); err != nil {
		return err
	}
	list, err := tree.List(ctx, path.Dir(ControlFile))
	if err != nil {
		return err
	}
	for _, f := range list {
		if f.Path == ControlFile {
			return yield(f)
		}
	}
	return fmt.Errorf("%s: %w: this is no data directory", ControlFile, fs.ErrNotExist)
}

func (w *walker) directory(dir string) error {
	list, err := w.tree.List(w.ctx, dir)
	if errors.Is(err, fs.ErrNotExist) && dir != "." {
		return nil // a database that was dropped meanwhile
	}
	if err != nil {
		return err
	}
	unlogged := map[string]bool{}
	if relations(dir) {
		unlogged = unloggedIn(list)
	}
	for _, f := range list {
		if w.excluded(dir, f, unlogged) {
			continue
		}
		if err := w.entry(f); err != nil {
			return err
		}
	}
	return nil
}

func (w *walker) entry(f File) error {
	switch {
	case f.Path == "pg_wal":
		return w.emptyWAL(f)
	case path.Dir(f.Path) == tablespaces && f.Kind == Symlink:
		// The link, and what the server of this version keeps behind it.
		if err := w.yield(f); err != nil {
			return err
		}
		return w.directory(f.Path)
	case f.Kind == Symlink && path.Dir(f.Path) == ".":
		// PostgreSQL sends a top directory that was moved elsewhere as an empty one.
		f.Kind, f.Link, f.Mode = Directory, "", 0o700
		return w.yield(f)
	}
	if err := w.yield(f); err != nil || f.Kind != Directory || emptied[f.Path] {
		return err
	}
	return w.directory(f.Path)
}

// emptyWAL yields the directories that a server expects, without their contents.
func (w *walker) emptyWAL(f File) error {
	f.Kind, f.Link = Directory, ""
	if f.Mode&0o111 == 0 || f.Mode == 0o777 { // of a symbolic link
		f.Mode = 0o700
	}
	below := []string{"archive_status"}
	if w.major >= 17 {
		below = append(below, "summaries")
	}
	if err := w.yield(f); err != nil {
		return err
	}
	for _, name := range below {
		d := f
		d.Path = path.Join(f.Path, name)
		if err := w.yield(d); err != nil {
			return err
		}
	}
	return nil
}

// emptied are directories whose contents a start makes anew.
var emptied = map[string]bool{
	"pg_stat_tmp": true, "pg_replslot": true, "pg_dynshmem": true, "pg_notify": true, "pg_serial": true, "pg_snapshots": true, "pg_subtrans": true,
}

// omitted are files that belong to the running server, or to another backup.
var omitted = map[string]bool{
	"postgresql.auto.conf.tmp": true, "current_logfiles.tmp": true, "backup_label": true, "tablespace_map": true,
	"backup_manifest": true, "postmaster.pid": true, "postmaster.opts": true,
}

const (
	temporaryPrefix = "pgsql_tmp"
	cachePrefix     = "pg_internal.init"
)

func (w *walker) excluded(dir string, f File, unlogged map[string]bool) bool {
	name := path.Base(f.Path)
	switch {
	case omitted[name], name == ".DS_Store", f.Path == ControlFile,
		strings.HasPrefix(name, temporaryPrefix), strings.HasPrefix(name, cachePrefix):
		return true
	case inTablespace(dir):
		// Other versions may keep their files in the same tablespace.
		return !strings.HasPrefix(name, fmt.Sprintf("PG_%d_", w.major))
	case !relations(dir) || f.Kind != Regular:
		return false
	case temporaryRelation(name):
		return true
	}
	number, fork, ok := relation(name)
	return ok && fork != "init" && unlogged[number]
}

// inTablespace reports whether dir is the top of a tablespace.
func inTablespace(dir string) bool { return path.Dir(dir) == tablespaces }

// relations reports whether dir holds the files of a database's relations, which
// global does not: shared relations are never unlogged or temporary.
func relations(dir string) bool {
	parts := strings.Split(dir, "/")
	return len(parts) == 2 && parts[0] == "base" || len(parts) == 4 && parts[0] == tablespaces
}

// unloggedIn returns the file numbers of unlogged relations, which have an init fork.
func unloggedIn(list []File) map[string]bool {
	numbers := map[string]bool{}
	for _, f := range list {
		if number, fork, ok := relation(path.Base(f.Path)); ok && fork == "init" {
			numbers[number] = true
		}
	}
	return numbers
}

// relation splits the name of a relation's file: number, fork ("" for the main
// one), and perhaps a segment after a dot.
func relation(name string) (number, fork string, ok bool) {
	name, segment, more := strings.Cut(name, ".")
	if more && !digits(segment) {
		return "", "", false
	}
	number, fork, more = strings.Cut(name, "_")
	if !digits(number) || more && fork != "fsm" && fork != "vm" && fork != "init" {
		return "", "", false
	}
	return number, fork, true
}

// temporaryRelation reports whether name is t<backend>_<relation>.
func temporaryRelation(name string) bool {
	rest, ok := strings.CutPrefix(name, "t")
	if !ok {
		return false
	}
	backend, rest, ok := strings.Cut(rest, "_")
	_, _, isRelation := relation(rest)
	return ok && digits(backend) && isRelation
}

func digits(s string) bool {
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return s != ""
}
