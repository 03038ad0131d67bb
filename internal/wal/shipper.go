package wal

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/pgmoneta/pgmoneta-go/internal/durable"
	"github.com/pgmoneta/pgmoneta-go/internal/pg"
)

// A shipper keeps a second copy of every stored segment and history in another
// directory, for instance one of another machine: plain, or of a repository that
// is sealed the sealed objects (see shipSealed). It reads the
// repository and nothing else: trouble there is its own, delays neither
// receiving nor storing, and ends by itself when the directory is good again.
//
// A file appears under its name when it is complete and synced. Segments that
// were stored before shipping was switched on are shipped too, oldest first.
type shipper struct {
	r      *Receiver
	dir    string
	wake   chan struct{} // holds one token when something was stored
	cancel context.CancelFunc
	done   chan struct{}
	there  map[string]bool // what had arrived when that could be seen last

	mu    sync.Mutex
	since time.Time // when there was something to ship first; zero when nothing is
}

// startShipper ships to <to>/<server>/wal.
func (r *Receiver) startShipper(ctx context.Context, to string) *shipper {
	ctx, cancel := context.WithCancel(ctx)
	s := &shipper{r: r, dir: filepath.Join(to, r.Repo.Server(), "wal"), wake: make(chan struct{}, 1), cancel: cancel, done: make(chan struct{})}
	s.stored()
	go s.run(ctx)
	return s
}

// stored says that there may be something to ship. It never waits.
func (s *shipper) stored() {
	if s == nil {
		return
	}
	s.mu.Lock()
	if s.since.IsZero() {
		s.since = time.Now()
	}
	s.mu.Unlock()
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// tell reports how many segments are waiting.
func (s *shipper) tell(waiting int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.r.Monitor.Shipping(waiting, s.since)
}

// shipped notes that everything was shipped that was stored when the pass began.
func (s *shipper) shipped(began time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.since = time.Time{}
	if len(s.wake) > 0 { // the next pass finds out what
		s.since = began
		return
	}
	s.r.Monitor.Shipping(0, s.since)
}

// close stops after the file in progress and waits for it.
func (s *shipper) close() {
	if s == nil {
		return
	}
	s.cancel()
	<-s.done
}

func (s *shipper) run(ctx context.Context) {
	defer close(s.done)
	backoff, last := newBackoff(time.Minute), ""
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.wake:
		}
		began := time.Now()
		err := s.ship(ctx)
		if err == nil {
			s.shipped(began)
			backoff, last = newBackoff(time.Minute), ""
			continue
		}
		if ctx.Err() == nil && err.Error() != last {
			last = err.Error()
			s.r.Log.Error("ship WAL", "file", s.dir, "err", err)
		}
		rest(ctx, backoff.delay())
		s.stored() // try again
	}
}

// ship copies everything that is stored and not there yet.
func (s *shipper) ship(ctx context.Context) error {
	if s.sealed() {
		return s.shipSealed(ctx)
	}
	listing, err := s.r.Repo.ListWAL(ctx)
	if err != nil {
		return err
	}
	// That the directory cannot be used must not hide how much is waiting.
	err = s.look()
	waiting := slices.DeleteFunc(listing.Segments, func(name string) bool { return s.there[name] })
	s.tell(len(waiting))
	if err != nil {
		return err
	}
	if err := s.histories(ctx, listing.Histories); err != nil {
		return err
	}
	for i, name := range waiting {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err := s.segment(ctx, name); err != nil {
			return fmt.Errorf("segment %s: %w", name, err)
		}
		s.there[name] = true
		s.tell(len(waiting) - i - 1)
	}
	return nil
}

func (s *shipper) histories(ctx context.Context, timelines []pg.Timeline) error {
	for _, tli := range timelines {
		name := pg.HistoryName(tli)
		if s.there[name] {
			continue
		}
		content, err := s.r.Repo.HistoryContent(ctx, tli)
		if err == nil {
			err = durable.WriteFile(s.r.FS, filepath.Join(s.dir, name), s.temp(name), content)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// look makes the directory and finds out what has arrived there.
func (s *shipper) look() error {
	if err := durable.MkdirAll(s.r.FS, s.dir); err != nil {
		return err
	}
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return err
	}
	s.there = map[string]bool{}
	for _, e := range entries {
		s.there[e.Name()] = true
	}
	return nil
}

func (s *shipper) temp(name string) string { return filepath.Join(s.dir, "."+name+".tmp") }

func (s *shipper) segment(ctx context.Context, name string) error {
	seg, err := s.r.Repo.OpenSegment(ctx, name)
	if err != nil {
		return err
	}
	defer func() { _ = seg.Close() }()
	temp := s.temp(name)
	if err := s.r.FS.Remove(temp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := s.r.FS.Create(temp)
	if err != nil {
		return err
	}
	stream := seg.Stream()
	defer func() { _ = stream.Close() }()
	_, err = stream.WriteTo(f)
	if err == nil {
		err = f.Sync()
	}
	if err := errors.Join(err, f.Close()); err != nil {
		_ = s.r.FS.Remove(temp)
		return err
	}
	if err := durable.Publish(s.r.FS, temp, filepath.Join(s.dir, name)); err != nil {
		return err
	}
	tli, start, err := pg.ParseSegmentName(name, pg.SegmentSize(seg.Plain()))
	if err == nil {
		s.r.Monitor.Shipped(tli, start+pg.LSN(seg.Plain()))
	}
	return err
}
