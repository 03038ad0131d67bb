package restore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/pgmoneta/pgmoneta-go/internal/container"
	"github.com/pgmoneta/pgmoneta-go/internal/repo"
)

func planIn(f *fixture, dir, backup, position string) *Plan {
	f.t.Helper()
	target, err := ParsePosition(position)
	f.must(err)
	p, err := MakePlan(context.Background(), f.Repository, Options{Backup: backup, Target: target, Directory: dir})
	f.must(err)
	return p
}

// contents returns every name below dir: the content of files, "-> target" of
// links, and an empty text for directories, whose names end in a slash.
func contents(t testing.TB, dir string) map[string]string {
	t.Helper()
	found := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, _ := filepath.Rel(dir, path)
		switch {
		case name == ".":
		case d.IsDir():
			found[name+"/"] = ""
		case d.Type() == fs.ModeSymlink:
			target, err := os.Readlink(path)
			found[name] = "-> " + target
			return err
		default:
			b, err := os.ReadFile(path)
			found[name] = string(b)
			return err
		}
		return nil
	})
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	return found
}

func differences(got, want map[string]string) (list []string) {
	all := maps.Clone(got)
	maps.Copy(all, want)
	for _, name := range slices.Sorted(maps.Keys(all)) {
		g, inGot := got[name]
		w, inWant := want[name]
		if g != w || inGot != inWant {
			list = append(list, fmt.Sprintf("%s: there %v (%d bytes), wanted %v (%d bytes)", name, inGot, len(g), inWant, len(w)))
		}
	}
	return list
}

// wantedTree is what a restore of the plain files leaves in the target directory
// and, below "space/", in that of the tablespace.
func wantedTree(label string) map[string]string {
	want := map[string]string{"backup_manifest": `{"manifest":1}`}
	for name, body := range plain() {
		if below, ok := strings.CutPrefix(name, "pg_tblspc/16385/"); ok {
			name = "space/" + below
		}
		want[name] = body
	}
	want["pg_tblspc/16385"] = "-> ../../primary-" + label + "-tblspc_fast disk"
	want["postgresql.auto.conf"] = "# auto\nport = '1'\n# primary_conninfo = 'host=x'\n"
	delete(want, "standby.signal")
	return want
}

func restored(t testing.TB, p *Plan) map[string]string {
	t.Helper()
	got := contents(t, p.Directory)
	for name, body := range contents(t, p.Tablespaces[0].Directory) {
		got["space/"+name] = body
	}
	return got
}

func TestRestoreWritesWhatTheManifestSays(t *testing.T) {
	f := newFixture(t)
	f.plainBackup(summary(first, 1, 3, 4))
	f.segments(1, 3, 5)
	dir := filepath.Join(t.TempDir(), "made", "for this")
	p := planIn(f, dir, first, "")
	phases := map[string]int64{}
	f.must(Run(context.Background(), p, RunOptions{Workers: 3, Progress: func(phase string, done, _ int64) { phases[phase] = done }}))
	want := wantedTree(first)
	for _, n := range []int{3, 4} {
		want["pg_wal/"+f.name(1, n)] = walText(1, n)
		want["pg_wal/archive_status/"+f.name(1, n)+".done"] = ""
	}
	for _, line := range differences(restored(t, p), want) {
		t.Error(line)
	}
	for _, name := range []string{"base/5/1259", "base/5/empty", "global/pg_control"} {
		if info, err := os.Stat(filepath.Join(p.Directory, name)); err != nil || info.Mode() != 0o600 || !info.ModTime().Equal(modified) {
			t.Errorf("%s: %v, %v", name, info, err)
		}
	}
	for _, dir := range p.roots() {
		if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o700 {
			t.Errorf("%s: %v, %v", dir, info, err)
		}
	}
	// The bytes of pg_control are not counted while everything else is written.
	if got := phases["Restore"]; got != p.FileBytes-512 || phases["WAL"] != p.Bytes() {
		t.Errorf("progress %v, want %d bytes of files", phases, p.FileBytes)
	}
	if _, err := MakePlan(context.Background(), f.Repository, Options{Backup: first, Directory: dir}); !errors.As(err, new(*OccupiedError)) {
		t.Errorf("a second restore to the same place: %v", err)
	}
}

