package restore

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/pgmoneta/pgmoneta-go/internal/durable"
)

// A tree is the target directory with what lies beside it while they are written.
// Every change of the disk goes through it. Names are confined by [os.Root].
// It is safe for concurrent use once it is open.
type tree struct {
	plan *Plan
	// op is called before each operation that changes the disk; an error is
	// returned instead of performing it. It exists for tests.
	op     func(kind, path string) error
	data   *os.Root
	spaces map[string]*os.Root // by OID in decimal
	wal    *os.Root            // nil when pg_wal is part of data
	made   []string            // directories that did not exist before

	barriers map[string]*durable.Barrier // by directory, opened before anything is written there

	over   bool // files of an earlier restore or of a server may be there
	sealed bool // global/pg_control has taken the marker's place
}

// open makes and marks the directories. On an error the caller still calls
// discard and close.
func (t *tree) open() (err error) {
	// Something may have happened since the plan was made.
	if err = inspect(t.plan, t.plan.Existing); err != nil {
		return err
	}
	t.over = t.plan.over()
	if t.data, err = t.root(t.plan.Directory); err != nil {
		return err
	}
	if err = t.begin(); err != nil {
		return err
	}
	if err := t.mkdir("pg_tblspc"); err != nil {
		return err
	}
	for _, ts := range t.plan.Tablespaces {
		oid := strconv.FormatUint(uint64(ts.OID), 10)
		if t.spaces[oid], err = t.beside("pg_tblspc/"+oid, ts.Directory, ts.link); err != nil {
			return err
		}
	}
	if dir := t.plan.WALDirectory; dir != "" {
		t.wal, err = t.beside(walDirectory, dir, dir)
	}
	return err
}

// begin leaves the directory with the marker and without global/pg_control.
func (t *tree) begin() error {
	switch {
	case has(t.plan.Directory, control):
		return t.unseal()
	case has(t.plan.Directory, marker):
		return nil
	}
	return t.mark()
}

// root makes a directory if it is missing and opens it.
func (t *tree) root(dir string) (*os.Root, error) {
	if err := t.op("mkdir", dir); err != nil {
		return nil, err
	}
	existed := exists(dir)
	if err := durable.MkdirAll(durable.OS{}, dir); err != nil {
		return nil, err
	}
	if !existed {
		t.made = append(t.made, dir)
	}
	// PostgreSQL refuses a data directory that others may enter.
	if err := os.Chmod(dir, 0o700); err != nil {
		return nil, err
	}
	barrier, err := durable.OpenBarrier(dir)
	if err != nil {
		return nil, err
	}
	t.barriers[dir] = barrier
	return os.OpenRoot(dir)
}

// mark makes the marker durable before anything else exists.
func (t *tree) mark() error {
	f, err := t.create(t.data, marker, 0o600)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(f, "The restore of backup %s is not finished. To finish it, repeat it.\n", t.plan.Backup.Label)
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	return t.syncDir(t.plan.Directory)
}

// unseal turns a data directory into one that is being restored, in one step: its
// global/pg_control becomes the marker. From now on no server starts on it.
func (t *tree) unseal() error {
	if err := t.rename(control, marker); err != nil {
		return err
	}
	if err := t.syncDir(filepath.Join(t.plan.Directory, path.Dir(control))); err != nil {
		return err
	}
	return t.syncDir(t.plan.Directory)
}

// beside makes a directory outside of the data directory and the link to it.
func (t *tree) beside(name, dir, link string) (*os.Root, error) {
	r, err := t.root(dir)
	if err != nil {
		return nil, err
	}
	if t.over {
		if to, err := t.data.Readlink(name); err == nil && to == link {
			return r, nil
		}
		if err := t.removeAll(t.data, name); err != nil {
			return r, err
		}
	}
	if err := t.op("symlink", name); err != nil {
		return r, err
	}
	return r, t.data.Symlink(link, name)
}

// removeAll removes a name of a root and everything below it.
func (t *tree) removeAll(r *os.Root, name string) error {
	if err := t.op("remove", name); err != nil {
		return err
	}
	return r.RemoveAll(name)
}

// clear removes everything in a root but the name keep.
func (t *tree) clear(r *os.Root, keep string) error {
	list, err := fs.ReadDir(r.FS(), ".")
	if err != nil {
		return err
	}
	for _, e := range list {
		if e.Name() == keep {
			continue
		}
		if err := t.removeAll(r, e.Name()); err != nil {
			return err
		}
	}
	return nil
}

// checkName refuses a path of the manifest that leads out of the directory. Only the
// simplest form of a name is accepted, so that no two names mean one file.
func checkName(name string) error {
	if name == "." || name != path.Clean(name) || !filepath.IsLocal(name) || strings.ContainsRune(name, 0) {
		return fmt.Errorf("the manifest lists a file named %q: refused", name)
	}
	return nil
}

// locate returns where a path of the manifest lies.
func (t *tree) locate(name string) (*os.Root, string, error) {
	if err := checkName(name); err != nil {
		return nil, "", err
	}
	if name == marker || name == freshControl {
		return nil, "", fmt.Errorf("the manifest lists %q, which is ours: refused", name)
	}
	if below, ok := strings.CutPrefix(name, walDirectory+"/"); ok && t.wal != nil {
		return t.wal, below, nil
	}
	if rest, ok := strings.CutPrefix(name, "pg_tblspc/"); ok {
		oid, below, inside := strings.Cut(rest, "/")
		if r := t.spaces[oid]; r != nil && inside {
			return r, below, nil
		}
	}
	return t.data, name, nil
}

