package pgtest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

func TestParseMajors(t *testing.T) {
	tests := []struct {
		in   string
		want []int
	}{
		{"", []int{15, 17}},
		{"all", []int{14, 15, 16, 17, 18}},
		{"18 14", []int{14, 18}},
		{"16,16", []int{16}},
		{"13", nil},
		{"new", nil},
	}
	for _, tt := range tests {
		got, err := parseMajors(tt.in)
		if !slices.Equal(got, tt.want) || (err != nil) != (tt.want == nil) {
			t.Errorf("parseMajors(%q) = %v, %v, want %v", tt.in, got, err, tt.want)
		}
	}
}

func TestFormatSettingsQuotes(t *testing.T) {
	got := formatSettings(map[string]string{"b": `it's`, "a": `C:\x`})
	want := "a = 'C:\\\\x'\nb = 'it''s'\n"
	if got != want {
		t.Errorf("formatSettings = %q, want %q", got, want)
	}
}

func TestStartServesEveryVersion(t *testing.T) {
	ForEach(t, func(t *testing.T, major int) {
		Start(t, Options{Major: major}) // makes the template
		begin := time.Now()
		s := Start(t, Options{Major: major})
		t.Logf("PostgreSQL %d ready after %s", major, time.Since(begin))
		if got := s.QueryString(t, "select current_setting('server_version_num')::int / 10000"); got != fmt.Sprint(major) {
			t.Errorf("server version is %s, want %d", got, major)
		}
		if got := s.QueryString(t, "select current_setting('data_checksums')"); got != "on" {
			t.Errorf("data_checksums = %s, want on", got)
		}
	})
}

func TestOptionsReachTheServer(t *testing.T) {
	t.Parallel()
	s := Start(t, Options{WALSegmentSize: 1, NoChecksums: true, Fresh: true, Settings: map[string]string{"work_mem": "7MB", "application_name": `a'b`}})
	for setting, want := range map[string]string{"wal_segment_size": "1MB", "data_checksums": "off", "work_mem": "7MB", "application_name": "a'b"} {
		if got := s.QueryString(t, "show "+setting); got != want {
			t.Errorf("%s = %s, want %s", setting, got, want)
		}
	}
	other := Start(t, Options{WALSegmentSize: 1})
	const identifier = "select system_identifier from pg_control_system()"
	if s.QueryString(t, identifier) == other.QueryString(t, identifier) {
		t.Error("a fresh server has the system identifier of another")
	}
}

func TestReplicationRoleNeedsItsPassword(t *testing.T) {
	t.Parallel()
	s := Start(t, Options{})
	ctx := t.Context()
	conn, err := pgx.Connect(ctx, s.ReplDSN())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(ctx)
	var monitor, super bool
	if err := conn.QueryRow(ctx, "select pg_has_role('pg_monitor', 'member'), rolsuper from pg_roles where rolname = current_user").Scan(&monitor, &super); err != nil {
		t.Fatal(err)
	}
	if !monitor || super {
		t.Errorf("role %s: member of pg_monitor %v, superuser %v, want true, false", ReplUser, monitor, super)
	}
	if _, err := pgx.Connect(ctx, strings.Replace(s.ReplDSN(), ReplPassword, "wrong", 1)); err == nil {
		t.Error("a wrong password was accepted")
	}
	if _, err := pgx.Connect(ctx, strings.Replace(s.ReplDSN(), ReplPassword, "wrong", 1)+" replication=true"); err == nil {
		t.Error("a wrong password was accepted for replication")
	}
	replication, err := pgx.Connect(ctx, s.ReplDSN()+" replication=true default_query_exec_mode=simple_protocol")
	if err != nil {
		t.Fatal(err)
	}
	_ = replication.Close(ctx)
}

func TestStandbyFollowsAndIsPromoted(t *testing.T) {
	ForEach(t, func(t *testing.T, major int) {
		t.Parallel()
		primary := Start(t, Options{Major: major})
		primary.Tablespace(t, "elsewhere")
		primary.Exec(t, "create database second")
		primary.Exec(t, "create table a tablespace elsewhere as select i, md5(i::text) from generate_series(1, 5000) i")
		standby := primary.Standby(t, "first")
		primary.Exec(t, "delete from a where i % 7 = 0; select lo_from_bytea(0, 'large')")
		first := primary.SwitchWAL(t)
		if second := primary.SwitchWAL(t); second <= first {
			t.Errorf("SwitchWAL = %s after %s, want a later segment", second, first)
		}
		standby.CatchUp(t, primary)
		EqualContent(t, primary, standby)
		content := ContentHash(t, standby)
		if got := content["postgres.public.a"]; !strings.HasPrefix(got, "4286 rows, md5 ") {
			t.Errorf("content of table a: %q, want 4286 rows", got)
		}
		standby.Promote(t)
		standby.Exec(t, "insert into a values (0, 'new timeline')")
		if got := standby.QueryString(t, "select substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8)"); got != "00000002" {
			t.Errorf("timeline after the promotion: %s, want 00000002", got)
		}
		differences := contentDifferences(content, ContentHash(t, standby))
		if len(differences) != 1 || !strings.HasPrefix(differences[0], "postgres.public.a: ") {
			t.Errorf("differences after one insert: %q, want one of table a", differences)
		}
	})
}