func TestRestoreSuppliesWALAndSettingsOfTheTarget(t *testing.T) {
	f := branched(t)
	p := planIn(f, t.TempDir(), second, "latest")
	f.must(Run(context.Background(), p, RunOptions{}))
	got := restored(t, p)
	history, err := f.HistoryContent(context.Background(), 2)
	f.must(err)
	want := map[string]string{"pg_wal/00000002.history": string(history), "recovery.signal": ""}
	for n := 6; n <= 8; n++ {
		want["pg_wal/"+f.name(1, n)] = walText(1, n)
	}
	for n := 9; n <= 13; n++ {
		want["pg_wal/"+f.name(2, n)] = walText(2, n)
	}
	want["pg_wal/"+f.name(2, 14)] = walText(2, 14)[:mib/2] + strings.Repeat("\x00", mib/2)
	for name, body := range want {
		if got[name] != body {
			t.Errorf("%s has %d bytes, not the %d wanted", name, len(got[name]), len(body))
		}
	}
	if _, ok := got["pg_wal/archive_status/"+f.name(2, 14)+".done"]; ok {
		t.Error("a segment that is not complete counts as archived")
	}
	if conf := got["postgresql.auto.conf"]; !strings.Contains(conf, "\nrestore_command = 'false'\nrecovery_target_timeline = '2'\n") {
		t.Errorf("postgresql.auto.conf:\n%s", conf)
	}
}

// Between plan and restore the receiver goes on: a partial segment becomes
// complete, then it is stored.
func TestRestoreFindsSegmentsThatMoved(t *testing.T) {
	f := branched(t)
	complete, stored := planIn(f, t.TempDir(), third, "latest"), planIn(f, t.TempDir(), third, "latest")
	path := filepath.Join(f.ReceiveDir(), f.name(2, 14))
	f.must(os.WriteFile(path, []byte(walText(2, 14)), 0o600))
	f.must(os.Remove(path + ".partial"))
	f.must(Run(context.Background(), complete, RunOptions{}))
	f.must(os.Remove(path))
	f.segments(2, 14, 14)
	f.must(Run(context.Background(), stored, RunOptions{}))
	for _, p := range []*Plan{complete, stored} {
		if got := restored(t, p); got["pg_wal/"+f.name(2, 14)] != walText(2, 14) {
			t.Error("the segment is not the complete one")
		}
	}
}

// What the old timeline wrote after it was left must not be replayed.
func TestRestoreCutsTheOldTimelineWhereItWasLeft(t *testing.T) {
	f := newFixture(t)
	f.plainBackup(summary(first, 1, 3, 3))
	f.segments(1, 3, 9)
	f.history(2, "1 0/980000")
	p := planIn(f, t.TempDir(), first, "latest")
	f.must(Run(context.Background(), p, RunOptions{}))
	if got := restored(t, p)["pg_wal/"+f.name(1, 9)]; got != walText(1, 9)[:mib/2]+strings.Repeat("\x00", mib/2) {
		t.Error("the segment was not cut at 0/980000")
	}
}

func TestRestoreLeavesZerosBetweenExtents(t *testing.T) {
	f := newFixture(t)
	rows, packs := f.rows(first, plain())
	for i := range rows {
		if rows[i].Path == "base/5/1259" {
			x := rows[i].Extents[0]
			rows[i].Size = 1 << 20
			rows[i].Extents = []repo.Extent{
				{Offset: 8192, Length: 2000, Frame: x.Frame, Skip: x.Skip},
				{Offset: 500000, Length: 10, Frame: x.Frame, Skip: x.Skip},
			}
		}
		if rows[i].Path == "base/5/empty" {
			rows[i].Size = 12345
		}
	}
	f.backup(summary(first, 1, 3, 3), rows, packs)
	f.segments(1, 3, 3)
	p := planIn(f, t.TempDir(), first, "")
	f.must(Run(context.Background(), p, RunOptions{Workers: 4}))
	got := restored(t, p)
	want := make([]byte, 1<<20)
	copy(want[8192:], text(2000, "a"))
	copy(want[500000:], text(10, "a"))
	if got["base/5/1259"] != string(want) || got["base/5/empty"] != strings.Repeat("\x00", 12345) {
		t.Errorf("files of %d and %d bytes have other content", len(got["base/5/1259"]), len(got["base/5/empty"]))
	}
}

func TestRestoreNamesTablespaceDirectoriesSafely(t *testing.T) {
	for name, want := range map[string]string{"a b": "a b", "../x": "7", "a/b": "7", "": "7", "..": "..", "x\ny": "7", strings.Repeat("n", 200): "7"} {
		if got := directoryName(repo.Tablespace{OID: 7, Name: name}); got != want {
			t.Errorf("tablespace %q is put into %q, want %q", name, got, want)
		}
	}
}

