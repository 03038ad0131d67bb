package expire

import (
	"context"
	"fmt"

	"github.com/pgmoneta/pgmoneta-go/internal/pg"
	"github.com/pgmoneta/pgmoneta-go/internal/repo"
	"github.com/pgmoneta/pgmoneta-go/internal/retention"
)

// A finder finds out what there is.
type finder struct {
	repo      *repo.Repository
	unshipped bool
	shipped   pg.LSN

	size    pg.SegmentSize // 0 when backups disagree about it
	foreign map[repo.Label]bool
	bytes   map[string]int64 // of stored segments
}

// own returns the labels of backups of our own format.
func (f *finder) own(labels []repo.Label) []repo.Label {
	var own []repo.Label
	for _, l := range labels {
		if !f.foreign[l] {
			own = append(own, l)
		}
	}
	return own
}

func (f *finder) catalogue(ctx context.Context) (retention.Catalogue, error) {
	c := retention.Catalogue{Unshipped: f.unshipped, Shipped: f.shipped, Histories: map[pg.Timeline]pg.History{}}
	list, err := f.repo.Backups(ctx)
	if err != nil {
		return c, err
	}
	damaged, err := f.repo.Damaged(ctx)
	if err != nil {
		return c, err
	}
	sizes := map[pg.SegmentSize]bool{}
	for _, b := range list {
		if b.Err == nil {
			f.size, sizes[b.Summary.SegmentSize] = b.Summary.SegmentSize, true
		}
		row, err := f.backup(ctx, b, damaged)
		if err != nil {
			return c, err
		}
		c.Backups = append(c.Backups, row)
	}
	trash, err := f.repo.InTrash(ctx)
	if err != nil {
		return c, err
	}
	for _, b := range trash {
		if b.Err == nil {
			f.size, sizes[b.Summary.SegmentSize] = b.Summary.SegmentSize, true
		}
		row, err := f.backup(ctx, b.Backup, damaged)
		if err != nil {
			return c, err
		}
		c.Trash = append(c.Trash, retention.Trashed{Backup: row, DeletedAt: b.DeletedAt})
	}
	if len(sizes) != 1 || !f.size.Valid() {
		f.size = 0
	}
	if err := f.holes(ctx, &c); err != nil {
		return c, err
	}
	return c, f.wal(ctx, &c)
}

func (f *finder) backup(ctx context.Context, b repo.Backup, damaged map[string]bool) (retention.Backup, error) {
	f.foreign[b.Label] = b.Foreign
	s := b.Summary
	row := retention.Backup{Label: b.Label, Base: s.Base, Foreign: b.Foreign, Known: b.Err == nil, At: s.StartedAt, Stopped: s.StoppedAt,
		Start: s.Start, End: s.End, StartTLI: s.StartTLI, EndTLI: s.EndTLI}
	if row.At.IsZero() {
		row.At, row.Stopped = b.Label.Time(), b.Label.Time()
	}
	if b.Keep {
		row.Kept = kept
	}
	row.Valid = row.Known && s.CorruptPages == 0
	if b.Foreign || !row.Known {
		return row, nil
	}
	note, err := f.repo.Note(ctx, b.Label)
	switch {
	case err != nil:
		row.Kept = "its note cannot be read: " + err.Error()
	case note.Keep:
		row.Kept = kept
	}
	if row.Valid && len(damaged) > 0 {
		row.Valid, err = f.whole(ctx, b.Label, damaged)
	}
	return row, err
}

const kept = "retain: somebody asked to keep it"

// whole reports whether nothing of a backup is marked as damaged.
func (f *finder) whole(ctx context.Context, l repo.Label, damaged map[string]bool) (bool, error) {
	m, err := f.repo.OpenManifest(ctx, l)
	if err != nil {
		return false, err
	}
	defer func() { _ = m.Close() }()
	if damaged[repo.PostgresManifestName(l)] {
		return false, nil
	}
	for _, p := range m.Packs {
		if damaged[p.Name] {
			return false, nil
		}
	}
	return true, nil
}

func (f *finder) holes(ctx context.Context, c *retention.Catalogue) error {
	holes, err := f.repo.Holes(ctx)
	if err != nil {
		return err
	}
	removed, err := f.repo.RemovedWAL(ctx)
	if err != nil {
		return err
	}
	for _, h := range holes {
		c.Missing = append(c.Missing, retention.Range{Timeline: h.Timeline, From: h.From, To: h.To})
	}
	for _, v := range removed {
		c.Missing = append(c.Missing, retention.Range(v))
	}
	return nil
}

// wal finds segments wherever they are, and histories. Without one segment size no WAL
// is shown, so that none goes.
func (f *finder) wal(ctx context.Context, c *retention.Catalogue) error {
	// They move from the receive directory to the store: looking in this order misses none.
	complete, partial, err := f.repo.Received()
	if err != nil {
		return err
	}
	listing, err := f.repo.ListWAL(ctx)
	if err != nil {
		return err
	}
	var theirs repo.ForeignWAL
	if foreign := f.repo.Foreign(); foreign != nil {
		if theirs, err = foreign.WAL(ctx); err != nil {
			return err
		}
	}
	for _, tli := range append(listing.Histories, theirs.Histories...) {
		h, err := f.repo.History(ctx, tli)
		if err != nil {
			return fmt.Errorf("nothing is deleted while it is not known how timelines belong together: %w", err)
		}
		c.Histories[tli] = h
	}
	c.SegmentSize = f.size
	if f.size == 0 {
		return nil
	}
	seen := map[string]bool{}
	add := func(names []string, fixed bool) error {
		for _, name := range names {
			tli, start, err := pg.ParseSegmentName(name, f.size)
			if err != nil {
				return err
			}
			if !seen[name] {
				seen[name] = true
				c.Segments = append(c.Segments, retention.Segment{Name: name, Fixed: fixed,
					Range: retention.Range{Timeline: tli, From: start, To: start + pg.LSN(f.size)}})
			}
		}
		return nil
	}
	if err := add(listing.Segments, false); err != nil {
		return err
	}
	for _, names := range [][]string{complete, partial, theirs.Segments, theirs.Partial} {
		if err := add(names, true); err != nil {
			return err
		}
	}
	for i, name := range listing.Segments {
		f.bytes[name] = listing.Sizes[i]
	}
	return nil
}
