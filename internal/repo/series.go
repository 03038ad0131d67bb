package repo

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strconv"
	"strings"
)

// Records about a backup that change are kept in series: the objects
// "backup/<label>/<series>/<n>" with n of 8 digits from 1 on, of which the one
// with the highest number counts. Nothing is overwritten, and a crash leaves the
// record before or the one after. They go with their backup.
const (
	noteSeries         = "note"
	rehearsalSeries    = "rehearsal"
	verificationSeries = "verification"
)

const recordLimit = 1 << 20

func seriesPrefix(l Label, series string) string { return "backup/" + string(l) + "/" + series }

func recordName(l Label, series string, n int) string {
	return fmt.Sprintf("%s/%08d", seriesPrefix(l, series), n)
}

func recordNumber(s string) (int, bool) {
	n, err := strconv.Atoi(s)
	return n, err == nil && n > 0 && len(s) == 8
}

// records returns the numbers of a series, ascending.
func (r *Repository) records(ctx context.Context, l Label, series string) ([]int, error) {
	prefix := seriesPrefix(l, series)
	objects, err := r.engine.List(ctx, prefix)
	if err != nil {
		return nil, err
	}
	var numbers []int
	for _, o := range objects {
		if n, ok := recordNumber(strings.TrimPrefix(o.Name, prefix+"/")); ok {
			numbers = append(numbers, n)
		}
	}
	slices.Sort(numbers)
	return numbers, nil
}

// lastRecord returns the content of the record that counts. It is
// [fs.ErrNotExist] for a series without one.
func (r *Repository) lastRecord(ctx context.Context, l Label, series string) ([]byte, error) {
	numbers, err := r.records(ctx, l, series)
	if err != nil {
		return nil, err
	}
	if len(numbers) == 0 {
		return nil, fmt.Errorf("%s: %w", seriesPrefix(l, series), fs.ErrNotExist)
	}
	return r.ReadRecord(ctx, recordName(l, series, numbers[len(numbers)-1]), recordLimit)
}

// keptRecords is how many records of a series stay: the one that counts and, for
// who asks what happened, those before it.
const keptRecords = 10

// OwnerNote is the owner of stages in which records about backups are made.
const OwnerNote = "note"

// changeSeries calls change while no other process changes a series. Any process
// may do that at any time: it needs no other lock.
func (r *Repository) changeSeries(ctx context.Context, change func() error) error {
	return r.locked(ctx, "note.lock", func() error {
		// The lock is ours, so nobody's stage is open: what is there was left by a crash.
		if err := r.engine.Sweep(ctx, OwnerNote); err != nil {
			return err
		}
		return change()
	})
}

// addRecord adds a record, which is durable and counts when nil is returned. It
// runs inside changeSeries. A backup that is gone is [ErrNoBackup].
func (r *Repository) addRecord(ctx context.Context, l Label, series string, content []byte) error {
	if ok, err := r.exists(ctx, manifestName(l)); err != nil || !ok {
		return errors.Join(err, fmt.Errorf("server %q: backup %s: %w", r.server, l, ErrNoBackup))
	}
	if trashed, err := r.exists(ctx, trashName(l)); err != nil || trashed {
		return errors.Join(err, &TrashedError{r.server, l}) // to keep it would promise what nobody holds
	}
	numbers, err := r.records(ctx, l, series)
	if err != nil {
		return err
	}
	next := 1
	if len(numbers) > 0 {
		next = numbers[len(numbers)-1] + 1
	}
	if err := r.PutRecord(ctx, OwnerNote, recordName(l, series, next), append(content, '\n')); err != nil {
		return err
	}
	for ; len(numbers) >= keptRecords; numbers = numbers[1:] {
		err := r.engine.Delete(ctx, recordName(l, series, numbers[0]))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}