func TestHostileManifestCannotWriteOutside(t *testing.T) {
	row := func(path string, kind repo.Kind) repo.File {
		f := repo.File{Path: path, Kind: kind, Mode: 0o600, Link: "../../outside"}
		if kind == repo.Regular {
			f.Size, f.Extents = 3, []repo.Extent{{Length: 3}}
		}
		return f
	}
	huge := row("base/huge", repo.Regular)
	huge.Size = 1 << 62
	tests := []struct {
		name string
		rows []repo.File
	}{
		{"parent", []repo.File{row("../outside/x", repo.Regular)}},
		{"parent below", []repo.File{row("base/../../outside/x", repo.Regular)}},
		{"absolute", []repo.File{row("/tmp/pgmoneta-hostile", repo.Regular)}},
		{"the directory itself", []repo.File{row(".", repo.Directory)}},
		{"parent directory", []repo.File{row("../outside", repo.Directory)}},
		{"NUL", []repo.File{row("base/x\x00y", repo.Regular)}},
		{"a second name of a file", []repo.File{row("base//x", repo.Regular)}},
		{"link and a file behind it", []repo.File{row("link", repo.Symlink), row("link/x", repo.Regular)}},
		{"link of an unknown tablespace", []repo.File{row("pg_tblspc/1", repo.Symlink), row("pg_tblspc/1/x", repo.Regular)}},
		{"file in place of a tablespace's link", []repo.File{row("pg_tblspc/16385", repo.Regular)}},
		{"out of a tablespace", []repo.File{row("pg_tblspc/16385/../../../outside/x", repo.Regular)}},
		{"the same file twice", []repo.File{row("x", repo.Regular), row("x", repo.Regular)}},
		{"pg_control twice", []repo.File{row(control, repo.Regular), row(control, repo.Regular)}},
		{"the marker", []repo.File{row(marker, repo.Regular)}},
		{"the next pg_control", []repo.File{row(marker+".new", repo.Regular)}},
		{"a directory in place of pg_control", []repo.File{row(control, repo.Directory), row(control, repo.Regular)}},
		{"a device", []repo.File{row("x", "b")}},
		{"larger than announced", []repo.File{huge}},
		{"bytes beyond the frame", []repo.File{{Path: "x", Kind: repo.Regular, Size: 5, Extents: []repo.Extent{{Length: 5, Skip: 5000}}}}},
		{"bytes beyond the pack", []repo.File{{Path: "x", Kind: repo.Regular, Size: 5, Extents: []repo.Extent{{Length: 5, Frame: 1 << 40}}}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			f := newFixture(t)
			rows, packs := f.rows(first, plain())
			s := summary(first, 1, 3, 3)
			w, err := f.NewManifestWriter(context.Background(), first)
			f.must(err)
			for _, r := range append(tt.rows, rows...) {
				if r.Size < 1<<60 {
					s.Logical += r.Size
				}
				f.must(w.Add(r))
			}
			f.must(w.Commit(context.Background(), s, packs))
			f.segments(1, 3, 3)
			dir := t.TempDir()
			f.must(os.Mkdir(filepath.Join(dir, "outside"), 0o700))
			err = Run(context.Background(), planIn(f, dir, first, ""), RunOptions{})
			if err == nil {
				t.Error("it was restored")
			}
			if got := contents(t, dir); len(got) != 1 {
				t.Errorf("after %v there is %v", err, slices.Sorted(maps.Keys(got)))
			}
			if exists("/tmp/pgmoneta-hostile") {
				t.Error("a file was written to /tmp")
			}
		})
	}
}

func TestDamagedFrameEndsTheRestoreAndNamesThePack(t *testing.T) {
	f := newFixture(t)
	f.plainBackup(summary(first, 1, 3, 3))
	f.segments(1, 3, 3)
	pack := filepath.Join(f.Dir(), repo.PackName(first, 1))
	b, err := os.ReadFile(pack)
	f.must(err)
	b[64+40] ^= 1 // inside the first frame
	f.must(os.WriteFile(pack, b, 0o600))
	dir := t.TempDir()
	err = Run(context.Background(), planIn(f, dir, first, ""), RunOptions{})
	var damaged *container.DamagedError
	if !errors.As(err, &damaged) || damaged.Object != repo.PackName(first, 1) || damaged.Frame != 0 {
		t.Errorf("%v does not name the pack", err)
	}
	if got := contents(t, dir); len(got) != 0 {
		t.Errorf("left behind: %v", slices.Sorted(maps.Keys(got)))
	}
}

