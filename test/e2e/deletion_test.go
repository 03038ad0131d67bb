package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/pgmoneta/pgmoneta-go/internal/durable"
	"github.com/pgmoneta/pgmoneta-go/test/pgtest"
)

// A command is a client that is waiting for its answer.
type command struct {
	cmd *exec.Cmd
	out bytes.Buffer
}

func (d *daemon) begin(t *testing.T, args ...string) *command {
	t.Helper()
	c := &command{cmd: pgtest.Command(t, d.dir, filepath.Join(d.bin, "pgmoneta-cli"), append([]string{"-c", d.path("pgmoneta.conf")}, args...)...)}
	c.cmd.Stdout, c.cmd.Stderr = &c.out, &c.out
	if err := c.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return c
}

func (c *command) done(t *testing.T) {
	t.Helper()
	if err := c.cmd.Wait(); err != nil {
		t.Errorf("%s: %v\n%s", c.cmd, err, c.out.String())
	}
}

// children returns the processes of the daemon with a title that begins so.
func (d *daemon) children(title string) (pids []int) {
	lines, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, line := range lines {
		pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(line)))
		b, err := os.ReadFile(line)
		if err == nil && strings.HasPrefix(string(b), title) && parent(pid) == d.pid() {
			pids = append(pids, pid)
		}
	}
	return pids
}

func parent(pid int) int {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	fields := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
	ppid, _ := strconv.Atoi(fields[1])
	return ppid
}

// hold stops the worker of a job once it has the lock of the repository.
func (d *daemon) hold(t *testing.T, title string) (pid int) {
	t.Helper()
	waitFor(t, time.Minute, "a process "+title, func() error {
		pids := d.children(title)
		if len(pids) == 0 {
			return errors.New("there is none")
		}
		pid = pids[0]
		return nil
	})
	locked := func() error {
		if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
			t.Fatalf("%s has ended: %v", title, err)
		}
		lock, err := durable.TryLock(filepath.Join(d.path("base"), "primary", "lock"))
		if errors.As(err, new(*durable.LockedError)) {
			return nil
		}
		if err == nil {
			err = errors.Join(lock.Release(), errors.New("the lock is free"))
		}
		_ = syscall.Kill(pid, syscall.SIGCONT)
		return err
	}
	waitFor(t, time.Minute, title+" to have the lock", locked)
	t.Cleanup(func() { _ = syscall.Kill(pid, syscall.SIGCONT) })
	return pid
}

// queued waits until a job of a kind waits for its turn.
func (d *daemon) queued(t *testing.T, kind string) {
	t.Helper()
	waitFor(t, time.Minute, "a "+kind+" that waits", func() error {
		rows := d.must(t, "jobs", "primary")["Jobs"].([]any)
		for _, row := range rows {
			if row := row.(map[string]any); row["Kind"] == kind && row["State"] == "queued" {
				return nil
			}
		}
		return fmt.Errorf("jobs: %v", rows)
	})
}

// purgeable waits until the retention would delete something in the trash for good.
func (d *daemon) purgeable(t *testing.T) {
	t.Helper()
	waitFor(t, time.Minute, "the delay of what is in the trash", func() error {
		rows := d.retained(t, "--dry-run", "primary")["Trash"].([]any)
		for _, row := range rows {
			if row.(map[string]any)["Action"] != "delete" {
				return fmt.Errorf("trash: %v", rows)
			}
		}
		return nil
	})
}

