package repo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/pgmoneta/pgmoneta-go/internal/container"
	"github.com/pgmoneta/pgmoneta-go/internal/durable"
)

// sparseFrames is how many frames the pack of a sparse repository has.
const sparseFrames = 4

// sparseFrame is the content of one of them.
func sparseFrame(n int) []byte { return bytes.Repeat([]byte{byte('a' + n)}, 1000) }

const sparsePackName = "pack/20261121120000/1"

// addSparse lists a backup of one file per frame of a pack that is used.
func addSparse(ctx context.Context, r *Repository, l Label, frames ...int) error {
	m, err := r.NewManifestWriter(ctx, l)
	if err != nil {
		return err
	}
	defer m.Abort()
	live := int64(0)
	for _, n := range frames {
		f := File{Path: fmt.Sprintf("base/%d", n), Kind: Regular, Size: 1000, Extents: []Extent{{Length: 1000, Frame: n}}}
		if err := m.Add(f); err != nil {
			return err
		}
		live += 1000
	}
	return m.Commit(ctx, Summary{Label: l, SegmentSize: 1 << 20}, []PackRef{{Name: sparsePackName, Live: live}})
}

// addSparsePack stores the pack.
func addSparsePack(ctx context.Context, r *Repository) error {
	stage, err := r.engine.Stage(ctx, OwnerJob)
	if err != nil {
		return err
	}
	defer func() { _ = stage.Abort() }()
	up, err := stage.Create(ctx, sparsePackName)
	if err != nil {
		return err
	}
	w, err := r.NewContainer(up, sparsePackName, container.Pack, container.LZ4)
	if err != nil {
		return err
	}
	enc, err := container.NewEncoder(container.LZ4, 1)
	if err != nil {
		return err
	}
	for n := range sparseFrames {
		stored, f, err := enc.Append(nil, sparseFrame(n))
		if err != nil {
			return err
		}
		f.Print[0] = byte(n + 1)
		if _, err := w.WriteFrame(stored, f); err != nil {
			return err
		}
	}
	if err := errors.Join(w.Finish(), up.Close()); err != nil {
		return err
	}
	return stage.Commit(ctx)
}

// readSparse compares the files of all backups with what went in.
func readSparse(t *testing.T, r *Repository) {
	t.Helper()
	ctx := context.Background()
	labels, err := r.labels(ctx)
	if err != nil {
		t.Fatal(err)
	}
	var s container.Scratch
	defer s.Close()
	for _, l := range labels {
		m, err := r.OpenManifest(ctx, l)
		if err != nil {
			t.Fatal(err)
		}
		set := r.PackSet(m.Packs, 2)
		for f, err := range m.Files() {
			if err != nil {
				t.Fatal(err)
			}
			got := make([]byte, f.Size)
			if err := set.ReadAt(ctx, f.Extents, got, 0, &s); err != nil || !bytes.Equal(got, sparseFrame(f.Extents[0].Frame)) {
				t.Fatalf("backup %s: %s: other bytes, %v", l, f.Path, err)
			}
		}
		set.Close()
		_ = m.Close()
	}
}

func packObjects(t *testing.T, r *Repository) []string {
	t.Helper()
	list, err := r.engine.List(context.Background(), "pack")
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, o := range list {
		names = append(names, o.Name)
	}
	return names
}

// sparse makes two backups of the same pack and deletes the one that uses most of it.
func sparse(t *testing.T, r *Repository) []string {
	t.Helper()
	ctx := context.Background()
	err := errors.Join(addSparsePack(ctx, r), addSparse(ctx, r, "20261121120000", 0, 1, 2, 3), addSparse(ctx, r, "20261121120001", 1, 2))
	if err != nil {
		t.Fatal(err)
	}
	packs := r.PacksOf(ctx, "20261121120000")
	if err := r.Delete(ctx, "20261121120000"); err != nil {
		t.Fatal(err)
	}
	return packs
}

