package logging

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"
)

// rotatingFile is a log file that is opened again under its strftime pattern when it got too large or too old.
// Nothing is renamed or deleted: with a pattern without time fields the same file simply goes on.
//
// Processes that share a turn have the same file: its name is the pattern at the time of the turn.
type rotatingFile struct {
	options Options

	mu     sync.Mutex
	file   *os.File // nil after Close
	turn   int64    // at which file was opened
	opened time.Time
	grown  int64 // size of the file when it was opened: one that goes on under its name may be larger than the limit
}

// logMode are the permissions of a new log file.
const logMode = 0o640

func openRotating(o Options) (*rotatingFile, error) {
	if o.Path == "" {
		o.Path = DefaultPath
	}
	r := newRotating(o)
	flags := 0
	if o.Truncate {
		flags = os.O_TRUNC
	}
	if err := r.open(time.Now(), flags); err != nil {
		return nil, err
	}
	return r, nil
}

func newRotating(o Options) *rotatingFile {
	if o.Turn == nil {
		o.Turn = new(atomic.Int64)
	}
	return &rotatingFile{options: o, turn: o.Turn.Load(), opened: time.Now()}
}

// joinRotating goes on with a file that another process opened. Whether that is the file of the present turn is not known, so it
// is opened once more before the first line, unless there was no turn so far.
func joinRotating(file *os.File, o Options) *rotatingFile {
	r := newRotating(o)
	r.file, r.turn = file, 0
	r.grown = sizeOf(file)
	return r
}

func sizeOf(file *os.File) int64 {
	info, err := file.Stat()
	if err != nil {
		return 0
	}
	return info.Size()
}

// open replaces the file. The old one stays when that fails. The caller holds mu, except in openRotating.
func (r *rotatingFile) open(now time.Time, flags int) error {
	path := string(AppendTime(nil, r.options.Path, now.Local()))
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE|flags, logMode)
	if err != nil {
		return fmt.Errorf("open log file %s: %w; check log_path", filepath.Clean(path), errors.Unwrap(err))
	}
	if r.file != nil {
		_ = r.file.Close()
	}
	r.file, r.opened, r.grown = file, now, sizeOf(file)
	return nil
}

// follow changes to the file of the present turn. If it cannot be opened the old one goes on until the next turn.
func (r *rotatingFile) follow() error {
	turn := r.options.Turn.Load()
	if turn == r.turn {
		return nil
	}
	r.turn, r.opened = turn, time.Unix(0, turn)
	return r.open(r.opened, 0)
}

// duplicate returns another descriptor of the open file.
func (r *rotatingFile) duplicate() (*os.File, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.file == nil {
		return nil, os.ErrClosed
	}
	return duplicate(r.file)
}

// reopen opens the file of the pattern at this time, and makes the others do so.
func (r *rotatingFile) reopen(now time.Time) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.file == nil {
		return os.ErrClosed
	}
	r.options.Turn.CompareAndSwap(r.options.Turn.Load(), now.UnixNano())
	return r.follow()
}

// Write appends one line to the file of the present turn, and takes a turn afterwards if it is time. It holds the mutex during
// the write, because a turn closes the file.
func (r *rotatingFile) Write(line []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.file == nil {
		return 0, os.ErrClosed
	}
	_ = r.follow() // else the line goes where the one before went
	n, err := r.file.Write(line)
	if now := time.Now(); err == nil && r.due(now) {
		r.options.Turn.CompareAndSwap(r.turn, now.UnixNano()) // or another process was first
		_ = r.follow()
	}
	return n, err
}

// due reports whether the file has reached its size or age, whoever wrote it.
func (r *rotatingFile) due(now time.Time) bool {
	o := &r.options
	return o.RotationSize > 0 && sizeOf(r.file)-r.base() >= o.RotationSize ||
		o.RotationAge > 0 && now.Sub(r.opened) >= o.RotationAge
}

// base is what does not count: a file that was too large already when it was opened grows by the whole limit before the next turn.
func (r *rotatingFile) base() int64 {
	if r.grown < r.options.RotationSize {
		return 0
	}
	return r.grown
}

// Close closes the file.
func (r *rotatingFile) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.file == nil {
		return nil
	}
	err := r.file.Close()
	r.file = nil
	return err
}
