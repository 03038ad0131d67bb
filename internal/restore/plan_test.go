package restore

import (
	"context"
	"errors"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/pgmoneta/pgmoneta-go/internal/pg"
	"github.com/pgmoneta/pgmoneta-go/internal/repo"
)

// received puts a partial segment with its first bytes into the receive directory.
func (f *fixture) received(tli pg.Timeline, n, bytes int) {
	f.t.Helper()
	f.must(os.MkdirAll(f.ReceiveDir(), 0o700))
	b := make([]byte, mib)
	copy(b, walText(tli, n)[:bytes])
	f.must(os.WriteFile(filepath.Join(f.ReceiveDir(), f.name(tli, n)+".partial"), b, 0o600))
}

func (f *fixture) plan(backup, position string) (*Plan, error) {
	f.t.Helper()
	target, err := ParsePosition(position)
	f.must(err)
	return MakePlan(context.Background(), f.Repository, Options{Backup: backup, Target: target, Directory: f.t.TempDir()})
}

const (
	first  = "20261101000000"
	second = "20261102000000"
	third  = "20261103000000"
)

// branched is an archive of two timelines: 1 up to segment 9 and on to segment
// 12 after it was left at 9.5, 2 from segment 9 to the middle of segment 14. Its
// backups are in segments 3, 6 and, on timeline 2, 11.
func branched(t *testing.T) *fixture {
	t.Helper()
	f := newFixture(t)
	f.plainBackup(summary(first, 1, 3, 3))
	f.plainBackup(summary(second, 1, 6, 7))
	f.plainBackup(summary(third, 2, 11, 11))
	f.segments(1, 2, 12)
	f.segments(2, 9, 13)
	f.history(2, "1 0/980000")
	f.received(2, 14, mib/2)
	return f
}

func TestPlanChoosesBackupTimelineAndWAL(t *testing.T) {
	f := branched(t)
	span := func(tli pg.Timeline, from, to int) (names []string) {
		for n := from; n <= to; n++ {
			names = append(names, f.name(tli, n))
		}
		return names
	}
	tests := []struct {
		name             string
		backup, position string
		label            string
		timeline         pg.Timeline
		segments         []string
		end              pg.LSN
		histories        []pg.Timeline
		signal           string
	}{
		{"none", second, "", second, 1, span(1, 6, 7), 8 * mib, nil, ""},
		{"newest", "newest", "", third, 2, span(2, 11, 11), 12 * mib, []pg.Timeline{2}, ""},
		{"oldest", "oldest", "", first, 1, span(1, 3, 3), 4 * mib, nil, ""},
		{"immediate, with a record after it", first, "current", first, 1, span(1, 3, 4), 5 * mib, []pg.Timeline{2}, recoverySignal},
		{"latest follows the switch and takes the partial one", second, "latest", second, 2,
			slices.Concat(span(1, 6, 8), span(2, 9, 14)), 14*mib + mib/2, []pg.Timeline{2}, recoverySignal},
		{"latest of the branch that was left", second, "timeline=current", second, 1, span(1, 6, 12), 13 * mib, []pg.Timeline{2}, recoverySignal},
		{"oldest with latest is the newest that leads there", "oldest", "latest", third, 2, span(2, 11, 14), 14*mib + mib/2, []pg.Timeline{2}, recoverySignal},
		{"an LSN picks the backup before it", "newest", "lsn=0/A00000", second, 2, slices.Concat(span(1, 6, 8), span(2, 9, 14)), 14*mib + mib/2, []pg.Timeline{2}, recoverySignal},
		{"an LSN on the branch that was left", "newest", "lsn=0/B10000,timeline=1", second, 1, span(1, 6, 12), 13 * mib, []pg.Timeline{2}, recoverySignal},
		{"an LSN just after a backup", "newest", "lsn=0/780000", second, 2, slices.Concat(span(1, 6, 8), span(2, 9, 14)), 14*mib + mib/2, []pg.Timeline{2}, recoverySignal},
		{"a time picks the backup before it", "newest", "time=2026-11-02 00:00:00Z", second, 2, slices.Concat(span(1, 6, 8), span(2, 9, 14)), 14*mib + mib/2, []pg.Timeline{2}, recoverySignal},
		{"a name does not pick", "oldest", "name=x,timeline=1", first, 1, span(1, 3, 12), 13 * mib, []pg.Timeline{2}, recoverySignal},
		{"a label stays", first, "time=2026-11-09 00:00:00Z", first, 2, slices.Concat(span(1, 3, 8), span(2, 9, 14)), 14*mib + mib/2, []pg.Timeline{2}, recoverySignal},
		{"a replica gets all WAL", third, "replica", third, 2, span(2, 11, 14), 14*mib + mib/2, []pg.Timeline{2}, standbySignal},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p, err := f.plan(tt.backup, tt.position)
			if err != nil {
				t.Fatal(err)
			}
			var names []string
			for _, s := range p.Segments {
				names = append(names, s.Name)
			}
			if string(p.Backup.Label) != tt.label || p.Timeline != tt.timeline || !slices.Equal(names, tt.segments) || p.WALEnd != tt.end ||
				!slices.Equal(p.Histories, tt.histories) || p.Signal != tt.signal {
				t.Errorf("plan: backup %s, timeline %d, WAL to %s in %v, histories %v, signal %q;\nwant %s, %d, %s, %v, %v, %q", p.Backup.Label, p.Timeline,
					p.WALEnd, names, p.Histories, p.Signal, tt.label, tt.timeline, tt.end, tt.segments, tt.histories, tt.signal)
			}
		})
	}
}