func TestMostlyDeadPackIsCompacted(t *testing.T) {
	ctx := context.Background()
	for name, k := range map[string]Keys{"plain": {}, "sealed": keysOf(masterKey(t, "a"), container.AES128)} {
		t.Run(name, func(t *testing.T) {
			r := bound(t, t.TempDir(), k)
			packs := sparse(t, r)
			before, err := r.Check(ctx, CheckOptions{})
			if err != nil || before.Dead == 0 {
				t.Fatalf("dead before: %d, %v", before.Dead, err)
			}
			for _, o := range []CompactOptions{{Packs: packs, Share: 0.9, Budget: 1 << 20}, {Packs: packs, Share: 0.5, Budget: 10}, {Share: 0.1, Budget: 1 << 20}} {
				if done, err := r.Compact(ctx, o); err != nil || done.Packs != 0 {
					t.Errorf("%+v: %+v, %v", o, done, err)
				}
			}
			done, err := r.Compact(ctx, CompactOptions{Packs: packs, Share: 0.5, Budget: 1 << 20})
			if err != nil || done.Packs != 1 || done.Freed != before.Dead || done.Waiting != 0 {
				t.Fatalf("%+v, %v; %d bytes were dead", done, err, before.Dead)
			}
			if got := packObjects(t, r); !slices.Equal(got, []string{sparsePackName + ".2"}) {
				t.Errorf("packs are %v", got)
			}
			readSparse(t, r)
			after, err := r.Check(ctx, CheckOptions{Full: true})
			if err != nil || after.Dead != 0 || after.Stored >= before.Stored {
				t.Errorf("%d dead of %d bytes, %v; before %d of %d", after.Dead, after.Stored, err, before.Dead, before.Stored)
			}
			for _, f := range after.Findings {
				if f.Object != PostgresManifestName("20261121120001") { // nobody wrote one
					t.Errorf("finding %+v", f)
				}
			}

			// Again, and once more when less is needed.
			if done, err := r.Compact(ctx, CompactOptions{Packs: packs, Share: 0.1, Budget: 1 << 20}); err != nil || done.Packs != 0 {
				t.Errorf("again: %+v, %v", done, err)
			}
			if err := addSparse(ctx, r, "20261121120002", 2); err != nil {
				t.Fatal(err)
			}
			if err := r.Delete(ctx, "20261121120001"); err != nil {
				t.Fatal(err)
			}
			if done, err := r.Compact(ctx, CompactOptions{Packs: packs, Share: 0.5, Budget: 1 << 20}); err != nil || done.Packs != 1 {
				t.Errorf("once more: %+v, %v", done, err)
			}
			if got := packObjects(t, r); !slices.Equal(got, []string{sparsePackName + ".3"}) {
				t.Errorf("packs are %v", got)
			}
			readSparse(t, r)

			// A reference to what was dropped is found, by whoever looks.
			if err := addSparse(ctx, r, "20261121120003", 0); err != nil {
				t.Fatal(err)
			}
			report, err := r.Check(ctx, CheckOptions{})
			if err != nil || !slices.ContainsFunc(report.Findings, func(f CheckFinding) bool { return errors.Is(f.Err, container.ErrDropped) }) {
				t.Errorf("a frame that was dropped: %+v, %v", report.Findings, err)
			}
			if err := r.Delete(ctx, "20261121120002", "20261121120003"); err != nil || len(packObjects(t, r)) != 0 {
				t.Errorf("after the last backup: %v, %v", packObjects(t, r), err)
			}
		})
	}
}

