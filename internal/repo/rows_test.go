package repo

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/pgmoneta/pgmoneta-go/internal/durable"
)

func TestRowsAreFoundByPath(t *testing.T) {
	ctx := context.Background()
	r := open(t, durable.OS{}, t.TempDir())
	w, err := r.NewManifestWriter(ctx, "20261121120000")
	if err != nil {
		t.Fatal(err)
	}
	odd := []string{`base/"quoted"\`, "base/<&>\u2028", "base/ä\nb"}
	path := func(i int) string {
		if i < len(odd) {
			return odd[i]
		}
		return fmt.Sprintf("base/5/%d", i)
	}
	const n = 30_000 // more frames than are kept
	for i := range n {
		f := File{Path: path(i), Kind: Regular, Mode: 0o600, Size: int64(i) + 1, Extents: []Extent{{Length: int64(i) + 1, Frame: i}}}
		if i%1000 == 0 { // rows longer than a frame's rest
			for k := range 3000 {
				f.Extents = append(f.Extents, Extent{Offset: int64(i) + 1 + int64(k), Length: 1, Frame: k})
				f.Size++
			}
		}
		if err := w.Add(f); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Commit(ctx, Summary{Label: "20261121120000", SegmentSize: 1 << 20}, []PackRef{{Name: "pack/20261121120000/1"}}); err != nil {
		t.Fatal(err)
	}
	m, err := r.OpenManifest(ctx, "20261121120000")
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	x, err := m.Index(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer x.Close()
	random := rand.New(rand.NewPCG(3, 4))
	for k := range 2*n + 2000 {
		i := k / 2
		if k >= 2*n {
			i = random.IntN(n)
		}
		f, ok, err := x.Find(path(i))
		if err != nil || !ok || f.Path != path(i) || f.Extents[0].Frame != i {
			t.Fatalf("Find(%q) = %q, %t, %v", path(i), f.Path, ok, err)
		}
	}
	if f, ok, err := x.Find("base/5/-1"); ok || err != nil {
		t.Errorf("a path that is not there: %+v, %v", f, err)
	}
}

func TestDamageIsRememberedUntilTheObjectIsWholeOrGone(t *testing.T) {
	ctx := context.Background()
	r := open(t, durable.OS{}, t.TempDir())
	for _, l := range []Label{"20261121120000", "20261121120001"} {
		if err := addBackup(ctx, r, l, 2); err != nil {
			t.Fatal(err)
		}
	}
	marked := func(want ...string) {
		t.Helper()
		set := map[string]bool{}
		for _, name := range want {
			set[name] = true
		}
		if got, err := r.Damaged(ctx); err != nil || !maps.Equal(got, set) {
			t.Errorf("Damaged = %v, %v; want %v", got, err, want)
		}
	}
	record := func(checked []string, found ...string) {
		t.Helper()
		errs := map[string]error{}
		for _, name := range found {
			errs[name] = errors.New("rotten")
		}
		if err := r.RecordDamage(ctx, time.Now(), checked, errs); err != nil {
			t.Fatal(err)
		}
	}
	one, two, other := "pack/20261121120000/1", "pack/20261121120000/2", "pack/20261121120001/1"
	record([]string{one, two, other}, one, other)
	record([]string{one}, one)
	marked(one, other)
	record([]string{other})
	marked(one)
	if err := r.Delete(ctx, "20261121120000"); err != nil {
		t.Fatal(err)
	}
	marked()
	if _, err := r.engine.Open(ctx, damagePrefix+one); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the mark of a removed pack: %v", err)
	}
}
