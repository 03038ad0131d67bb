package repo

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/pgmoneta/pgmoneta-go/internal/durable"
)

const noted = Label("20261121120000")

var noon = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)

func keep(n *Note) error { n.Keep = true; return nil }

func TestTheLastNoteCounts(t *testing.T) {
	ctx := context.Background()
	r := open(t, durable.OS{}, t.TempDir())
	if _, err := r.ChangeNote(ctx, noted, noon, keep); !errors.Is(err, ErrNoBackup) {
		t.Errorf("a note on nothing: %v", err)
	}
	if err := addBackup(ctx, r, noted, 1); err != nil {
		t.Fatal(err)
	}
	if n, err := r.Note(ctx, noted); err != nil || n.Keep || n.Comments != nil {
		t.Errorf("before the first: %+v, %v", n, err)
	}
	if _, err := r.ChangeNote(ctx, noted, noon, keep); err != nil {
		t.Fatal(err)
	}
	refused := errors.New("refused")
	if _, err := r.ChangeNote(ctx, noted, noon, func(*Note) error { return refused }); !errors.Is(err, refused) {
		t.Error(err)
	}
	for range keptRecords + 3 {
		if _, err := r.ChangeNote(ctx, noted, noon, func(n *Note) error {
			n.Comments = append(n.Comments, Comment{"k", "v"})
			return nil
		}); err != nil {
			t.Fatal(err)
		}
	}
	n, err := r.Note(ctx, noted)
	if err != nil || !n.Keep || len(n.Comments) != keptRecords+3 {
		t.Errorf("after: %+v, %v", n, err)
	}
	numbers, err := r.records(ctx, noted, noteSeries)
	if err != nil || len(numbers) != keptRecords || numbers[keptRecords-1] != keptRecords+4 {
		t.Errorf("records %v, %v", numbers, err)
	}
	if list, err := r.Backups(ctx); err != nil || len(list) != 1 {
		t.Errorf("listed %v, %v", list, err)
	}
}

// A note that cannot be read is an error and never the absence of one: the backup
// might be one to keep.
func TestADamagedNoteIsNoNoteNotToKeep(t *testing.T) {
	ctx := context.Background()
	r := open(t, durable.OS{}, t.TempDir())
	if err := addBackup(ctx, r, noted, 1); err != nil {
		t.Fatal(err)
	}
	if _, err := r.ChangeNote(ctx, noted, noon, keep); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(r.Dir(), recordName(noted, noteSeries, 1))
	if err := os.Truncate(file, 5); err != nil {
		t.Fatal(err)
	}
	if n, err := r.Note(ctx, noted); err == nil {
		t.Errorf("%+v", n)
	}
}

func TestRecordsGoWithTheirBackup(t *testing.T) {
	ctx := context.Background()
	r := open(t, durable.OS{}, t.TempDir())
	if err := addBackup(ctx, r, noted, 1); err != nil {
		t.Fatal(err)
	}
	if h, err := r.Rehearsal(ctx, noted); h != nil || err != nil {
		t.Errorf("before: %+v, %v", h, err)
	}
	want := Rehearsal{At: noon, Target: "latest", Started: true, RTO: time.Minute, ReplayTo: 42, Checks: []RehearsalCheck{{Name: "amcheck", Problem: "bad"}}}
	if err := r.AddRehearsal(ctx, noted, want); err != nil {
		t.Fatal(err)
	}
	h, err := r.Rehearsal(ctx, noted)
	if err != nil || h.Target != want.Target || h.RTO != want.RTO || h.Checks[0] != want.Checks[0] || !h.Proven() {
		t.Errorf("%+v, %v", h, err)
	}
	if _, err := r.ChangeNote(ctx, noted, noon, keep); err != nil {
		t.Fatal(err)
	}
	if err := r.Delete(ctx, noted); err != nil {
		t.Fatal(err)
	}
	objects, err := r.Engine().List(ctx, "backup")
	if err != nil || len(objects) != 0 {
		t.Errorf("left: %v, %v", objects, err)
	}
	if err := r.AddRehearsal(ctx, noted, want); !errors.Is(err, ErrNoBackup) {
		t.Errorf("a rehearsal of what is deleted: %v", err)
	}
}

// A power cut leaves the note before or the one after.
func TestNoteSurvivesPowerCut(t *testing.T) {
	ctx := context.Background()
	for cut := 1; ; cut++ {
		root := t.TempDir()
		if err := addBackup(ctx, open(t, durable.OS{}, root), noted, 1); err != nil {
			t.Fatal(err)
		}
		fsys, err := durable.NewPowerCut(root, cut)
		if err != nil {
			t.Fatal(err)
		}
		r, err := Open(fsys, root, "primary")
		if err == nil {
			_, err = r.ChangeNote(ctx, noted, noon, keep)
		}
		kept := err == nil
		if kept {
			fsys.Cut()
		}
		after := t.TempDir()
		if err := fsys.Image(after); err != nil {
			t.Fatal(err)
		}
		n, err := open(t, durable.OS{}, after).Note(ctx, noted)
		if err != nil && !errors.Is(err, fs.ErrNotExist) || kept && !n.Keep {
			t.Fatalf("cut %d, kept %v: %+v, %v", cut, kept, n, err)
		}
		if kept {
			return
		}
	}
}

func TestVerificationsAreKept(t *testing.T) {
	ctx := context.Background()
	r := open(t, durable.OS{}, t.TempDir())
	other := Label("20261121120001")
	for _, l := range []Label{noted, other} {
		if err := addBackup(ctx, r, l, 1); err != nil {
			t.Fatal(err)
		}
	}
	if _, v, err := r.LastVerification(ctx); err != nil || v != nil {
		t.Errorf("before the first: %+v, %v", v, err)
	}
	good, bad := Verification{At: noon.Add(time.Hour), Files: 7}, Verification{At: noon, Files: 7, BadFiles: 1, Problems: 1, Problem: "rotten"}
	if err := errors.Join(r.AddVerification(ctx, noted, bad), r.AddVerification(ctx, noted, good), r.AddVerification(ctx, other, bad)); err != nil {
		t.Fatal(err)
	}
	if v, err := r.Verification(ctx, noted); err != nil || *v != good || !v.Good() {
		t.Errorf("the last of a backup: %+v, %v", v, err)
	}
	if l, v, err := r.LastVerification(ctx); err != nil || l != noted || *v != good {
		t.Errorf("the last of all: %s, %+v, %v", l, v, err)
	}
	if err := r.Delete(ctx, noted); err != nil {
		t.Fatal(err)
	}
	if l, v, err := r.LastVerification(ctx); err != nil || l != other || v.Good() {
		t.Errorf("after that backup is gone: %s, %+v, %v", l, v, err)
	}
	if list, err := r.engine.List(ctx, "backup/"+string(noted)); err != nil || len(list) != 0 {
		t.Errorf("left behind: %v, %v", list, err)
	}
}
