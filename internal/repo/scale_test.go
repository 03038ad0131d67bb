package repo

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"runtime/metrics"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/pgmoneta/pgmoneta-go/internal/durable"
	"github.com/pgmoneta/pgmoneta-go/internal/storage"
)

// scaled returns the long form of a number when PGMONETA_TEST_LONG is set.
func scaled(short, long int) int {
	if os.Getenv("PGMONETA_TEST_LONG") != "" {
		return long
	}
	return short
}

// peakHeap returns the most bytes of heap, garbage included, that f had at a time beyond what there was before.
func peakHeap(f func()) int64 {
	sample := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}
	read := func() int64 {
		metrics.Read(sample)
		return int64(sample[0].Value.Uint64())
	}
	runtime.GC()
	before := read()
	peak := before
	done := make(chan struct{})
	var watcher sync.WaitGroup
	watcher.Go(func() {
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		for {
			peak = max(peak, read())
			select {
			case <-done:
				return
			case <-tick.C:
			}
		}
	})
	f()
	close(done)
	watcher.Wait()
	return peak - before
}

// relation returns row i of a database of many relations.
func relation(i int) File {
	return File{
		Path: "base/" + strconv.Itoa(16384+i/5000) + "/" + strconv.Itoa(100_000+i), Kind: Regular, Mode: 0o600,
		ModTime: time.Date(2026, 11, 21, 12, 0, i%60, 0, time.UTC), Size: 16384, CRC: fmt.Sprintf("%08x", i*2654435761),
		Extents: []Extent{{Length: 8192, Pack: i % 1000, Frame: i % 500, Skip: int64(i % 8 * 8192)}, {Offset: 8192, Length: 8192, Pack: i % 999}},
	}
}

// A manifest is written, read, indexed and searched in memory that does not grow
// with it, but for 16 bytes per file of the index.
func TestManifestOfAMillionFiles(t *testing.T) {
	ctx := context.Background()
	files := scaled(30_000, 1_000_000)
	label := Label("20261121120000")
	r := open(t, durable.OS{}, t.TempDir())
	step := func(what string, limit int64, f func() error) {
		t.Helper()
		began := time.Now()
		var err error
		peak := peakHeap(func() { err = f() })
		t.Logf("%s %d files: %v, %d MiB of heap", what, files, time.Since(began).Round(time.Millisecond), peak>>20)
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		if peak > limit {
			t.Errorf("%s takes %d bytes of heap, want at most %d", what, peak, limit)
		}
	}
	const most = 512 << 20
	step("write", most, func() error { return writeRelations(ctx, r, label, files) })
	m, err := r.OpenManifest(ctx, label)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	t.Logf("the manifest has %d bytes, %d per file", m.object.Size(), m.object.Size()/int64(files))
	step("read", most, func() error {
		i := 0
		for f, err := range m.Files() {
			if err != nil {
				return err
			}
			if want := relation(i); f.Path != want.Path || f.CRC != want.CRC || len(f.Extents) != 2 || f.Extents[0] != want.Extents[0] {
				return fmt.Errorf("row %d is %+v", i, f)
			}
			i++
		}
		if i != files {
			return fmt.Errorf("%d rows", i)
		}
		return nil
	})
	step("index and find", most, func() error {
		x, err := m.Index(ctx)
		if err != nil {
			return err
		}
		defer x.Close()
		for i := range files {
			want := relation(i)
			f, found, err := x.Find(want.Path)
			if err != nil || !found || f.CRC != want.CRC {
				return fmt.Errorf("%s: found %v, %+v, %w", want.Path, found, f, err)
			}
		}
		return nil
	})
}

func writeRelations(ctx context.Context, r *Repository, label Label, files int) error {
	m, err := r.NewManifestWriter(ctx, label)
	if err != nil {
		return err
	}
	defer m.Abort()
	for i := range files {
		if err := m.Add(relation(i)); err != nil {
			return err
		}
	}
	packs := make([]PackRef, 1000)
	for i := range packs {
		packs[i] = PackRef{Name: PackName(label, i+1), Live: 1}
	}
	return m.Commit(ctx, Summary{Server: "primary", Label: label, Type: Full, System: "1", SegmentSize: 16 << 20, Files: int64(files)}, packs)
}

// A new process lists a thousand backups within a tenth of a second.
func TestThousandBackupsAreListedAtOnce(t *testing.T) {
	ctx := context.Background()
	dir := t.TempDir()
	r := open(t, durable.OS{}, dir)
	backups := scaled(200, 1000)
	first := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for i := range backups {
		if err := addBackup(ctx, r, NewLabel(first.Add(time.Duration(i)*time.Hour), ""), 0, PackName("20260101000000", 1)); err != nil {
			t.Fatal(err)
		}
	}
	var took time.Duration
	var list []Backup
	peak := peakHeap(func() {
		cold := open(t, durable.OS{}, dir)
		began := time.Now()
		var err error
		if list, err = cold.Backups(ctx); err != nil {
			t.Error(err)
		}
		took = time.Since(began)
	})
	t.Logf("%d backups are listed in %v, with %d MiB of heap", len(list), took.Round(time.Microsecond), peak>>20)
	if len(list) != backups {
		t.Errorf("%d backups are listed, want %d", len(list), backups)
	}
	for i, b := range list {
		if b.Err != nil || b.Summary.Label != b.Label || i > 0 && b.Label <= list[i-1].Label {
			t.Fatalf("row %d is %+v", i, b)
		}
	}
	if took > time.Second { // ten times what it should take
		t.Errorf("listing took %v", took)
	}
	var gone []Label
	for _, b := range list[:backups-1] {
		gone = append(gone, b.Label)
	}
	began := time.Now()
	if err := r.Delete(ctx, gone...); err != nil {
		t.Fatal(err)
	}
	t.Logf("%d are deleted in %v", len(gone), time.Since(began).Round(time.Microsecond))
	if list, err := r.Backups(ctx); err != nil || len(list) != 1 {
		t.Errorf("%d are left, %v", len(list), err)
	}
}

// counting counts the objects that are opened.
type counting struct {
	storage.Engine
	opened int
}

func (c *counting) Open(ctx context.Context, name string) (storage.Object, error) {
	c.opened++
	return c.Engine.Open(ctx, name)
}

// Deleting many backups reads what the others need once.
func TestManyBackupsAreDeletedInOneCollection(t *testing.T) {
	ctx := context.Background()
	opened := map[int]int{}
	for _, n := range []int{1, 40} {
		r := open(t, durable.OS{}, t.TempDir())
		first := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
		var gone []Label
		for i := range n + 10 {
			l := NewLabel(first.Add(time.Duration(i)*time.Hour), "")
			if err := addBackup(ctx, r, l, 1); err != nil {
				t.Fatal(err)
			}
			if i < n {
				gone = append(gone, l)
			}
		}
		c := &counting{Engine: r.engine}
		r.engine = c
		if err := r.Delete(ctx, gone...); err != nil {
			t.Fatal(err)
		}
		if left, err := r.engine.List(ctx, "pack"); err != nil || len(left) != 10 {
			t.Errorf("%d packs are left, %v", len(left), err)
		}
		opened[n] = c.opened
	}
	if opened[40] > 2*opened[1] {
		t.Errorf("deleting one backup opens %d objects, forty %d", opened[1], opened[40])
	}
}
