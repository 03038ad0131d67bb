// Package worker is what runs in the processes that the supervisor starts: one
// WAL worker per server, one job worker per running job.
//
// # Guarantees
//
// A worker ends when it is told to, when its control socket closes (the
// supervisor is gone, however it went), or when its work is done. Before it
// ends, received WAL is flushed and reported, and an unfinished job has removed
// what it left. A worker changes only the repository of its own server, and one that
// converts a file no repository.
//
// A worker writes its own block of the shared segment and nothing else there.
package worker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/pgmoneta/pgmoneta-go/internal/durable"
	"github.com/pgmoneta/pgmoneta-go/internal/foreign"
	"github.com/pgmoneta/pgmoneta-go/internal/ipc"
	"github.com/pgmoneta/pgmoneta-go/internal/job"
	"github.com/pgmoneta/pgmoneta-go/internal/logging"
	"github.com/pgmoneta/pgmoneta-go/internal/repo"
	"github.com/pgmoneta/pgmoneta-go/internal/shmem"
	"github.com/pgmoneta/pgmoneta-go/internal/storage"
)

// Causes of contexts that end because the supervisor said so.
var (
	errStopped   = errors.New("stopped by the supervisor")
	errCancelled = errors.New("cancelled on request")
)

// Main runs the worker this process was started as and returns its exit code.
func Main() int {
	conn, segment, logFile, err := ipc.Inherit()
	if err != nil {
		fmt.Fprintln(os.Stderr, "pgmoneta: worker:", err)
		return 1
	}
	defer func() { _ = conn.Close() }()
	seg, err := shmem.Open(segment)
	if err != nil {
		fmt.Fprintln(os.Stderr, "pgmoneta: worker:", err)
		return 1
	}
	defer func() { _ = seg.Close() }()
	if err := Serve(context.Background(), conn, seg, logFile); err != nil {
		fmt.Fprintln(os.Stderr, "pgmoneta: worker:", err)
		return 1
	}
	return 0
}

// Serve receives the order to start over conn and carries it out. logFile may
// be nil. It is Main without the process, for tests.
func Serve(ctx context.Context, conn *ipc.Conn, seg *shmem.Segment, logFile *os.File) error {
	msg, err := conn.Receive()
	if err != nil {
		return fmt.Errorf("wait for the order to start: %w", err)
	}
	var start job.Start
	if err := msg.Decode(&start); err != nil || msg.Kind != job.KindStart {
		return fmt.Errorf("message %q instead of the order to start: %w", msg.Kind, err)
	}
	log, closeLog, err := openLog(start.Log, logFile, seg)
	if err != nil {
		return err
	}
	defer closeLog()

	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	go listen(conn, cancel) // ends when conn closes, at the latest with the process

	log = log.With(start.LogAttrs()...)
	if start.Kind.OfFile() {
		w := &worker{Start: start, conn: conn, segment: seg, log: log}
		return conn.Send(job.KindResult, w.job(ctx))
	}
	r, err := repo.Open(durable.OS{}, start.BaseDir, start.Server)
	if err != nil {
		return err
	}
	r.Meter(func(o storage.Operation, elapsed time.Duration, failed bool) {
		seg.CountRequest(int(o), elapsed, failed)
	})
	r.UseKeys(start.Keys())
	f, err := foreign.Open(durable.OS{}, r, start.Keys().Master)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	r.UseForeign(f)
	w := &worker{Start: start, conn: conn, segment: seg, repo: r, log: log}
	if start.Kind == job.Receive {
		return w.receive(ctx)
	}
	return conn.Send(job.KindResult, w.job(ctx))
}

// listen ends the work when the supervisor says so or is gone.
func listen(conn *ipc.Conn, cancel context.CancelCauseFunc) {
	for {
		msg, err := conn.Receive()
		switch {
		case err != nil || msg.Kind == job.KindStop:
			cancel(errStopped)
			return
		case msg.Kind == job.KindCancel:
			cancel(errCancelled)
			return
		}
	}
}

func openLog(o job.LogOptions, file *os.File, seg *shmem.Segment) (*slog.Logger, func(), error) {
	options := logging.Options{Level: slog.Level(o.Level), Prefix: o.Prefix, Color: o.Color, Count: seg.CountLog}
	if o.Syslog {
		options.Kind = logging.Syslog
		l, err := logging.Open(options)
		if err != nil {
			return nil, nil, err
		}
		return l.Logger, func() { _ = l.Close() }, nil
	}
	if file == nil {
		return slog.New(slog.DiscardHandler), func() {}, nil
	}
	if options.Kind = logging.File; o.JSON {
		options.Kind = logging.JSON
	}
	options.Path, options.RotationSize, options.RotationAge, options.Turn = o.Path, o.RotationSize, o.RotationAge, seg.LogTurn()
	l := logging.Join(file, options)
	return l.Logger, func() { _ = l.Close() }, nil
}

type worker struct {
	job.Start
	conn    *ipc.Conn
	segment *shmem.Segment
	repo    *repo.Repository // nil for a job about a file
	log     *slog.Logger
}
