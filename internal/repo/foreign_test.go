package repo

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/pgmoneta/pgmoneta-go/internal/container"
	"github.com/pgmoneta/pgmoneta-go/internal/durable"
)

// C pgmoneta ends histories in a NUL. When the server sends the same one again, receiving must
// go on, and what it holds for another one must not be lost.
func TestHistoryOfCPgmonetaIsTakenOver(t *testing.T) {
	ctx := context.Background()
	r, err := Open(durable.OS{}, t.TempDir(), "primary")
	if err != nil {
		t.Fatal(err)
	}
	const text = "1\t0/3000000\tno recovery target specified\n"
	path := filepath.Join(r.Dir(), "wal", "00000002.history")
	if err := os.Mkdir(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text+"\x00"), 0o600); err != nil {
		t.Fatal(err)
	}
	if b, err := r.HistoryContent(ctx, 2); err != nil || string(b) != text {
		t.Errorf("content %q, %v", b, err)
	}
	if err := r.StoreHistory(ctx, 2, []byte("1\t0/4000000\tanother\n")); err == nil {
		t.Error("another history was accepted")
	}
	if err := r.StoreHistory(ctx, 2, []byte(text)); err != nil {
		t.Error(err)
	}
	if b, err := os.ReadFile(path); err != nil || !container.Begins(b) {
		t.Errorf("stored %q, %v", b, err)
	}
	if b, err := r.HistoryContent(ctx, 2); err != nil || string(b) != text {
		t.Errorf("content of ours %q, %v", b, err)
	}
	for _, bad := range []string{"", "1\n", "x"} {
		if err := os.WriteFile(path, []byte(bad), 0o600); err != nil {
			t.Fatal(err)
		}
		var damaged *container.DamagedError
		if b, err := r.HistoryContent(ctx, 2); !errors.As(err, &damaged) || damaged.Object != "wal/00000002.history" {
			t.Errorf("content of %q: %q, %v", bad, b, err)
		}
	}
}

func TestListingLooksIntoNoDataOfOthers(t *testing.T) {
	r, err := Open(durable.OS{}, t.TempDir(), "primary")
	if err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{"backup/20260101000000/data", "backup/20260101000000/tblspc_x", "backup/20260101000000/data/20260102000000"} {
		if err := os.MkdirAll(filepath.Join(r.Dir(), dir), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(r.Dir(), dir, "manifest"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	list, err := r.Engine().List(context.Background(), "backup")
	if err != nil || len(list) != 0 {
		t.Errorf("objects %v, %v", list, err)
	}
}

// A neighbour has one backup, which becomes ours at some moment.
type neighbour struct {
	Foreign
	label  Label
	before func() // called before the backup is listed
	after  func() // called after that
	listed bool
}

func (n *neighbour) Backups(context.Context) ([]Backup, error) {
	n.before()
	defer n.after()
	if !n.listed {
		return nil, nil
	}
	return []Backup{{Label: n.label, Foreign: true}}, nil
}

// Whoever lists backups while one becomes ours sees it once.
func TestBackupThatBecomesOursIsListedOnce(t *testing.T) {
	ctx := context.Background()
	for _, before := range []bool{false, true} {
		r := open(t, durable.OS{}, t.TempDir())
		n := &neighbour{label: "20260101000000", listed: true, before: func() {}, after: func() {}}
		become := func() {
			if err := addBackup(ctx, r, n.label, 1); err != nil && n.listed {
				t.Error(err)
			}
			n.listed = false
		}
		r.UseForeign(n)
		for _, ask := range []func() ([]Backup, error){
			func() ([]Backup, error) { return r.Backups(ctx) },
			func() ([]Backup, error) { b, err := r.Find(ctx, string(n.label)); return []Backup{b}, err },
		} {
			if n.listed = true; before {
				n.before = become
			} else {
				n.after = become
			}
			list, err := ask()
			if err != nil || len(list) != 1 || list[0].Label != n.label || list[0].Err != nil {
				t.Errorf("at that moment: %v, %v", list, err)
			}
			if list, err := ask(); err != nil || len(list) != 1 || list[0].Foreign {
				t.Errorf("after it: %v, %v", list, err)
			}
			if err := r.engine.Delete(ctx, manifestName(n.label)); err != nil {
				t.Fatal(err)
			}
			if err := os.RemoveAll(filepath.Join(r.Dir(), "pack")); err != nil {
				t.Fatal(err)
			}
		}
	}
}
