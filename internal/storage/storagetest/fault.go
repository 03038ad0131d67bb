package storagetest

import (
	"context"
	"sync/atomic"

	"github.com/pgmoneta/pgmoneta-go/internal/storage"
)

// An Op is an operation on an engine, or on what it gave out.
type Op struct {
	N     int    // counts the operations, from 1
	Kind  string // open, read, list, delete, sweep, stage, create, write, close, commit
	Name  string // of the object, prefix or owner
	After bool   // it was carried out
}

// NewFault returns e with trouble. decide is called before each operation, which
// an error then keeps from being carried out, and after each that succeeded, which
// an error then makes look as if it had failed. It may also wait, until ctx ends.
// It is called by any goroutine.
func NewFault(e storage.Engine, decide func(ctx context.Context, op Op) error) storage.Engine {
	return &faulty{Engine: e, decide: decide}
}

type faulty struct {
	storage.Engine
	decide func(context.Context, Op) error
	count  atomic.Int64
}

func (f *faulty) do(ctx context.Context, kind, name string, carryOut func() error) error {
	op := Op{N: int(f.count.Add(1)), Kind: kind, Name: name}
	if err := f.decide(ctx, op); err != nil {
		return err
	}
	if err := carryOut(); err != nil {
		return err
	}
	op.After = true
	return f.decide(ctx, op)
}

func (f *faulty) Open(ctx context.Context, name string) (storage.Object, error) {
	var o storage.Object
	err := f.do(ctx, "open", name, func() (err error) { o, err = f.Engine.Open(ctx, name); return err })
	if err != nil {
		if o != nil {
			_ = o.Close()
		}
		return nil, err
	}
	return &faultyObject{Object: o, ctx: ctx, f: f, name: name}, nil
}

func (f *faulty) List(ctx context.Context, prefix string) (list []storage.Info, err error) {
	err = f.do(ctx, "list", prefix, func() (err error) { list, err = f.Engine.List(ctx, prefix); return err })
	return list, err
}

func (f *faulty) Delete(ctx context.Context, name string) error {
	return f.do(ctx, "delete", name, func() error { return f.Engine.Delete(ctx, name) })
}

func (f *faulty) Sweep(ctx context.Context, owner string) error {
	return f.do(ctx, "sweep", owner, func() error { return f.Engine.Sweep(ctx, owner) })
}

func (f *faulty) Stage(ctx context.Context, owner string) (storage.Stage, error) {
	var s storage.Stage
	err := f.do(ctx, "stage", owner, func() (err error) { s, err = f.Engine.Stage(ctx, owner); return err })
	if err != nil {
		return nil, err // what was made stays for Sweep, as it would in life
	}
	return &faultyStage{Stage: s, f: f, owner: owner}, nil
}

type faultyObject struct {
	storage.Object
	ctx  context.Context
	f    *faulty
	name string
}

func (o *faultyObject) ReadAt(p []byte, at int64) (n int, err error) {
	err = o.f.do(o.ctx, "read", o.name, func() (err error) { n, err = o.Object.ReadAt(p, at); return err })
	return n, err
}

type faultyStage struct {
	storage.Stage
	f     *faulty
	owner string
}

func (s *faultyStage) Create(ctx context.Context, name string) (storage.Upload, error) {
	var u storage.Upload
	err := s.f.do(ctx, "create", name, func() (err error) { u, err = s.Stage.Create(ctx, name); return err })
	if err != nil {
		return nil, err
	}
	return &faultyUpload{Upload: u, ctx: ctx, f: s.f, name: name}, nil
}

func (s *faultyStage) Commit(ctx context.Context) error {
	return s.f.do(ctx, "commit", s.owner, func() error { return s.Stage.Commit(ctx) })
}

type faultyUpload struct {
	storage.Upload
	ctx  context.Context
	f    *faulty
	name string
}

func (u *faultyUpload) Write(p []byte) (n int, err error) {
	err = u.f.do(u.ctx, "write", u.name, func() (err error) { n, err = u.Upload.Write(p); return err })
	return n, err
}

func (u *faultyUpload) Close() error {
	return u.f.do(u.ctx, "close", u.name, u.Upload.Close)
}
