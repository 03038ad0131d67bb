package wal

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strconv"
	"sync"

	"github.com/pgmoneta/pgmoneta-go/internal/durable"
	"github.com/pgmoneta/pgmoneta-go/internal/pg"
)

const (
	partialSuffix = ".partial"
	// sparePrefix and the size of a segment name a file of zeros that the next
	// segment is written into; newSuffix one that is being made.
	sparePrefix = "spare."
	newSuffix   = ".new"
	// coalesce is how many received bytes are collected before they are written,
	// as long as more can be read without waiting.
	coalesce = 1 << 20
	// maxFull is how many complete segments may wait for their fdatasync before
	// the receiver waits too.
	maxFull = 4
)

func sparePath(dir string, size pg.SegmentSize) string {
	return filepath.Join(dir, sparePrefix+strconv.FormatInt(int64(size), 10))
}

// A journal takes the bytes of one timeline in order and makes them durable in
// segment files of the receive directory.
//
// One goroutine appends and writes, another flushes. Both may run at once: what
// is written during a flush belongs to the next.
type journal struct {
	fs   durable.FS
	dir  string
	size pg.SegmentSize
	tli  pg.Timeline
	// completed is called with the name of each segment that is complete and durable.
	completed func(name string)

	buf  []byte // appended, not written; used by the appending goroutine only
	next pg.LSN // position after buf; used by the appending goroutine only

	mu      sync.Mutex
	room    sync.Cond // full got shorter, or failed was set
	current *segment  // nil between segments
	full    []*segment
	written pg.LSN
	flushed pg.LSN
	failed  error // of flush; final
}

type segment struct {
	file   durable.File
	name   string
	start  pg.LSN
	closed bool
}

func (s *segment) close() error {
	if s.closed {
		return nil
	}
	s.closed = true
	return s.file.Close()
}

// newJournal returns a journal that begins at start, the first byte of a segment.
func newJournal(fsys durable.FS, dir string, size pg.SegmentSize, tli pg.Timeline, start pg.LSN, completed func(string)) *journal {
	j := &journal{fs: fsys, dir: dir, size: size, tli: tli, completed: completed,
		next: start, written: start, flushed: start, buf: make([]byte, 0, coalesce)}
	j.room.L = &j.mu
	return j
}

// append takes WAL that begins at lsn, which must be where the last append ended.
func (j *journal) append(lsn pg.LSN, data []byte) error {
	if lsn != j.next {
		return fmt.Errorf("the server sent WAL from %s, expected %s", lsn, j.next)
	}
	for len(data) > 0 {
		n := min(len(data), cap(j.buf)-len(j.buf))
		j.buf = append(j.buf, data[:n]...)
		data, j.next = data[n:], j.next+pg.LSN(n)
		if len(j.buf) == cap(j.buf) {
			if err := j.write(); err != nil {
				return err
			}
		}
	}
	return nil
}

// write hands everything appended to the operating system.
func (j *journal) write() error {
	rest := j.buf
	at := j.next - pg.LSN(len(rest))
	for len(rest) > 0 {
		seg, err := j.segmentAt(at)
		if err != nil {
			return err
		}
		n := min(int64(len(rest)), int64(j.size)-j.size.Offset(at))
		if _, err := seg.file.WriteAt(rest[:n], j.size.Offset(at)); err != nil {
			return err
		}
		rest, at = rest[n:], at+pg.LSN(n)
		if err := j.advance(seg, at); err != nil {
			return err
		}
	}
	j.buf = j.buf[:0]
	return nil
}

// advance publishes the written position and retires a segment that is full.
func (j *journal) advance(seg *segment, at pg.LSN) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.written = at
	if at < seg.start+pg.LSN(j.size) {
		return nil
	}
	j.full = append(j.full, seg)
	j.current = nil
	for len(j.full) >= maxFull && j.failed == nil {
		j.room.Wait()
	}
	return j.failed
}

// segmentAt returns the open segment that holds lsn, opening its file if needed.
func (j *journal) segmentAt(lsn pg.LSN) (*segment, error) {
	if seg := j.currentSegment(); seg != nil {
		return seg, nil
	}
	seg := &segment{name: pg.SegmentName(j.tli, lsn, j.size), start: j.size.Start(lsn)}
	path := filepath.Join(j.dir, seg.name+partialSuffix)
	var err error
	// A partial file of an earlier connection is written over from its start
	// with the same bytes, so what was acknowledged in it is never gone.
	seg.file, err = j.fs.Open(path)
	created := errors.Is(err, fs.ErrNotExist)
	if created {
		seg.file, err = j.create(path)
	}
	if err != nil {
		return nil, err
	}
	if err = seg.file.Allocate(int64(j.size)); err == nil && created {
		err = j.fs.SyncDir(j.dir)
	}
	if err != nil {
		_ = seg.file.Close()
		return nil, err
	}
	j.mu.Lock()
	j.current = seg
	j.mu.Unlock()
	return seg, nil
}

// create makes the file of a segment, from the spare if there is one.
func (j *journal) create(path string) (durable.File, error) {
	err := j.fs.Rename(sparePath(j.dir, j.size), path)
	if err == nil {
		return j.fs.Open(path)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return j.fs.Create(path)
	}
	return nil, err
}

func (j *journal) currentSegment() *segment {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.current
}

// positions returns what is written and what is flushed.
func (j *journal) positions() (written, flushed pg.LSN) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.written, j.flushed
}

// flush makes everything written before the call durable and returns the
// position up to which that now holds. An error is final: the kernel may have
// dropped the pages, so that a later success would prove nothing.
func (j *journal) flush() (pg.LSN, error) {
	j.mu.Lock()
	full, current, target := j.full, j.current, j.written
	idle := target == j.flushed
	err := j.failed
	j.mu.Unlock()
	if err != nil || idle {
		return target, err
	}
	for _, seg := range full {
		if err = j.complete(seg); err != nil {
			return 0, j.fail(err)
		}
	}
	if current != nil {
		if err := current.file.Datasync(); err != nil {
			return 0, j.fail(err)
		}
	}
	j.mu.Lock()
	j.flushed = target
	j.mu.Unlock()
	return target, nil
}

func (j *journal) fail(err error) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.failed = err
	j.room.Broadcast()
	return err
}

// complete makes a full segment durable under its final name.
func (j *journal) complete(seg *segment) error {
	err := seg.file.Datasync()
	if err := errors.Join(err, seg.close()); err != nil {
		return err
	}
	final := filepath.Join(j.dir, seg.name)
	if err := j.fs.Rename(final+partialSuffix, final); err != nil {
		return err
	}
	if err := j.fs.SyncDir(j.dir); err != nil {
		return err
	}
	j.mu.Lock()
	j.full = j.full[1:]
	j.room.Broadcast()
	j.mu.Unlock()
	j.completed(seg.name)
	return nil
}

// close closes the open files. What is not flushed is not durable.
func (j *journal) close() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	var err error
	for _, seg := range j.full {
		err = errors.Join(err, seg.close())
	}
	if j.current != nil {
		err = errors.Join(err, j.current.close())
	}
	j.current, j.full = nil, nil
	return err
}
