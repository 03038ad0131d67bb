package storage

import (
	"context"
	"crypto/sha256"
	"errors"
	"hash"
	"io"
	"io/fs"
	"math/rand/v2"
	"time"
)

// A TemporaryError is what an engine returns when trying again may help: the
// network, a server that is busy. What failed with it can be repeated on the same
// object, upload or stage; a Write goes on after the bytes it reports as written.
type TemporaryError struct {
	Err     error
	Unknown bool // the operation may have been carried out all the same
}

func (e *TemporaryError) Error() string { return e.Err.Error() }
func (e *TemporaryError) Unwrap() error { return e.Err }

// IsTemporary reports whether trying again may help.
func IsTemporary(err error) bool {
	var t *TemporaryError
	return errors.As(err, &t)
}

// failedCleanly reports whether trying again may help and nothing has happened so far.
func failedCleanly(err error) bool {
	var t *TemporaryError
	return errors.As(err, &t) && !t.Unknown
}

// RetryOptions tell how often and how fast to try. The zero value means the defaults.
type RetryOptions struct {
	Attempts int           // in all; 6 when 0
	First    time.Duration // longest delay after the first attempt, doubled after each; 250 ms when 0
	Most     time.Duration // longest delay; 30 s when 0
}

func (o RetryOptions) resolve() RetryOptions {
	if o.Attempts == 0 {
		o.Attempts = 6
	}
	if o.First == 0 {
		o.First = 250 * time.Millisecond
	}
	if o.Most == 0 {
		o.Most = 30 * time.Second
	}
	return o
}

// NewRetry returns e with temporary errors ([IsTemporary]) tried again, after a
// delay with jitter that grows. Waiting ends with the context of the operation.
//
// What may have been carried out is repeated only where that does no harm. A
// commit of which this is not known is settled by reading its objects back: all
// there and equal, and it was done.
func NewRetry(e Engine, o RetryOptions) Engine { return &retrying{engine: e, o: o.resolve()} }

type retrying struct {
	engine Engine
	o      RetryOptions
}

// do calls f until it succeeds, fails with what again does not accept, or was called often enough.
func (r *retrying) do(ctx context.Context, again func(error) bool, f func() error) error {
	delay := r.o.First
	for attempt := 1; ; attempt++ {
		err := f()
		if err == nil || attempt >= r.o.Attempts || !again(err) {
			return err
		}
		if cause := sleep(ctx, delay/2+rand.N(delay/2+1)); cause != nil {
			return errors.Join(cause, err)
		}
		delay = min(2*delay, r.o.Most)
	}
}

func (r *retrying) Open(ctx context.Context, name string) (o Object, err error) {
	err = r.do(ctx, IsTemporary, func() error {
		o, err = r.engine.Open(ctx, name)
		return err
	})
	if err != nil {
		return nil, err
	}
	return &retryingObject{Object: o, ctx: ctx, r: r}, nil
}

func (r *retrying) List(ctx context.Context, prefix string) (list []Info, err error) {
	err = r.do(ctx, IsTemporary, func() error {
		list, err = r.engine.List(ctx, prefix)
		return err
	})
	return list, err
}

// Children implements [ChildLister].
func (r *retrying) Children(ctx context.Context, prefix string) (names []string, err error) {
	err = r.do(ctx, IsTemporary, func() error {
		names, err = Children(ctx, r.engine, prefix)
		return err
	})
	return names, err
}

func (r *retrying) Delete(ctx context.Context, name string) error {
	return r.do(ctx, IsTemporary, func() error { return r.engine.Delete(ctx, name) })
}

func (r *retrying) Sweep(ctx context.Context, owner string) error {
	return r.do(ctx, IsTemporary, func() error { return r.engine.Sweep(ctx, owner) })
}

// Stage may leave one behind that nobody knows of; [Engine.Sweep] removes it.
func (r *retrying) Stage(ctx context.Context, owner string) (s Stage, err error) {
	err = r.do(ctx, IsTemporary, func() error {
		s, err = r.engine.Stage(ctx, owner)
		return err
	})
	if err != nil {
		return nil, err
	}
	return &retryingStage{Stage: s, r: r}, nil
}

type retryingObject struct {
	Object
	ctx context.Context // of Open, because io.ReaderAt takes none
	r   *retrying
}

func (o *retryingObject) ReadAt(p []byte, at int64) (n int, err error) {
	err = o.r.do(o.ctx, IsTemporary, func() error {
		n, err = o.Object.ReadAt(p, at)
		return err
	})
	return n, err
}

type retryingStage struct {
	Stage
	r       *retrying
	uploads []*retryingUpload
}

func (s *retryingStage) Create(ctx context.Context, name string) (u Upload, err error) {
	err = s.r.do(ctx, failedCleanly, func() error {
		u, err = s.Stage.Create(ctx, name)
		return err
	})
	if err != nil {
		return nil, err
	}
	up := &retryingUpload{Upload: u, ctx: ctx, r: s.r, name: name, sum: sha256.New()}
	s.uploads = append(s.uploads, up)
	return up, nil
}

func (s *retryingStage) Commit(ctx context.Context) error {
	unknown, final := false, false // unknown: an attempt may have been carried out
	again := func(err error) bool { return !final && IsTemporary(err) }
	return s.r.do(ctx, again, func() error {
		err := s.Stage.Commit(ctx)
		unknown = unknown || IsTemporary(err) && !failedCleanly(err)
		if !unknown || !IsTemporary(err) && !errors.Is(err, fs.ErrExist) {
			return err
		}
		done, look := s.committed(ctx)
		switch {
		case look != nil:
			final = true
			return errors.Join(err, look)
		case done:
			return nil
		}
		return err
	})
}

// committed reports whether all objects are there as they were written. One that
// is there with other content is [fs.ErrExist].
func (s *retryingStage) committed(ctx context.Context) (bool, error) {
	for _, u := range s.uploads {
		same, err := u.equals(ctx)
		if errors.Is(err, fs.ErrNotExist) {
			return false, nil
		}
		if err != nil {
			return false, err
		}
		if !same {
			return false, &fs.PathError{Op: "commit", Path: u.name, Err: fs.ErrExist}
		}
	}
	return true, nil
}

type retryingUpload struct {
	Upload
	ctx  context.Context // of Create, because io.Writer takes none
	r    *retrying
	name string
	size int64
	sum  hash.Hash // of what was written
}

func (u *retryingUpload) Write(p []byte) (done int, err error) {
	err = u.r.do(u.ctx, failedCleanly, func() error {
		n, err := u.Upload.Write(p[done:])
		_, _ = u.sum.Write(p[done : done+n])
		done += n
		return err
	})
	u.size += int64(done)
	return done, err
}

func (u *retryingUpload) Close() error { return u.r.do(u.ctx, failedCleanly, u.Upload.Close) }

// equals reports whether the object of that name holds what was written.
func (u *retryingUpload) equals(ctx context.Context) (bool, error) {
	o, err := u.r.Open(ctx, u.name)
	if err != nil {
		return false, err
	}
	defer func() { _ = o.Close() }()
	if o.Size() != u.size {
		return false, nil
	}
	sum := sha256.New()
	if _, err := io.Copy(sum, io.NewSectionReader(o, 0, u.size)); err != nil {
		return false, err
	}
	return string(sum.Sum(nil)) == string(u.sum.Sum(nil)), nil
}