func TestLoadLosesNothingOverKillAndRestart(t *testing.T) {
	ForEach(t, func(t *testing.T, major int) {
		t.Parallel()
		s := Start(t, Options{Major: major})
		load := StartLoad(t, s, 3)
		load.WaitFor(t, 100)
		half := time.Now()
		s.Kill(t)
		if s.Running() {
			t.Error("the server is running after it was killed")
		}
		s.Restart(t)
		load.WaitFor(t, 100)
		acked := load.Stop()
		if missing := acked.Missing(t, s); len(missing) > 0 {
			t.Errorf("%d rows are not as acknowledged: %q", len(missing), missing)
		}
		if before := acked.Until(half); len(before) < 100 || len(before) >= len(acked) {
			t.Errorf("%d of %d acknowledged before the kill, want 100 or more, but not all", len(before), len(acked))
		}
	})
}

func TestMissingReportsLossDamageAndHalfTransactions(t *testing.T) {
	t.Parallel()
	s := Start(t, Options{})
	load := StartLoad(t, s, 1)
	load.WaitFor(t, 10)
	acked := load.Stop()
	s.Exec(t, "delete from pgtest_load where seq = 2; update pgtest_load set payload = 'x' where seq = 3")
	missing := acked.Missing(t, s)
	if len(missing) != 3 {
		t.Errorf("Missing = %q, want one lost row, one damaged row, one wrong account", missing)
	}
}

func TestLoadFollowsRedirect(t *testing.T) {
	t.Parallel()
	primary := Start(t, Options{Settings: map[string]string{"synchronous_commit": "remote_apply"}})
	load := StartLoad(t, primary, 2)
	standby := primary.Standby(t, "next")
	primary.Exec(t, "alter system set synchronous_standby_names = 'next'")
	primary.Exec(t, "select pg_reload_conf()")
	primary.WaitFor(t, "exists (select from pg_stat_replication where sync_state = 'sync')")
	load.WaitFor(t, 50)
	primary.Kill(t)
	standby.Promote(t)
	load.Redirect(standby)
	load.WaitFor(t, 50)
	// A commit between the base backup and the reload was not synchronous, but streaming has passed it since.
	if missing := load.Stop().Missing(t, standby); len(missing) > 0 {
		t.Errorf("%d rows are not as acknowledged: %q", len(missing), missing)
	}
}

func TestStopEndsALoadThatWaitsForAStandby(t *testing.T) {
	t.Parallel()
	s := Start(t, Options{SyncStandbyNames: "nobody"})
	load := StartLoad(t, s, 1)
	s.WaitFor(t, "exists (select from pg_stat_activity where wait_event = 'SyncRep')")
	if acked := load.Stop(); len(acked) != 0 {
		t.Errorf("%d transactions acknowledged without the standby they wait for", len(acked))
	}
}

func TestOpenDirServesABaseBackup(t *testing.T) {
	ForEach(t, func(t *testing.T, major int) {
		t.Parallel()
		s := Start(t, Options{Major: major})
		InitBench(t, s, 1)
		dir := filepath.Join(t.TempDir(), "restored")
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		Own(t, dir)
		RunTool(t, s, Tool(t, major, "pg_basebackup"), "-D", dir, "-X", "stream", "-c", "fast", "-d", s.ReplDSN())
		for _, name := range []string{"postgresql.conf", "pg_hba.conf", "pg_ident.conf"} {
			if err := os.Remove(filepath.Join(dir, name)); err != nil {
				t.Fatal(err)
			}
		}
		restored := OpenDir(t, major, dir, Options{Settings: map[string]string{"work_mem": "9MB"}})
		EqualContent(t, s, restored)
		if got := restored.QueryString(t, "show work_mem"); got != "9MB" {
			t.Errorf("work_mem = %s, want 9MB", got)
		}
		if out := RunBench(t, restored, "--client=2", "--transactions=20"); !strings.Contains(out, "number of transactions actually processed: 40/40") {
			t.Errorf("pgbench printed %s", out)
		}
	})
}

