package storage

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/pgmoneta/pgmoneta-go/internal/durable"
)

// tmpDir holds the stages below the engine's directory. It cannot collide with
// an object, because no object name begins with it.
const tmpDir = "tmp"

// Local is an [Engine] over a directory of the machine. Objects are files at
// their names; stages live in tmp/<owner>/ and are renamed into place.
type Local struct {
	fs   durable.FS
	dir  string
	only func(dir string) bool // directories that List looks into
}

// NewLocal returns the engine over dir, which must exist, making its changes through fsys.
func NewLocal(fsys durable.FS, dir string) *Local {
	return &Local{fs: fsys, dir: dir, only: func(string) bool { return true }}
}

// Only makes List look into no directory for which ok is false, and returns the engine.
// It is for a directory that is shared with what are no objects.
func (l *Local) Only(ok func(dir string) bool) *Local {
	l.only = ok
	return l
}

func (l *Local) path(name string) (string, error) {
	if !fs.ValidPath(name) || name == "." || strings.HasPrefix(name, tmpDir+"/") || strings.ContainsRune(name, 0) {
		return "", fmt.Errorf("object name %q is not valid", name)
	}
	return filepath.Join(l.dir, filepath.FromSlash(name)), nil
}

// Open implements [Engine].
func (l *Local) Open(_ context.Context, name string) (Object, error) {
	p, err := l.path(name)
	if err != nil {
		return nil, err
	}
	f, err := os.Open(p)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = &fs.PathError{Op: "open", Path: p, Err: errors.New("not a regular file")}
	}
	if err != nil {
		_ = f.Close()
		return nil, err
	}
	return &localObject{File: f, size: info.Size()}, nil
}

type localObject struct {
	*os.File
	size int64
}

func (o *localObject) Size() int64 { return o.size }

// List implements [Engine].
func (l *Local) List(ctx context.Context, prefix string) ([]Info, error) {
	root := l.dir
	if prefix != "" {
		p, err := l.path(prefix)
		if err != nil {
			return nil, err
		}
		root = p
	}
	var list []Info
	err := filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // deleted while we look
		}
		if err := errors.Join(err, context.Cause(ctx)); err != nil {
			return err
		}
		if d.IsDir() && !l.holds(p) {
			return fs.SkipDir
		}
		if !d.Type().IsRegular() {
			return nil
		}
		info, err := d.Info()
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(l.dir, p)
		list = append(list, Info{Name: filepath.ToSlash(rel), Size: info.Size()})
		return err
	})
	slices.SortFunc(list, func(a, b Info) int { return strings.Compare(a.Name, b.Name) })
	return list, err
}

// Children implements [ChildLister].
func (l *Local) Children(ctx context.Context, prefix string) ([]string, error) {
	p, err := l.path(prefix)
	if err != nil {
		return nil, err
	}
	entries, err := os.ReadDir(p) // sorted by name
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	if err := errors.Join(err, context.Cause(ctx)); err != nil {
		return nil, err
	}
	names := make([]string, len(entries))
	for i, e := range entries {
		names[i] = e.Name()
	}
	return names, nil
}

// holds reports whether a directory can hold objects.
func (l *Local) holds(dir string) bool {
	rel, err := filepath.Rel(l.dir, dir)
	return err == nil && rel != tmpDir && l.only(filepath.ToSlash(rel))
}

// Delete implements [Engine]. Directories that become empty are removed too.
func (l *Local) Delete(_ context.Context, name string) error {
	p, err := l.path(name)
	if err != nil {
		return err
	}
	err = l.fs.Remove(p)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := l.fs.SyncDir(filepath.Dir(p)); err != nil {
		return err
	}
	// A directory that is not empty refuses; one that comes back empty after a
	// crash is harmless. So neither error nor durability matters here.
	for dir := filepath.Dir(p); dir != l.dir; dir = filepath.Dir(dir) {
		if l.fs.Remove(dir) != nil {
			break
		}
	}
	return nil
}

// Sweep implements [Engine].
func (l *Local) Sweep(_ context.Context, owner string) error {
	return durable.RemoveAll(l.fs, filepath.Join(l.dir, tmpDir, owner))
}

