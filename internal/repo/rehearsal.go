package repo

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/pgmoneta/pgmoneta-go/internal/pg"
)

// A Rehearsal is what a rehearsed restore of a backup came to, the content of a
// record in the series "rehearsal". Times are UTC.
type Rehearsal struct {
	At     time.Time `json:"at"`     // when it began
	Target string    `json:"target"` // position, as in a restore
	// Started tells that PostgreSQL accepted connections: without its programs of
	// that version the files are restored and checked, and no more.
	Started bool `json:"started"`
	// Failure is what went wrong, empty for a rehearsal that proves the backup.
	Failure string `json:"failure,omitempty"`

	Server       string        `json:"server,omitempty"` // version of the programs
	RestoreBytes int64         `json:"restore_bytes"`    // files and WAL that were written
	Restore      time.Duration `json:"restore_ns"`
	ReplayFrom   pg.LSN        `json:"replay_from_lsn,omitempty"`
	ReplayTo     pg.LSN        `json:"replay_to_lsn,omitempty"`
	Replay       time.Duration `json:"replay_ns,omitempty"`
	// LastCommit is the commit time of the last transaction that was replayed.
	LastCommit time.Time `json:"last_commit,omitzero"`
	// RTO is the time from the beginning until connections were accepted.
	RTO time.Duration `json:"rto_ns,omitempty"`

	Checks []RehearsalCheck `json:"checks,omitempty"`
}

// A RehearsalCheck is something that was asked of the restored cluster.
type RehearsalCheck struct {
	Database string        `json:"database"`
	Name     string        `json:"name"`
	Problem  string        `json:"problem,omitempty"` // empty if it passed
	Note     string        `json:"note,omitempty"`    // what there is to know about it
	Elapsed  time.Duration `json:"elapsed_ns"`
}

// Proven reports whether the rehearsal proved the backup.
func (h *Rehearsal) Proven() bool { return h.Started && h.Failure == "" }

// AddRehearsal records a rehearsal of a backup. Any process may call it at any time.
func (r *Repository) AddRehearsal(ctx context.Context, l Label, h Rehearsal) error {
	content, err := json.Marshal(h)
	if err != nil {
		return err
	}
	err = r.changeSeries(ctx, func() error { return r.addRecord(ctx, l, rehearsalSeries, content) })
	if err != nil {
		return fmt.Errorf("server %q: record the rehearsal of backup %s: %w", r.server, l, err)
	}
	return nil
}

// Rehearsal returns the last rehearsal of a backup, nil if there was none.
func (r *Repository) Rehearsal(ctx context.Context, l Label) (*Rehearsal, error) {
	content, err := r.lastRecord(ctx, l, rehearsalSeries)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var h Rehearsal
	if err := json.Unmarshal(content, &h); err != nil {
		return nil, fmt.Errorf("server %q: the record of the rehearsal of backup %s: %w", r.server, l, err)
	}
	return &h, nil
}

// LastRehearsal returns the newest rehearsal of all backups that are listed, nil if
// there was none. Records that cannot be read are passed over.
func (r *Repository) LastRehearsal(ctx context.Context) (Label, *Rehearsal, error) {
	return newestRecord(ctx, r, r.Rehearsal, func(h *Rehearsal) time.Time { return h.At })
}
