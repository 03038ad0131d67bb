package wal

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/pgmoneta/pgmoneta-go/internal/container"
	"github.com/pgmoneta/pgmoneta-go/internal/pg"
	"github.com/pgmoneta/pgmoneta-go/internal/repo"
)

// A storer moves complete segments from the receive directory into the
// repository, one at a time, behind the receiver's back. Its queue is the
// directory itself: what is not stored when the process ends is found at the
// next start.
type storer struct {
	r *Receiver

	background *background

	mu     sync.Mutex
	queue  []string
	wake   chan struct{} // holds one token when the queue has grown
	cancel context.CancelFunc
	done   chan struct{}
}

// startStorer begins to store; the segments already complete come first.
func (r *Receiver) startStorer(ctx context.Context, complete []string) *storer {
	ctx, cancel := context.WithCancel(ctx)
	s := &storer{r: r, background: startBackground(), queue: complete, wake: make(chan struct{}, 1), cancel: cancel, done: make(chan struct{})}
	s.wake <- struct{}{}
	go s.run(ctx)
	return s
}

// add queues a segment that has become complete.
func (s *storer) add(name string) {
	s.mu.Lock()
	s.queue = append(s.queue, name)
	n := len(s.queue)
	s.mu.Unlock()
	s.r.Monitor.Queued(n)
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// addAll queues those of the given segments that are not queued.
func (s *storer) addAll(names []string) {
	s.mu.Lock()
	queued := slices.Clone(s.queue)
	s.mu.Unlock()
	for _, name := range names {
		if !slices.Contains(queued, name) {
			s.add(name)
		}
	}
}

// close stops after the segment in progress and waits for it.
func (s *storer) close() {
	s.cancel()
	<-s.done
}

func (s *storer) run(ctx context.Context) {
	defer close(s.done)
	defer s.background.close()
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.wake:
			s.drain(ctx)
		}
	}
}

// head returns the segment to store next and the length of the queue.
func (s *storer) head() (string, int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.queue) == 0 {
		return "", 0
	}
	return s.queue[0], len(s.queue)
}

// urgent is the length of the queue from which on storing competes with
// everything else for the processors. Below it takes what the server and the
// stream leave over, which on a machine that is never idle may be too little.
const urgent = 4

func (s *storer) pop() {
	s.mu.Lock()
	s.queue = s.queue[1:]
	n := len(s.queue)
	s.mu.Unlock()
	s.r.Monitor.Queued(n)
}

func (s *storer) drain(ctx context.Context) {
	backoff := newBackoff(time.Minute)
	for ctx.Err() == nil {
		name, waiting := s.head()
		if waiting == 0 {
			return
		}
		var err error
		if waiting < urgent {
			s.background.do(func() { err = s.store(ctx, name) })
		} else {
			err = s.store(ctx, name)
		}
		if err == nil {
			s.pop()
			backoff = newBackoff(time.Minute)
			continue
		}
		// Disk full or failing. The segment is safe where it is; nothing may pass it.
		if ctx.Err() == nil {
			s.r.Log.Error("store WAL segment", "segment", name, "err", err)
			s.r.Monitor.Failed(fmt.Errorf("store segment %s: %w", name, err))
		}
		rest(ctx, backoff.delay())
	}
}