func TestPlanSuppliesOneReachPastAnLSN(t *testing.T) {
	f := newFixture(t)
	f.plainBackup(summary(first, 1, 3, 3))
	f.segments(1, 3, 40)
	p, err := f.plan(first, "lsn=0/580000")
	if err != nil || len(p.Segments) != 19 || p.WALEnd != 22*mib {
		t.Fatalf("plan %+v, %v; want segments 3 to 21, 16 MiB past the target", p, err)
	}
}

func TestPlanRefusesTargets(t *testing.T) {
	f := branched(t)
	tests := []struct{ backup, position, want string }{
		{second, "lsn=0/700000", "it ends at 0/780000, after the target"},
		{second, "time=2026-11-01 23:59:59Z", "it ended at 2026-11-02 00:00:00Z, after the target"},
		{second, "lsn=0/E80000", "ends at 0/E80000: wait"},
		{second, "lsn=FFFFFFFF/FFFFFFFF", "ends at 0/E80000: wait"},
		{second, "lsn=0/E00000,timeline=1", "ends at 0/D00000: wait"},
		{second, "timeline=3", "history of timeline 3 is not archived"},
		{third, "timeline=1", "timeline 1 does not go through its end"},
	}
	for _, tt := range tests {
		_, err := f.plan(tt.backup, tt.position)
		var e *TargetError
		if !errors.As(err, &e) || string(e.Label) != tt.backup || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("restore of %s to %q: %v; want a TargetError with %q", tt.backup, tt.position, err, tt.want)
		}
	}
	for _, position := range []string{"lsn=0/300000", "time=2026-10-31 00:00:00Z", "latest,timeline=7"} {
		if _, err := f.plan("newest", position); !errors.Is(err, repo.ErrNoBackup) {
			t.Errorf("newest to %q: %v; want no backup", position, err)
		}
	}
	if _, err := f.plan("newest", "timeline=7"); err == nil || !strings.Contains(err.Error(), "there is no timeline 7, the latest is 2") {
		t.Errorf("a timeline that there is not: %v", err)
	}
	if _, err := f.plan("20270101000000", ""); !errors.Is(err, repo.ErrNoBackup) {
		t.Errorf("an unknown label: %v", err)
	}
}

func TestPlanRefusesHoleInWAL(t *testing.T) {
	tests := []struct {
		name, position string
		missing        []int
		want           HoleError
		ok             bool
	}{
		{"before the target", "latest", []int{6, 7}, HoleError{Timeline: 1, From: 6 * mib, To: 8 * mib, Nearest: "lsn=0/500000"}, false},
		{"before an LSN", "lsn=0/650000", []int{6}, HoleError{Timeline: 1, From: 6 * mib, To: 7 * mib, Nearest: "lsn=0/500000"}, false},
		{"after an LSN", "lsn=0/550000", []int{6}, HoleError{}, true},
		{"right behind the backup", "latest", []int{4}, HoleError{Timeline: 1, From: 4 * mib, To: 5 * mib, Nearest: "immediate"}, false},
		{"after the backup, none asked for", "", []int{4}, HoleError{}, true},
		{"inside the backup", "", []int{2}, HoleError{Timeline: 1, From: 2 * mib, To: 3 * mib}, false},
		{"at the start of the backup", "immediate", []int{1}, HoleError{Timeline: 1, From: mib + 40, To: 2 * mib}, false},
		{"all WAL of the backup", "", []int{1, 2, 3, 4, 5, 6, 7, 8, 9}, HoleError{Timeline: 1, From: mib + 40, To: 3*mib + mib/2}, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f := newFixture(t)
			f.plainBackup(summary(first, 1, 1, 3))
			for n := 1; n <= 9; n++ {
				if !slices.Contains(tt.missing, n) {
					f.segments(1, n, n)
				}
			}
			tt.want.Server, tt.want.Label = "primary", first
			_, err := f.plan(first, tt.position)
			var hole *HoleError
			if tt.ok && err == nil {
				return
			}
			if !errors.As(err, &hole) || tt.ok || *hole != tt.want {
				t.Fatalf("restore to %q: %v; want %+v", tt.position, err, tt.want)
			}
			if nearest := hole.Nearest; nearest != "" {
				if _, err := f.plan(first, nearest); err != nil {
					t.Errorf("the nearest position %q: %v", nearest, err)
				}
			}
		})
	}
}

