package wal

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/pgmoneta/pgmoneta-go/internal/pg"
	"github.com/pgmoneta/pgmoneta-go/internal/pgrepl"
)

// A stream receives one timeline over one connection.
//
// While the server waits for nobody, two goroutines share the work: one
// receives and writes, pausing shortly so that each turn carries more; the other
// flushes and acknowledges at every interval. While commits may be waiting (the
// receiver is eager), the first does all of it in turn: read until the socket
// would block, one write, one fdatasync, one status. What arrives during the
// fdatasync is covered by the next.
type stream struct {
	r        *Receiver
	src      source
	conn     *pgrepl.Conn
	size     pg.SegmentSize
	interval time.Duration // between status reports
	slot     pgrepl.Slot

	journal *journal
	wal     *pgrepl.WALStream
	tli     pg.Timeline
	start   pg.LSN        // where this stream began
	server  pg.LSN        // the server's position, as far as it told
	now     chan struct{} // holds one token when a flush is wanted at once

	gathered  int // bytes received since the last write
	unflushed int // bytes written since the last flush, while commits wait

	flushing sync.Mutex // held during a flush
}

// run streams from at until the timeline ends, and then says where it ended.
func (s *stream) run(parent context.Context, at position) (*pgrepl.EndOfTimelineError, error) {
	ctx, cancel := context.WithCancelCause(parent)
	defer cancel(nil)
	var err error
	if s.wal, err = s.conn.StartReplication(ctx, s.src.slot, at.tli, at.lsn); err != nil {
		return nil, s.startError(at, err)
	}
	s.tli, s.start, s.now = at.tli, at.lsn, make(chan struct{}, 1)
	s.journal = newJournal(s.r.Repo.ReceiveFS(s.r.FS), s.r.Repo.ReceiveDir(), s.size, at.tli, at.lsn, s.r.storer.add)
	received := make(chan struct{}) // closed when nothing more will be written
	flushed := make(chan error, 1)
	go func() {
		err := s.flushUntil(received)
		if err != nil {
			cancel(err) // wakes the receiver
		}
		flushed <- err
	}()
	err = s.receive(ctx)
	close(received)
	err = firstError(<-flushed, err)
	return s.end(parent, err)
}

func firstError(a, b error) error {
	if a != nil {
		return a
	}
	return b
}

// startError explains a refusal of the server.
func (s *stream) startError(at position, err error) error {
	// An invalidated slot is refused before the WAL is looked for.
	invalid := pgrepl.Code(err) == pgrepl.CodeNotInState && s.src.slot != ""
	if pgrepl.Code(err) == pgrepl.CodeUndefinedFile || invalid {
		return &RemovedError{Server: s.r.Params.Server, Timeline: at.tli, Need: at.lsn, Have: s.slot.Restart, Err: err}
	}
	return err
}

// end closes the journal after everything received was flushed and reported.
func (s *stream) end(parent context.Context, err error) (*pgrepl.EndOfTimelineError, error) {
	cerr := s.journal.close()
	var next *pgrepl.EndOfTimelineError
	if errors.As(err, &next) {
		return next, cerr
	}
	if pgrepl.Code(err) == pgrepl.CodeUndefinedFile {
		written, _ := s.journal.positions()
		err = &RemovedError{Server: s.r.Params.Server, Timeline: s.tli, Need: written, Have: s.slot.Restart, Err: err}
	}
	if parent.Err() != nil || errors.Is(err, errReached) {
		s.wal.Finish()
	}
	return nil, errors.Join(err, cerr)
}

// pause is how long the receiver lets WAL gather in the socket while nobody waits
// for it. Each commit of the server is a message; taking a hundred at once costs
// the machine little more than taking one.
const pause = 5 * time.Millisecond

// receive reads messages until the stream ends. What it returns is never nil.
func (s *stream) receive(ctx context.Context) error {
	report := time.Now()
	heard := report
	began := false
	for {
		msg, err := s.wal.Receive(ctx, report)
		now := time.Now()
		switch {
		case errors.Is(err, pgrepl.ErrDeadline):
			if silence := now.Sub(heard); silence > 3*s.interval+time.Second {
				return fmt.Errorf("server %q: silent for %s, although asked for an answer", s.r.Params.Server, silence.Round(time.Second))
			}
		case err != nil:
			if werr := s.journal.write(); werr != nil {
				return werr // also when the timeline ended: its last bytes are missing
			}
			return err
		default:
			heard = now
			if !began {
				began = true // only now: the server answers the command before it looks for the WAL
				s.begin()
			}
			if err := s.take(msg, now); err != nil {
				return err
			}
		}
		if !now.Before(report) {
			report = now.Add(s.interval)
			if err := s.report(true); err != nil {
				return err
			}
		}
	}
}

