package wal

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
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
	select {
	case s.wake <- struct{}{}:
	default:
	}
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
		err := s.ship(ctx)
		if err == nil {
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
	if err := durable.MkdirAll(s.r.FS, s.dir); err != nil {
		return err
	}
	there, err := s.names()
	if err != nil {
		return err
	}
	listing, err := s.r.Repo.ListWAL(ctx)
	if err != nil {
		return err
	}
	for _, tli := range listing.Histories {
		name := pg.HistoryName(tli)
		if there[name] {
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
	for _, name := range listing.Segments {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if there[name] {
			continue
		}
		if err := s.segment(ctx, name); err != nil {
			return fmt.Errorf("segment %s: %w", name, err)
		}
	}
	return nil
}

// names lists what was shipped.
func (s *shipper) names() (map[string]bool, error) {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return nil, err
	}
	there := map[string]bool{}
	for _, e := range entries {
		there[e.Name()] = true
	}
	return there, nil
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
