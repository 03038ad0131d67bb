package repo

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"time"
)

// A Note is what operators say about a backup, the content of a record in the
// series "note".
type Note struct {
	Keep     bool      `json:"keep"` // whatever the retention says
	Comments []Comment `json:"comments,omitempty"`
	At       time.Time `json:"at"` // UTC
}

// A Comment is a text under a key. Keys of a note differ.
type Comment struct {
	Key  string `json:"key"`
	Text string `json:"text"`
}

// Note returns the note on a backup, the zero note if there is none. Who deletes
// must take an error for a wish to keep.
func (r *Repository) Note(ctx context.Context, l Label) (Note, error) {
	content, err := r.lastRecord(ctx, l, noteSeries)
	if errors.Is(err, fs.ErrNotExist) {
		return Note{}, nil
	}
	if err != nil {
		return Note{}, err
	}
	var n Note
	if err := json.Unmarshal(content, &n); err != nil {
		return Note{}, fmt.Errorf("server %q: the note on backup %s: %w", r.server, l, err)
	}
	return n, nil
}

// ChangeNote replaces the note on a backup with what change makes of it, and returns
// that. Nothing is written when change fails. Any process may call it at any time.
func (r *Repository) ChangeNote(ctx context.Context, l Label, now time.Time, change func(*Note) error) (Note, error) {
	var n Note
	err := r.changeSeries(ctx, func() (err error) {
		if n, err = r.Note(ctx, l); err != nil {
			return err
		}
		if err := change(&n); err != nil {
			return err
		}
		n.At = now.UTC()
		content, err := json.Marshal(n)
		if err != nil {
			return err
		}
		return r.addRecord(ctx, l, noteSeries, content)
	})
	return n, err
}

// PutFirstNote writes the note on a backup that is about to be committed: it is there from the
// backup's first moment on. The caller holds [Repository.Lock]; a sweep removes the note of a backup
// that does not come to exist.
func (r *Repository) PutFirstNote(ctx context.Context, l Label, n Note) error {
	n.At = n.At.UTC()
	content, err := json.Marshal(n)
	if err != nil {
		return err
	}
	return r.PutRecord(ctx, OwnerJob, recordName(l, noteSeries, 1), append(content, '\n'))
}
