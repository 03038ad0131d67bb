package pgrepl

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strconv"
	"sync"
	"time"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/pgmoneta/pgmoneta-go/internal/pg"
)

// A WALStream receives WAL after START_REPLICATION. Receive is called by one
// goroutine; SendStatus may be called by another.
type WALStream struct {
	c    *Conn
	stop func() bool // ends the watch of the context

	mu sync.Mutex // guards sending
}

// StartReplication begins to stream WAL of a timeline from lsn, which should be
// the start of a segment. slot may be empty. The stream ends with ctx.
func (c *Conn) StartReplication(ctx context.Context, slot string, tli pg.Timeline, lsn pg.LSN) (*WALStream, error) {
	command := "START_REPLICATION "
	if slot != "" {
		command += "SLOT " + quoteIdentifier(slot) + " "
	}
	command += fmt.Sprintf("PHYSICAL %s TIMELINE %d", lsn, tli)
	// What is pending is looked up in the connection's own buffer.
	if err := c.settle(ctx); err != nil {
		return nil, c.wrap("START_REPLICATION", err)
	}
	c.conn.Frontend().Send(&pgproto3.Query{String: command})
	if err := c.conn.Frontend().Flush(); err != nil {
		return nil, c.wrap("START_REPLICATION", err)
	}
	for {
		msg, err := c.conn.ReceiveMessage(ctx)
		if err != nil {
			return nil, c.wrap("START_REPLICATION", err)
		}
		switch m := msg.(type) {
		case *pgproto3.CopyBothResponse:
			s := &WALStream{c: c}
			s.stop = context.AfterFunc(ctx, func() { _ = c.conn.Conn().SetDeadline(time.Unix(1, 0)) })
			return s, nil
		case *pgproto3.ErrorResponse:
			return nil, c.wrap(fmt.Sprintf("stream WAL of timeline %d from %s", tli, lsn), serverError(m))
		case *pgproto3.ParameterStatus, *pgproto3.NoticeResponse:
		default:
			return nil, c.wrap("START_REPLICATION", fmt.Errorf("unexpected answer %T", msg))
		}
	}
}

// A Message is what [WALStream.Receive] returns.
type Message struct {
	Start     pg.LSN    // position of the first byte of Data
	ServerEnd pg.LSN    // the server's own position when it sent this
	SentAt    time.Time // by the server's clock
	Data      []byte    // WAL; valid until the next Receive
	ReplyNow  bool      // the server asks for a status at once
}

// An EndOfTimelineError ends a stream of a timeline that the server has left.
type EndOfTimelineError struct {
	Next  pg.Timeline
	Begin pg.LSN // where Next begins
}

func (e *EndOfTimelineError) Error() string {
	return fmt.Sprintf("the server went on to timeline %d at %s", e.Next, e.Begin)
}

// ErrDeadline is returned by [WALStream.Receive] when the deadline passes. The
// stream goes on.
var ErrDeadline = errors.New("no message before the deadline")

// Receive returns the next message. It returns [ErrDeadline] when none came in
// time, [*EndOfTimelineError] when the timeline ended (the connection is then
// ready for the next command), and another error when the stream is over.
func (s *WALStream) Receive(ctx context.Context, deadline time.Time) (Message, error) {
	if err := s.c.conn.Conn().SetReadDeadline(deadline); err != nil {
		return Message{}, err
	}
	for {
		if ctx.Err() != nil {
			return Message{}, context.Cause(ctx)
		}
		msg, err := s.c.conn.ReceiveMessage(context.Background())
		if err != nil {
			return Message{}, s.receiveError(ctx, err)
		}
		switch m := msg.(type) {
		case *pgproto3.CopyData:
			return parseCopyData(m.Data)
		case *pgproto3.CopyDone:
			return Message{}, s.endOfTimeline(ctx)
		case *pgproto3.ErrorResponse:
			return Message{}, s.c.wrap("stream WAL", serverError(m))
		case *pgproto3.ParameterStatus, *pgproto3.NoticeResponse:
		case *pgproto3.CommandComplete:
			return Message{}, s.c.wrap("stream WAL", errors.New("the server ended the stream (it is shutting down)"))
		default:
			return Message{}, s.c.wrap("stream WAL", fmt.Errorf("unexpected message %T", msg))
		}
	}
}

func (s *WALStream) receiveError(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return ErrDeadline
	}
	return s.c.wrap("stream WAL", err)
}