// TestDeletionWaitsForWhoeverReadsTheBackup begins each job on a backup, stops it in the
// middle, and lets delete and retention ask for the same backup and its packs: the one
// waits, the other is refused, and the job comes to its end whole.
func TestDeletionWaitsForWhoeverReadsTheBackup(t *testing.T) {
	t.Parallel()
	settings := map[string]string{}
	if pgtest.Newest(t) >= 17 {
		settings["summarize_wal"] = "on"
	}
	s := pgtest.Start(t, pgtest.Options{Settings: settings})
	d := rehearsing(t, s, "retention_interval = 3600", "delete_delay = 1s")
	d.checks(t, "postgres: SELECT count(*) = 60000 FROM t\n")
	s.Exec(t, "CREATE TABLE t AS SELECT i, md5(i::text) FROM generate_series(1, 60000) i")
	into := func(name string) string {
		dir := d.path(name)
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		pgtest.Own(t, dir)
		return dir
	}
	restored, archived := into("restored"), into("archived")
	for _, tt := range []struct {
		title string
		args  func(label string) []string
		check func(label string)
	}{
		{"pgmoneta: backup primary", func(l string) []string { return []string{"backup", "primary", l} }, func(string) {
			d.must(t, "verify", "primary", "newest", "/tmp")
			if got := d.must(t, "info", "primary", "newest"); got["Incremental"] != true {
				t.Errorf("the backup taken meanwhile: %v", got)
			}
		}},
		{"pgmoneta: restore primary", func(l string) []string { return []string{"restore", "primary", l, restored} }, func(l string) {
			r := pgtest.OpenDir(t, s.Major, filepath.Join(restored, "primary-"+l), pgtest.Options{})
			if n := r.QueryString(t, "SELECT count(*) FROM t"); n != "60000" {
				t.Errorf("%s rows are restored", n)
			}
			r.Stop(t, pgtest.Immediate)
		}},
		{"pgmoneta: verify primary", func(l string) []string { return []string{"verify", "primary", l, "/tmp"} }, func(string) {}},
		{"pgmoneta: rehearse primary", func(l string) []string { return []string{"rehearse", "primary", l} }, func(string) {}},
		{"pgmoneta: archive primary", func(l string) []string { return []string{"archive", "primary", l, archived} }, func(l string) {
			file, err := filepath.Glob(filepath.Join(archived, "archive-primary-"+l+".tar*"))
			if err != nil || len(file) != 1 {
				t.Fatalf("archive: %v, %v", file, err)
			}
			if out, err := exec.Command("tar", "--zstd", "-tf", file[0]).CombinedOutput(); err != nil || !strings.Contains(string(out), "global/pg_control") {
				t.Errorf("tar: %v\n%s", err, tail(out, 500))
			}
		}},
	} {
		// One in the trash, whose time has come, has packs in common with the one that is read.
		old := d.must(t, "backup", "primary")["Backup"].(string)
		label := d.must(t, "backup", "primary")["Backup"].(string)
		d.must(t, "delete", "primary", old)
		d.purgeable(t)
		running := d.begin(t, tt.args(label)...)
		pid := d.hold(t, tt.title)
		if out, code := d.cli(t, "--no-wait", "delete", "primary", label); code != 2 || !strings.Contains(out, "503") {
			t.Errorf("%s: delete that does not wait: %d\n%s", tt.title, code, out)
		}
		if out, code := d.cli(t, "retention", "primary"); code != 2 || !strings.Contains(out, "4402") {
			t.Errorf("%s: retention: %d\n%s", tt.title, code, out)
		}
		deleting := d.begin(t, "delete", "primary", label)
		d.queued(t, "delete")
		d.must(t, "info", "primary", label)
		if err := syscall.Kill(pid, syscall.SIGCONT); err != nil {
			t.Fatal(err)
		}
		running.done(t)
		deleting.done(t)
		if out, code := d.cli(t, "info", "primary", label); code != 2 {
			t.Errorf("%s: after the deletion: %d\n%s", tt.title, code, out)
		}
		if tt.title != "pgmoneta: backup primary" { // or there would be no valid one
			d.must(t, "backup", "primary")
		}
		d.purgeable(t)
		if got := d.retained(t, "primary"); got["PurgedBackups"] == 0.0 {
			t.Errorf("%s: retention afterwards: %v", tt.title, got)
		}
		tt.check(label)
		d.must(t, "repo", "check", "primary")
	}
}

// TestDeletionIsRefusedBesideAnotherProgram holds the lock as a restore without the daemon
// does: nothing is deleted, nobody waits for ever, and the restore is whole.
func TestDeletionIsRefusedBesideAnotherProgram(t *testing.T) {
	t.Parallel()
	s := pgtest.Start(t, pgtest.Options{})
	d := newDaemon(t, map[string]*pgtest.Server{"primary": s}, "retention_interval = 3600")
	d.waitStreaming(t, "primary")
	s.Exec(t, "CREATE TABLE t AS SELECT i, md5(i::text) FROM generate_series(1, 100000) i")
	label := d.must(t, "backup", "primary")["Backup"].(string)
	dir := t.TempDir()
	cmd := exec.Command(filepath.Join(d.bin, "pgmoneta-cli"), "restore", "--offline", "-c", d.path("pgmoneta.conf"), "--max-rate", "16m", "primary", label, "current", dir)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	waitFor(t, time.Minute, "the restore", func() error {
		_, err := os.Stat(filepath.Join(dir, "primary-"+label, "base"))
		return err
	})
	if err := cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill() })
	if said, code := d.cli(t, "delete", "primary", label); code != 2 || !strings.Contains(said, "503") {
		t.Errorf("delete: %d\n%s", code, said)
	}
	if n := d.must(t, "list-backup", "primary")["NumberOfBackups"]; n != 1.0 {
		t.Errorf("%v backups are left", n)
	}
	if err := cmd.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Fatalf("%v\n%s", err, out.String())
	}
	d.must(t, "delete", "--force", "primary", label)
	r := pgtest.OpenDir(t, s.Major, filepath.Join(dir, "primary-"+label), pgtest.Options{})
	if n := r.QueryString(t, "SELECT count(*) FROM t"); n != "100000" {
		t.Errorf("%s rows are restored", n)
	}
	r.Stop(t, pgtest.Immediate)
}