// The first segment of the new timeline has not arrived, or only its beginning:
// the old one's copy leads on, but only to where it was left.
func TestPlanFallsBackToTheOldTimelineAtItsEnd(t *testing.T) {
	for _, bytes := range []int{-1, 0, 1000} {
		f := newFixture(t)
		f.plainBackup(summary(first, 1, 3, 3))
		f.segments(1, 3, 9)
		f.history(2, "1 0/980000")
		if bytes >= 0 {
			f.received(2, 9, bytes)
		}
		p, err := f.plan(first, "latest")
		if err != nil {
			t.Fatal(err)
		}
		if last := p.Segments[len(p.Segments)-1]; p.Timeline != 2 || last.Name != f.name(1, 9) || p.WALEnd != 9*mib+mib/2 {
			t.Errorf("%d bytes: timeline %d, last segment %+v, WAL to %s", bytes, p.Timeline, last, p.WALEnd)
		}
	}
}

// The next segment is begun while the one before it waits for its sync. It ends
// in zeros, because the server switched segments early, and is complete.
func TestPlanTakesASegmentThatWaitsForItsSync(t *testing.T) {
	f := newFixture(t)
	f.plainBackup(summary(first, 1, 3, 3))
	f.segments(1, 3, 5)
	f.received(1, 6, 168)
	f.received(1, 7, 4096)
	p, err := f.plan(first, "latest")
	if err != nil {
		t.Fatal(err)
	}
	if last := p.Segments[len(p.Segments)-1]; last.Name != f.name(1, 7) || p.WALEnd != 7*mib+4096 {
		t.Errorf("last segment %+v, WAL to %s; want that of segment 7", last, p.WALEnd)
	}
}

func TestPlanRefusesWhatIsDamagedOrMissing(t *testing.T) {
	f := newFixture(t)
	rows, packs := f.rows(first, plain())
	f.backup(summary(first, 1, 3, 3), rows, append(packs, repo.PackRef{Name: "pack/" + first + "/2"}))
	f.plainBackup(summary(second, 1, 3, 3))
	f.segments(1, 3, 4)
	_, err := f.plan(first, "")
	var missing *MissingError
	if !errors.As(err, &missing) || missing.Object != "pack/"+first+"/2" {
		t.Errorf("a pack is missing: %v", err)
	}
	f.must(f.Engine().Delete(context.Background(), repo.PostgresManifestName(second)))
	if _, err = f.plan(second, ""); !errors.As(err, &missing) || missing.Object != repo.PostgresManifestName(second) {
		t.Errorf("backup_manifest is missing: %v", err)
	}
	f.must(os.WriteFile(filepath.Join(f.Dir(), "backup", second, "manifest"), []byte("garbage"), 0o600))
	if _, err = f.plan("newest", ""); err == nil || !strings.Contains(err.Error(), second) {
		t.Errorf("the newest manifest is damaged: %v", err)
	}
}

func TestPlanRefusesFullDisk(t *testing.T) {
	f := newFixture(t)
	for label, size := range map[string]int64{first: 1 << 55, second: math.MaxInt64} {
		s := summary(label, 1, 3, 3)
		rows, packs := f.rows(s.Label, plain())
		w, err := f.NewManifestWriter(context.Background(), s.Label)
		f.must(err)
		f.must(w.Add(rows[0]))
		s.Logical = size
		f.must(w.Commit(context.Background(), s, packs))
	}
	f.segments(1, 3, 3)
	for _, label := range []string{first, second} {
		_, err := f.plan(label, "")
		var space *SpaceError
		if !errors.As(err, &space) || space.Free <= 0 {
			t.Errorf("backup %s: %v; want a SpaceError", label, err)
		}
	}
}