func TestPackIsNotCompactedWhenThatWouldHarm(t *testing.T) {
	ctx := context.Background()
	o := func(packs []string) CompactOptions {
		return CompactOptions{Packs: packs, Share: 0.5, Budget: 1 << 20}
	}
	untouched := func(t *testing.T, r *Repository) {
		t.Helper()
		if got := packObjects(t, r); !slices.Equal(got, []string{sparsePackName}) {
			t.Errorf("packs are %v", got)
		}
	}
	t.Run("a frame that is needed is damaged", func(t *testing.T) {
		r := bound(t, t.TempDir(), Keys{})
		packs := sparse(t, r)
		path := filepath.Join(r.dir, sparsePackName)
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for i := 64; i < len(b)/2; i++ { // all frames, and not the index
			b[i] ^= 1
		}
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		if done, err := r.Compact(ctx, o(packs)); err != nil || done.Packs != 0 {
			t.Errorf("%+v, %v", done, err)
		}
		untouched(t, r)
	})
	t.Run("it would lose its encryption", func(t *testing.T) {
		dir, m := t.TempDir(), masterKey(t, "a")
		packs := sparse(t, bound(t, dir, keysOf(m, container.AES256)))
		r := bound(t, dir, keysOf(m, container.Plain))
		if done, err := r.Compact(ctx, o(packs)); err != nil || done.Packs != 0 {
			t.Errorf("%+v, %v", done, err)
		}
		untouched(t, r)
		readSparse(t, r)
	})
	t.Run("a manifest cannot be read", func(t *testing.T) {
		r := bound(t, t.TempDir(), Keys{})
		packs := sparse(t, r)
		if err := os.Truncate(filepath.Join(r.dir, manifestName("20261121120001")), 100); err != nil {
			t.Fatal(err)
		}
		if done, err := r.Compact(ctx, o(packs)); err == nil {
			t.Errorf("%+v", done)
		}
		untouched(t, r)
	})
}

// Whatever operation of a compaction the power fails at, every backup has its bytes, and
// a sweep leaves one generation of each pack.
func TestPowerCutAtEveryOperationOfACompaction(t *testing.T) {
	ctx := context.Background()
	for cut := 1; ; cut++ {
		root := t.TempDir()
		packs := sparse(t, bound(t, root, Keys{}))
		fsys, err := durable.NewPowerCut(root, cut)
		if err != nil {
			t.Fatal(err)
		}
		_, failed := open(t, fsys, root).Compact(ctx, CompactOptions{Packs: packs, Share: 0.5, Budget: 1 << 20})
		after := t.TempDir()
		if err := fsys.Image(after); err != nil {
			t.Fatal(err)
		}
		r := open(t, durable.OS{}, after)
		readSparse(t, r)
		if err := r.Sweep(ctx); err != nil {
			t.Fatalf("cut %d: %v", cut, err)
		}
		readSparse(t, r)
		if got := packObjects(t, r); len(got) != 1 || failed == nil && got[0] != sparsePackName+".2" {
			t.Errorf("cut %d: packs are %v", cut, got)
		}
		if failed == nil {
			t.Logf("%d operations", fsys.Ops())
			return
		}
	}
}

// A pack of an interrupted backup that a later one refers to keeps its name when it is
// compacted: under any other it would be lost with its next generation.
func TestUnfinishedPacksKeepTheirNames(t *testing.T) {
	ctx := context.Background()
	r := bound(t, t.TempDir(), Keys{})
	if err := errors.Join(r.Begin(ctx, "20261121120000"), addSparsePack(ctx, r), addSparse(ctx, r, "20261121120001", 0, 1, 2, 3), addSparse(ctx, r, "20261121120002", 1)); err != nil {
		t.Fatal(err)
	}
	packs := r.PacksOf(ctx, "20261121120001")
	if err := r.Delete(ctx, "20261121120001"); err != nil {
		t.Fatal(err)
	}
	if done, err := r.Compact(ctx, CompactOptions{Packs: packs, Share: 0.5, Budget: 1 << 20}); err != nil || done.Packs != 1 {
		t.Fatalf("%+v, %v", done, err)
	}
	if got, err := r.UnfinishedPacks(ctx); err != nil || len(got) != 1 || got[0].Name != sparsePackName {
		t.Errorf("unfinished packs %v, %v; objects %v", got, err, packObjects(t, r))
	}
}
