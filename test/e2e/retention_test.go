package e2e

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pgmoneta/pgmoneta-go/test/pgtest"
)

// retained runs the retention of the only server and returns what it says.
func (d *daemon) retained(t *testing.T, args ...string) map[string]any {
	t.Helper()
	resp := d.must(t, append([]string{"retention"}, args...)...)
	return resp["Servers"].([]any)[0].(map[string]any)
}

func TestRetentionDeletesWALBeforeTheOldestBackup(t *testing.T) {
	t.Parallel()
	s := pgtest.Start(t, pgtest.Options{})
	d := newDaemon(t, map[string]*pgtest.Server{"primary": s}, "retention_interval = 3600")
	d.waitStreaming(t, "primary")
	for range 3 {
		s.Exec(t, "CREATE TABLE IF NOT EXISTS t(a int)")
		s.Exec(t, "INSERT INTO t VALUES (1)")
		s.SwitchWAL(t)
	}
	if got := d.retained(t); got["DeletedSegments"] != 0.0 || !strings.Contains(got["WALKept"].(string), "no valid backup") {
		t.Errorf("without a backup: %v", got)
	}
	d.must(t, "backup", "primary")
	want := d.retained(t, "--dry-run", "primary")
	if n, _ := want["DeletedSegments"].(float64); n < 3 {
		t.Errorf("dry run: %v", want)
	}
	got := d.retained(t, "primary")
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("the dry run says %v, the run %v", want, got)
	}
	if got := d.retained(t); got["DeletedSegments"] != 0.0 || got["DeletedBackups"] != 0.0 || got["WindowAfter"] == "" {
		t.Errorf("a second run: %v", got)
	}
	d.must(t, "wal", "check", "primary")
	d.must(t, "verify", "primary", "newest", "/tmp")
}

// TestRetentionOfAllServersPassesOverTheOneThatFails has a history in the archive of the first that is none.
func TestRetentionOfAllServersPassesOverTheOneThatFails(t *testing.T) {
	t.Parallel()
	d := newDaemon(t, map[string]*pgtest.Server{"alpha": pgtest.Start(t, pgtest.Options{}), "beta": pgtest.Start(t, pgtest.Options{})}, "retention_interval = 3600")
	for _, name := range []string{"alpha", "beta"} {
		d.waitStreaming(t, name)
		d.must(t, "backup", name)
	}
	wal := filepath.Join(d.path("base"), "alpha", "wal")
	if err := errors.Join(os.MkdirAll(wal, 0o700), os.WriteFile(filepath.Join(wal, "00000002.history"), []byte("none"), 0o644)); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"retention", "--dry-run"}, {"retention"}} {
		out, code := d.cli(t, args...)
		if code == 0 || !strings.Contains(out, `server "alpha"`) || !strings.Contains(out, "Server: beta") {
			t.Errorf("%v: %d\n%s", args, code, out)
		}
	}
}

func TestRetentionRunsByItself(t *testing.T) {
	t.Parallel()
	s := pgtest.Start(t, pgtest.Options{})
	d := newDaemon(t, map[string]*pgtest.Server{"primary": s}, "retention_interval = 1", "backup_on_start = on")
	d.waitStreaming(t, "primary")
	s.Exec(t, "CREATE TABLE t(a int)")
	s.SwitchWAL(t)
	waitFor(t, 30*time.Second, "the first backup", func() error {
		if n := d.must(t, "list-backup", "primary")["NumberOfBackups"]; n != 1.0 {
			return fmt.Errorf("%v backups", n)
		}
		return nil
	})
	waitFor(t, 20*time.Second, "the retention", func() error {
		if n := d.retained(t, "--dry-run")["DeletedSegments"]; n != 0.0 {
			return fmt.Errorf("%v segments are left", n)
		}
		return nil
	})
	d.must(t, "backup", "primary") // no job is refused because of it
}

