package restore

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/pgmoneta/pgmoneta-go/internal/repo"
)

// over restores a backup exactly into a directory, over what is there if delta is set,
// and returns what it did.
func over(f *fixture, dir string, delta bool, o RunOptions) (*Plan, Stats, error) {
	f.t.Helper()
	p, err := MakePlan(context.Background(), f.Repository, Options{Backup: first, Directory: dir, Exact: true, Delta: delta})
	if err != nil {
		return nil, Stats{}, err
	}
	var s Stats
	o.Stats = &s
	err = Run(context.Background(), p, o)
	return p, s, err
}

// wantedExactly is wantedTree for a restore into the directory itself, without WAL.
func wantedExactly(dir string) map[string]string {
	want := wantedTree(first)
	want["pg_tblspc/16385"] = "-> ../../" + filepath.Base(dir) + "-tblspc_fast disk"
	return want
}

func restoredFiles(f *fixture, p *Plan) map[string]string {
	got := restored(f.t, p)
	for name := range got {
		if strings.HasPrefix(name, "pg_wal/0") || strings.HasSuffix(name, ".done") {
			delete(got, name)
		}
	}
	return got
}

// deltaFixture has one backup and the WAL it needs.
func deltaFixture(t *testing.T) *fixture {
	t.Helper()
	f := newFixture(t)
	f.plainBackup(summary(first, 1, 3, 3))
	f.segments(1, 3, 3)
	return f
}

func TestDeltaRestoreReadsNothingOfWhatIsThere(t *testing.T) {
	f := deltaFixture(t)
	dir := filepath.Join(t.TempDir(), "data")
	_, full, err := over(f, dir, false, RunOptions{})
	f.must(err)
	p, again, err := over(f, dir, true, RunOptions{})
	f.must(err)
	checkReadAgain(t, full, again)
	for _, line := range differences(restoredFiles(f, p), wantedExactly(dir)) {
		t.Error(line)
	}
}

// checkReadAgain lets the frames be read that hold pg_control, which goes first and comes
// last, and postgresql.auto.conf, which a restore changes. No other file is written.
func checkReadAgain(t *testing.T, full, again Stats) {
	t.Helper()
	if full.Read == 0 || again.Read*3 > full.Read || again.Written != int64(len(plain()["postgresql.auto.conf"])) {
		t.Errorf("first %+v, then %+v", full, again)
	}
}

func TestDeltaRestoreMendsWhateverIsWrong(t *testing.T) {
	tests := []struct {
		name  string
		spoil func(f *fixture, dir string)
	}{
		{"a byte in the middle", func(f *fixture, dir string) { f.patch(dir, "base/5/1259", 1700, "X") }},
		{"a shorter file", func(f *fixture, dir string) { f.must(os.Truncate(filepath.Join(dir, "base/5/1259"), 900)) }},
		{"a longer file", func(f *fixture, dir string) { f.must(os.Truncate(filepath.Join(dir, "base/5/1259"), 90000)) }},
		{"a file is missing", func(f *fixture, dir string) { f.must(os.Remove(filepath.Join(dir, "base/5/small"))) }},
		{"a directory is missing", func(f *fixture, dir string) { f.must(os.RemoveAll(filepath.Join(dir, "base"))) }},
		{"files and directories too many", func(f *fixture, dir string) {
			f.must(os.MkdirAll(filepath.Join(dir, "base/6/x"), 0o700))
			f.must(os.WriteFile(filepath.Join(dir, "base/6/x/1"), []byte("x"), 0o600))
			f.must(os.WriteFile(filepath.Join(dir, "recovery.signal"), nil, 0o600))
			f.must(os.WriteFile(filepath.Join(dir, "pg_wal", f.name(7, 9)), []byte("x"), 0o600))
		}},
		{"a directory in the place of a file", func(f *fixture, dir string) {
			f.must(os.Remove(filepath.Join(dir, "global/1262")))
			f.must(os.MkdirAll(filepath.Join(dir, "global/1262/x"), 0o700))
		}},
		{"a file in the place of a directory", func(f *fixture, dir string) {
			f.must(os.RemoveAll(filepath.Join(dir, "base/5")))
			f.must(os.WriteFile(filepath.Join(dir, "base/5"), []byte("x"), 0o600))
		}},
		{"a link in the place of a file", func(f *fixture, dir string) {
			f.must(os.Remove(filepath.Join(dir, "base/5/small")))
			f.must(os.Symlink("1259", filepath.Join(dir, "base/5/small")))
		}},
		{"the tablespace's link is gone", func(f *fixture, dir string) { f.must(os.Remove(filepath.Join(dir, "pg_tblspc/16385"))) }},
		{"the tablespace is empty", func(f *fixture, dir string) { f.must(os.RemoveAll(dir + "-tblspc_fast disk/PG_17")) }},
		{"a file nobody may read", func(f *fixture, dir string) { f.must(os.Chmod(filepath.Join(dir, "base/5/1259"), 0o200)) }},
		{"no pg_control", func(f *fixture, dir string) { f.must(os.Remove(filepath.Join(dir, control))) }},
	}
	f := deltaFixture(t)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			f := &fixture{t, f.Repository}
			dir := filepath.Join(t.TempDir(), "data")
			_, _, err := over(f, dir, false, RunOptions{})
			f.must(err)
			tt.spoil(f, dir)
			p, _, err := over(f, dir, true, RunOptions{})
			f.must(err)
			for _, line := range differences(restoredFiles(f, p), wantedExactly(dir)) {
				t.Error(line)
			}
		})
	}
}

