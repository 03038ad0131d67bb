package repo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pgmoneta/pgmoneta-go/internal/container"
	"github.com/pgmoneta/pgmoneta-go/internal/durable"
	"github.com/pgmoneta/pgmoneta-go/internal/storage"
)

func open(t *testing.T, fsys durable.FS, dir string) *Repository {
	t.Helper()
	r, err := Open(fsys, dir, "primary")
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// cutEverywhere does work on copies of the repository below model, with the power cut before the first operation, then
// before the second, and so on until work comes to its end. check gets what is left, and may go on with it.
func cutEverywhere(t *testing.T, model string, work func(*Repository) error, check func(cut int, left *Repository)) {
	t.Helper()
	for cut := 1; ; cut++ {
		dir, after := t.TempDir(), t.TempDir()
		if err := os.CopyFS(dir, os.DirFS(model)); err != nil {
			t.Fatal(err)
		}
		fsys, err := durable.NewPowerCut(dir, cut)
		if err != nil {
			t.Fatal(err)
		}
		failed := work(open(t, fsys, dir))
		fsys.Cut()
		if err := fsys.Image(after); err != nil {
			t.Fatal(err)
		}
		check(cut, open(t, durable.OS{}, after))
		if failed != nil {
			continue
		}
		if cut <= 10 {
			t.Errorf("only %d operations", cut-1)
		}
		return
	}
}

// addBackup writes packs of label and a manifest that also refers to shared packs.
func addBackup(ctx context.Context, r *Repository, label Label, packs int, shared ...string) error {
	stage, err := r.Engine().Stage(ctx, OwnerJob)
	if err != nil {
		return err
	}
	defer func() { _ = stage.Abort() }()
	var refs []PackRef
	for i := range packs {
		name := PackName(label, i+1)
		up, err := stage.Create(ctx, name)
		if err != nil {
			return err
		}
		w, err := container.NewStreamWriter(up, container.Header{Kind: container.Pack, Codec: container.Zstd}, 1)
		if err != nil {
			return err
		}
		fmt.Fprintf(w, "content of %s", name)
		if err := errors.Join(w.Finish(), up.Close()); err != nil {
			return err
		}
		refs = append(refs, PackRef{Name: name, Live: 10})
	}
	if err := stage.Commit(ctx); err != nil {
		return err
	}
	for _, s := range shared {
		refs = append(refs, PackRef{Name: s, Live: 1})
	}
	m, err := r.NewManifestWriter(ctx, label)
	if err != nil {
		return err
	}
	defer m.Abort()
	for i := range 5 {
		f := File{Path: fmt.Sprintf("base/%d", i), Kind: Regular, Mode: 0o600, Size: 10,
			Extents: []Extent{{Length: 10, Pack: i % len(refs)}}}
		if err := m.Add(f); err != nil {
			return err
		}
	}
	return m.Commit(ctx, Summary{Server: "primary", Label: label, Type: Full, System: "1", SegmentSize: 16 << 20}, refs)
}

func TestManifestRoundTrip(t *testing.T) {
	ctx := context.Background()
	r := open(t, durable.OS{}, t.TempDir())
	m, err := r.NewManifestWriter(ctx, "20261121120000")
	if err != nil {
		t.Fatal(err)
	}
	const n = 50_000 // several frames
	for i := range n {
		f := File{Path: fmt.Sprintf("base/5/%d", i), Kind: Regular, Mode: 0o600, Size: 30,
			ModTime: time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC),
			Extents: []Extent{{Offset: 0, Length: 20, Pack: 0, Frame: i, Skip: 7}, {Offset: 20, Length: 10, Pack: 1}}}
		if err := m.Add(f); err != nil {
			t.Fatal(err)
		}
	}
	packs := []PackRef{{Name: "pack/20261121120000/1", Live: 1}, {Name: "pack/20261120120000/9", Live: 2}}
	want := Summary{Server: "primary", Label: "20261121120000", Type: Full, Start: 0x28, End: 0x100, SegmentSize: 1 << 20, Files: n}
	if err := m.Commit(ctx, want, packs); err != nil {
		t.Fatal(err)
	}
	got, err := r.OpenManifest(ctx, "20261121120000")
	if err != nil {
		t.Fatal(err)
	}
	defer got.Close()
	if got.Summary.Files != n || got.Summary.End != 0x100 || len(got.Packs) != 2 || got.Packs[1] != packs[1] {
		t.Errorf("summary %+v, packs %v", got.Summary, got.Packs)
	}
	i := 0
	for f, err := range got.Files() {
		if err != nil {
			t.Fatal(err)
		}
		if f.Path != fmt.Sprintf("base/5/%d", i) || len(f.Extents) != 2 || f.Extents[0] != (Extent{0, 20, 0, i, 7}) {
			t.Fatalf("file %d is %+v", i, f)
		}
		i++
	}
	if i != n {
		t.Errorf("%d files came back, want %d", i, n)
	}
}

