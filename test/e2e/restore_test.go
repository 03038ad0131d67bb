package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/pgmoneta/pgmoneta-go/test/pgtest"
)

// offline restores without the daemon, as whoever runs the test, and returns what was printed.
func (d *daemon) offline(t *testing.T, program string, args ...string) (string, error) {
	t.Helper()
	cmd := exec.Command(filepath.Join(d.bin, program), append([]string{"restore", "--offline", "-c", d.path("pgmoneta.conf")}, args...)...)
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return string(out), err
}

// disaster takes a backup with marks 0 to 3, of which 0 is in it, then ends daemon and
// server. It returns the xid of mark 2.
func disaster(t *testing.T, s *pgtest.Server, d *daemon) (xid string) {
	t.Helper()
	s.Tablespace(t, "fast disk")
	s.Exec(t, `CREATE TABLE marks (n int); INSERT INTO marks VALUES (0);
		CREATE TABLE spread TABLESPACE "fast disk" AS SELECT i FROM generate_series(1, 30000) i`)
	d.waitStreaming(t, "primary")
	d.must(t, "backup", "primary")
	s.Exec(t, "INSERT INTO marks VALUES (1)")
	xid = s.QueryString(t, "INSERT INTO marks VALUES (2) RETURNING pg_current_xact_id()")
	s.Exec(t, "INSERT INTO marks VALUES (3)")
	d.stored(t, "primary", s.SwitchWAL(t))
	d.must(t, "shutdown")
	<-d.exited
	s.Stop(t, pgtest.Immediate)
	return xid
}

// startRestored starts what was restored and returns its marks.
func startRestored(t *testing.T, major int, dir string) string {
	t.Helper()
	s := pgtest.OpenDir(t, major, dir, pgtest.Options{})
	defer s.Stop(t, pgtest.Immediate)
	if n := s.QueryString(t, "SELECT count(*) FROM spread"); n != "30000" {
		t.Errorf("%s rows in the tablespace", n)
	}
	return s.QueryString(t, "SELECT string_agg(n::text, ' ' ORDER BY n) FROM marks")
}

// A machine with the repository and the configuration is enough. The server gets WAL by
// restore_command and the files belong to the user it is to run as.
func TestOfflineRestoreNeedsOnlyTheRepository(t *testing.T) {
	t.Parallel()
	pgtest.ForEach(t, func(t *testing.T, major int) {
		t.Parallel()
		s := pgtest.Start(t, pgtest.Options{Major: major, WALSegmentSize: 1})
		d := newDaemon(t, map[string]*pgtest.Server{"primary": s})
		xid := disaster(t, s, d)

		into := d.path("into")
		if err := os.Mkdir(into, 0o755); err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(d.path("base"))
		if err != nil {
			t.Fatal(err)
		}
		args := []string{"--exact", "--waldir", filepath.Join(into, "wal"), "--tablespace", "fast disk=" + filepath.Join(into, "fast")}
		if os.Geteuid() == 0 {
			args = append(args, "--owner", fmt.Sprint(info.Sys().(*syscall.Stat_t).Uid))
		}
		args = append(args, "primary", "newest", "xid="+xid+",action=promote", filepath.Join(into, "data"))
		out, err := d.offline(t, "pgmoneta-cli", append([]string{"--dry-run"}, args...)...)
		if err != nil || !strings.Contains(out, "WALSupply: command") || !strings.Contains(out, "recovery_target_xid = '"+xid+"'") {
			t.Fatalf("dry run: %v\n%s", err, out)
		}
		if list, _ := os.ReadDir(into); len(list) > 0 {
			t.Fatalf("a dry run made %v", list)
		}
		if out, err = d.offline(t, "pgmoneta", args...); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		if to, err := os.Readlink(filepath.Join(into, "data", "pg_wal")); err != nil || to != filepath.Join(into, "wal") {
			t.Errorf("pg_wal leads to %q, %v", to, err)
		}
		if got := startRestored(t, major, filepath.Join(into, "data")); got != "0 1 2" {
			t.Errorf("marks %q, want 0 1 2", got)
		}
		if out, err = d.offline(t, "pgmoneta-cli", "--dry-run", "primary", "newest", "lsn=FF/0", into); err == nil || !strings.Contains(out, `Position: latest`) {
			t.Errorf("a target far ahead: %v\n%s", err, out)
		}
	})
}

