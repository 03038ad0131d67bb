package repo

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"github.com/pgmoneta/pgmoneta-go/internal/pg"
)

// A KeptError refuses to delete a backup that is to be kept.
type KeptError struct {
	Server string
	Label  Label
	Err    error // why it is not known whether it is; nil when it is
}

func (e *KeptError) Error() string {
	if e.Err != nil {
		return fmt.Sprintf("server %q: backup %s may be one to keep: %v: delete it with --force", e.Server, e.Label, e.Err)
	}
	return fmt.Sprintf("server %q: backup %s is to be kept: delete it with --force", e.Server, e.Label)
}

func (e *KeptError) Unwrap() error { return e.Err }

// Expire is [Repository.Delete] for backups that nobody wants to keep. It asks for the
// note of each while no other process can change it, so that a backup is either kept or
// gone, and returns the labels of those that are gone. It ends with a [*KeptError] at
// the first that is to be kept.
func (r *Repository) Expire(ctx context.Context, labels ...Label) ([]Label, error) {
	var gone []Label
	if err := r.settle(ctx, labels...); err != nil {
		return nil, err
	}
	err := r.changeSeries(ctx, func() error {
		for _, l := range labels {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			if n, err := r.Note(ctx, l); err != nil || n.Keep {
				return &KeptError{r.server, l, err}
			}
			if err := r.engine.Delete(ctx, manifestName(l)); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
			gone = append(gone, l)
		}
		return nil
	})
	if len(gone) > 0 && ctx.Err() == nil {
		err = errors.Join(err, r.Sweep(ctx))
	}
	return gone, err
}

// Freed returns how many stored bytes only some backups need.
func (r *Repository) Freed(ctx context.Context, gone []Label) (int64, error) {
	listed, err := r.labels(ctx)
	if err != nil {
		return 0, err
	}
	left := slices.DeleteFunc(slices.Clone(listed), func(l Label) bool { return slices.Contains(gone, l) })
	before, err := r.needed(ctx, slices.DeleteFunc(listed, func(l Label) bool { return !slices.Contains(gone, l) }))
	if err != nil {
		return 0, err
	}
	after, err := r.needed(ctx, left)
	if err != nil {
		return 0, err
	}
	packs, err := r.engine.List(ctx, "pack")
	if err != nil {
		return 0, err
	}
	var n int64
	for _, o := range packs {
		if name := PackOf(o.Name); before[name] && !after[name] {
			n += o.Size
		}
	}
	return n, nil
}

// A WALRange is a part of a timeline. That it was removed on purpose is recorded as the object
//
//	removed/<timeline>/<from>-<to>
//
// with 8, 16 and 16 upper-case hexadecimal digits. Only the name counts.
type WALRange struct {
	Timeline pg.Timeline
	From, To pg.LSN
}

const removedPrefix = "removed"

func (v WALRange) object() string {
	return removedPrefix + strings.TrimPrefix(Hole{Timeline: v.Timeline, From: v.From, To: v.To}.object(), holePrefix)
}

// RemovedWAL returns the WAL that was removed because nothing needed it, by timeline and
// position. What was removed before everything that is left is not among it, unless
// nothing later is left of its timeline.
func (r *Repository) RemovedWAL(ctx context.Context) ([]WALRange, error) {
	objects, err := r.engine.List(ctx, removedPrefix)
	if err != nil {
		return nil, err
	}
	var list []WALRange
	for _, o := range objects {
		if h, ok := parseHoleName(holePrefix + strings.TrimPrefix(o.Name, removedPrefix)); ok {
			list = append(list, WALRange{h.Timeline, h.From, h.To})
		}
	}
	slices.SortFunc(list, compareRanges)
	return list, nil
}

func compareRanges(a, b WALRange) int {
	return cmp.Or(cmp.Compare(a.Timeline, b.Timeline), cmp.Compare(a.From, b.From), cmp.Compare(a.To, b.To))
}

// DeleteWAL removes stored segments, in the order given, which is best the oldest first.
// That they are gone on purpose is recorded before the first goes; after a crash the next
// call finishes the work. The caller holds [Repository.Lock]. It returns how many went.
func (r *Repository) DeleteWAL(ctx context.Context, names []string, size pg.SegmentSize) (int, error) {
	if err := r.recordRemoved(ctx, names, size); err != nil {
		return 0, err
	}
	for i, name := range names {
		if ctx.Err() != nil {
			return i, context.Cause(ctx)
		}
		if err := r.engine.Delete(ctx, segmentObject(name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return i, err
		}
	}
	return len(names), r.forgetRemoved(ctx, size)
}

// recordRemoved records segments as removed. Ranges that touch become one: the record of
// all of it is there before those of its parts go.
func (r *Repository) recordRemoved(ctx context.Context, names []string, size pg.SegmentSize) error {
	have, err := r.RemovedWAL(ctx)
	if err != nil {
		return err
	}
	list := slices.Clone(have)
	for _, name := range names {
		tli, start, err := pg.ParseSegmentName(name, size)
		if err != nil {
			return err
		}
		list = append(list, WALRange{tli, start, start + pg.LSN(size)})
	}
	merged := mergeRanges(list)
	for _, v := range merged {
		if slices.Contains(have, v) {
			continue
		}
		if err := r.PutRecord(ctx, OwnerJob, v.object(), []byte("{}\n")); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	for _, v := range have {
		if slices.Contains(merged, v) {
			continue
		}
		if err := r.engine.Delete(ctx, v.object()); err != nil {
			return err
		}
	}
	return nil
}

func mergeRanges(list []WALRange) []WALRange {
	slices.SortFunc(list, compareRanges)
	var merged []WALRange
	for _, v := range list {
		n := len(merged)
		if n > 0 && merged[n-1].Timeline == v.Timeline && v.From <= merged[n-1].To {
			merged[n-1].To = max(merged[n-1].To, v.To)
			continue
		}
		merged = append(merged, v)
	}
	return merged
}

// forgetRemoved removes the records of what lies before everything that is left: who
// looks for gaps does not look there. The records of a timeline of which nothing later is
// left stay: they tell the WAL that was removed there from WAL that never came.
func (r *Repository) forgetRemoved(ctx context.Context, size pg.SegmentSize) error {
	listing, err := r.ListWAL(ctx)
	if err != nil {
		return err
	}
	oldest, newest := ^pg.LSN(0), map[pg.Timeline]pg.LSN{}
	for _, name := range listing.Segments {
		if tli, start, err := pg.ParseSegmentName(name, size); err == nil {
			oldest, newest[tli] = min(oldest, start), max(newest[tli], start)
		}
	}
	removed, err := r.RemovedWAL(ctx)
	if err != nil {
		return err
	}
	for _, v := range removed {
		if v.From > oldest || newest[v.Timeline] < v.To {
			continue
		}
		if err := r.engine.Delete(ctx, v.object()); err != nil {
			return err
		}
	}
	return nil
}
