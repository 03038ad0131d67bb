package storage

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"time"
)

// An Operation is a kind of request to an engine, as it is counted.
type Operation int

// Operations. Read is one [Object.ReadAt], Write one [Upload.Write]; Commit makes durable
// and visible what was written.
const (
	OpList Operation = iota
	OpOpen
	OpRead
	OpWrite
	OpCommit
	OpDelete
	OpSweep

	Operations = 7 // how many there are, numbered from 0
)

// String returns the word for an operation.
func (o Operation) String() string {
	return [...]string{"list", "open", "read", "write", "commit", "delete", "sweep"}[o]
}

// NewMeter returns e with observe called after each operation, with how long it took and
// whether it failed: not for what is missing or there already, the end of an object, or
// because nobody wants it any more. It is called from several goroutines.
func NewMeter(e Engine, observe func(o Operation, elapsed time.Duration, failed bool)) Engine {
	return &metered{e, observe}
}

type metered struct {
	engine  Engine
	observe func(Operation, time.Duration, bool)
}

// done counts an operation that began at a time.
func (m *metered) done(o Operation, began time.Time, err error) {
	m.observe(o, time.Since(began), failed(err))
}

func failed(err error) bool {
	if err == nil {
		return false
	}
	for _, expected := range []error{fs.ErrNotExist, fs.ErrExist, io.EOF, context.Canceled, context.DeadlineExceeded} {
		if errors.Is(err, expected) {
			return false
		}
	}
	return true
}

func (m *metered) Open(ctx context.Context, name string) (Object, error) {
	began := time.Now()
	o, err := m.engine.Open(ctx, name)
	m.done(OpOpen, began, err)
	if err != nil {
		return nil, err
	}
	return &meteredObject{o, m}, nil
}

func (m *metered) List(ctx context.Context, prefix string) ([]Info, error) {
	began := time.Now()
	list, err := m.engine.List(ctx, prefix)
	m.done(OpList, began, err)
	return list, err
}

// Children implements [ChildLister].
func (m *metered) Children(ctx context.Context, prefix string) ([]string, error) {
	began := time.Now()
	names, err := Children(ctx, m.engine, prefix)
	m.done(OpList, began, err)
	return names, err
}

func (m *metered) Delete(ctx context.Context, name string) error {
	began := time.Now()
	err := m.engine.Delete(ctx, name)
	m.done(OpDelete, began, err)
	return err
}

func (m *metered) Sweep(ctx context.Context, owner string) error {
	began := time.Now()
	err := m.engine.Sweep(ctx, owner)
	m.done(OpSweep, began, err)
	return err
}

func (m *metered) Stage(ctx context.Context, owner string) (Stage, error) {
	s, err := m.engine.Stage(ctx, owner)
	if err != nil {
		m.observe(OpWrite, 0, failed(err))
		return nil, err
	}
	return &meteredStage{s, m}, nil
}

type meteredObject struct {
	Object
	m *metered
}

func (o *meteredObject) ReadAt(p []byte, at int64) (int, error) {
	began := time.Now()
	n, err := o.Object.ReadAt(p, at)
	o.m.done(OpRead, began, err)
	return n, err
}

type meteredStage struct {
	Stage
	m *metered
}

func (s *meteredStage) Create(ctx context.Context, name string) (Upload, error) {
	u, err := s.Stage.Create(ctx, name)
	if err != nil {
		s.m.observe(OpWrite, 0, failed(err))
		return nil, err
	}
	return &meteredUpload{u, s.m}, nil
}

func (s *meteredStage) Commit(ctx context.Context) error {
	began := time.Now()
	err := s.Stage.Commit(ctx)
	s.m.done(OpCommit, began, err)
	return err
}

type meteredUpload struct {
	Upload
	m *metered
}

func (u *meteredUpload) Write(p []byte) (int, error) {
	began := time.Now()
	n, err := u.Upload.Write(p)
	u.m.done(OpWrite, began, err)
	return n, err
}

func (u *meteredUpload) Close() error {
	err := u.Upload.Close()
	if failed(err) { // it may be the write that failed
		u.m.observe(OpWrite, 0, true)
	}
	return err
}