// Stage implements [Engine].
func (l *Local) Stage(_ context.Context, owner string) (Stage, error) {
	if owner == "" || strings.ContainsAny(owner, "/.") {
		return nil, fmt.Errorf("stage owner %q is not valid", owner)
	}
	parent := filepath.Join(l.dir, tmpDir, owner)
	if err := os.MkdirAll(parent, 0o700); err != nil { // temporary: need not be durable
		return nil, err
	}
	dir, err := os.MkdirTemp(parent, "")
	if err != nil {
		return nil, err
	}
	// One file syncs while the next is written, so that dirty pages stay bounded
	// and the barrier at the end finds little left to do.
	s := &localStage{engine: l, dir: dir}
	s.sync.SetLimit(2)
	return s, nil
}

type localStage struct {
	engine  *Local
	dir     string
	uploads []*localUpload
	sync    errgroup.Group
	done    bool
}

type localUpload struct {
	durable.File
	stage  *localStage
	name   string // path of the object
	temp   string
	closed bool

	direct *durable.Direct
	length int64
}

// Write writes blocks that come large and aligned, as those of packs do, past the page cache.
func (u *localUpload) Write(b []byte) (int, error) {
	done, err := u.direct.WriteAt(b, u.length)
	n := len(b)
	if !done && err == nil {
		n, err = u.File.WriteAt(b, u.length)
	}
	if err != nil {
		return 0, err
	}
	u.length += int64(n)
	return n, nil
}

func (s *localStage) Create(_ context.Context, name string) (Upload, error) {
	final, err := s.engine.path(name)
	if err != nil {
		return nil, err
	}
	temp := filepath.Join(s.dir, strconv.Itoa(len(s.uploads)))
	f, err := s.engine.fs.Create(temp)
	if err != nil {
		return nil, err
	}
	u := &localUpload{File: f, stage: s, name: final, temp: temp, direct: durable.NewDirect(f)}
	s.uploads = append(s.uploads, u)
	return u, nil
}

// Close hands the file to the background sync, whose error Commit returns.
func (u *localUpload) Close() error {
	if u.closed {
		return nil
	}
	u.closed = true
	u.stage.sync.Go(func() error {
		err := u.Sync()
		return errors.Join(err, u.direct.Close(), u.File.Close())
	})
	return nil
}

func (s *localStage) Commit(context.Context) error {
	if s.done {
		return errors.New("stage committed twice")
	}
	err := s.publish()
	return errors.Join(err, s.Abort())
}

func (s *localStage) publish() error {
	for _, u := range s.uploads {
		if !u.closed {
			return fmt.Errorf("object %s was not finished", u.name)
		}
	}
	if err := s.sync.Wait(); err != nil {
		return err
	}
	dirs := map[string]bool{}
	for _, u := range s.uploads {
		dir := filepath.Dir(u.name)
		if !dirs[dir] {
			if err := durable.MkdirAll(s.engine.fs, dir); err != nil {
				return err
			}
			dirs[dir] = true
		}
		if err := s.engine.fs.Rename(u.temp, u.name); err != nil {
			return err
		}
	}
	for dir := range dirs {
		if err := s.engine.fs.SyncDir(dir); err != nil {
			return err
		}
	}
	return nil
}

func (s *localStage) Abort() error {
	if s.done {
		return nil
	}
	s.done = true
	for _, u := range s.uploads {
		if !u.closed {
			u.closed = true
			_ = errors.Join(u.direct.Close(), u.File.Close())
		}
	}
	_ = s.sync.Wait()
	return os.RemoveAll(s.dir)
}

// Put stores one small object in a stage of its own.
func Put(ctx context.Context, e Engine, owner, name string, content []byte) error {
	s, err := e.Stage(ctx, owner)
	if err != nil {
		return err
	}
	defer func() { _ = s.Abort() }()
	u, err := s.Create(ctx, name)
	if err != nil {
		return err
	}
	if _, err := u.Write(content); err != nil {
		return err
	}
	if err := u.Close(); err != nil {
		return err
	}
	return s.Commit(ctx)
}

// ReadAll returns the content of an object of at most limit bytes.
func ReadAll(ctx context.Context, e Engine, name string, limit int64) ([]byte, error) {
	o, err := e.Open(ctx, name)
	if err != nil {
		return nil, err
	}
	defer func() { _ = o.Close() }()
	if o.Size() > limit {
		return nil, fmt.Errorf("object %s has %d bytes, expected at most %d", path.Base(name), o.Size(), limit)
	}
	b := make([]byte, o.Size())
	if n, err := o.ReadAt(b, 0); n < len(b) {
		return nil, err
	}
	return b, nil
}