// The daemon restores over the directory of the server that died, tablespaces where they were.
func TestDeltaRestoreOverTheServerThatDied(t *testing.T) {
	t.Parallel()
	s := pgtest.Start(t, pgtest.Options{WALSegmentSize: 1})
	d := newDaemon(t, map[string]*pgtest.Server{"primary": s})
	disaster(t, s, d)
	d.start(t)
	if out, code := d.cli(t, "restore", "--exact", "primary", "newest", "latest", s.DataDir); code != 2 || !strings.Contains(out, "not empty") {
		t.Fatalf("without --delta: %d\n%s", code, out)
	}
	resp := d.must(t, "restore", "--delta", "--wal", "copy", "primary", "newest", "latest", s.DataDir)
	if resp["DeltaRestore"] != true || resp["WALSupply"] != "copy" {
		t.Errorf("response %v", resp)
	}
	planned := d.must(t, "restore", "--delta", "--dry-run", "--wal", "copy", "primary", "newest", "latest", s.DataDir)
	if resp["ReadSize"].(float64) >= planned["ReadSize"].(float64)/2 || resp["WriteSize"].(float64) >= planned["WriteSize"].(float64)/2 {
		t.Errorf("read %v and wrote %v, planned at most %v and %v", resp["ReadSize"], resp["WriteSize"], planned["ReadSize"], planned["WriteSize"])
	}
	if got := startRestored(t, s.Major, s.DataDir); got != "0 1 2 3" {
		t.Errorf("marks %q, want 0 1 2 3", got)
	}
}

// The command line that the manual gives for create_replica_methods makes a standby.
func TestPatroniCommandOfTheManual(t *testing.T) {
	t.Parallel()
	manual, err := os.ReadFile("../../doc/MANUAL.md")
	if err != nil {
		t.Fatal(err)
	}
	_, stanza, _ := strings.Cut(string(manual), "<!-- patroni -->")
	stanza, _, _ = strings.Cut(stanza, "<!-- end -->")
	commands := regexp.MustCompile(`command: pgmoneta-cli (.*)`).FindAllStringSubmatch(stanza, -1)
	if len(commands) != 2 {
		t.Fatalf("%d command lines in the manual, want 2", len(commands))
	}
	s := pgtest.Start(t, pgtest.Options{WALSegmentSize: 1})
	s.Exec(t, "CREATE TABLE marks (n int); INSERT INTO marks VALUES (0)")
	d := newDaemon(t, map[string]*pgtest.Server{"primary": s})
	d.waitStreaming(t, "primary")
	d.must(t, "backup", "primary")
	moment := s.QueryString(t, "SELECT to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US') || 'Z'")
	s.Exec(t, "INSERT INTO marks VALUES (1)")
	d.stored(t, "primary", s.SwitchWAL(t))

	for i, want := range []string{"0 1", "0"} {
		data := d.path(fmt.Sprint("data", i))
		line := strings.NewReplacer("/etc/pgmoneta/pgmoneta.conf", d.path("pgmoneta.conf"), "/var/lib/postgresql/17/main", data,
			"2026-11-21T14:02:59+01", moment).Replace(commands[i][1])
		cmd := pgtest.Command(t, d.dir, filepath.Join(d.bin, "pgmoneta-cli"), strings.Fields(line)...)
		var out bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &out
		if err := cmd.Run(); err != nil {
			t.Fatalf("%s: %v\n%s", line, err, out.Bytes())
		}
		conf, err := os.ReadFile(filepath.Join(data, "postgresql.auto.conf"))
		if err != nil || bytes.Contains(conf, []byte(pgtest.ReplPassword)) {
			t.Fatalf("%v, or the password is in postgresql.auto.conf:\n%s", err, conf)
		}
		// What Patroni does: it passes the primary's own connection on.
		if i == 0 {
			appendTo(t, filepath.Join(data, "postgresql.auto.conf"), fmt.Sprintf("primary_conninfo = 'host=%s port=%d user=postgres'\n", s.SocketDir, s.Port))
		}
		restored := pgtest.OpenDir(t, s.Major, data, pgtest.Options{})
		if i == 0 {
			restored.CatchUp(t, s)
		}
		restored.WaitFor(t, fmt.Sprintf("pg_is_in_recovery() = %v", i == 0))
		if got := restored.QueryString(t, "SELECT string_agg(n::text, ' ' ORDER BY n) FROM marks"); got != want {
			t.Errorf("%s: marks %q, want %q", line, got, want)
		}
		restored.Stop(t, pgtest.Immediate)
	}
}

