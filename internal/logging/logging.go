// Package logging writes the log of the daemon and its workers: a log/slog handler for the line format of pgmoneta.
//
// A line is
//
//	<prefix> <LEVEL padded to 5> <file>:<line> <message> key=value ...
//
// where the prefix is a strftime pattern in local time. A value with blanks, quotes or control characters is quoted, and control
// characters of a message are escaped: a record is always exactly one line.
//
// # Guarantees
//
// Each line is one write(2) to a file opened with O_APPEND, so any number of processes can share a log file without torn lines. A worker
// logs to an inherited descriptor with [Join]. Processes that share [Options.Turn] change to the next file together: the first that finds
// the file too large or too old takes the turn, and each of the others follows before its next line. No line is lost by that, and
// one that is being written meanwhile is in the file before.
//
// # Not guaranteed
//
// A line that cannot be written is lost; log/slog drops the error and the daemon goes on. Lines are not synced to disk.
// Syslog has its own format: message and attributes only. So has JSON: one object in a line, with "time" (RFC 3339, UTC), "level", "source", "msg"
// and the attributes.
package logging

import (
	"fmt"
	"io"
	"log/slog"
	"os"
	"time"

	"golang.org/x/sys/unix"
	"golang.org/x/term"
)

// A Kind says where lines go.
type Kind int

// Kinds of a log, with the numbers of log_type.
const (
	Console Kind = 0 // standard output
	File    Kind = 1
	Syslog  Kind = 2
	JSON    Kind = 3 // one object in a line, to a file if there is a path, else to standard output
)

// Options describe a log. The zero value is a console log of level INFO.
type Options struct {
	Level  slog.Leveler // least level that is written; a *slog.LevelVar can be changed later. nil: INFO
	Prefix string       // strftime pattern, empty: DefaultPrefix
	Color  bool         // ANSI colours; Open decides by itself

	// Count is called for every record of INFO and above that is written. It must be safe for concurrent use.
	Count func(slog.Level)

	// The rest is for Open and Join only.
	Kind         Kind
	Turn         Turn          // shared with the other processes that log to the file; nil: there are none
	Path         string        // strftime pattern of a file, empty: pgmoneta.log in the working directory
	Truncate     bool          // log_mode = create: empty the file when it is opened
	RotationSize int64         // bytes after which the file is opened again under Path, 0 never
	RotationAge  time.Duration // age after which the file is opened again under Path, 0 never
}

// A Turn is when a log file was last changed for the next, in Unix nanoseconds, 0 at the start. It may lie in memory that processes share.
type Turn interface {
	Load() int64
	CompareAndSwap(old, next int64) bool
}

// DefaultPath is the log file when none is configured.
const DefaultPath = "pgmoneta.log"

// A Log is an open log.
type Log struct {
	*slog.Logger
	file   *os.File // console: standard output
	rotate *rotatingFile
	closer io.Closer
}

// Open opens the log that the options describe. The caller closes it.
func Open(o Options) (*Log, error) {
	switch o.Kind {
	case Console:
		o.Color = term.IsTerminal(int(os.Stdout.Fd()))
		return &Log{Logger: New(os.Stdout, o), file: os.Stdout}, nil
	case File:
		return openFile(o)
	case Syslog:
		return openSyslog(o)
	case JSON:
		if o.Path != "" {
			return openFile(o)
		}
		return &Log{Logger: New(os.Stdout, o), file: os.Stdout}, nil
	}
	return nil, fmt.Errorf("log: unknown kind %d", o.Kind)
}

func openFile(o Options) (*Log, error) {
	o.Color = false
	r, err := openRotating(o)
	if err != nil {
		return nil, err
	}
	return &Log{Logger: New(r, o), rotate: r, closer: r}, nil
}

// Join opens the log of the process that started us, whose file we inherited. It takes over the file. Of the options it needs those that the
// other process had.
func Join(file *os.File, o Options) *Log {
	if o.Path == "" || o.Kind != File && o.Kind != JSON {
		return &Log{Logger: New(file, o), file: file, closer: file}
	}
	r := joinRotating(file, o)
	return &Log{Logger: New(r, o), rotate: r, closer: r}
}

// File returns a descriptor of its own for a worker to log to; the caller closes it. It is nil for syslog, which a worker opens itself.
func (l *Log) File() (*os.File, error) {
	if l.rotate != nil {
		return l.rotate.duplicate()
	}
	if l.file == nil {
		return nil, nil
	}
	return duplicate(l.file)
}

// duplicate returns another descriptor of the same open file.
func duplicate(f *os.File) (*os.File, error) {
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("duplicate descriptor of %s: %w", f.Name(), err)
	}
	return os.NewFile(uintptr(fd), f.Name()), nil
}

// Rotation returns the pattern of the log file and when it is time for the next one; the zero values for other kinds.
func (l *Log) Rotation() (path string, size int64, age time.Duration) {
	if l.rotate == nil {
		return "", 0, 0
	}
	o := &l.rotate.options
	return o.Path, o.RotationSize, o.RotationAge
}

// Reopen opens the log file again under its path, for log rotation from outside, here and in all processes that share the turn. It does
// nothing for other kinds.
func (l *Log) Reopen() error {
	if l.rotate == nil {
		return nil
	}
	return l.rotate.reopen(time.Now())
}

// Close closes the file or the connection to syslog. Standard output stays open. Records logged later are lost.
func (l *Log) Close() error {
	if l.closer == nil {
		return nil
	}
	return l.closer.Close()
}

// New returns a logger that writes lines to w. Writes to an *os.File are not serialised, since the kernel keeps each whole;
// other writers are called from one goroutine at a time.
func New(w io.Writer, o Options) *slog.Logger {
	if o.Kind == JSON {
		return slog.New(newJSON(w, o))
	}
	return slog.New(newHandler(w, o))
}
