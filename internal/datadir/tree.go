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
	dir   string
	root  *os.Root
	space map[string]*os.Root // by the path of its link
}

// OpenLocal opens the data directory dir and the tablespaces it links to.
func OpenLocal(dir string) (*Local, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	l := &Local{dir: dir, root: root, space: map[string]*os.Root{}}
	if err := l.openTablespaces(); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

const tablespaces = "pg_tblspc"

func (l *Local) openTablespaces() error {
	entries, err := fs.ReadDir(l.root.FS(), tablespaces)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.Type() != fs.ModeSymlink {
			continue
		}
		link := path.Join(tablespaces, e.Name())
		target, err := l.root.Readlink(link)
		if err != nil {
			return err
		}
		if !filepath.IsAbs(target) {
			target = filepath.Join(l.dir, tablespaces, target)
		}
		if l.space[link], err = os.OpenRoot(target); err != nil {
			return fmt.Errorf("tablespace %s: %w", e.Name(), err)
		}
	}
	return nil
}

// in returns the root that holds name, and its name there.
func (l *Local) in(name string) (*os.Root, string) {
	parts := strings.SplitN(name, "/", 3)
	if len(parts) >= 2 && parts[0] == tablespaces {
		if root := l.space[parts[0]+"/"+parts[1]]; root != nil {
			return root, strings.Join(append(parts[2:], "."), "/")
		}
	}
	return l.root, name
}

// List implements [Tree].
func (l *Local) List(ctx context.Context, dir string) ([]File, error) {
	root, inside := l.in(dir)
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
	root, inside := l.in(name)
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
		if root != nil {
			err = errors.Join(err, root.Close())
		}
	}
	return err
}
