package foreign

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/pgmoneta/pgmoneta-go/internal/repo"
)

// ours makes a backup one of ours.
func (r *Repository) ours(t *testing.T, l repo.Label) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(r.dir, repo.ManifestName(l)), nil, 0o600); err != nil {
		t.Fatal(err)
	}
}

// What C pgmoneta wrote of a backup that is ours now is removed, and what others share with it stays, wherever that
// is interrupted.
func TestSettleInterruptedAnywhereHurtsNobody(t *testing.T) {
	t.Parallel()
	ctx, crash := context.Background(), errors.New("crash")
	for _, ours := range []repo.Label{"20260101000000", "20260102000000", "20260103000000"} {
		for at := 0; ; at++ {
			r := fixture(t)
			r.ours(t, ours)
			if err := os.Mkdir(filepath.Join(r.dir, backupDir(ours), "extra"), 0o700); err != nil {
				t.Fatal(err)
			}
			steps := 0
			r.op = func(string, string) error {
				if steps++; steps > at {
					return crash
				}
				return nil
			}
			err := r.Settle(ctx)
			check := func() {
				labels, lerr := r.labels(ctx)
				if lerr != nil || len(labels) != 2 || slices.Contains(labels, ours) {
					t.Fatalf("listed %v, %v", labels, lerr)
				}
				for _, l := range labels {
					if werr := r.whole(l); werr != nil {
						t.Errorf("settle %s, interrupted after %d steps: backup %s: %v", ours, at, l, werr)
					}
				}
			}
			check()
			if err != nil && !errors.Is(err, crash) {
				t.Fatal(err)
			}
			r.op = func(string, string) error { return nil }
			if err := r.Settle(ctx, ours); err != nil {
				t.Errorf("settle %s again after %d steps: %v", ours, at, err)
			}
			check()
			entries, rerr := os.ReadDir(filepath.Join(r.dir, backupDir(ours)))
			if rerr != nil || len(entries) != 2 { // manifest, extra
				t.Errorf("settle %s again after %d steps left %v, %v", ours, at, entries, rerr)
			}
			if err == nil {
				break
			}
		}
	}
}

// A backup that is ours may still be a part of the chain of one that is not.
func TestSettleLeavesWhatAChainNeeds(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	r, labels := chain(t, 3)
	r.ours(t, labels[1])
	var refused *ChildError
	if err := r.Settle(ctx, labels[1]); !errors.As(err, &refused) || len(refused.Children) != 1 || refused.Children[0].Label != labels[2] {
		t.Errorf("asked for: %v", err)
	}
	if err := r.Settle(ctx); err != nil || !r.hasTheirs(labels[1]) {
		t.Errorf("not asked for: %v, it is there: %v", err, r.hasTheirs(labels[1]))
	}
	if list, err := r.Dependents(ctx, labels[0]); err != nil || len(list) != 1 || list[0].Label != labels[2] {
		t.Errorf("dependents of the first: %v, %v", list, err)
	}
	if err := r.Delete(ctx, labels[0]); !errors.As(err, &refused) {
		t.Errorf("deleting the first: %v", err)
	}
	if err := r.Delete(ctx, labels[2]); err != nil || r.hasTheirs(labels[1]) {
		t.Errorf("deleting the last: %v, what nobody needs is there: %v", err, r.hasTheirs(labels[1]))
	}
	// What cannot be read may need it, and is no reason not to go on.
	r, labels = chain(t, 2)
	r.ours(t, labels[0])
	info := filepath.Join(r.dir, backupDir(labels[1]), infoName)
	if err := errors.Join(os.Remove(info), os.Mkdir(info, 0o700)); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.RemoveAll(filepath.Join(r.dir, backupDir(labels[1]), "data")), os.MkdirAll(filepath.Join(r.dir, backupDir(labels[1]), "data", labelName), 0o700)); err != nil {
		t.Fatal(err)
	}
	if err := r.Settle(ctx); err != nil || !r.hasTheirs(labels[0]) {
		t.Errorf("beside what cannot be read: %v", err)
	}
	if err := r.Settle(ctx, labels[0]); err == nil || errors.Is(err, fs.ErrNotExist) {
		t.Errorf("beside what cannot be read, asked for: %v", err)
	}
}