func TestPlanRefusesOccupiedDirectory(t *testing.T) {
	f := newFixture(t)
	f.plainBackup(summary(first, 1, 3, 3))
	f.segments(1, 3, 3)
	tests := []struct {
		name, path, content string
		ok                  bool
	}{
		{"an empty directory", "primary-" + first + "/", "", true},
		{"a file in it", "primary-" + first + "/notes", "x", false},
		{"a finished restore", "primary-" + first + "/global/pg_control", "x", false},
		{"a file in its place", "primary-" + first, "x", false},
		{"a link in its place", "primary-" + first, "-> /tmp", false},
		{"a file in a tablespace", "primary-" + first + "-tblspc_fast disk/notes", "x", false},
		{"a marker", "primary-" + first + "/" + marker, "x", true},
	}
	for _, tt := range tests {
		dir := t.TempDir()
		path := filepath.Join(dir, tt.path)
		target, isLink := strings.CutPrefix(tt.content, "-> ")
		switch {
		case strings.HasSuffix(tt.path, "/"):
			f.must(os.MkdirAll(path, 0o700))
		case isLink:
			f.must(os.Symlink(target, path))
		default:
			f.must(os.MkdirAll(filepath.Dir(path), 0o700))
			f.must(os.WriteFile(path, []byte(tt.content), 0o600))
		}
		_, err := MakePlan(context.Background(), f.Repository, Options{Backup: first, Directory: dir})
		var occupied *OccupiedError
		if tt.ok && err != nil || !tt.ok && !errors.As(err, &occupied) {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
}

func TestPlanSettings(t *testing.T) {
	f := branched(t)
	tests := []struct {
		position string
		want     []Setting
	}{
		{"", nil},
		{"port=5433", []Setting{{"port", "5433"}}},
		{"latest", []Setting{{"restore_command", "false"}, {"recovery_target_timeline", "2"}}},
		{"immediate,action=promote", []Setting{{"restore_command", "false"}, {"recovery_target_timeline", "1"}, {"recovery_target", "immediate"}, {"recovery_target_action", "promote"}}},
		{"xid=900,inclusive=off,timeline=1,restore_command=cp /a/%f %p", []Setting{{"recovery_target_timeline", "1"}, {"recovery_target_xid", "900"},
			{"recovery_target_inclusive", "off"}, {"restore_command", "cp /a/%f %p"}}},
		{"time=2026-11-05 12:00:00.5+02", []Setting{{"restore_command", "false"}, {"recovery_target_timeline", "2"}, {"recovery_target_time", "2026-11-05 10:00:00.5+00:00"}}},
		{"replica", []Setting{{"primary_conninfo", "host=h user=u"}, {"primary_slot_name", "slot"}, {"restore_command", "false"}, {"recovery_target_timeline", "latest"}}},
		{"replica,timeline=1,name=x", []Setting{{"primary_conninfo", "host=h user=u"}, {"primary_slot_name", "slot"}, {"restore_command", "false"},
			{"recovery_target_timeline", "1"}, {"recovery_target_name", "x"}}},
	}
	for _, tt := range tests {
		target, err := ParsePosition(tt.position)
		f.must(err)
		o := Options{Backup: second, Target: target, Directory: t.TempDir(), PrimaryConninfo: "host=h user=u", PrimarySlot: "slot"}
		p, err := MakePlan(context.Background(), f.Repository, o)
		if err != nil || !reflect.DeepEqual(p.Settings, tt.want) {
			t.Errorf("%q: settings %v, %v; want %v", tt.position, p, err, tt.want)
		}
	}
	for _, conninfo := range []string{"host=h password=x", "host=h PASSWORD = x", "postgres://u:x@h/", "host=h\nuser=u"} {
		o := Options{Backup: second, Target: Target{Replica: true}, Directory: t.TempDir(), PrimaryConninfo: conninfo}
		if _, err := MakePlan(context.Background(), f.Repository, o); err == nil || strings.Contains(err.Error(), "=x") {
			t.Errorf("primary_conninfo %q: %v", conninfo, err)
		}
	}
}

func TestRewriteConfReplacesEarlierRecovery(t *testing.T) {
	before := "# comment\nport = '5'\n recovery_target_time='yesterday'\nPrimary_Conninfo = 'x'\nwork_mem = '1MB'\nrestore_command 'cp'"
	p := &Plan{Backup: summary(first, 1, 3, 3), Signal: recoverySignal, Settings: []Setting{{"port", "6"}, {"restore_command", "false"}, {"a.b", `it's a \`}}}
	want := "# comment\n# port = '5'\n#  recovery_target_time='yesterday'\n# Primary_Conninfo = 'x'\nwork_mem = '1MB'\n# restore_command 'cp'\n\n" +
		"# Begin of recovery settings, written when backup " + first + " was restored.\n" +
		"# All archived WAL that is needed lies in pg_wal, so restore_command has nothing to fetch.\n" +
		"port = '6'\nrestore_command = 'false'\na.b = 'it''s a \\\\'\n# End of recovery settings.\n"
	if got := string(rewriteConf([]byte(before), p)); got != want {
		t.Errorf("rewritten:\n%s\nwant:\n%s", got, want)
	}
	if got := string(rewriteConf([]byte("work_mem = '1MB'\n"), &Plan{})); got != "work_mem = '1MB'\n" {
		t.Errorf("nothing to do, but it became %q", got)
	}
}