func TestCatalogShowsAnUnreadableManifestAndTheOthers(t *testing.T) {
	ctx := context.Background()
	dir := t.TempDir()
	r := open(t, durable.OS{}, dir)
	for _, l := range []Label{"20261121120000", "20261121120001"} {
		if err := addBackup(ctx, r, l, 1); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "primary/backup/20261121120000/manifest"), []byte("garbage"), 0o600); err != nil {
		t.Fatal(err)
	}
	list, err := r.Backups(ctx)
	if err != nil || len(list) != 2 || list[0].Err == nil || list[1].Err != nil {
		t.Fatalf("Backups = %+v, %v", list, err)
	}
	if !strings.Contains(list[0].Err.Error(), "backup/20261121120000/manifest") {
		t.Errorf("the error does not name the manifest: %v", list[0].Err)
	}
	if err := r.Delete(ctx, "20261121120001"); err == nil {
		t.Error("packs were collected although a manifest cannot be read")
	}
	if list, _ := r.engine.List(ctx, "pack"); len(list) != 2 {
		t.Errorf("packs left: %v", list)
	}
}

func TestFind(t *testing.T) {
	ctx := context.Background()
	r := open(t, durable.OS{}, t.TempDir())
	if _, err := r.Find(ctx, "newest"); !errors.Is(err, ErrNoBackup) {
		t.Errorf("newest of none: %v", err)
	}
	for _, l := range []Label{"20261121120000", "20261121120005"} {
		if err := addBackup(ctx, r, l, 1); err != nil {
			t.Fatal(err)
		}
	}
	for id, want := range map[string]Label{"oldest": "20261121120000", "newest": "20261121120005", "latest": "20261121120005", "20261121120000": "20261121120000"} {
		if b, err := r.Find(ctx, id); err != nil || b.Label != want {
			t.Errorf("Find(%s) = %s, %v", id, b.Label, err)
		}
	}
	if _, err := r.Find(ctx, "20261121120009"); !errors.Is(err, ErrNoBackup) {
		t.Errorf("unknown label: %v", err)
	}
}

func TestLabelsAscendWhenTheClockJumpsBack(t *testing.T) {
	ctx := context.Background()
	r := open(t, durable.OS{}, t.TempDir())
	now := time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
	if err := addBackup(ctx, r, "20261121120000", 1); err != nil {
		t.Fatal(err)
	}
	for _, at := range []time.Time{now, now.Add(-24 * time.Hour)} {
		if l, err := r.NextLabel(ctx, at); err != nil || l != "20261121120001" {
			t.Errorf("NextLabel(%s) = %s, %v", at, l, err)
		}
	}
}

func TestDeleteKeepsPacksOthersReferTo(t *testing.T) {
	ctx := context.Background()
	r := open(t, durable.OS{}, t.TempDir())
	if err := addBackup(ctx, r, "20261121120000", 3); err != nil {
		t.Fatal(err)
	}
	if err := addBackup(ctx, r, "20261121120001", 1, "pack/20261121120000/2"); err != nil {
		t.Fatal(err)
	}
	if err := r.Delete(ctx, "20261121120000"); err != nil {
		t.Fatal(err)
	}
	list, err := r.engine.List(ctx, "")
	var names []string
	for _, o := range list {
		names = append(names, o.Name)
	}
	want := "backup/20261121120001/manifest pack/20261121120000/2 pack/20261121120001/1"
	if got := strings.Join(names, " "); err != nil || got != want {
		t.Errorf("left: %s, %v; want %s", got, err, want)
	}
}

// Whatever operation the power fails at, each listed backup has all its packs,
// and a sweep afterwards leaves nothing that no backup needs.
func TestPowerCutAtEveryOperation(t *testing.T) {
	ctx := context.Background()
	for cut := 1; ; cut++ {
		root := t.TempDir()
		fsys, err := durable.NewPowerCut(root, cut)
		if err != nil {
			t.Fatal(err)
		}
		worked := script(ctx, fsys, root)
		after := t.TempDir()
		if err := fsys.Image(after); err != nil {
			t.Fatal(err)
		}
		checkSurvivor(t, cut, open(t, durable.OS{}, after))
		if worked == nil {
			return
		}
	}
}

func script(ctx context.Context, fsys durable.FS, root string) error {
	r, err := Open(fsys, root, "primary")
	if err != nil {
		return err
	}
	if err := r.Bind(ctx, OwnerJob, "42"); err != nil {
		return err
	}
	if err := addBackup(ctx, r, "20261121120000", 2); err != nil {
		return err
	}
	if err := addBackup(ctx, r, "20261121120001", 1, "pack/20261121120000/1"); err != nil {
		return err
	}
	found := map[string]error{"pack/20261121120000/1": errors.New("rotten"), "pack/20261121120000/2": errors.New("rotten")}
	if err := r.RecordDamage(ctx, time.Now(), nil, found); err != nil {
		return err
	}
	if err := r.Delete(ctx, "20261121120000"); err != nil {
		return err
	}
	return addBackup(ctx, r, "20261121120002", 1)
}

