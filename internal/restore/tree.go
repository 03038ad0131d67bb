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

// A tree is the target directory with its tablespaces while they are written.
// Every change of the disk goes through it. Names are confined by [os.Root].
// It is safe for concurrent use once it is open.
type tree struct {
	plan *Plan
	// op is called before each operation that changes the disk; an error is
	// returned instead of performing it. It exists for tests.
	op     func(kind, path string) error
	data   *os.Root
	spaces map[string]*os.Root // by OID in decimal
	made   []string            // directories that did not exist before

	interrupted bool // there were leftovers of an earlier restore
	sealed      bool // global/pg_control has taken the marker's place
}

// open makes and marks the directories. On an error the caller still calls
// discard and close.
func (t *tree) open() (err error) {
	if t.interrupted, err = inspect(t.plan); err != nil {
		return err
	}
	if t.data, err = t.root(t.plan.Directory); err != nil {
		return err
	}
	if t.interrupted {
		err = t.clear(t.data, marker)
	} else {
		err = t.mark()
	}
	if err != nil {
		return err
	}
	if err := t.mkdir("pg_tblspc"); err != nil {
		return err
	}
	for _, ts := range t.plan.Tablespaces {
		if err := t.openSpace(ts); err != nil {
			return err
		}
	}
	return nil
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

// openSpace makes the directory of a tablespace and the link to it. What an
// interrupted restore left in it goes: the marker was made while it was empty.
func (t *tree) openSpace(ts Tablespace) error {
	r, err := t.root(ts.Directory)
	if err != nil {
		return err
	}
	oid := strconv.FormatUint(uint64(ts.OID), 10)
	t.spaces[oid] = r
	if t.interrupted {
		if err := t.clear(r, ""); err != nil {
			return err
		}
	}
	link := "pg_tblspc/" + oid
	if err := t.op("symlink", link); err != nil {
		return err
	}
	return t.data.Symlink("../../"+filepath.Base(ts.Directory), link)
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
		if err := t.op("remove", e.Name()); err != nil {
			return err
		}
		if err := r.RemoveAll(e.Name()); err != nil {
			return err
		}
	}
	return nil
}

// locate returns where a path of the manifest lies. Only the simplest form of a
// name is accepted, so that no two names mean one file.
func (t *tree) locate(name string) (*os.Root, string, error) {
	if name == "." || name != path.Clean(name) || !filepath.IsLocal(name) || strings.ContainsRune(name, 0) {
		return nil, "", fmt.Errorf("the manifest lists a file named %q: refused", name)
	}
	if rest, ok := strings.CutPrefix(name, "pg_tblspc/"); ok {
		oid, below, inside := strings.Cut(rest, "/")
		if r := t.spaces[oid]; r != nil && inside {
			return r, below, nil
		}
	}
	return t.data, name, nil
}

// isLink reports whether a path of the manifest is the link to a tablespace,
// which exists already and leads elsewhere than on the server.
func (t *tree) isLink(name string) bool {
	oid, ok := strings.CutPrefix(name, "pg_tblspc/")
	return ok && t.spaces[oid] != nil
}

func (t *tree) mkdir(name string) error {
	r, below, err := t.locate(name)
	if err != nil {
		return err
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

// write makes a file of the data directory with the given content, replacing one
// that is there.
func (t *tree) write(name string, content []byte) error {
	if err := t.op("write", name); err != nil {
		return err
	}
	return t.data.WriteFile(name, content, 0o600)
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
		if err := durable.SyncFS(dir); err != nil {
			return err
		}
	}
	return nil
}

// seal exchanges the marker for global/pg_control: the content takes the
// marker's place, then the marker is renamed. Each step is atomic, so that at
// every moment one of the two exists and never both.
func (t *tree) seal(content []byte, modified time.Time) error {
	const fresh = marker + ".new"
	f, err := t.create(t.data, fresh, 0o600)
	if err != nil {
		return err
	}
	if err = t.op("write", fresh); err == nil {
		_, err = f.Write(content)
	}
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := t.data.Chtimes(fresh, modified, modified); err != nil {
		return err
	}
	if err := t.rename(fresh, marker); err != nil {
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

// discard removes what was written, as far as it can; the marker goes last.
func (t *tree) discard() error {
	// Without the marker nobody would know later whose the rest is.
	if t.data == nil || t.interrupted && len(t.spaces) < len(t.plan.Tablespaces) {
		return nil
	}
	if t.sealed {
		if err := t.rename(control, marker); err != nil {
			return err
		}
	}
	for _, r := range t.spaces {
		if err := t.clear(r, ""); err != nil {
			return err
		}
	}
	if err := t.clear(t.data, marker); err != nil {
		return err
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
	for _, r := range t.spaces {
		_ = r.Close()
	}
	if t.data != nil {
		_ = t.data.Close()
	}
}