func TestOpenDirIsReadyWhenPausedAtItsTarget(t *testing.T) {
	t.Parallel()
	s := Start(t, Options{})
	s.Exec(t, "create table a as select 1 as i")
	standby := s.Standby(t, "")
	standby.CatchUp(t, s)
	standby.Stop(t, Fast)
	s.Exec(t, "select pg_create_restore_point('here')")
	s.Exec(t, "insert into a values (2)")
	paused := OpenDir(t, s.Major, standby.DataDir, Options{Settings: map[string]string{"recovery_target_name": "here"}})
	paused.WaitFor(t, "pg_get_wal_replay_pause_state() = 'paused'")
	if got := paused.QueryString(t, "select count(*) from a"); got != "1" {
		t.Errorf("%s rows at the target, want 1", got)
	}
	paused.Promote(t)
	paused.Exec(t, "insert into a values (3)")
}

func TestTryOpenDirTellsWhyItDoesNotStart(t *testing.T) {
	t.Parallel()
	s, err := TryOpenDir(t, Newest(t), t.TempDir(), Options{})
	if err == nil || s.Running() {
		t.Fatalf("an empty directory was served")
	}
	if !strings.Contains(err.Error(), "is not a valid data directory") {
		t.Errorf("error without the log: %v", err)
	}
}

func TestToolsMatchTheServer(t *testing.T) {
	ForEach(t, func(t *testing.T, major int) {
		path, ok := ToolExact(t, major, "pg_verifybackup")
		if want := major != 14 && major != 16; ok != want {
			t.Fatalf("ToolExact(%d, pg_verifybackup) = %s, %v, want %v", major, path, ok, want)
		}
		out, err := exec.Command(Tool(t, major, "psql"), "--version").CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		want := major
		if !ok {
			want = toolMajor
		}
		if !strings.Contains(string(out), fmt.Sprintf("(PostgreSQL) %d.", want)) {
			t.Errorf("psql for %d is %s, want %d", major, out, want)
		}
	})
}

// leakTest makes the test binary play a test that starts a server and is killed.
const leakTest = "PGTEST_LEAK_A_SERVER"

func TestReapRemovesWhatAKilledTestLeft(t *testing.T) {
	if os.Getenv(leakTest) != "" {
		s := Start(t, Options{})
		fmt.Printf("\nserver %d %d %s\n", s.proc.id.pid, s.proc.id.start, s.base)
		_, _ = io.Copy(io.Discard, os.Stdin) // until killed
		return
	}
	p, base := leakServer(t)
	a, err := serverAccount()
	if err != nil {
		t.Fatal(err)
	}
	reap(a)
	if p.alive() {
		t.Errorf("postmaster %d of a killed test is alive", p.pid)
	}
	if exists(base) {
		t.Errorf("%s of a killed test is there", base)
	}
}

// leakServer runs this test in another process, kills it and returns what it left. A test of another package may have
// removed that already.
func leakServer(t *testing.T) (procID, string) {
	t.Helper()
	cmd := exec.Command("/proc/self/exe", "-test.run=^"+t.Name()+"$")
	cmd.Env = append(os.Environ(), leakTest+"=1")
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	defer stdin.Close()
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var p procID
	var base string
	_, scanErr := fmt.Fscanf(stdout, "\nserver %d %d %s\n", &p.pid, &p.start, &base)
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // it was killed
	if scanErr != nil {
		t.Fatal(scanErr)
	}
	return p, base
}

func TestNothingIsLeftBehind(t *testing.T) {
	t.Parallel()
	var s *Server
	var pid procID
	var shm string
	t.Run("server", func(t *testing.T) {
		s = Start(t, Options{})
		pid = s.proc.id
		raw, err := os.ReadFile(filepath.Join(s.DataDir, "postmaster.pid"))
		if err != nil {
			t.Fatal(err)
		}
		shm = strings.Fields(strings.Split(string(raw), "\n")[6])[1]
		s.Kill(t)
	})
	if pid.alive() {
		t.Errorf("postmaster %d is alive", pid.pid)
	}
	if exists(s.base) {
		t.Errorf("%s is there", s.base)
	}
	segments, err := os.ReadFile("/proc/sysvipc/shm")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(segments)) {
		if fields := strings.Fields(line); fields[1] == shm {
			t.Errorf("shared memory segment %s is there: %s", shm, line)
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if _, err := pgx.Connect(ctx, s.DSN("postgres")); !errors.Is(err, syscall.ENOENT) {
		t.Errorf("connect to a removed server: %v, want no such file", err)
	}
}