// parseCopyData decodes the messages XLogData and primary keepalive.
func parseCopyData(b []byte) (Message, error) {
	if len(b) == 0 {
		return Message{}, errors.New("stream WAL: empty message")
	}
	switch b[0] {
	case pglogrepl.XLogDataByteID:
		d, err := pglogrepl.ParseXLogData(b[1:])
		if err != nil {
			return Message{}, fmt.Errorf("stream WAL: %w", err)
		}
		return Message{Start: pg.LSN(d.WALStart), ServerEnd: pg.LSN(d.ServerWALEnd), SentAt: d.ServerTime, Data: d.WALData}, nil
	case pglogrepl.PrimaryKeepaliveMessageByteID:
		k, err := pglogrepl.ParsePrimaryKeepaliveMessage(b[1:])
		if err != nil {
			return Message{}, fmt.Errorf("stream WAL: %w", err)
		}
		return Message{ServerEnd: pg.LSN(k.ServerWALEnd), SentAt: k.ServerTime, ReplyNow: k.ReplyRequested}, nil
	}
	return Message{}, fmt.Errorf("stream WAL: unknown message %q", b[0])
}

// Pending reports whether more messages can be read without waiting. What the
// layer of TLS holds is not seen.
func (s *WALStream) Pending() bool {
	return s.c.conn.Frontend().ReadBufferLen() > 0 || s.c.in.r.Buffered() > 0 || s.c.socket.readable()
}

// Linger waits for d, so that messages gather, or until the context of the
// stream ends.
func (s *WALStream) Linger(d time.Duration) { s.c.socket.linger(d) }

// A Status is a standby status update.
type Status struct {
	Written pg.LSN // received and handed to the operating system
	Flushed pg.LSN // on stable storage; the server may remove WAL before it
	Applied pg.LSN // replayed; zero for a receiver that replays nothing
	Reply   bool   // ask the server for a keepalive at once
}

// Append encodes the message. Unlike pglogrepl's encoder it sends a flush
// position of zero as zero: claiming the written position instead would
// acknowledge bytes that are not durable.
func (s Status) Append(dst []byte, at time.Time) []byte {
	dst = append(dst, 'r')
	dst = binary.BigEndian.AppendUint64(dst, uint64(s.Written))
	dst = binary.BigEndian.AppendUint64(dst, uint64(s.Flushed))
	dst = binary.BigEndian.AppendUint64(dst, uint64(s.Applied))
	dst = binary.BigEndian.AppendUint64(dst, uint64(at.Sub(postgresEpoch).Microseconds()))
	if s.Reply {
		return append(dst, 1)
	}
	return append(dst, 0)
}

var postgresEpoch = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)

// SendStatus reports positions to the server.
func (s *WALStream) SendStatus(st Status) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	msg, err := (&pgproto3.CopyData{Data: st.Append(nil, time.Now())}).Encode(nil)
	if err != nil {
		return err
	}
	_ = s.c.conn.Conn().SetWriteDeadline(time.Now().Add(connectTimeout))
	_, err = s.c.conn.Conn().Write(msg)
	return s.c.wrap("report WAL position", err)
}

// endOfTimeline answers the server's CopyDone and reads where the next timeline begins.
func (s *WALStream) endOfTimeline(ctx context.Context) error {
	s.stop()
	_ = s.c.conn.Conn().SetReadDeadline(time.Time{})
	s.mu.Lock()
	s.c.conn.Frontend().Send(&pgproto3.CopyDone{})
	err := s.c.conn.Frontend().Flush()
	s.mu.Unlock()
	if err != nil {
		return s.c.wrap("end of timeline", err)
	}
	var end *EndOfTimelineError
	for {
		msg, err := s.c.conn.ReceiveMessage(ctx)
		if err != nil {
			return s.c.wrap("end of timeline", err)
		}
		switch m := msg.(type) {
		case *pgproto3.DataRow:
			if end, err = parseNextTimeline(m.Values); err != nil {
				return s.c.wrap("end of timeline", err)
			}
		case *pgproto3.ErrorResponse:
			return s.c.wrap("end of timeline", serverError(m))
		case *pgproto3.ReadyForQuery:
			if end == nil {
				return s.c.wrap("stream WAL", errors.New("the server ended the stream"))
			}
			return end
		}
	}
}

func parseNextTimeline(row [][]byte) (*EndOfTimelineError, error) {
	if len(row) < 2 {
		return nil, fmt.Errorf("%d columns about the next timeline, want 2", len(row))
	}
	tli, err := strconv.ParseUint(string(row[0]), 10, 32)
	if err != nil || tli == 0 {
		return nil, fmt.Errorf("next timeline %q", row[0])
	}
	begin, err := pg.ParseLSN(string(row[1]))
	return &EndOfTimelineError{Next: pg.Timeline(tli), Begin: begin}, err
}

// Finish tells the server that no more WAL is wanted, and waits up to a second
// for its goodbye, so that it logs no broken connection. The connection must be
// closed afterwards.
func (s *WALStream) Finish() {
	s.stop()
	s.mu.Lock()
	defer s.mu.Unlock()
	_ = s.c.conn.Conn().SetDeadline(time.Now().Add(time.Second))
	s.c.conn.Frontend().Send(&pgproto3.CopyDone{})
	if s.c.conn.Frontend().Flush() != nil {
		return
	}
	for {
		msg, err := s.c.conn.ReceiveMessage(context.Background())
		if _, over := msg.(*pgproto3.ReadyForQuery); over || err != nil {
			return
		}
	}
}