func (f *fixture) patch(dir, name string, at int64, text string) {
	f.t.Helper()
	file, err := os.OpenFile(filepath.Join(dir, name), os.O_WRONLY, 0)
	f.must(err)
	_, err = file.WriteAt([]byte(text), at)
	f.must(errors.Join(err, file.Close()))
}

// The other name of a file may be another cluster's, made by pg_upgrade --link.
func TestDeltaRestoreLeavesTheOtherNameOfAFileAlone(t *testing.T) {
	f := deltaFixture(t)
	dir := filepath.Join(t.TempDir(), "data")
	_, _, err := over(f, dir, false, RunOptions{})
	f.must(err)
	f.patch(dir, "base/5/1259", 10, "other")
	other := filepath.Join(t.TempDir(), "other")
	f.must(os.Link(filepath.Join(dir, "base/5/1259"), other))
	_, _, err = over(f, dir, true, RunOptions{})
	f.must(err)
	b, err := os.ReadFile(other)
	f.must(err)
	if string(b[10:15]) != "other" {
		t.Error("the other name's content was changed")
	}
}

func TestDeltaRestoreZeroesWhatNoExtentCovers(t *testing.T) {
	f := newFixture(t)
	rows, packs := f.rows(first, plain())
	for i := range rows {
		if rows[i].Path == "base/5/1259" {
			x := rows[i].Extents[0]
			rows[i].Size = 1 << 20
			rows[i].Extents = []repo.Extent{{Offset: 8192, Length: 2000, Frame: x.Frame, Skip: x.Skip}, {Offset: 500000, Length: 10, Frame: x.Frame, Skip: x.Skip}}
		}
	}
	f.backup(summary(first, 1, 3, 3), rows, packs)
	f.segments(1, 3, 3)
	dir := filepath.Join(t.TempDir(), "data")
	p, _, err := over(f, dir, false, RunOptions{})
	f.must(err)
	want := restoredFiles(f, p)
	f.patch(dir, "base/5/1259", 100, "junk")
	f.patch(dir, "base/5/1259", 300000, "junk")
	f.patch(dir, "base/5/1259", 1<<20-4, "junk")
	p, _, err = over(f, dir, true, RunOptions{Workers: 4})
	f.must(err)
	for _, line := range differences(restoredFiles(f, p), want) {
		t.Error(line)
	}
}

func TestDeltaRestoreRefusesWhatIsNoDataDirectory(t *testing.T) {
	f := deltaFixture(t)
	tests := []struct {
		name, want string
		make       func(dir string)
	}{
		{"a home directory", "no data directory", func(dir string) { f.must(os.WriteFile(filepath.Join(dir, "letter"), nil, 0o600)) }},
		{"a running server", "a server runs on it", func(dir string) {
			f.must(os.WriteFile(filepath.Join(dir, "PG_VERSION"), nil, 0o600))
			f.must(os.WriteFile(filepath.Join(dir, "postmaster.pid"), fmt.Appendf(nil, "%d\n%s\n", f.sleeper(dir), dir), 0o600))
		}},
		{"a tablespace with something else", `it holds "letter"`, func(dir string) {
			f.must(os.WriteFile(filepath.Join(dir, "PG_VERSION"), nil, 0o600))
			f.must(os.Mkdir(dir+"-tblspc_fast disk", 0o700))
			f.must(os.WriteFile(dir+"-tblspc_fast disk/letter", nil, 0o600))
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f.t = t
			dir := filepath.Join(t.TempDir(), "data")
			f.must(os.Mkdir(dir, 0o700))
			tt.make(dir)
			before := contents(t, filepath.Dir(dir))
			_, _, err := over(f, dir, true, RunOptions{})
			if !errors.As(err, new(*OccupiedError)) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%v, want an OccupiedError with %q", err, tt.want)
			}
			if diff := differences(contents(t, filepath.Dir(dir)), before); len(diff) > 0 {
				t.Error(diff)
			}
		})
	}
}

