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
