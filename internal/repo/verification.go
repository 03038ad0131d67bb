package repo

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"time"
)

// A Verification is what a verification of a backup came to, the content of a record in
// the series "verification".
type Verification struct {
	At       time.Time `json:"at"`        // when it ended, UTC
	Files    int       `json:"files"`     // that were read
	BadFiles int       `json:"bad_files"` // in which something is wrong
	Problems int       `json:"problems"`  // objects that are damaged or missing
	Problem  string    `json:"problem,omitempty"`
}

// Good reports whether nothing was wrong.
func (v *Verification) Good() bool { return v.Problems == 0 && v.BadFiles == 0 }

// AddVerification records a verification of a backup. Any process may call it at any time.
func (r *Repository) AddVerification(ctx context.Context, l Label, v Verification) error {
	content, err := json.Marshal(v)
	if err != nil {
		return err
	}
	err = r.changeSeries(ctx, func() error { return r.addRecord(ctx, l, verificationSeries, content) })
	if err != nil {
		return fmt.Errorf("server %q: record the verification of backup %s: %w", r.server, l, err)
	}
	return nil
}

// Verification returns the last verification of a backup, nil if there was none.
func (r *Repository) Verification(ctx context.Context, l Label) (*Verification, error) {
	content, err := r.lastRecord(ctx, l, verificationSeries)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var v Verification
	if err := json.Unmarshal(content, &v); err != nil {
		return nil, fmt.Errorf("server %q: the record of the verification of backup %s: %w", r.server, l, err)
	}
	return &v, nil
}

// LastVerification returns the newest verification of all backups that are listed, nil if
// there was none. Records that cannot be read are passed over.
func (r *Repository) LastVerification(ctx context.Context) (Label, *Verification, error) {
	return newestRecord(ctx, r, r.Verification, func(v *Verification) time.Time { return v.At })
}

// newestRecord returns the newest of the records that read returns for the backups that
// are listed.
func newestRecord[T any](ctx context.Context, r *Repository, read func(context.Context, Label) (*T, error), at func(*T) time.Time) (of Label, newest *T, err error) {
	labels, err := r.labels(ctx)
	if err != nil {
		return "", nil, err
	}
	trash, err := r.inTrash(ctx)
	if err != nil {
		return "", nil, err
	}
	for _, l := range slices.DeleteFunc(labels, func(l Label) bool { return trash[l] }) {
		v, err := read(ctx, l)
		if ctx.Err() != nil {
			return "", nil, context.Cause(ctx)
		}
		if err == nil && v != nil && (newest == nil || at(v).After(at(newest))) {
			newest, of = v, l
		}
	}
	return of, newest, nil
}