// The process number in a file that a killed server left may be another's by now.
func TestDeltaRestoreTakesAStalePostmasterFileForWhatItIs(t *testing.T) {
	f := deltaFixture(t)
	dir := filepath.Join(t.TempDir(), "data")
	_, _, err := over(f, dir, false, RunOptions{})
	f.must(err)
	f.must(os.WriteFile(filepath.Join(dir, "postmaster.pid"), fmt.Appendf(nil, "%d\n", f.sleeper("/")), 0o600))
	_, _, err = over(f, dir, true, RunOptions{})
	f.must(err)
	if exists(filepath.Join(dir, "postmaster.pid")) {
		t.Error("postmaster.pid is still there")
	}
}

// Whatever the operation at which it ends, a delta restore leaves the old directory
// untouched, or one that does not start, or the new one; and a second run finishes.
func TestDeltaRestoreInterruptedAtEveryOperation(t *testing.T) {
	f := deltaFixture(t)
	for _, kill := range []bool{true, false} {
		t.Run(fmt.Sprintf("kill %v", kill), func(t *testing.T) {
			t.Parallel()
			f := &fixture{t, f.Repository}
			for n := 1; interruptDelta(f, n, kill); n++ {
			}
		})
	}
}

// interruptDelta is interrupt for a restore over a spoiled directory.
func interruptDelta(f *fixture, n int, kill bool) bool {
	f.t.Helper()
	dir := filepath.Join(f.t.TempDir(), "data")
	p, _, err := over(f, dir, false, RunOptions{})
	f.must(err)
	f.patch(dir, "base/5/1259", 1700, "X")
	f.must(os.WriteFile(filepath.Join(dir, "base/5/more"), []byte("x"), 0o600))
	f.must(os.Remove(filepath.Join(dir, "global/1262")))
	old := restored(f.t, p)
	count, failed := 0, failures[n%len(failures)]
	var mu sync.Mutex
	_, _, err = over(f, dir, true, RunOptions{op: func(string, string) error {
		mu.Lock()
		defer mu.Unlock()
		if count++; count == n || kill && count > n {
			return failed
		}
		return nil
	}})
	if count < n {
		if n < 20 || err != nil {
			f.t.Fatalf("%d operations, %v", count, err)
		}
		return false
	}
	if !errors.Is(err, failed) {
		f.t.Fatalf("operation %d: %v", n, err)
	}
	if now := restored(f.t, p); exists(filepath.Join(dir, control)) && len(differences(now, old)) > 0 {
		if diff := differences(restoredFiles(f, p), wantedExactly(dir)); len(diff) > 0 {
			f.t.Fatalf("operation %d: a server starts on a mixture: %s", n, strings.Join(diff, "\n"))
		}
	}
	p, _, err = over(f, dir, true, RunOptions{})
	f.must(err)
	if diff := differences(restoredFiles(f, p), wantedExactly(dir)); len(diff) > 0 {
		f.t.Fatalf("operation %d: %s", n, strings.Join(diff, "\n"))
	}
	return true
}

// A restore that was killed is finished by repeating it, and what it had written is not
// read again.
func TestInterruptedRestoreGoesOnWhereItWas(t *testing.T) {
	f := deltaFixture(t)
	dir := filepath.Join(t.TempDir(), "data")
	dead := false
	var mu sync.Mutex
	_, full, err := over(f, dir, false, RunOptions{Workers: 1, op: func(kind, name string) error {
		mu.Lock()
		defer mu.Unlock()
		dead = dead || kind == "syncfs"
		if dead {
			return errors.New("killed")
		}
		return nil
	}})
	if err == nil {
		t.Fatal("it was not interrupted")
	}
	p, again, err := over(f, dir, false, RunOptions{})
	f.must(err)
	checkReadAgain(t, full, again)
	for _, line := range differences(restoredFiles(f, p), wantedExactly(dir)) {
		t.Error(line)
	}
}

