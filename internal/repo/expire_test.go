package repo

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/pgmoneta/pgmoneta-go/internal/container"
	"github.com/pgmoneta/pgmoneta-go/internal/durable"
	"github.com/pgmoneta/pgmoneta-go/internal/pg"
)

func storeSegments(t *testing.T, r *Repository, tli pg.Timeline, numbers ...int) []string {
	t.Helper()
	var names []string
	for _, n := range numbers {
		name := pg.SegmentName(tli, pg.LSN(n)*mib, mib)
		if _, err := r.StoreSegment(context.Background(), name, mib, bytes.NewReader(make([]byte, mib)), container.Zstd, 1); err != nil {
			t.Fatal(err)
		}
		names = append(names, name)
	}
	return names
}

func TestExpireLeavesWhatIsKept(t *testing.T) {
	ctx := context.Background()
	r := open(t, durable.OS{}, t.TempDir())
	labels := []Label{"20261121120000", "20261121120001", "20261121120002"}
	for _, l := range labels {
		if err := addBackup(ctx, r, l, 1); err != nil {
			t.Fatal(err)
		}
	}
	if n, err := r.Freed(ctx, labels[:1]); err != nil || n <= 0 {
		t.Errorf("one backup frees %d bytes, %v", n, err)
	}
	if _, err := r.ChangeNote(ctx, labels[1], noon, keep); err != nil {
		t.Fatal(err)
	}
	var kept *KeptError
	if gone, err := r.Expire(ctx, labels...); !errors.As(err, &kept) || kept.Label != labels[1] || !slices.Equal(gone, labels[:1]) {
		t.Errorf("gone %v, %v", gone, err)
	}
	if packs := packObjects(t, r); len(packs) != 2 {
		t.Errorf("packs left: %v", packs)
	}
}

// TestKeptOrGone lets somebody keep a backup while it is being deleted: one of both fails.
func TestKeptOrGone(t *testing.T) {
	ctx := context.Background()
	dir := t.TempDir()
	for range 20 {
		a, b := open(t, durable.OS{}, dir), open(t, durable.OS{}, dir)
		if err := addBackup(ctx, a, noted, 1); err != nil {
			t.Fatal(err)
		}
		var noteErr, goneErr error
		var both sync.WaitGroup
		both.Go(func() { _, noteErr = a.ChangeNote(ctx, noted, noon, keep) })
		both.Go(func() { _, goneErr = b.Expire(ctx, noted) })
		both.Wait()
		_, err := a.Find(ctx, string(noted))
		switch {
		case noteErr == nil && errors.As(goneErr, new(*KeptError)) && err == nil:
		case errors.Is(noteErr, ErrNoBackup) && goneErr == nil && errors.Is(err, ErrNoBackup):
		default:
			t.Fatalf("keep: %v, delete: %v, then %v", noteErr, goneErr, err)
		}
		if err := a.Delete(ctx, noted); err != nil {
			t.Log(err) // it is gone already
		}
	}
}

func TestRemovedWALIsRecorded(t *testing.T) {
	ctx := context.Background()
	r := open(t, durable.OS{}, t.TempDir())
	names := storeSegments(t, r, 1, 1, 2, 3, 4, 5, 6, 7, 8)
	remove := func(numbers ...int) []WALRange {
		t.Helper()
		var gone []string
		for _, n := range numbers {
			gone = append(gone, names[n-1])
		}
		if n, err := r.DeleteWAL(ctx, gone, mib); err != nil || n != len(gone) {
			t.Fatal(n, err)
		}
		list, err := r.RemovedWAL(ctx)
		if err != nil {
			t.Fatal(err)
		}
		return list
	}
	if got := remove(3); !slices.Equal(got, []WALRange{{1, 3 * mib, 4 * mib}}) {
		t.Errorf("in the middle: %v", got)
	}
	if got := remove(4, 6); !slices.Equal(got, []WALRange{{1, 3 * mib, 5 * mib}, {1, 6 * mib, 7 * mib}}) {
		t.Errorf("a neighbour and another: %v", got)
	}
	if got := remove(1, 2); !slices.Equal(got, []WALRange{{1, 6 * mib, 7 * mib}}) {
		t.Errorf("all before: %v", got)
	}
	if l, err := r.ListWAL(ctx); err != nil || !slices.Equal(l.Segments, []string{names[4], names[6], names[7]}) {
		t.Errorf("left %v, %v", l.Segments, err)
	}
	storeSegments(t, r, 2, 9)
	if got := remove(5, 7, 8); !slices.Equal(got, []WALRange{{1, 5 * mib, 9 * mib}}) {
		t.Errorf("all of a timeline: %v", got)
	}
}

// TestPowerCutWhileExpiring cuts the power before every operation. What is listed then is
// whole, WAL goes oldest first, and doing it again finishes the work.
func TestPowerCutWhileExpiring(t *testing.T) {
	ctx := context.Background()
	model := t.TempDir()
	r := open(t, durable.OS{}, model)
	labels := []Label{"20261121120000", "20261121120001", "20261121120002"}
	for _, l := range labels {
		if err := addBackup(ctx, r, l, 1, PackName(labels[0], 1)); err != nil {
			t.Fatal(err)
		}
	}
	names := storeSegments(t, r, 1, 1, 2, 3, 4)
	work := func(r *Repository) error {
		if _, err := r.Expire(ctx, labels[:2]...); err != nil {
			return err
		}
		_, err := r.DeleteWAL(ctx, names[1:3], mib)
		return err
	}
	cutEverywhere(t, model, work, func(cut int, left *Repository) {
		checkExpired(t, left, cut)
		if err := work(left); err != nil {
			t.Fatalf("cut before operation %d, then again: %v", cut, err)
		}
		if packs := packObjects(t, left); len(packs) != 2 {
			t.Fatalf("cut before operation %d, then again: packs %v", cut, packs)
		}
	})
}

// checkExpired checks that every backup that is listed has its packs, and that segments went in order, recorded.
func checkExpired(t *testing.T, r *Repository, n int) {
	t.Helper()
	ctx := context.Background()
	report, err := r.Check(ctx, CheckOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range report.Findings {
		if !strings.HasSuffix(f.Object, "/backup_manifest") { // these backups have none
			t.Fatalf("cut before operation %d: %v", n, f)
		}
	}
	l, err := r.ListWAL(ctx)
	if err != nil {
		t.Fatal(err)
	}
	removed, err := r.RemovedWAL(ctx)
	if err != nil {
		t.Fatal(err)
	}
	has := func(n int) bool { return slices.Contains(l.Segments, pg.SegmentName(1, pg.LSN(n)*mib, mib)) }
	if !has(1) || !has(4) || !has(3) && has(2) || !has(2) && len(removed) != 1 {
		t.Fatalf("cut before operation %d: segments %v, recorded %v", n, l.Segments, removed)
	}
}