func (s *storer) store(ctx context.Context, name string) error {
	path := filepath.Join(s.r.Repo.ReceiveDir(), name)
	in, err := s.r.Repo.OpenReceived(ctx, name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer func() { _ = in.Close() }()
	size := pg.SegmentSize(in.Size())
	if !size.Valid() {
		return fmt.Errorf("%s has %d bytes, which is no size of a segment: move it away", path, size)
	}
	start := time.Now()
	// The context stops the queue, not a segment half done: storing one takes
	// a fraction of a second, and doing it again at the next start takes longer.
	ending := ctx
	ctx = context.WithoutCancel(ctx)
	stored, err := s.r.Repo.StoreSegment(ctx, name, size, in, s.r.Codec, s.r.Level)
	if errors.Is(err, fs.ErrExist) {
		// A crash came between storing and removing, or it was received twice.
		stored, err = 0, s.compare(ctx, name, in)
	}
	if err != nil {
		return err
	}
	left, err := s.dispose(path, size)
	if err != nil {
		return err
	}
	tli, lsn, err := pg.ParseSegmentName(name, size)
	if err != nil {
		return err
	}
	s.r.shipper.stored()
	s.r.Monitor.Stored(tli, lsn+pg.LSN(size), stored)
	s.r.Log.Debug("stored WAL segment", "segment", name, "bytes", stored, "elapsed", time.Since(start))
	if left != "" {
		s.makeSpare(ending, left, size)
	}
	return nil
}

// dispose removes the received file of a segment that is stored. While commits
// wait for every flush, and there is no spare, it takes the segment's name from
// the file instead and returns what is left, for the journal's next spare. Sealed
// segments are received in another form.
func (s *storer) dispose(path string, size pg.SegmentSize) (left string, err error) {
	dir := s.r.Repo.ReceiveDir()
	spare := sparePath(dir, size)
	_, waiting := s.head()
	if _, err := os.Stat(spare); err == nil || waiting > 1 || !s.r.eager.Load() || s.r.Repo.Cipher() != container.Plain {
		return "", s.r.FS.Remove(path)
	}
	left = spare + newSuffix
	if err := s.r.FS.Rename(path, left); err != nil {
		return "", s.r.FS.Remove(path)
	}
	// A power cut must not give the old name to the zeros.
	if err := s.r.FS.SyncDir(dir); err != nil {
		return "", s.r.FS.Remove(left)
	}
	return left, nil
}

// makeSpare makes a spare of what is left of a segment: a file of zeros, which a
// segment is expected to end in while it is being filled. What is written into
// blocks that have been written before is durable after one write to the disk, and
// what goes into newly allocated ones only after a second, of the file's metadata.
// Without a spare receiving is slower and nothing else.
func (s *storer) makeSpare(ctx context.Context, left string, size pg.SegmentSize) {
	err := s.r.zero(ctx, left, size)
	if err == nil {
		err = s.r.FS.Rename(left, sparePath(s.r.Repo.ReceiveDir(), size))
	}
	if err != nil {
		s.r.Log.Debug("no spare for the next segment", "err", errors.Join(err, s.r.FS.Remove(left)))
	}
}

// zero overwrites a file with zeros, in pieces that are synced one by one: in one
// piece they would hold up for a moment the small syncs that commits wait for.
func (r *Receiver) zero(ctx context.Context, path string, size pg.SegmentSize) error {
	f, err := r.FS.Open(path)
	if err != nil {
		return err
	}
	block := make([]byte, 256<<10)
	for at := int64(0); at < int64(size) && err == nil; at += int64(len(block)) {
		if _, err = f.WriteAt(block[:min(int64(len(block)), int64(size)-at)], at); err == nil {
			err = f.Datasync()
		}
		rest(ctx, breath)
		err = errors.Join(err, context.Cause(ctx))
	}
	return errors.Join(err, f.Close())
}

// breath is what the disk gets between two pieces of zeros.
const breath = 2 * time.Millisecond

// dropSpares removes what an earlier process left.
func (r *Receiver) dropSpares() error {
	spares, err := filepath.Glob(filepath.Join(r.Repo.ReceiveDir(), sparePrefix+"*"))
	for _, path := range spares {
		err = errors.Join(err, r.FS.Remove(path))
	}
	return err
}

// compare checks that the stored segment has the content of in.
func (s *storer) compare(ctx context.Context, name string, in *repo.Received) error {
	if err := in.Rewind(); err != nil {
		return err
	}
	seg, err := s.r.Repo.OpenSegment(ctx, name)
	if err != nil {
		return err
	}
	defer func() { _ = seg.Close() }()
	stream := seg.Stream()
	defer func() { _ = stream.Close() }()
	a, b := make([]byte, 1<<20), make([]byte, 1<<20)
	for {
		n, errA := io.ReadFull(in, a)
		m, errB := io.ReadFull(stream, b)
		if n != m || !bytes.Equal(a[:n], b[:m]) {
			return fmt.Errorf("segment %s is stored already with other content: the received one is kept in %s", name, s.r.Repo.ReceiveDir())
		}
		if errors.Is(errA, io.EOF) || errors.Is(errA, io.ErrUnexpectedEOF) {
			return nil
		}
		if err := errors.Join(errA, errB); err != nil {
			return err
		}
	}
}