// isLink reports whether a path of the manifest is the link to a directory beside,
// which exists already and leads elsewhere than on the server.
func (t *tree) isLink(name string) bool {
	if name == walDirectory {
		return t.wal != nil
	}
	oid, ok := strings.CutPrefix(name, "pg_tblspc/")
	return ok && t.spaces[oid] != nil
}

func (t *tree) mkdir(name string) error {
	if t.isLink(name) {
		return nil
	}
	r, below, err := t.locate(name)
	if err != nil {
		return err
	}
	if t.over {
		if info, err := r.Lstat(below); err == nil && !info.IsDir() {
			if err := t.removeAll(r, below); err != nil {
				return err
			}
		}
	}
	if err := t.op("mkdir", name); err != nil {
		return err
	}
	return r.MkdirAll(below, 0o700)
}

// create makes a new file; its directory is made if the manifest did not list it.
func (t *tree) create(r *os.Root, name string, mode fs.FileMode) (*os.File, error) {
	if err := t.op("create", name); err != nil {
		return nil, err
	}
	const flags = os.O_RDWR | os.O_CREATE | os.O_EXCL
	f, err := r.OpenFile(name, flags, mode)
	if errors.Is(err, fs.ErrNotExist) && path.Dir(name) != "." {
		if err := r.MkdirAll(path.Dir(name), 0o700); err != nil {
			return nil, err
		}
		f, err = r.OpenFile(name, flags, mode)
	}
	return f, err
}

// write makes a file with the given content, replacing one that is there.
func (t *tree) write(name string, content []byte) error {
	r, below, err := t.locate(name)
	if err != nil {
		return err
	}
	if err := t.op("write", name); err != nil {
		return err
	}
	return r.WriteFile(below, content, 0o600)
}

// remove removes a file of the data directory if it is there.
func (t *tree) remove(name string) error {
	if err := t.op("remove", name); err != nil {
		return err
	}
	if err := t.data.Remove(name); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

func (t *tree) syncDir(dir string) error {
	if err := t.op("syncdir", dir); err != nil {
		return err
	}
	return durable.OS{}.SyncDir(dir)
}

// sync makes everything that was written durable.
func (t *tree) sync() error {
	for _, dir := range t.plan.roots() {
		if err := t.op("syncfs", dir); err != nil {
			return err
		}
		if err := t.barriers[dir].Sync(); err != nil {
			return err
		}
	}
	return nil
}

// seal exchanges the marker for global/pg_control: the content takes the
// marker's place, then the marker is renamed. Each step is atomic, so that at
// every moment one of the two exists and never both.
func (t *tree) seal(content []byte, modified time.Time) error {
	f, err := t.create(t.data, freshControl, 0o600)
	if err != nil {
		return err
	}
	if err = t.op("write", freshControl); err == nil {
		_, err = f.Write(content)
	}
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := t.data.Chtimes(freshControl, modified, modified); err != nil {
		return err
	}
	if err := t.own(t.data, freshControl); err != nil {
		return err
	}
	if err := t.rename(freshControl, marker); err != nil {
		return err
	}
	if err := t.syncDir(t.plan.Directory); err != nil {
		return err
	}
	if err := t.rename(marker, control); err != nil {
		return err
	}
	t.sealed = true
	if err := t.syncDir(filepath.Join(t.plan.Directory, path.Dir(control))); err != nil {
		return err
	}
	return t.syncDir(t.plan.Directory)
}

func (t *tree) rename(from, to string) error {
	if err := t.op("rename", to); err != nil {
		return err
	}
	return t.data.Rename(from, to)
}

// own gives a name of a root to the owner of the plan, if that has one.
func (t *tree) own(r *os.Root, name string) error {
	o := t.plan.Owner
	if o == nil {
		return nil
	}
	return r.Lchown(name, o.UID, o.GID)
}

// ownAll gives everything that was written to the owner of the plan.
func (t *tree) ownAll() error {
	if t.plan.Owner == nil {
		return nil
	}
	for _, r := range t.all() {
		if err := t.op("chown", r.Name()); err != nil {
			return err
		}
		if err := fs.WalkDir(r.FS(), ".", func(name string, _ fs.DirEntry, err error) error {
			return errors.Join(err, t.own(r, name))
		}); err != nil {
			return err
		}
	}
	return nil
}

// all returns the roots that are open, that of the data directory last.
func (t *tree) all() []*os.Root {
	var list []*os.Root
	for _, r := range t.spaces {
		if r != nil {
			list = append(list, r)
		}
	}
	for _, r := range []*os.Root{t.wal, t.data} {
		if r != nil {
			list = append(list, r)
		}
	}
	return list
}

// discard removes what was written, as far as it can; the marker goes last. What was
// there before the restore stays, with the marker: the next restore goes on from it.
func (t *tree) discard() error {
	if t.data == nil {
		return nil
	}
	if t.sealed {
		if err := t.rename(control, marker); err != nil {
			return err
		}
	}
	if t.over {
		return nil
	}
	for _, r := range t.all() {
		keep := ""
		if r == t.data {
			keep = marker
		}
		if err := t.clear(r, keep); err != nil {
			return err
		}
	}
	if err := t.remove(marker); err != nil {
		return err
	}
	for _, dir := range t.made {
		if err := t.op("remove", dir); err != nil {
			return err
		}
		if err := os.Remove(dir); err != nil {
			return err
		}
	}
	return nil
}

func (t *tree) close() {
	for _, r := range t.all() {
		_ = r.Close()
	}
	for _, b := range t.barriers {
		_ = b.Close()
	}
}
