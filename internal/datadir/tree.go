package datadir

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"sort"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// A Kind is a type of file.
type Kind int

// Kinds. A data directory has no others.
const (
	Regular Kind = iota
	Directory
	Symlink
)

// A File is an entry of a data directory.
type File struct {
	Path    string // relative to the data directory, with slashes; below pg_tblspc/<oid> for a tablespace
	Kind    Kind
	Mode    uint32 // permissions
	ModTime time.Time
	Size    int64
	Link    string // where a symbolic link leads
}

// A Tree is a data directory. Its methods are safe for concurrent use.
type Tree interface {
	// List returns the entries of a directory in ascending order of their names.
	// What a tablespace's symbolic link leads to is listed below the link.
	List(ctx context.Context, dir string) ([]File, error)

	// Open opens a regular file. One that is gone is [fs.ErrNotExist].
	Open(ctx context.Context, path string) (Handle, error)

	// Close releases what the tree holds open. No handle may be in use.
	Close() error
}

// A Handle is an open file of a [Tree], used by one goroutine at a time.
type Handle interface {
	io.ReaderAt
	io.Closer

	// Want tells that n bytes from offset on will be read soon.
	Want(offset, n int64)
}

// Local is the [Tree] of a data directory on this machine.
type Local struct {
	dir  string
	root *os.Root

	mu    sync.Mutex
	space map[string]*os.Root // by the path of its link, once it was needed
}

// OpenLocal opens the data directory dir. Tablespaces are opened when something in them
// is, because they come and go while the server runs.
func OpenLocal(dir string) (*Local, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	l := &Local{dir: dir, root: root, space: map[string]*os.Root{}}
	if _, err := root.Stat(tablespaces); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

const tablespaces = "pg_tblspc"

// in returns the root that holds name, and its name there. The root of a tablespace that
// was dropped is [fs.ErrNotExist].
func (l *Local) in(name string) (*os.Root, string, error) {
	parts := strings.SplitN(name, "/", 3)
	if len(parts) < 2 || parts[0] != tablespaces {
		return l.root, name, nil
	}
	root, err := l.tablespace(path.Join(parts[:2]...))
	if err != nil || root == l.root {
		return root, name, err
	}
	return root, strings.Join(append(parts[2:], "."), "/"), nil
}

// tablespace opens what a link leads to, once. What is no link lies in the data directory.
func (l *Local) tablespace(link string) (*os.Root, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if root := l.space[link]; root != nil {
		return root, nil
	}
	info, err := l.root.Lstat(link)
	if err != nil {
		return nil, err
	}
	if info.Mode().Type() != fs.ModeSymlink {
		return l.root, nil
	}
	target, err := l.root.Readlink(link)
	if err != nil {
		return nil, err
	}
	if !filepath.IsAbs(target) {
		target = filepath.Join(l.dir, tablespaces, target)
	}
	root, err := os.OpenRoot(target)
	if err != nil {
		return nil, fmt.Errorf("tablespace %s: %w", path.Base(link), err)
	}
	l.space[link] = root
	return root, nil
}

// List implements [Tree].
func (l *Local) List(ctx context.Context, dir string) ([]File, error) {
	root, inside, err := l.in(dir)
	if err != nil {
		return nil, err
	}
	d, err := root.Open(path.Clean(inside))
	if err != nil {
		return nil, err
	}
	defer func() { _ = d.Close() }()
	names, err := d.Readdirnames(-1)
	if err != nil {
		return nil, err
	}
	sort.Strings(names)
	files := make([]File, 0, len(names))
	for _, name := range names {
		f, err := stat(root, path.Join(inside, name))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err := errors.Join(err, context.Cause(ctx)); err != nil {
			return nil, err
		}
		f.Path = path.Join(dir, name)
		files = append(files, f)
	}
	return files, nil
}

func stat(root *os.Root, name string) (File, error) {
	info, err := root.Lstat(name)
	if err != nil {
		return File{}, err
	}
	f := File{Mode: uint32(info.Mode().Perm()), ModTime: info.ModTime().UTC()}
	switch info.Mode().Type() {
	case 0:
		f.Kind, f.Size = Regular, info.Size()
	case fs.ModeDir:
		f.Kind = Directory
	case fs.ModeSymlink:
		f.Kind = Symlink
		f.Link, err = root.Readlink(name)
	default:
		// A socket or a pipe; PostgreSQL leaves such out of a backup as well.
		return File{}, fs.ErrNotExist
	}
	return f, err
}

// Open implements [Tree].
func (l *Local) Open(_ context.Context, name string) (Handle, error) {
	root, inside, err := l.in(name)
	if err != nil {
		return nil, err
	}
	f, err := root.Open(path.Clean(inside))
	if err != nil {
		return nil, err
	}
	return localHandle{f}, nil
}

type localHandle struct{ *os.File }

func (h localHandle) Want(offset, n int64) {
	raw, err := h.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(fd uintptr) { _ = unix.Fadvise(int(fd), offset, n, unix.FADV_WILLNEED) }) // a hint
}

// Close implements [Tree].
func (l *Local) Close() error {
	err := l.root.Close()
	for _, root := range l.space {
		err = errors.Join(err, root.Close())
	}
	return err
}