func TestNotesShowEverywhere(t *testing.T) {
	t.Parallel()
	s := pgtest.Start(t, pgtest.Options{})
	d := newDaemon(t, map[string]*pgtest.Server{"primary": s})
	d.waitStreaming(t, "primary")
	first, _ := d.must(t, "backup", "primary")["Backup"].(string)
	second, _ := d.must(t, "backup", "primary", "newest")["Backup"].(string)
	if got := d.must(t, "retain", "--cascade", "primary", "newest"); fmt.Sprint(got["Backups"]) != fmt.Sprint([]any{second, first}) || got["Keep"] != true {
		t.Errorf("retain: %v", got)
	}
	d.must(t, "annotate", "primary", "newest", "add", "ticket", "before the upgrade")
	if got := d.must(t, "annotate", "primary", "newest", "add", "who", "me"); got["Comments"] != "ticket|before the upgrade,who|me" {
		t.Errorf("annotate: %v", got)
	}
	for _, refused := range [][]string{{"add", "who", "you"}, {"update", "nobody", "x"}, {"remove", "nobody"}, {"add", "a,b", "x"}, {"add", "k", "x|y"}} {
		if out, code := d.cli(t, append([]string{"annotate", "primary", "newest"}, refused...)...); code != 2 || !strings.Contains(out, "2503") {
			t.Errorf("annotate %v: %d\n%s", refused, code, out)
		}
	}
	d.must(t, "annotate", "primary", "newest", "remove", "ticket")
	d.must(t, "annotate", "primary", "newest", "update", "who", "them")
	rows := d.must(t, "list-backup", "primary")["Backups"].([]any)
	info := d.must(t, "info", "primary", "newest")
	status := d.status(t, "primary")["Backups"].([]any)
	for where, got := range map[string]any{"list-backup": rows[1], "info": info, "status details": status[1]} {
		if row := got.(map[string]any); row["Keep"] != true || row["Comments"] != "who|them" {
			t.Errorf("%s: keep %v, comments %v", where, row["Keep"], row["Comments"])
		}
	}
	if out, code := d.cli(t, "delete", "primary", "newest"); code != 2 || !strings.Contains(out, "506") {
		t.Errorf("delete of a kept backup: %d\n%s", code, out)
	}
	d.must(t, "expunge", "primary", "oldest")
	d.must(t, "delete", "primary", "oldest")
	d.must(t, "delete", "--force", "primary", "latest")
	if got := d.must(t, "list-backup", "primary")["NumberOfBackups"]; got != 0.0 {
		t.Errorf("%v backups are left", got)
	}
}

func TestScheduleAndHooks(t *testing.T) {
	t.Parallel()
	s := pgtest.Start(t, pgtest.Options{})
	d := prepareDaemon(t, map[string]*pgtest.Server{"primary": s})
	conf, err := os.ReadFile(d.path("pgmoneta.conf"))
	if err != nil {
		t.Fatal(err)
	}
	d.write(t, "before", "#!/bin/sh\ntest ! -e "+d.path("refuse")+"\n")
	d.write(t, "after", "#!/bin/sh\n{ echo \"$PGMONETA_JOB $PGMONETA_OUTCOME $PGMONETA_ERROR\"; cat; } >> "+d.path("told")+"\n")
	d.write(t, "pgmoneta.conf", string(conf)+`schedule = incremental: "@every 2s", verify: "@every 3s"`+
		"\nhook_before = "+d.path("before")+"\nhook_after = "+d.path("after")+"\n")
	for _, hook := range []string{"before", "after"} {
		if err := os.Chmod(d.path(hook), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	pgtest.Own(t, d.dir)
	d.start(t)
	waitFor(t, 60*time.Second, "the schedule", func() error {
		if n := d.must(t, "list-backup", "primary")["NumberOfBackups"].(float64); n < 2 {
			return fmt.Errorf("%v backups", n)
		}
		jobs := d.must(t, "schedule", "primary")["Jobs"].([]any)
		for _, j := range jobs {
			if row := j.(map[string]any); row["Outcome"] != "done" || row["Next"] == "" {
				return fmt.Errorf("%v", row)
			}
		}
		told, err := os.ReadFile(d.path("told"))
		if err != nil || !strings.Contains(string(told), "verify done") || !strings.Contains(string(told), `"job":"backup","when":"after","backup":"2`) {
			return fmt.Errorf("told %s, %v", told, err)
		}
		return nil
	})
	rows := d.must(t, "list-backup", "primary")["Backups"].([]any)
	if len(rows) < 2 || rows[0].(map[string]any)["Incremental"] != false || rows[1].(map[string]any)["Incremental"] != true {
		t.Errorf("backups: %v", rows)
	}
	d.write(t, "refuse", "")
	waitFor(t, 30*time.Second, "a refusal", func() error {
		for _, j := range d.must(t, "schedule")["Jobs"].([]any) {
			if row := j.(map[string]any); strings.Contains(row["Outcome"].(string), "hook_before") && row["Failures"] != 0.0 {
				return nil
			}
		}
		return fmt.Errorf("nothing was refused")
	})
}

func TestCriticalSpaceRefusesBackupsAndNotWAL(t *testing.T) {
	t.Parallel()
	s := pgtest.Start(t, pgtest.Options{})
	d := newDaemon(t, map[string]*pgtest.Server{"primary": s})
	d.waitStreaming(t, "primary")
	if got := d.must(t, "status")["SpaceState"]; got != "ok" {
		t.Errorf("without limits space is %v", got)
	}
	if out, code := d.cli(t, "conf", "set", "space_critical", "100000G"); code != 0 {
		t.Fatal(out)
	}
	if got := d.must(t, "status")["SpaceState"]; got != "critical" {
		t.Errorf("space is %v", got)
	}
	if out, code := d.cli(t, "backup", "primary"); code != 2 || !strings.Contains(out, "space_critical") {
		t.Errorf("backup: %d\n%s", code, out)
	}
	stored := d.status(t, "primary")["StoredLSN"]
	s.Exec(t, "CREATE TABLE t(a int)")
	s.SwitchWAL(t)
	waitFor(t, 20*time.Second, "WAL", func() error {
		if got := d.status(t, "primary"); got["StoredLSN"] == stored || got["WalStreaming"] != true {
			return fmt.Errorf("stored %v", got["StoredLSN"])
		}
		return nil
	})
}