func TestDamagedSegmentEndsTheRestore(t *testing.T) {
	f := newFixture(t)
	f.plainBackup(summary(first, 1, 3, 3))
	f.segments(1, 3, 3)
	segment := filepath.Join(f.Dir(), "wal/00000001", f.name(1, 3))
	b, err := os.ReadFile(segment)
	f.must(err)
	b[70] ^= 1
	f.must(os.WriteFile(segment, b, 0o600))
	dir := t.TempDir()
	err = Run(context.Background(), planIn(f, dir, first, ""), RunOptions{})
	if !errors.As(err, new(*container.DamagedError)) || !strings.Contains(err.Error(), f.name(1, 3)) {
		t.Errorf("%v does not name the segment", err)
	}
	if got := contents(t, dir); len(got) != 0 {
		t.Errorf("left behind: %v", slices.Sorted(maps.Keys(got)))
	}
}

func TestCancelledRestoreRemovesWhatItWrote(t *testing.T) {
	f := newFixture(t)
	f.plainBackup(summary(first, 1, 3, 3))
	f.segments(1, 3, 3)
	for _, phase := range []string{"Restore", "WAL"} {
		dir := t.TempDir()
		p := planIn(f, dir, first, "")
		f.must(os.Mkdir(p.Directory, 0o750)) // was there before, so it stays
		ctx, cancel := context.WithCancelCause(context.Background())
		stop := errors.New("told to stop")
		err := Run(ctx, p, RunOptions{Progress: func(now string, _, _ int64) {
			if now == phase {
				cancel(stop)
			}
		}})
		cancel(nil)
		if !errors.Is(err, stop) {
			t.Errorf("cancelled during %s: %v", phase, err)
		}
		if got := contents(t, dir); len(got) != 1 {
			t.Errorf("left behind: %v", slices.Sorted(maps.Keys(got)))
		}
	}
}

// Whichever operation a restore dies at, PostgreSQL cannot start on what it
// left unless that is complete, and the next restore completes it. The same
// holds when one operation fails and the restore cleans up by itself. Each operation
// fails with another error every day, and with all of them under PGMONETA_TEST_LONG.
func TestRestoreInterruptedAtEveryOperation(t *testing.T) {
	f := newFixture(t)
	f.plainBackup(summary(first, 1, 3, 3))
	f.segments(1, 3, 3)
	want := wantedTree(first)
	want["pg_wal/"+f.name(1, 3)] = walText(1, 3)
	want["pg_wal/archive_status/"+f.name(1, 3)+".done"] = ""
	shifts := []int{int(time.Now().Unix() / (24 * 60 * 60) % int64(len(failures)))}
	if os.Getenv("PGMONETA_TEST_LONG") != "" {
		shifts = []int{0, 1, 2}
	}
	for _, kill := range []bool{true, false} {
		t.Run(fmt.Sprintf("kill %v", kill), func(t *testing.T) {
			t.Parallel()
			for _, shift := range shifts {
				for n := 1; interrupt(&fixture{t, f.Repository}, n, kill, failures[(n+shift)%len(failures)], want); n++ {
				}
			}
		})
	}
}

// failures are what an operation of an interrupted restore may return.
var failures = [...]error{errors.New("interrupted"), syscall.ENOSPC, syscall.EIO}

// interrupt runs a restore whose operation n fails, and all later ones too if it is
// to be killed. It reports whether there were that many.
func interrupt(f *fixture, n int, kill bool, failed error, want map[string]string) bool {
	f.t.Helper()
	dir := f.t.TempDir()
	var mu sync.Mutex
	count := 0
	err := Run(context.Background(), planIn(f, dir, first, ""), RunOptions{op: func(string, string) error {
		mu.Lock()
		defer mu.Unlock()
		if count++; count == n || kill && count > n {
			return failed
		}
		return nil
	}})
	if count < n {
		if n < 40 || err != nil {
			f.t.Fatalf("%d operations, %v", count, err)
		}
		return false
	}
	if !errors.Is(err, failed) {
		f.t.Fatalf("operation %d, %v: %v", n, failed, err)
	}
	checkLeftovers(f, dir, want, fmt.Sprintf("operation %d, %v", n, failed))
	return true
}