func appendTo(t *testing.T, path, text string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	if err == nil {
		_, err = f.WriteString(text)
		err = errors.Join(err, f.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
}

// An archive is one file that has its name when it is complete. What tar makes of it starts.
func TestArchiveIsARestorableCluster(t *testing.T) {
	t.Parallel()
	s, d := ledger(t)
	if out, code := d.cli(t, "archive", "primary", "newest", "relative"); code != 2 || !strings.Contains(out, "absolute path") {
		t.Errorf("exit %d: %s", code, out)
	}
	dir := d.path("archives")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	pgtest.Own(t, dir)
	name := d.must(t, "archive", "primary", "newest", "latest", dir)["FileName"].(string)
	if !strings.HasSuffix(name, ".tar.gz") {
		t.Errorf("the file is %s", name)
	}
	if out, code := d.cli(t, "archive", "primary", "newest", dir); code != 2 || !strings.Contains(out, "exists") {
		t.Errorf("over the first: exit %d: %s", code, out)
	}
	left, err := os.ReadDir(dir)
	if err != nil || len(left) != 1 {
		t.Errorf("left %v, %v", left, err)
	}
	if out, err := pgtest.Command(t, dir, "/usr/bin/tar", "-xzf", name, "-C", dir).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	found, err := filepath.Glob(filepath.Join(dir, "primary-*"))
	if err != nil || len(found) != 1 {
		t.Fatalf("unpacked %v, %v", found, err)
	}
	restored := pgtest.OpenDir(t, s.Major, found[0], pgtest.Options{})
	if got := restored.QueryString(t, "SELECT count(*) FROM ledger"); got != "6000" {
		t.Errorf("%s rows", got)
	}
}

// A plan only looks: it is told while a backup runs, and is no restore in what is remembered of jobs.
func TestRestoreIsPlannedBesideABackup(t *testing.T) {
	t.Parallel()
	s := pgtest.Start(t, pgtest.Options{})
	d := newDaemon(t, map[string]*pgtest.Server{"primary": s})
	d.waitStreaming(t, "primary")
	label := d.must(t, "backup", "primary")["Backup"]
	if out, code := d.cli(t, "conf", "set", "server.primary.max_rate", "500000"); code != 0 {
		t.Fatalf("exit %d: %s", code, out)
	}
	cmd := pgtest.Command(t, d.dir, filepath.Join(d.bin, "pgmoneta-cli"), "-c", d.path("pgmoneta.conf"), "backup", "primary")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	waitFor(t, 20*time.Second, "the backup to run", func() error {
		if phase := d.must(t, "progress", "primary", "backup")["Phase"]; phase != "Base backup" {
			return fmt.Errorf("its phase is %v", phase)
		}
		return nil
	})
	plan := d.must(t, "restore", "--dry-run", "primary", "newest", "latest", d.path("restored"))
	if plan["Backup"] != label || plan["Reachable"] != true {
		t.Errorf("planned: %v", plan)
	}
	d.cli(t, "restore", "--dry-run", "primary", "newest", "lsn=F/0", d.path("restored"))
	if kind := d.must(t, "progress", "primary", "backup")["Kind"]; kind != "backup" {
		t.Errorf("the plan waited: after it a %v runs", kind)
	}
	for _, row := range d.must(t, "jobs")["Jobs"].([]any) {
		if row := row.(map[string]any); row["Kind"] == "restore" {
			t.Errorf("a plan is remembered as a restore: %v", row)
		}
	}
	d.must(t, "cancel", "primary")
	if err := cmd.Wait(); err == nil {
		t.Error("the backup was not cancelled")
	}
}
