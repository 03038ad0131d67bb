package walcheck

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"golang.org/x/sync/errgroup"

	"github.com/pgmoneta/pgmoneta-go/internal/container"
	"github.com/pgmoneta/pgmoneta-go/internal/pg"
	"github.com/pgmoneta/pgmoneta-go/internal/walpage"
)

// A place is where a segment was found.
type place uint8

const (
	gone     place = iota // it was listed, and is nowhere any more
	stored                // in the repository
	received              // complete in the receive directory
	partial               // being received
)

const partialSuffix = ".partial"

// A segment is one file of the archive.
type segment struct {
	name  string
	tli   pg.Timeline
	start pg.LSN
	end   pg.LSN // where its bytes end; start+size unless it is partial and the last
	place place
	kind  Kind // what is wrong with it; empty for a good one
	err   error
}

// list finds the segments.
func (c *checker) list(ctx context.Context) error {
	_, _, err := c.relist(ctx)
	return err
}

// relist brings the list of segments up to date. It returns those that were not
// known, and whether known ones are gone. Segments only ever move from the receive
// directory to the store, so that looking in this order misses none.
func (c *checker) relist(ctx context.Context) (added []*segment, removed bool, err error) {
	complete, partials, err := c.repo.Received()
	if err != nil {
		return nil, false, err
	}
	listing, err := c.repo.ListWAL(ctx)
	if err != nil {
		return nil, false, err
	}
	// What is removed is recorded before it goes, and so is known after looking.
	if err := c.unneeded(ctx); err != nil {
		return nil, false, err
	}
	c.report.Histories, c.report.Stored = len(listing.Histories), listing.Bytes
	names := slices.Concat(listing.Segments, complete, partials)
	if c.size == 0 {
		if c.size, err = c.segmentSize(ctx, names); err != nil || c.size == 0 {
			return nil, false, err
		}
	}
	removed = c.keep(names)
	for _, name := range names {
		if s := c.add(name); s != nil {
			added = append(added, s)
		}
	}
	slices.SortFunc(c.segments, func(a, b *segment) int {
		return cmp.Or(cmp.Compare(a.tli, b.tli), cmp.Compare(a.start, b.start))
	})
	return added, removed, nil
}

// unneeded finds out which WAL was removed because nothing needed it.
func (c *checker) unneeded(ctx context.Context) error {
	list, err := c.repo.RemovedWAL(ctx)
	if err != nil {
		return err
	}
	clear(c.removed)
	for _, v := range list {
		c.removed[v.Timeline] = append(c.removed[v.Timeline], interval{v.From, v.To})
	}
	return nil
}

// keep drops the segments that are not among names.
func (c *checker) keep(names []string) (removed bool) {
	present := make(map[string]bool, len(names))
	for _, name := range names {
		present[name] = true
	}
	before := len(c.segments)
	c.segments = slices.DeleteFunc(c.segments, func(s *segment) bool { return !present[s.name] })
	return len(c.segments) < before
}

// add adds a segment, and returns nil if it is known or no segment.
func (c *checker) add(name string) *segment {
	if c.known[name] {
		return nil
	}
	c.known[name] = true
	tli, start, err := pg.ParseSegmentName(name, c.size)
	if err != nil {
		c.find(Finding{Kind: Misplaced, Segment: name, Message: err.Error()})
		return nil
	}
	s := &segment{name: name, tli: tli, start: start, end: start}
	c.segments = append(c.segments, s)
	return s
}

// samples is how many segments tell the size of all.
const samples = 16

// segmentSize returns what the newest backup says about the size of segments, else
// the size that most of some segments have. It is 0 when there are none, or
// nothing but partial ones of a size that is impossible.
func (c *checker) segmentSize(ctx context.Context, names []string) (pg.SegmentSize, error) {
	if len(names) == 0 {
		return 0, nil
	}
	backups, err := c.repo.Backups(ctx)
	if err != nil {
		return 0, err
	}
	for _, b := range slices.Backward(backups) {
		if size := b.Summary.SegmentSize; b.Err == nil && size.Valid() {
			return size, nil
		}
	}
	votes := map[pg.SegmentSize]int{}
	for i := range min(len(names), samples) {
		n, err := c.length(ctx, names[i*len(names)/min(len(names), samples)])
		if size := pg.SegmentSize(n); err == nil && size.Valid() {
			votes[size]++
		}
	}
	var best pg.SegmentSize
	for size, n := range votes {
		if n > votes[best] || n == votes[best] && size < best {
			best = size
		}
	}
	if best == 0 {
		return 0, fmt.Errorf("server %q: none of %d WAL segments has a possible size, the first is %s", c.repo.Server(), len(names), names[0])
	}
	return best, nil
}

// length returns the plain length of a segment wherever it is.
func (c *checker) length(ctx context.Context, name string) (int64, error) {
	seg, err := c.repo.OpenSegment(ctx, name)
	if err == nil {
		return seg.Plain(), seg.Close()
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return 0, err
	}
	in, err := c.repo.OpenReceived(ctx, name)
	if errors.Is(err, fs.ErrNotExist) {
		in, err = c.repo.OpenReceived(ctx, name+partialSuffix)
	}
	if err != nil {
		return 0, err
	}
	return in.Size(), in.Close()
}

