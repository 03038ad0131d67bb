package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/pgmoneta/pgmoneta-go/test/pgtest"
)

// walCommand returns a restore_command or archive_command for a server of the daemon.
func (d *daemon) walCommand(args string) string {
	verb, rest, _ := strings.Cut(args, " ")
	return fmt.Sprintf("%s %s -c %s %s", filepath.Join(d.bin, "pgmoneta-wal"), verb, d.path("pgmoneta.conf"), rest)
}

// directory restores the newest backup without any WAL after it and returns its directory, which has the signal file.
func (d *daemon) directory(t *testing.T, signal string) string {
	t.Helper()
	target := filepath.Join(t.TempDir(), "restore")
	if err := os.Mkdir(target, 0o700); err != nil {
		t.Fatal(err)
	}
	pgtest.Own(t, target)
	dir := d.must(t, "restore", "primary", "newest", target)["Directory"].(string)
	if err := os.WriteFile(filepath.Join(dir, signal), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}

// archivedOn lists the stored files of WAL of a timeline.
func (d *daemon) archivedOn(t *testing.T, timeline string) []string {
	t.Helper()
	entries, err := os.ReadDir(d.path("base/primary/wal/" + timeline))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// fillWAL writes about one segment of 1 MiB in each of n rounds.
func fillWAL(t *testing.T, s *pgtest.Server, n int) {
	t.Helper()
	s.Exec(t, "CREATE TABLE IF NOT EXISTS filler (i bigserial, t text)")
	for range n {
		s.Exec(t, "INSERT INTO filler (t) SELECT repeat(md5(i::text), 25) FROM generate_series(1, 900) AS i")
	}
}

// A standby that has no primary replays a long archive and follows it to the last received byte, one daemon restart
// included; promoted, it leaves nothing in the spool.
func TestStandbyReplaysFromArchiveAlone(t *testing.T) {
	t.Parallel()
	pgtest.ForEach(t, func(t *testing.T, major int) {
		t.Parallel()
		s := pgtest.Start(t, pgtest.Options{Major: major, WALSegmentSize: 1})
		d := newDaemon(t, map[string]*pgtest.Server{"primary": s})
		d.waitStreaming(t, "primary")
		d.must(t, "backup", "primary")
		fillWAL(t, s, 60)
		standby := pgtest.OpenDir(t, major, d.directory(t, "standby.signal"), pgtest.Options{Settings: map[string]string{
			"restore_command":             d.walCommand("get --partial --prefetch 4 primary %f %p"),
			"wal_retrieve_retry_interval": "50ms",
			"primary_conninfo":            "",
		}})
		standby.CatchUp(t, s)
		pgtest.EqualContent(t, s, standby)
		d.kill()
		d.start(t)
		d.waitStreaming(t, "primary")
		fillWAL(t, s, 3)
		standby.CatchUp(t, s)
		pgtest.EqualContent(t, s, standby)

		spool := filepath.Join(standby.DataDir, "pg_wal", "pgmoneta-prefetch")
		if _, err := os.Stat(filepath.Join(spool, "lock")); err != nil {
			t.Errorf("nothing was prepared: %v", err)
		}
		standby.Promote(t)
		waitFor(t, 10*time.Second, "the spool to be empty", func() error {
			left, _ := filepath.Glob(filepath.Join(spool, "*.*"))
			if len(left) > 0 {
				return fmt.Errorf("%v", left)
			}
			return nil
		})
	})
}

// Both ways into one archive at once: the receiver streams while the server archives. Server and daemon are restarted
// in between. Nobody refuses anything, and the archive is whole.
func TestPushAndStreamIntoOneArchive(t *testing.T) {
	t.Parallel()
	s := pgtest.Start(t, pgtest.Options{Major: pgtest.Newest(t), WALSegmentSize: 1, Settings: map[string]string{"archive_mode": "on"}})
	d := newDaemon(t, map[string]*pgtest.Server{"primary": s})
	d.waitStreaming(t, "primary")
	s.Exec(t, "ALTER SYSTEM SET archive_command = '"+d.walCommand("push primary %p")+"'")
	s.Exec(t, "SELECT pg_reload_conf()")
	d.must(t, "backup", "primary")
	fillWAL(t, s, 10)
	s.Restart(t)
	fillWAL(t, s, 10)
	d.kill()
	fillWAL(t, s, 10) // archived by the server alone
	d.start(t)
	d.waitStreaming(t, "primary")
	fillWAL(t, s, 10)
	last := s.SwitchWAL(t)
	s.WaitFor(t, fmt.Sprintf("(SELECT last_archived_wal >= '%s' FROM pg_stat_archiver)", last))
	if failed := s.QueryString(t, "SELECT failed_count FROM pg_stat_archiver"); failed != "0" {
		t.Errorf("%s pushes failed, the last of %s", failed, s.QueryString(t, "SELECT last_failed_wal FROM pg_stat_archiver"))
	}
	names := slices.DeleteFunc(d.archivedOn(t, "00000001"), func(name string) bool { return len(name) != 24 })
	for i, name := range names[1:] {
		before, _ := strconv.ParseUint(names[i][8:], 16, 64)
		if now, _ := strconv.ParseUint(name[8:], 16, 64); now != before+1 && name[16:] != "00000000" {
			t.Errorf("%s is followed by %s", names[i], name)
		}
	}
	if newest := names[len(names)-1]; newest < last {
		t.Errorf("%s is the last stored, want %s", newest, last)
	}
	labels := slices.DeleteFunc(d.archivedOn(t, "00000001"), func(name string) bool { return !strings.HasSuffix(name, ".backup") })
	if len(labels) == 0 {
		t.Error("no backup history file was pushed")
	}
	waitFor(t, 20*time.Second, "the receiver to store what it has", func() error {
		left, _ := filepath.Glob(d.path("base/primary/receive/") + strings.Repeat("[0-9A-F]", 24))
		if len(left) > 0 {
			return fmt.Errorf("%v", left)
		}
		return nil
	})

	copy := pgtest.OpenDir(t, s.Major, d.directory(t, "recovery.signal"), pgtest.Options{Settings: map[string]string{
		"restore_command": d.walCommand("get primary %f %p"), "archive_mode": "off",
	}})
	pgtest.EqualContent(t, s, copy)
}

// A recovery whose archive has a hole stops there with the segment's name. It does not come up without what follows.
func TestRecoveryStopsAtHole(t *testing.T) {
	t.Parallel()
	s := pgtest.Start(t, pgtest.Options{Major: pgtest.Newest(t), WALSegmentSize: 1})
	d := newDaemon(t, map[string]*pgtest.Server{"primary": s})
	d.waitStreaming(t, "primary")
	d.must(t, "backup", "primary")
	fillWAL(t, s, 12)
	last := s.SwitchWAL(t)
	waitFor(t, 20*time.Second, "the last segment to be stored", func() error {
		if names := d.archivedOn(t, "00000001"); !slices.Contains(names, last) {
			return fmt.Errorf("%s of %s", names[len(names)-1], last)
		}
		return nil
	})
	names := d.archivedOn(t, "00000001")
	missing := names[len(names)-4]
	if err := os.Remove(d.path("base/primary/wal/00000001/" + missing)); err != nil {
		t.Fatal(err)
	}
	dir := d.directory(t, "recovery.signal")
	options := func(flags string) pgtest.Options {
		return pgtest.Options{Settings: map[string]string{"restore_command": d.walCommand("get " + flags + " primary %f %p")}}
	}
	stopped, err := pgtest.TryOpenDir(t, s.Major, dir, options(""))
	if err == nil {
		t.Fatal("recovery ended at the hole as if it were the end")
	}
	if log := stopped.Log(t); !strings.Contains(log, missing) || !strings.Contains(log, "--end-at-hole") {
		t.Errorf("the log does not say what is missing:\n%s", log)
	}
	accepted := pgtest.OpenDir(t, s.Major, dir, options("--end-at-hole"))
	if n := accepted.QueryString(t, "SELECT count(*) FROM filler"); n == "0" || n == s.QueryString(t, "SELECT count(*) FROM filler") {
		t.Errorf("%s rows after the accepted hole", n)
	}
}

// Segments that archive_command gives up are holes until they come another way. Here the daemon is down
// meanwhile, and streams them when it is back.
func TestDroppedSegmentsAreHolesUntilTheyAreStreamed(t *testing.T) {
	t.Parallel()
	s := pgtest.Start(t, pgtest.Options{Major: pgtest.Newest(t), WALSegmentSize: 1, Settings: map[string]string{"archive_mode": "on"}})
	d := newDaemon(t, map[string]*pgtest.Server{"primary": s}, "on_gap = continue")
	d.waitStreaming(t, "primary")
	d.kill()
	s.Exec(t, "ALTER SYSTEM SET archive_command = '"+d.walCommand("push --max-queue 1K --drop-when-full primary %p")+"'")
	s.Exec(t, "SELECT pg_reload_conf()")
	fillWAL(t, s, 5)
	last := s.SwitchWAL(t)
	s.WaitFor(t, fmt.Sprintf("(SELECT last_archived_wal >= '%s' FROM pg_stat_archiver)", last))
	if out, code := d.cli(t, "wal", "check", "--offline", "primary"); code != 2 || !strings.Contains(out, "dropped") || !strings.Contains(out, "archive_command") {
		t.Errorf("wal check: exit %d, want 2 and what was dropped\n%s", code, out)
	}
	if log := s.Log(t); !strings.Contains(log, last+": DROPPED, the archive has a hole now") {
		t.Errorf("the log does not tell of %s:\n%s", last, log)
	}
	d.start(t)
	d.waitStreaming(t, "primary")
	waitFor(t, 20*time.Second, "the holes to be filled", func() error {
		if n := d.status(t, "primary")["Holes"]; n != 0.0 {
			return fmt.Errorf("%v holes", n)
		}
		return nil
	})
	d.must(t, "wal", "check", "primary")
	waitFor(t, 20*time.Second, "the state of the slot", func() error {
		if page := d.scrape(t); !strings.Contains(page, `state="reserved"} 1`) || !strings.Contains(page, "pgmoneta_wal_slot_retained_bytes") {
			return fmt.Errorf("the metrics page:\n%s", page)
		}
		return nil
	})
}

// The receiver lags behind, and archive_command stores what comes much later: in between the archive has a gap. When the
// receiver goes on, in a new process, it must go on at the gap and not after the newest segment.
func TestReceiverThatLagsGoesOnAtTheGapBeforePushedSegments(t *testing.T) {
	t.Parallel()
	pgtest.ForEach(t, func(t *testing.T, major int) {
		t.Parallel()
		s := pgtest.Start(t, pgtest.Options{Major: major, WALSegmentSize: 1, Settings: map[string]string{"archive_mode": "on", "archive_command": "true"}})
		d := newDaemon(t, map[string]*pgtest.Server{"primary": s}, "on_gap = stop")
		d.waitStreaming(t, "primary")
		d.must(t, "backup", "primary")
		worker := d.worker(t, "primary")
		if err := syscall.Kill(worker, syscall.SIGSTOP); err != nil {
			t.Fatal(err)
		}
		fillWAL(t, s, 5)
		gap := s.SwitchWAL(t)
		s.WaitFor(t, fmt.Sprintf("(SELECT last_archived_wal >= '%s' FROM pg_stat_archiver)", gap))
		s.Exec(t, "ALTER SYSTEM SET archive_command = '"+d.walCommand("push primary %p")+"'")
		s.Exec(t, "SELECT pg_reload_conf()")
		fillWAL(t, s, 5)
		pushed := s.SwitchWAL(t)
		s.WaitFor(t, fmt.Sprintf("(SELECT last_archived_wal >= '%s' FROM pg_stat_archiver)", pushed))
		if names := d.archivedOn(t, "00000001"); slices.Contains(names, gap) || !slices.Contains(names, pushed) {
			t.Fatalf("the archive has %v; want it without %s and with %s", names, gap, pushed)
		}

		if err := syscall.Kill(worker, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		waitFor(t, 30*time.Second, "the gap to be received", func() error {
			if names := d.archivedOn(t, "00000001"); !slices.Contains(names, gap) {
				return fmt.Errorf("%s is not in %v", gap, names)
			}
			return nil
		})
		s.SwitchWAL(t)
		resp := d.must(t, "wal", "check", "primary")
		number(t, resp, "NumberOfHoles", 0)
		if ranges := resp["Ranges"].([]any); len(ranges) != 1 {
			t.Errorf("the archive has %d ranges: %v", len(ranges), ranges)
		}
		pgtest.EqualContent(t, s, d.restored(t, major, "primary", "latest"))
	})
}

// A restored cluster whose WAL the retention has removed meanwhile does not start at an earlier moment than it was
// told to: recovery stops, whether later WAL of its timeline is archived or only that of the next.
func TestRecoveryStopsWhereTheRetentionRemovedItsWAL(t *testing.T) {
	t.Parallel()
	for _, promoted := range []bool{false, true} {
		t.Run(fmt.Sprintf("promoted %t", promoted), func(t *testing.T) {
			t.Parallel()
			s := pgtest.Start(t, pgtest.Options{WALSegmentSize: 1})
			d := newDaemon(t, map[string]*pgtest.Server{"primary": s}, "retention_interval = 3600")
			d.waitStreaming(t, "primary")
			d.must(t, "backup", "primary")
			fillWAL(t, s, 5)
			restored := d.directory(t, "recovery.signal")
			if promoted {
				s.Exec(t, "ALTER SYSTEM SET restore_command = 'false'")
				s.Stop(t, pgtest.Fast)
				if err := os.WriteFile(filepath.Join(s.DataDir, "recovery.signal"), nil, 0o600); err != nil {
					t.Fatal(err)
				}
				pgtest.Own(t, s.DataDir)
				s.Restart(t)
			}
			fillWAL(t, s, 3)
			d.waitStreaming(t, "primary")
			d.must(t, "backup", "primary")
			d.must(t, "delete", "--force", "primary", "oldest")
			if got := d.retained(t, "primary"); got["DeletedSegments"] == 0.0 {
				t.Fatalf("retention: %v", got)
			}
			cluster, err := pgtest.TryOpenDir(t, s.Major, restored, pgtest.Options{Settings: map[string]string{
				"restore_command": d.walCommand("get primary %f %p"),
			}})
			if err == nil {
				t.Errorf("the restored cluster started at %s of %s", cluster.QueryString(t, "SELECT pg_current_wal_lsn()"),
					s.QueryString(t, "SELECT pg_current_wal_lsn()"))
			}
			why := "it is missing, although"
			if promoted {
				why = "the retention removed WAL of timeline 1"
			}
			if log := cluster.Log(t); !strings.Contains(log, why) {
				t.Errorf("%q is not in the log:\n%s", why, log)
			}
		})
	}
}
