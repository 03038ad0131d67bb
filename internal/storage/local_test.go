package storage_test

import (
	"context"
	"errors"
	"os"
	"testing"

	"github.com/pgmoneta/pgmoneta-go/internal/durable"
	"github.com/pgmoneta/pgmoneta-go/internal/storage"
	"github.com/pgmoneta/pgmoneta-go/internal/storage/storagetest"
)

func TestLocal(t *testing.T) {
	storagetest.Run(t, func(t *testing.T) storage.Engine { return storage.NewLocal(durable.OS{}, t.TempDir()) })
}

// After a power cut at any operation of a commit each object is whole or absent,
// and all are there once the commit has returned.
func TestCommitSurvivesPowerCutAtEveryOperation(t *testing.T) {
	ctx := context.Background()
	names := []string{"pack/1/1", "pack/1/2", "backup/1/manifest"}
	for cut := 1; ; cut++ {
		root := t.TempDir()
		fsys, err := durable.NewPowerCut(root, cut)
		if err != nil {
			t.Fatal(err)
		}
		committed := commit(ctx, storage.NewLocal(fsys, root), names)
		after := t.TempDir()
		if err := fsys.Image(after); err != nil {
			t.Fatal(err)
		}
		survivor := storage.NewLocal(durable.OS{}, after)
		for _, name := range names {
			b, err := storage.ReadAll(ctx, survivor, name, 100)
			if err == nil && string(b) != name || err != nil && (committed == nil || !errors.Is(err, os.ErrNotExist)) {
				t.Fatalf("cut %d, commit returned %v: %s holds %q, %v", cut, committed, name, b, err)
			}
		}
		if committed == nil {
			return
		}
	}
}

func commit(ctx context.Context, e storage.Engine, names []string) error {
	s, err := e.Stage(ctx, "job")
	if err != nil {
		return err
	}
	defer func() { _ = s.Abort() }()
	for _, name := range names {
		u, err := s.Create(ctx, name)
		if err != nil {
			return err
		}
		if _, err := u.Write([]byte(name)); err != nil {
			return err
		}
		if err := u.Close(); err != nil {
			return err
		}
	}
	return s.Commit(ctx)
}