func checkLeftovers(f *fixture, dir string, want map[string]string, when string) {
	f.t.Helper()
	target := filepath.Join(dir, "primary-"+first)
	started := exists(filepath.Join(target, control))
	if started && exists(filepath.Join(target, marker)) {
		f.t.Fatalf("%s: both pg_control and the marker exist", when)
	}
	p, err := MakePlan(context.Background(), f.Repository, Options{Backup: first, Directory: dir})
	if started {
		// Only durability of the last name was not confirmed.
		if err == nil {
			f.t.Fatalf("%s: a complete directory would be written over", when)
		}
		p = &Plan{Directory: target, Tablespaces: []Tablespace{{Directory: target + "-tblspc_fast disk"}}}
	} else {
		if err == nil {
			err = Run(context.Background(), p, RunOptions{})
		}
		if err != nil {
			f.t.Fatalf("%s: the next restore: %v", when, err)
		}
	}
	if diff := differences(restored(f.t, p), want); len(diff) > 0 {
		f.t.Fatalf("%s: %s", when, strings.Join(diff, "\n"))
	}
}

// The leftovers of the first restore must stay recognisable when the second one
// cannot get at all of them.
func TestRestoreKeepsTheMarkerWhileLeftoversRemain(t *testing.T) {
	f := newFixture(t)
	f.plainBackup(summary(first, 1, 3, 3))
	f.segments(1, 3, 3)
	dir := t.TempDir()
	var dead atomic.Bool
	_ = Run(context.Background(), planIn(f, dir, first, ""), RunOptions{op: func(kind, _ string) error {
		if kind == "syncfs" {
			dead.Store(true)
		}
		if dead.Load() {
			return syscall.EIO
		}
		return nil
	}})
	p := planIn(f, dir, first, "")
	if !p.Interrupted {
		t.Fatal("the interrupted restore is not recognised")
	}
	err := Run(context.Background(), p, RunOptions{op: func(kind, path string) error {
		if kind == "mkdir" && path == p.Tablespaces[0].Directory {
			return syscall.EACCES
		}
		return nil
	}})
	if !errors.Is(err, syscall.EACCES) {
		t.Fatal(err)
	}
	f.must(Run(context.Background(), planIn(f, dir, first, ""), RunOptions{}))
}

// BenchmarkRestore restores 256 MiB in files of 32 MiB.
func BenchmarkRestore(b *testing.B) {
	const files, size = 8, 32 << 20
	f := newFixture(b)
	ctx := context.Background()
	stage, err := f.Engine().Stage(ctx, repo.OwnerJob)
	f.must(err)
	up, err := stage.Create(ctx, repo.PackName(first, 1))
	f.must(err)
	w, err := container.NewStreamWriter(up, container.Header{Kind: container.Pack, Codec: container.Zstd}, 3)
	f.must(err)
	rows, packs := f.rows(second, plain())
	packs = append(packs, repo.PackRef{Name: repo.PackName(first, 1)})
	rng := rand.New(rand.NewPCG(1, 2))
	for n := range files {
		for range size / 8192 {
			_, err := w.Write(page(rng))
			f.must(err)
		}
		rows = append(rows, repo.File{Path: fmt.Sprintf("base/5/%d", 20000+n), Kind: repo.Regular, Mode: 0o600, Size: size,
			Extents: []repo.Extent{{Length: size, Pack: 1, Frame: n * size / container.FrameLimit}}})
	}
	f.must(w.Finish())
	f.must(up.Close())
	f.must(stage.Commit(ctx))
	f.backup(summary(second, 1, 3, 3), rows, packs)
	f.segments(1, 3, 3)
	b.SetBytes(files * size)
	b.ReportAllocs()
	for b.Loop() {
		dir := b.TempDir()
		f.must(Run(ctx, planIn(f, dir, second, ""), RunOptions{}))
		b.StopTimer()
		f.must(os.RemoveAll(dir))
		b.StartTimer()
	}
}

// page is 8 KiB that compress about as a table of pgbench does.
func page(rng *rand.Rand) []byte {
	var b bytes.Buffer
	for b.Len() < 8192 {
		fmt.Fprintf(&b, "%08x account %07d balance %06d filler%-60s", rng.Uint32(), rng.IntN(1e7), rng.IntN(1e6), "")
	}
	return b.Bytes()[:8192]
}