// content looks at every segment.
func (c *checker) content(ctx context.Context) error { return c.examine(ctx, c.segments) }

// examine looks at segments, several at once, and notes what is wrong with them.
func (c *checker) examine(ctx context.Context, segments []*segment) error {
	if err := c.inspect(ctx, segments); err != nil {
		return err
	}
	for _, s := range segments {
		c.judge(s)
	}
	c.segments = slices.DeleteFunc(c.segments, func(s *segment) bool { return s.place == gone })
	c.extend()
	return nil
}

// extend lets a partial segment end where the next begins, if that is there: all
// of it was received, and zeros at its end are the server's.
func (c *checker) extend() {
	for i, s := range c.segments[:max(len(c.segments)-1, 0)] {
		next := c.segments[i+1]
		if s.place == partial && next.tli == s.tli && next.start == s.start+pg.LSN(c.size) {
			s.end = next.start
		}
	}
}

// judge makes a finding of what inspect found.
func (c *checker) judge(s *segment) {
	if s.kind == "" {
		return
	}
	c.find(Finding{Kind: s.kind, Timeline: s.tli, From: s.start, To: s.start + pg.LSN(c.size), Segment: s.name, Message: s.err.Error()})
}

func (c *checker) inspect(ctx context.Context, segments []*segment) error {
	g, working := errgroup.WithContext(ctx)
	g.SetLimit(c.Workers)
	total := int64(len(segments)) * int64(c.size)
	for _, s := range segments {
		if working.Err() != nil {
			break
		}
		g.Go(func() error {
			c.look(working, s)
			if working.Err() != nil {
				return context.Cause(working)
			}
			c.step(s, total)
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	return context.Cause(ctx)
}

// step counts a segment that was looked at.
func (c *checker) step(s *segment, total int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.done += int64(c.size)
	if c.Deep && s.kind != Unreadable {
		c.report.Read += int64(s.end - s.start)
	}
	c.Progress("Check WAL", min(c.done, total), total)
}

// look finds out where a segment is and what is wrong with it. It may move on
// meanwhile, from partial over complete to stored, so that looking three times
// always meets it, unless it was deleted.
func (c *checker) look(ctx context.Context, s *segment) {
	for range 3 {
		for _, p := range []place{stored, received, partial} {
			err := c.lookAt(ctx, s, p)
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			s.place, s.kind, s.err = p, kindOf(err), err
			return
		}
	}
}

func (c *checker) lookAt(ctx context.Context, s *segment, p place) error {
	switch p {
	case stored:
		s.end = s.start + pg.LSN(c.size)
		return c.lookStored(ctx, s)
	case received:
		s.end = s.start + pg.LSN(c.size)
		return c.lookReceived(ctx, s)
	}
	s.end = s.start
	return c.lookPartial(ctx, s)
}

func (c *checker) want(s *segment) walpage.Want {
	return walpage.Want{System: c.report.System, Timeline: s.tli, Start: s.start, Size: c.size}
}

func (c *checker) lookStored(ctx context.Context, s *segment) error {
	if c.Deep {
		return c.repo.CheckSegment(ctx, s.name, c.want(s))
	}
	seg, err := c.repo.OpenSegment(ctx, s.name)
	if err != nil {
		return err
	}
	if n := seg.Plain(); n != int64(c.size) {
		err = &walpage.LengthError{Have: n, Want: int64(c.size)}
	}
	return errors.Join(err, seg.Close())
}

func (c *checker) lookReceived(ctx context.Context, s *segment) error {
	f, err := c.repo.OpenReceived(ctx, s.name)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	if f.Size() != int64(c.size) {
		return &walpage.LengthError{Have: f.Size(), Want: int64(c.size)}
	}
	if !c.Deep {
		return nil
	}
	return walpage.CheckSegment(f, c.want(s))
}

// lookPartial finds where the bytes of a partial segment end, and checks pages up
// to there. They arrive in order, so that what lies before them is there too.
func (c *checker) lookPartial(ctx context.Context, s *segment) error {
	end, err := c.repo.PartialEnd(s.name, s.start, c.size)
	if err != nil {
		return err
	}
	s.end = end
	if !c.Deep || end == s.start {
		return nil
	}
	f, err := c.repo.OpenReceived(ctx, s.name+partialSuffix)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	want := c.want(s)
	want.Bytes = int64(end - s.start)
	return walpage.CheckSegment(f, want)
}

// kindOf sorts what is wrong with a segment. What is not known to be wrong, such as
// a disk that does not answer, must not pass for damage.
func kindOf(err error) Kind {
	var (
		damaged *container.DamagedError
		length  *walpage.LengthError
		page    *walpage.PageError
	)
	switch {
	case err == nil:
		return ""
	case errors.As(err, &damaged):
		return Damaged
	case errors.As(err, &length):
		return WrongSize
	case errors.Is(err, walpage.ErrUnknownVersion):
		return Unreadable
	case errors.As(err, &page):
		return WrongPage
	}
	return Unreadable
}
