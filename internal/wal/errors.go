package wal

import (
	"errors"
	"fmt"

	"github.com/pgmoneta/pgmoneta-go/internal/pg"
)

// ErrHole is wrapped by errors that mean that WAL is missing for good.
var ErrHole = errors.New("hole in WAL")

// A RemovedError reports that the server no longer has WAL this archive still
// needs. It wraps [ErrHole]. Streaming again cannot help; a new full backup can.
type RemovedError struct {
	Server   string // section name in pgmoneta.conf
	Timeline pg.Timeline
	Need     pg.LSN // first byte the archive lacks
	Have     pg.LSN // oldest byte the slot still keeps, 0 if unknown
	Err      error
}

func (e *RemovedError) Error() string {
	keeps := ""
	if e.Have != 0 {
		keeps = fmt.Sprintf(" (the slot keeps from %s)", e.Have)
	}
	return fmt.Sprintf("server %q: WAL from %s on timeline %d is gone%s: check the slot's wal_status, "+
		"set on_gap = backup or continue to go on after the hole, and take a full backup: %v", e.Server, e.Need, e.Timeline, keeps, e.Err)
}

func (e *RemovedError) Unwrap() []error { return []error{ErrHole, e.Err} }

// A SlotMissingError reports that the configured slot does not exist and may not be created.
type SlotMissingError struct{ Server, Slot string }

func (e *SlotMissingError) Error() string {
	return fmt.Sprintf("server %q: replication slot %q does not exist: set create_slot = yes, or create it with "+
		"SELECT pg_create_physical_replication_slot('%s', true)", e.Server, e.Slot, e.Slot)
}

// A SlotLostError reports a slot that has lost its WAL and may not be made anew.
// It wraps [ErrHole].
type SlotLostError struct {
	Server, Slot string
	Err          error
}

func (e *SlotLostError) Error() string {
	return fmt.Sprintf("server %q: replication slot %q is lost, the server has removed WAL behind it (max_slot_wal_keep_size, "+
		"idle_replication_slot_timeout): set create_slot = yes, or drop it and create it again, then take a full backup", e.Server, e.Slot)
}

func (e *SlotLostError) Unwrap() []error { return []error{ErrHole, e.Err} }

// A DivergedError reports a server whose history does not contain the WAL that
// is stored: it is another branch, older than what the archive follows.
type DivergedError struct {
	Server  string
	Stored  pg.Timeline // timeline the archive has reached
	Current pg.Timeline // timeline of the server
}

func (e *DivergedError) Error() string {
	return fmt.Sprintf("server %q: it is on timeline %d, whose history does not contain timeline %d of the stored WAL: "+
		"this is not the server that was followed, or it was restored to an earlier point without a new timeline", e.Server, e.Current, e.Stored)
}
