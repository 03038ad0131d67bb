package repo

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/pgmoneta/pgmoneta-go/internal/durable"
)

func TestTrashHidesAndUndeleteBringsBack(t *testing.T) {
	ctx := context.Background()
	r := open(t, durable.OS{}, t.TempDir())
	labels := []Label{"20261121120000", "20261121120001", "20261121120002"}
	for _, l := range labels {
		if err := addBackup(ctx, r, l, 1); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := r.ChangeNote(ctx, labels[1], noon, keep); err != nil {
		t.Fatal(err)
	}
	var kept *KeptError
	if gone, err := r.Trash(ctx, noon, false, labels...); !errors.As(err, &kept) || !slices.Equal(gone, labels[:1]) {
		t.Errorf("in the trash %v, %v", gone, err)
	}
	if _, err := r.Trash(ctx, noon.Add(time.Hour), true, labels[0], labels[1]); err != nil {
		t.Fatal(err)
	}
	list, err := r.Backups(ctx)
	if err != nil || len(list) != 1 || list[0].Label != labels[2] {
		t.Errorf("listed: %v, %v", list, err)
	}
	var trashed *TrashedError
	if _, err := r.Find(ctx, string(labels[0])); !errors.As(err, &trashed) || !errors.Is(err, ErrNoBackup) {
		t.Errorf("Find of one in the trash: %v", err)
	}
	if b, err := r.Find(ctx, "oldest"); err != nil || b.Label != labels[2] {
		t.Errorf("the oldest is %s, %v", b.Label, err)
	}
	if _, err := r.ChangeNote(ctx, labels[0], noon, keep); !errors.As(err, &trashed) {
		t.Errorf("a note on one in the trash: %v", err)
	}
	trash, err := r.InTrash(ctx)
	if err != nil || len(trash) != 2 || trash[0].Label != labels[0] || !trash[0].DeletedAt.Equal(noon) || trash[1].Err != nil {
		t.Errorf("in the trash: %+v, %v", trash, err)
	}
	if err := r.Sweep(ctx); err != nil || len(packObjects(t, r)) != 3 {
		t.Errorf("after a sweep: packs %v, %v", packObjects(t, r), err)
	}
	if _, err := r.Undelete(ctx, "20261121120009"); !errors.Is(err, ErrNoBackup) {
		t.Errorf("undelete of nothing: %v", err)
	}
	if b, err := r.Undelete(ctx, "newest"); err != nil || b.Label != labels[1] {
		t.Errorf("undelete: %s, %v", b.Label, err)
	}
	if n, err := r.Note(ctx, labels[1]); err != nil || !n.Keep {
		t.Errorf("its note: %+v, %v", n, err)
	}
	if gone, err := r.Purge(ctx, labels[:2]...); err != nil || !slices.Equal(gone, labels[:1]) {
		t.Errorf("purged %v, %v", gone, err)
	}
	if packs := packObjects(t, r); len(packs) != 2 {
		t.Errorf("packs left: %v", packs)
	}
	if list, err := r.inTrash(ctx); err != nil || len(list) != 0 {
		t.Errorf("marks left: %v, %v", list, err)
	}
	if _, err := r.Undelete(ctx, string(labels[0])); !errors.Is(err, ErrNoBackup) {
		t.Errorf("undelete of what is gone: %v", err)
	}
}

func TestMarkInTheTrashThatCannotBeRead(t *testing.T) {
	ctx := context.Background()
	dir := t.TempDir()
	r := open(t, durable.OS{}, dir)
	if err := addBackup(ctx, r, noted, 1); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Trash(ctx, noon, false, noted); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "primary", trashName(noted)), []byte("garbage"), 0o600); err != nil {
		t.Fatal(err)
	}
	if list, err := r.InTrash(ctx); err != nil || len(list) != 1 || !list[0].DeletedAt.IsZero() {
		t.Errorf("%+v, %v", list, err)
	}
	if _, err := r.Undelete(ctx, string(noted)); err != nil {
		t.Error(err)
	}
}

// TestBackOrGone lets somebody bring a backup back while it is deleted for good: one of
// both finds nothing to do.
func TestBackOrGone(t *testing.T) {
	ctx := context.Background()
	dir := t.TempDir()
	for range 20 {
		a, b := open(t, durable.OS{}, dir), open(t, durable.OS{}, dir)
		if err := addBackup(ctx, a, noted, 1); err != nil {
			t.Fatal(err)
		}
		if _, err := a.Trash(ctx, noon, false, noted); err != nil {
			t.Fatal(err)
		}
		var backErr, goneErr error
		var gone []Label
		var both sync.WaitGroup
		both.Go(func() { _, backErr = a.Undelete(ctx, string(noted)) })
		both.Go(func() { gone, goneErr = b.Purge(ctx, noted) })
		both.Wait()
		_, err := a.Find(ctx, string(noted))
		switch {
		case goneErr != nil:
			t.Fatal(goneErr)
		case backErr == nil && len(gone) == 0 && err == nil && len(packObjects(t, a)) == 1:
		case errors.Is(backErr, ErrNoBackup) && len(gone) == 1 && errors.Is(err, ErrNoBackup):
		default:
			t.Fatalf("back: %v, gone: %v, then %v", backErr, gone, err)
		}
		if len(gone) == 0 {
			if err := a.Delete(ctx, noted); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// TestPowerCutWhileTheTrashIsUsed cuts the power before every operation of deleting,
// bringing back and deleting for good: what is listed or in the trash is whole.
func TestPowerCutWhileTheTrashIsUsed(t *testing.T) {
	ctx := context.Background()
	model := t.TempDir()
	r := open(t, durable.OS{}, model)
	labels := []Label{"20261121120000", "20261121120001", "20261121120002"}
	for _, l := range labels {
		if err := addBackup(ctx, r, l, 1, PackName(labels[0], 1)); err != nil {
			t.Fatal(err)
		}
	}
	work := func(r *Repository) error {
		if _, err := r.Trash(ctx, noon, false, labels[:2]...); err != nil {
			return err
		}
		if _, err := r.Undelete(ctx, string(labels[1])); err != nil && !errors.Is(err, ErrNoBackup) {
			return err
		}
		_, err := r.Purge(ctx, labels[0])
		return err
	}
	cutEverywhere(t, model, work, func(cut int, left *Repository) {
		checkTrash(t, left, cut, labels)
		if err := left.Sweep(ctx); err != nil {
			t.Fatalf("cut before operation %d: sweep: %v", cut, err)
		}
		checkTrash(t, left, cut, labels)
	})
}

// checkTrash checks that every backup is listed or in the trash, only the first may be
// gone, and each has its packs.
func checkTrash(t *testing.T, r *Repository, n int, labels []Label) {
	t.Helper()
	ctx := context.Background()
	report, err := r.Check(ctx, CheckOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range report.Findings {
		if filepath.Base(f.Object) != "backup_manifest" { // these backups have none
			t.Fatalf("cut before operation %d: %v", n, f)
		}
	}
	listed, err := r.Backups(ctx)
	if err != nil {
		t.Fatal(err)
	}
	trash, err := r.InTrash(ctx)
	if err != nil {
		t.Fatal(err)
	}
	var have []Label
	for _, b := range listed {
		have = append(have, b.Label)
	}
	for _, b := range trash {
		if b.Err != nil {
			t.Fatalf("cut before operation %d: %v", n, b.Err)
		}
		have = append(have, b.Label)
	}
	slices.Sort(have)
	if !slices.Equal(have, labels) && !slices.Equal(have, labels[1:]) {
		t.Fatalf("cut before operation %d: listed or in the trash: %v", n, have)
	}
}