func checkSurvivor(t *testing.T, cut int, r *Repository) {
	t.Helper()
	ctx := context.Background()
	if err := r.Sweep(ctx); err != nil {
		t.Fatalf("cut %d: sweep: %v", cut, err)
	}
	list, err := r.Backups(ctx)
	if err != nil {
		t.Fatal(err)
	}
	used := map[string]bool{}
	for _, b := range list {
		if b.Err != nil {
			t.Fatalf("cut %d: %v", cut, b.Err)
		}
		m, err := r.OpenManifest(ctx, b.Label)
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range m.Packs {
			used[p.Name] = true
			if _, err := storage.ReadAll(ctx, r.engine, p.Name, 1<<20); err != nil {
				t.Fatalf("cut %d: listed backup %s: %v", cut, b.Label, err)
			}
		}
		_ = m.Close()
	}
	packs, err := r.engine.List(ctx, "pack")
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range packs {
		if !used[p.Name] {
			t.Fatalf("cut %d: %s is dead and was not removed", cut, p.Name)
		}
	}
	marks, err := r.Damaged(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for name := range marks {
		if !used[name] {
			t.Fatalf("cut %d: %s is marked as damaged and is gone", cut, name)
		}
	}
	entries, err := os.ReadDir(filepath.Join(r.Dir(), "tmp", OwnerJob))
	if !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("cut %d: leftovers %v, %v", cut, entries, err)
	}
}

func TestBindRefusesAnotherCluster(t *testing.T) {
	ctx := context.Background()
	r := open(t, durable.OS{}, t.TempDir())
	for range 2 {
		if err := r.Bind(ctx, OwnerWAL, "7000"); err != nil {
			t.Fatal(err)
		}
	}
	var mismatch *SystemMismatchError
	if err := r.Bind(ctx, OwnerJob, "7001"); !errors.As(err, &mismatch) {
		t.Errorf("Bind to another cluster: %v", err)
	}
}

func TestSegmentsAndHistories(t *testing.T) {
	ctx := context.Background()
	r := open(t, durable.OS{}, t.TempDir())
	const name = "0000000A0000000100000002"
	content := bytes.Repeat([]byte("wal record "), (1<<20)/11+1)[:1<<20]
	if _, err := r.StoreSegment(ctx, name, 1<<20, bytes.NewReader(content[1:]), container.Zstd, 3); err == nil {
		t.Error("a short segment was stored")
	}
	if _, err := r.StoreSegment(ctx, name, 1<<20, bytes.NewReader(content), container.Zstd, 3); err != nil {
		t.Fatal(err)
	}
	if _, err := r.StoreSegment(ctx, name, 1<<20, bytes.NewReader(content), container.Zstd, 3); !errors.Is(err, fs.ErrExist) {
		t.Errorf("second store: %v", err)
	}
	s, err := r.OpenSegment(ctx, name)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	got, err := io.ReadAll(s.Stream())
	if err != nil || !bytes.Equal(got, content) {
		t.Errorf("segment came back with %d bytes, %v", len(got), err)
	}
	if err := r.StoreHistory(ctx, 10, []byte("1\t0/100\tpromoted\n")); err != nil {
		t.Fatal(err)
	}
	if err := r.StoreHistory(ctx, 10, []byte("1\t0/200\tpromoted\n")); err == nil {
		t.Error("another history for the same timeline was accepted")
	}
	l, err := r.ListWAL(ctx)
	if err != nil || len(l.Segments) != 1 || l.Segments[0] != name || len(l.Histories) != 1 || l.Histories[0] != 10 {
		t.Errorf("ListWAL = %+v, %v", l, err)
	}
	if h, err := r.History(ctx, 10); err != nil || !h.Contains(1) {
		t.Errorf("History(10) = %+v, %v", h, err)
	}
}

func FuzzManifestRows(f *testing.F) {
	f.Add([]byte("{\"p\":\"a\\\"b\",\"k\":\"f\"}\n\n {\"k\":\"d\",\"p\":\"c\"}"))
	f.Add([]byte(`{"p":"base/1","k":"f","m":384,"t":"2026-11-21T12:00:00Z","s":10,"x":[[0,10,0,0,0]]}` + "\n"))
	f.Fuzz(func(t *testing.T, rows []byte) {
		var out bytes.Buffer
		w, err := container.NewStreamWriter(&out, container.Header{Kind: container.Manifest}, 0)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = w.Write(rows)
		_ = w.Finish()
		c, err := container.NewReader("m", bytes.NewReader(out.Bytes()), int64(out.Len()), container.Manifest)
		if err != nil {
			t.Fatal(err)
		}
		m := &Manifest{reader: c, Packs: make([]PackRef, 3), Summary: Summary{PackFrame: c.Frames()}}
		var paths []string
		for file, err := range m.Files() {
			if err == nil && file.Path == "" {
				t.Error("a file without a path was accepted")
			}
			paths = append(paths, file.Path)
		}
		x, err := m.Index(t.Context())
		if err != nil {
			return
		}
		defer x.Close()
		for _, path := range paths {
			if f, ok, err := x.Find(path); err == nil && ok && f.Path != path {
				t.Errorf("%q was found as %q", path, f.Path)
			}
		}
	})
}
