package durable

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
)

// ErrPowerCut is what every operation of a [Fault] returns once the power is off.
var ErrPowerCut = errors.New("power cut")

// An Op is one operation a [Fault] is about to perform.
type Op struct {
	N    int    // counts from 1
	Kind string // create, open, write, allocate, sync, datasync, close, rename, replace, remove, mkdir, syncdir
	Path string
}

// A Fault is an [FS] over a real directory that remembers what a power cut
// would leave: content as of each file's last sync, names as of each
// directory's last sync. It is stricter than real file systems, which often
// keep more. It exists for tests.
type Fault struct {
	root string
	// decide is called before each operation, under the lock; an error is
	// returned instead of performing it. ErrPowerCut is final.
	decide func(Op) error

	mu    sync.Mutex
	n     int
	off   bool
	nodes map[string]*faultNode            // by current path, files only
	names map[string]map[string]*faultNode // by directory: durable names
}

type faultNode struct {
	dir     bool
	durable []byte
	dirty   []span
}

type span struct{ from, to int64 }

// NewPowerCut returns a Fault over root whose power fails at operation n, counted from 1.
func NewPowerCut(root string, n int) (*Fault, error) {
	return NewFault(root, func(op Op) error {
		if op.N == n {
			return ErrPowerCut
		}
		return nil
	})
}

// NewFault returns a Fault over root. What root holds now counts as durable.
// decide may be nil.
func NewFault(root string, decide func(Op) error) (*Fault, error) {
	f := &Fault{root: root, decide: decide, nodes: map[string]*faultNode{}, names: map[string]map[string]*faultNode{}}
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		node := &faultNode{}
		if err == nil && d.IsDir() {
			node.dir = true
		} else if err == nil {
			node.durable, err = os.ReadFile(path)
			f.nodes[path] = node
		}
		if errors.Is(err, fs.ErrNotExist) {
			return nil // another process works here too
		}
		if err != nil {
			return err
		}
		if path != root {
			f.keepName(path, node)
		}
		return nil
	})
	return f, err
}

func (f *Fault) keepName(path string, node *faultNode) {
	dir := filepath.Dir(path)
	if f.names[dir] == nil {
		f.names[dir] = map[string]*faultNode{}
	}
	f.names[dir][filepath.Base(path)] = node
}

// Cut switches the power off: every later operation fails with [ErrPowerCut].
func (f *Fault) Cut() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.off = true
}

// Ops returns how many operations were attempted.
func (f *Fault) Ops() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.n
}

// Image writes what survived below dst, which must be an empty directory.
func (f *Fault) Image(dst string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.image(f.root, dst)
}

func (f *Fault) image(dir, dst string) error {
	for name, node := range f.names[dir] {
		to := filepath.Join(dst, name)
		if !node.dir {
			if err := os.WriteFile(to, node.durable, 0o600); err != nil {
				return err
			}
			continue
		}
		if err := os.Mkdir(to, 0o700); err != nil {
			return err
		}
		if err := f.image(filepath.Join(dir, name), to); err != nil {
			return err
		}
	}
	return nil
}

// step counts an operation and asks whether it may happen. It holds the lock
// during do, so that the model and the directory agree.
func (f *Fault) step(kind, path string, do func() error) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.off {
		return fmt.Errorf("%s %s: %w", kind, path, ErrPowerCut)
	}
	f.n++
	if f.decide != nil {
		if err := f.decide(Op{N: f.n, Kind: kind, Path: path}); err != nil {
			f.off = errors.Is(err, ErrPowerCut)
			return fmt.Errorf("%s %s: %w", kind, path, err)
		}
	}
	return do()
}

// Create implements [FS].
func (f *Fault) Create(path string) (File, error) {
	var file *faultFile
	err := f.step("create", path, func() error {
		real, err := OS{}.Create(path)
		if err != nil {
			return err
		}
		node := &faultNode{}
		f.nodes[path] = node
		file = &faultFile{File: real, fault: f, node: node}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return file, nil
}

// Open implements [FS].
func (f *Fault) Open(path string) (File, error) {
	var file *faultFile
	err := f.step("open", path, func() error {
		real, err := OS{}.Open(path)
		if err != nil {
			return err
		}
		file = &faultFile{File: real, fault: f, node: f.nodes[path]}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return file, nil
}

// Rename implements [FS].
func (f *Fault) Rename(from, to string) error {
	return f.move("rename", OS{}.Rename, from, to)
}

// Replace implements [FS].
func (f *Fault) Replace(from, to string) error {
	return f.move("replace", OS{}.Replace, from, to)
}

func (f *Fault) move(kind string, do func(from, to string) error, from, to string) error {
	return f.step(kind, to, func() error {
		if err := do(from, to); err != nil {
			return err
		}
		f.nodes[to] = f.nodes[from]
		delete(f.nodes, from)
		return nil
	})
}

// Remove implements [FS].
func (f *Fault) Remove(path string) error {
	return f.step("remove", path, func() error {
		if err := (OS{}).Remove(path); err != nil {
			return err
		}
		delete(f.nodes, path)
		return nil
	})
}

// Mkdir implements [FS].
func (f *Fault) Mkdir(path string) error {
	return f.step("mkdir", path, func() error { return OS{}.Mkdir(path) })
}

// SyncDir implements [FS].
func (f *Fault) SyncDir(path string) error {
	return f.step("syncdir", path, func() error {
		entries, err := os.ReadDir(path)
		if err != nil {
			return err
		}
		now := map[string]*faultNode{}
		for _, e := range entries {
			full := filepath.Join(path, e.Name())
			switch node := f.nodes[full]; {
			case node != nil:
				now[e.Name()] = node
			case e.IsDir():
				now[e.Name()] = &faultNode{dir: true}
			}
		}
		f.names[path] = now
		return nil
	})
}

type faultFile struct {
	File
	fault *Fault
	node  *faultNode
	at    int64
}

func (f *faultFile) Write(p []byte) (int, error) {
	n, err := f.WriteAt(p, f.at)
	f.at += int64(n)
	return n, err
}

func (f *faultFile) WriteAt(p []byte, off int64) (n int, err error) {
	err = f.fault.step("write", f.Name(), func() error {
		n, err = f.File.WriteAt(p, off)
		f.node.dirty = append(f.node.dirty, span{off, off + int64(n)})
		return err
	})
	return n, err
}

func (f *faultFile) Allocate(size int64) error {
	return f.fault.step("allocate", f.Name(), func() error {
		f.node.dirty = append(f.node.dirty, span{size, size})
		return f.File.Allocate(size)
	})
}

func (f *faultFile) Sync() error     { return f.fault.step("sync", f.Name(), f.settle) }
func (f *faultFile) Datasync() error { return f.fault.step("datasync", f.Name(), f.settle) }

// settle copies what was written since the last sync into the durable content.
func (f *faultFile) settle() error {
	for _, s := range f.node.dirty {
		if grow := s.to - int64(len(f.node.durable)); grow > 0 {
			f.node.durable = append(f.node.durable, make([]byte, grow)...)
		}
		if s.from == s.to {
			continue
		}
		if _, err := f.ReadAt(f.node.durable[s.from:s.to], s.from); err != nil {
			return err
		}
	}
	f.node.dirty = f.node.dirty[:0]
	return nil
}

// Close closes the real file even when the power is off, so that a test leaks nothing.
func (f *faultFile) Close() error {
	err := f.fault.step("close", f.Name(), func() error { return nil })
	return errors.Join(err, f.File.Close())
}
