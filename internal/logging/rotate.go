package logging

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// rotatingFile is a log file that is opened again under its strftime pattern when it got too large or too old.
// Nothing is renamed or deleted: with a pattern without time fields the same file simply goes on.
type rotatingFile struct {
	options Options

	mu     sync.Mutex
	file   *os.File // nil after Close
	opened time.Time
	size   int64
}

// logMode are the permissions of a new log file.
const logMode = 0o640

func openRotating(o Options) (*rotatingFile, error) {
	if o.Path == "" {
		o.Path = DefaultPath
	}
	r := &rotatingFile{options: o}
	flags := 0
	if o.Truncate {
		flags = os.O_TRUNC
	}
	if err := r.open(time.Now(), flags); err != nil {
		return nil, err
	}
	return r, nil
}

// open replaces the file. The old one stays when that fails. The caller holds mu, except in openRotating.
func (r *rotatingFile) open(now time.Time, flags int) error {
	path := string(AppendTime(nil, r.options.Path, now.Local()))
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE|flags, logMode)
	if err != nil {
		return fmt.Errorf("open log file %s: %w; check log_path", filepath.Clean(path), errors.Unwrap(err))
	}
	info, err := file.Stat()
	if err != nil {
		_ = file.Close()
		return fmt.Errorf("log file: %w", err)
	}
	if r.file != nil {
		_ = r.file.Close()
	}
	r.file, r.opened, r.size = file, now, info.Size()
	return nil
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

// reopen opens the file of the pattern at this time.
func (r *rotatingFile) reopen(now time.Time) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.file == nil {
		return os.ErrClosed
	}
	return r.open(now, 0)
}

// Write appends one line and rotates afterwards if it is time. It holds the mutex during the write, because a rotation closes the file.
func (r *rotatingFile) Write(line []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.file == nil {
		return 0, os.ErrClosed
	}
	n, err := r.file.Write(line)
	r.size += int64(n)
	if now := time.Now(); err == nil && r.due(now) {
		// If the new file cannot be opened the old one goes on; the next attempt is after the next size or age.
		if r.open(now, 0) != nil {
			r.opened = now
		}
		r.size = 0
	}
	return n, err
}

// due reports whether the file has reached its size or age.
func (r *rotatingFile) due(now time.Time) bool {
	o := &r.options
	return o.RotationSize > 0 && r.size >= o.RotationSize ||
		o.RotationAge > 0 && now.Sub(r.opened) >= o.RotationAge
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
