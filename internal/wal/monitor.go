package wal

import (
	"time"

	"github.com/pgmoneta/pgmoneta-go/internal/pg"
)

// A Connection describes the server a receiver has reached.
type Connection struct {
	System      string
	Version     pg.Version
	SegmentSize pg.SegmentSize
	Primary     bool
	Checksums   bool
	Summarize   bool // summarize_wal was on when we connected
}

// A Monitor is told what happens. Its methods must not block; they are called
// from several goroutines.
type Monitor interface {
	Connected(Connection)
	Streaming(tli pg.Timeline, from pg.LSN)
	// Received is called after bytes were written; server is the server's position.
	Received(tli pg.Timeline, written, server pg.LSN, bytes int, at time.Time)
	// Flushed is called after WAL up to lsn was made durable, which took so long.
	Flushed(lsn pg.LSN, at time.Time, took time.Duration)
	Queued(segments int)
	Stored(tli pg.Timeline, end pg.LSN, bytes int64)
	// Shipped is called when a segment has arrived in the directory to ship to.
	Shipped(tli pg.Timeline, end pg.LSN)
	// Shipping tells how many stored segments have not arrived there, and since
	// when there is something to ship; zero when nothing is.
	Shipping(waiting int, since time.Time)
	// Archive is called at the start with what is stored.
	Archive(segments int, bytes int64)
	// Slot tells how the server sees our slot: wal_status, or "missing", and the
	// bytes of WAL it keeps for us.
	Slot(state string, retained uint64)
	// Waiting tells when the next attempt to connect is made.
	Waiting(until time.Time)
	// Failed reports trouble; Disconnected also that the stream is over.
	Failed(error)
	Disconnected(error)
}

// Unwatched is a [Monitor] that does nothing. Who wants to know some of it embeds it.
type Unwatched struct{}

// The methods of [Monitor].
func (Unwatched) Connected(Connection)                                 {}
func (Unwatched) Streaming(pg.Timeline, pg.LSN)                        {}
func (Unwatched) Received(pg.Timeline, pg.LSN, pg.LSN, int, time.Time) {}
func (Unwatched) Flushed(pg.LSN, time.Time, time.Duration)             {}
func (Unwatched) Queued(int)                                           {}
func (Unwatched) Stored(pg.Timeline, pg.LSN, int64)                    {}
func (Unwatched) Shipped(pg.Timeline, pg.LSN)                          {}
func (Unwatched) Shipping(int, time.Time)                              {}
func (Unwatched) Archive(int, int64)                                   {}
func (Unwatched) Slot(string, uint64)                                  {}
func (Unwatched) Waiting(time.Time)                                    {}
func (Unwatched) Failed(error)                                         {}
func (Unwatched) Disconnected(error)                                   {}