// 1 % of the data is changed in one place, as by a load that works on the newest rows.
func TestDeltaRestoreReadsLittleAfterLittleChange(t *testing.T) {
	f := newFixture(t)
	content := plain()
	rng := rand.New(rand.NewPCG(3, 4))
	var b strings.Builder
	for b.Len() < 1_000_000 {
		fmt.Fprintf(&b, "%08x", rng.Uint32())
	}
	content["base/5/16400"] = b.String()
	rows, packs := f.rows(first, content)
	f.backup(summary(first, 1, 3, 3), rows, packs)
	f.segments(1, 3, 3)
	dir := filepath.Join(t.TempDir(), "data")
	_, full, err := over(f, dir, false, RunOptions{})
	f.must(err)
	f.patch(dir, "base/5/16400", 700_000, strings.Repeat("changed ", 10_000/8))
	_, again, err := over(f, dir, true, RunOptions{})
	f.must(err)
	if again.Read == 0 || again.Read*20 > full.Read {
		t.Errorf("%d of %d bytes were read: want less than 5 %%", again.Read, full.Read)
	}
}

func TestMaxRateLimitsARestore(t *testing.T) {
	f := deltaFixture(t)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	p := planIn(f, t.TempDir(), first, "")
	// The first second's worth is free; the segment alone is a hundred times as much.
	err := Run(ctx, p, RunOptions{MaxRate: mib / 100, Progress: func(phase string, _, _ int64) {
		if phase == "WAL" {
			t.Error("the segment was written at once")
		}
		if phase == "Restore" {
			cancel()
		}
	}})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
}

// Links in a directory that somebody else had in hand lead nowhere.
func TestDeltaRestoreDoesNotFollowLinksOutOfTheTarget(t *testing.T) {
	f := deltaFixture(t)
	for _, name := range []string{"base", "base/5", "base/5/1259", "global", "pg_wal", "postgresql.auto.conf", "backup_manifest", "recovery.signal", "pg_tblspc"} {
		t.Run(strings.ReplaceAll(name, "/", "_"), func(t *testing.T) {
			t.Parallel()
			f := &fixture{t, f.Repository}
			dir := filepath.Join(t.TempDir(), "data")
			p, _, err := over(f, dir, false, RunOptions{})
			f.must(err)
			outside := t.TempDir()
			f.must(os.MkdirAll(filepath.Join(outside, "5"), 0o700))
			f.must(os.WriteFile(filepath.Join(outside, "letter"), []byte("mine"), 0o600))
			f.must(os.WriteFile(filepath.Join(outside, "5/1259"), []byte("mine"), 0o600))
			before := contents(t, outside)
			f.must(os.RemoveAll(filepath.Join(dir, name)))
			to := outside
			if !slices.Contains([]string{"base", "base/5", "global", "pg_wal", "pg_tblspc"}, name) {
				to = filepath.Join(outside, "letter")
			}
			f.must(os.Symlink(to, filepath.Join(dir, name)))
			_, _, err = over(f, dir, true, RunOptions{})
			if diff := differences(contents(t, outside), before); len(diff) > 0 {
				t.Fatal(diff)
			}
			if name == "pg_wal" { // a server's own link of this kind is taken for one
				if !errors.As(err, new(*OccupiedError)) {
					t.Errorf("%v, want an OccupiedError", err)
				}
				return
			}
			f.must(err)
			for _, line := range differences(restoredFiles(f, p), wantedExactly(dir)) {
				t.Error(line)
			}
		})
	}
}

// The places of tablespaces come from the repository. A hostile one cannot have
// anything removed or written over.
func TestTablespacesInPlaceOfAHostileManifest(t *testing.T) {
	for _, place := range []string{"/", "/etc", "relative", "", "DIR", "DIR/data/base", "DIR/data"} {
		for _, delta := range []bool{false, true} {
			f := newFixture(t)
			dir := t.TempDir()
			s := summary(first, 1, 3, 3)
			s.Tablespaces[0].Location = strings.ReplaceAll(place, "DIR", dir)
			f.plainBackup(s)
			f.segments(1, 3, 3)
			_, err := MakePlan(context.Background(), f.Repository, Options{Backup: first, Directory: filepath.Join(dir, "data"), Exact: true, Delta: delta, InPlace: true})
			if !errors.As(err, new(*OccupiedError)) && !errors.As(err, new(*OptionError)) {
				t.Errorf("tablespace at %q: %v", place, err)
			}
		}
	}
}
