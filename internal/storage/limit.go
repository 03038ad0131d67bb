package storage

import (
	"context"
	"sync"
	"time"
)

const (
	// limitBurst is how long unused rate can be made up for.
	limitBurst = time.Second
	// limitPiece is the most that is read or written at once, so that a large
	// transfer has no more than its share for a while.
	limitPiece = 256 << 10
)

// NewLimit returns e with what is read and written through it, together, limited
// to rate bytes per second; with a rate of 0 it returns e. Waiting ends with the
// context of the operation, for reads that of Open, for writes that of Create.
func NewLimit(e Engine, rate int64) Engine {
	if rate <= 0 {
		return e
	}
	return &limited{Engine: e, bucket: NewBucket(rate)}
}

type limited struct {
	Engine
	bucket *Bucket
}

func (l *limited) Open(ctx context.Context, name string) (Object, error) {
	o, err := l.Engine.Open(ctx, name)
	if err != nil {
		return nil, err
	}
	return &limitedObject{Object: o, ctx: ctx, bucket: l.bucket}, nil
}

// Children implements [ChildLister].
func (l *limited) Children(ctx context.Context, prefix string) ([]string, error) {
	return Children(ctx, l.Engine, prefix)
}

func (l *limited) Stage(ctx context.Context, owner string) (Stage, error) {
	s, err := l.Engine.Stage(ctx, owner)
	if err != nil {
		return nil, err
	}
	return &limitedStage{Stage: s, bucket: l.bucket}, nil
}

type limitedObject struct {
	Object
	ctx    context.Context // of Open, because io.ReaderAt takes none
	bucket *Bucket
}

func (o *limitedObject) ReadAt(p []byte, at int64) (int, error) {
	return o.bucket.pieces(o.ctx, p, func(piece []byte, done int) (int, error) {
		return o.Object.ReadAt(piece, at+int64(done))
	})
}

type limitedStage struct {
	Stage
	bucket *Bucket
}

func (s *limitedStage) Create(ctx context.Context, name string) (Upload, error) {
	u, err := s.Stage.Create(ctx, name)
	if err != nil {
		return nil, err
	}
	return &limitedUpload{Upload: u, ctx: ctx, bucket: s.bucket}, nil
}

type limitedUpload struct {
	Upload
	ctx    context.Context // of Create, because io.Writer takes none
	bucket *Bucket
}

func (u *limitedUpload) Write(p []byte) (int, error) {
	return u.bucket.pieces(u.ctx, p, func(piece []byte, _ int) (int, error) { return u.Upload.Write(piece) })
}

// A Bucket hands out bytes at a rate. It is safe for concurrent use.
type Bucket struct {
	rate float64 // bytes per second

	mu  sync.Mutex
	due time.Time // when all that was taken is paid for
}

// NewBucket returns one that hands out rate bytes per second, which is above 0.
func NewBucket(rate int64) *Bucket { return &Bucket{rate: float64(rate), due: time.Now()} }

// pieces transfers p piece by piece, each when its turn has come.
func (b *Bucket) pieces(ctx context.Context, p []byte, transfer func(piece []byte, done int) (int, error)) (int, error) {
	done := 0
	for {
		piece := p[done:min(len(p), done+limitPiece)]
		if err := b.Take(ctx, len(piece)); err != nil {
			return done, err
		}
		n, err := transfer(piece, done)
		done += n
		if err != nil || done == len(p) {
			return done, err
		}
	}
}

// Take waits until what was taken before is paid for, and takes n bytes.
func (b *Bucket) Take(ctx context.Context, n int) error {
	wait := b.reserve(time.Now(), n)
	if wait <= 0 {
		return nil
	}
	if err := sleep(ctx, wait); err != nil {
		b.reserve(time.Now(), -n)
		return err
	}
	return nil
}

func (b *Bucket) reserve(now time.Time, n int) (wait time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if earliest := now.Add(-limitBurst); b.due.Before(earliest) {
		b.due = earliest
	}
	wait = b.due.Sub(now)
	b.due = b.due.Add(time.Duration(float64(n) / b.rate * float64(time.Second)))
	return wait
}

// sleep waits, or returns why ctx ended.
func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