func (s *stream) begin() {
	start, _ := s.journal.positions()
	s.r.Log.Info("streaming WAL", "timeline", s.tli, "lsn", start, "slot", s.src.slot)
	s.r.Monitor.Streaming(s.tli, start)
}

// take handles one message.
func (s *stream) take(msg pgrepl.Message, now time.Time) error {
	s.server = max(s.server, msg.ServerEnd)
	if len(msg.Data) > 0 {
		if err := s.journal.append(msg.Start, msg.Data); err != nil {
			return fmt.Errorf("server %q: %w", s.r.Params.Server, err)
		}
	}
	// While more can be read without waiting, reading on makes the next write
	// and the next flush carry more, up to what a commit may be made to wait for.
	s.gathered += len(msg.Data)
	if !msg.ReplyNow && s.gathered < coalesce && s.wal.Pending() {
		return nil
	}
	before, _ := s.journal.positions()
	if err := s.journal.write(); err != nil {
		return fmt.Errorf("server %q: write WAL: %w", s.r.Params.Server, err)
	}
	written, _ := s.journal.positions()
	s.r.Monitor.Received(s.tli, written, s.server, int(written-before), now)
	s.r.age(s.size, before, written, now)
	if s.src.until != 0 && written >= s.src.until {
		return errReached
	}
	if msg.ReplyNow {
		if err := s.report(false); err != nil {
			return err
		}
	}
	gathered := s.gathered
	s.gathered = 0
	if s.r.Always || s.r.eager.Load() {
		// What came during the write belongs to this flush too.
		if s.unflushed += gathered; s.unflushed < coalesce && s.wal.Pending() {
			return nil
		}
		s.unflushed = 0
		return s.flush()
	}
	if msg.ReplyNow || s.size.Start(before) != s.size.Start(written) {
		s.flushNow()
	}
	if !s.wal.Pending() {
		s.wal.Linger(pause)
	}
	return nil
}

// rest waits, but not past the end of ctx.
func rest(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}

func (s *stream) flushNow() {
	select {
	case s.now <- struct{}{}:
	default: // one is on its way that will cover this too
	}
}

// flushUntil flushes when asked and at every interval, until received is
// closed, and then once more.
func (s *stream) flushUntil(received <-chan struct{}) error {
	tick := time.NewTicker(s.r.FlushInterval)
	defer tick.Stop()
	for {
		last := false
		select {
		case <-s.now:
		case <-tick.C:
		case <-received:
			last = true
		}
		if err := s.flush(); err != nil || last {
			return err
		}
	}
}

// flush makes what is written durable and then, and only then, acknowledges it.
func (s *stream) flush() error {
	s.flushing.Lock()
	defer s.flushing.Unlock()
	_, before := s.journal.positions()
	began := time.Now()
	lsn, err := s.journal.flush()
	if err != nil {
		return fmt.Errorf("server %q: flush WAL: %w", s.r.Params.Server, err)
	}
	if lsn == before {
		return nil
	}
	now := time.Now()
	s.r.Monitor.Flushed(lsn, now, now.Sub(began))
	// A connection that broke is the receiver's to notice; bytes still being
	// flushed after it are worth keeping.
	_ = s.report(false)
	return nil
}

// report sends the positions as they are. It never waits for the disk, so that
// the server hears from us however slow that is.
func (s *stream) report(reply bool) error {
	written, flushed := s.journal.positions()
	return s.wal.SendStatus(pgrepl.Status{Written: written, Flushed: acknowledged(s.slot, s.start, flushed), Reply: reply})
}

// acknowledged returns the flushed position to report, 0 for none.
//
// PostgreSQL 14 to 17 begin to stream for a slot that has lost its WAL and look
// for the WAL later. A position reported in between would be taken as the
// slot's: it would look as if it still reserved what is gone.
func acknowledged(slot pgrepl.Slot, start, flushed pg.LSN) pg.LSN {
	if slot.Exists && slot.Restart == 0 && flushed <= start {
		return 0
	}
	return flushed
}
