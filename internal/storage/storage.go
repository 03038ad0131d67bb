// Package storage keeps immutable objects under flat names.
//
// # Terms
//
// An object is a name and bytes, written once and then only deleted. Its name is
// a slash-separated path such as "pack/20261121120000/1". A [Stage] collects
// new objects that become visible together; until then they have no name.
//
// # Guarantees
//
// An object that [Engine.Open] or [Engine.List] shows is complete and on stable
// storage. No object is ever replaced: committing a name that exists fails with
// [fs.ErrExist]. An aborted stage, or one whose process died, leaves nothing
// that can be opened; [Engine.Sweep] removes what it left.
//
// # Not guaranteed
//
// A commit of several objects is not atomic: after a crash some may be visible
// and others not. Callers write the object that gives the others meaning in a
// stage of its own, afterwards.
//
// # Decorators
//
// [NewLimit], [NewRetry] and [NewMeter] are engines over an engine. Retry goes outside, so
// that what is repeated counts towards the rate.
package storage

import (
	"context"
	"io"
	"slices"
	"strings"
)

// An Engine stores objects. Its methods are safe for concurrent use.
type Engine interface {
	// Stage opens a staging area. owner names the kind of process that
	// writes ("job" or "wal"), so that [Engine.Sweep] can tell whose leftovers
	// it may remove. The caller calls Commit or Abort.
	Stage(ctx context.Context, owner string) (Stage, error)

	// Open opens an object for reading at random. A missing one is [fs.ErrNotExist].
	Open(ctx context.Context, name string) (Object, error)

	// List returns the objects whose names begin with the directory prefix
	// (without a trailing slash), in ascending order. An empty prefix lists all.
	List(ctx context.Context, prefix string) ([]Info, error)

	// Delete removes an object. A missing one is no error. Once it has
	// returned, the object does not come back after a crash.
	Delete(ctx context.Context, name string) error

	// Sweep removes what unfinished stages of owner left. No stage of that
	// owner may be open in any process.
	Sweep(ctx context.Context, owner string) error
}

// A Stage collects objects that become visible together. It is used by one
// goroutine at a time.
type Stage interface {
	// Create begins an object. Several uploads may be open at once, each
	// used by one goroutine.
	Create(ctx context.Context, name string) (Upload, error)

	// Commit makes every finished object durable and visible, in the order
	// of their creation. The stage is finished whatever it returns, but for a
	// temporary error ([IsTemporary]): then it may be called again, and goes
	// on with what is not visible yet.
	Commit(ctx context.Context) error

	// Abort drops the objects. After Commit it does nothing, so that it can
	// be deferred.
	Abort() error
}

// An Upload is an object being written.
type Upload interface {
	io.Writer

	// Close finishes the object. An upload that is not closed when its
	// stage commits makes the commit fail.
	Close() error
}

// An Object is an object opened for reading.
type Object interface {
	io.ReaderAt
	io.Closer
	Size() int64
}

// Info describes an object in a listing.
type Info struct {
	Name string
	Size int64 // bytes
}

// A ChildLister is an [Engine] that can list one level of names without looking at
// what lies below.
type ChildLister interface {
	// Children returns the next parts of the names that begin with the directory
	// prefix, each once, in ascending order. Names that no object has may be among them.
	Children(ctx context.Context, prefix string) ([]string, error)
}

// Children lists one level of names: of pack/1/1, pack/1/2 and pack/2/1 those below
// "pack" are 1 and 2. An engine that is no [ChildLister] lists all of them.
func Children(ctx context.Context, e Engine, prefix string) ([]string, error) {
	if l, ok := e.(ChildLister); ok {
		return l.Children(ctx, prefix)
	}
	list, err := e.List(ctx, prefix)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, o := range list {
		name, _, _ := strings.Cut(strings.TrimPrefix(o.Name, prefix+"/"), "/")
		names = append(names, name)
	}
	slices.Sort(names)
	return slices.Compact(names), nil
}
