package e2e

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/pgmoneta/pgmoneta-go/test/pgtest"
)

// edit replaces text in the configuration file of a daemon.
func (d *daemon) edit(t *testing.T, old, new string) {
	t.Helper()
	b, err := os.ReadFile(d.path("pgmoneta.conf"))
	if err != nil || !strings.Contains(string(b), old) {
		t.Fatalf("%q is not in the configuration (%v)", old, err)
	}
	if err := os.WriteFile(d.path("pgmoneta.conf"), []byte(strings.Replace(string(b), old, new, 1)), 0o600); err != nil {
		t.Fatal(err)
	}
}

// effects returns what "conf reload" did, as "section.key: effect".
func (d *daemon) effects(t *testing.T) string {
	t.Helper()
	var list []string
	resp := d.must(t, "conf", "reload")
	rows, _ := resp["Changes"].([]any)
	for _, row := range rows {
		row := row.(map[string]any)
		key, _ := row["Key"].(string)
		list = append(list, fmt.Sprintf("%s.%s: %s", row["Section"], key, row["Effect"]))
	}
	return strings.Join(list, "; ")
}

func section(name, slot string, s *pgtest.Server) string {
	return fmt.Sprintf("\n[%s]\nhost = %s\nport = %d\nuser = %s\nwal_slot = %s\n", name, s.Host, s.Port, pgtest.ReplUser, slot)
}

func TestReloadAddsChangesAndRemovesServersWithoutTouchingOthers(t *testing.T) {
	t.Parallel()
	a, b := pgtest.Start(t, pgtest.Options{}), pgtest.Start(t, pgtest.Options{})
	d := newDaemon(t, map[string]*pgtest.Server{"a": a})
	d.waitStreaming(t, "a")
	first := d.worker(t, "a")
	untouched := func(when string) {
		t.Helper()
		if pid := d.worker(t, "a"); pid != first {
			t.Errorf("%s: the WAL worker of the other server is %d, was %d", when, pid, first)
		}
	}

	if got := d.effects(t); got != "" {
		t.Errorf("a reload without changes says %q", got)
	}
	conf, err := os.ReadFile(d.path("pgmoneta.conf"))
	if err != nil {
		t.Fatal(err)
	}
	d.write(t, "pgmoneta.conf", string(conf)+section("b", "pgmoneta_b", b))
	if got, want := d.effects(t), "b.: server added"; got != want {
		t.Errorf("reload says %q, want %q", got, want)
	}
	d.waitStreaming(t, "b")
	d.must(t, "backup", "b")
	untouched("after adding")

	before := d.worker(t, "b")
	d.edit(t, "wal_slot = pgmoneta_b", "wal_slot = other_b")
	if got, want := d.effects(t), "b.wal_slot: WAL worker started again"; got != want {
		t.Errorf("reload says %q, want %q", got, want)
	}
	waitFor(t, 20*time.Second, "a new worker", func() error {
		worker := d.worker(t, "b") // first: what streams then is not the one before
		if s := d.status(t, "b"); worker == before || worker == 0 || s["WalStreaming"] != true {
			return fmt.Errorf("worker %d, streaming %v", worker, s["WalStreaming"])
		}
		return nil
	})
	if n := b.QueryString(t, "SELECT count(*) FROM pg_replication_slots WHERE slot_name = 'other_b' AND active"); n != "1" {
		t.Errorf("%s active slots of the new name", n)
	}
	untouched("after a change")

	worker := d.worker(t, "b")
	d.edit(t, section("b", "other_b", b), "")
	if got, want := d.effects(t), "b.: server removed"; got != want {
		t.Errorf("reload says %q, want %q", got, want)
	}
	waitFor(t, 10*time.Second, "the worker of the removed server to end", func() error {
		if alive(worker) {
			return fmt.Errorf("process %d lives", worker)
		}
		return nil
	})
	if out, code := d.cli(t, "backup", "b"); code == 0 || !strings.Contains(out, "111") {
		t.Errorf("backup of a removed server: exit %d\n%s", code, out)
	}
	untouched("after removing")

	d.write(t, "pgmoneta.conf", string(conf)+section("b", "other_b", b))
	d.effects(t)
	d.waitStreaming(t, "b")
	if n := d.must(t, "list-backup", "b")["NumberOfBackups"]; n != 1.0 {
		t.Errorf("%v backups after the server came back, want 1", n)
	}
	untouched("after adding it again")
}

func TestRefusedReloadChangesNothing(t *testing.T) {
	t.Parallel()
	s := pgtest.Start(t, pgtest.Options{})
	d := newDaemon(t, map[string]*pgtest.Server{"primary": s})
	d.waitStreaming(t, "primary")
	worker := d.worker(t, "primary")
	d.edit(t, "log_level = debug", "log_level = info\nnonsense = 1")
	d.edit(t, "wal_slot = pgmoneta_primary", "wal_slot = other\nport = x")
	out, code := d.cli(t, "conf", "reload")
	if code == 0 || !strings.Contains(out, "nonsense") || !strings.Contains(out, "port") {
		t.Errorf("reload of a file with two mistakes: exit %d\n%s", code, out)
	}
	if got := d.must(t, "conf", "get")["log_level"]; !strings.Contains(fmt.Sprint(got), "debug") {
		t.Errorf("log_level is %v after a refused reload", got)
	}
	if pid := d.worker(t, "primary"); pid != worker {
		t.Errorf("the WAL worker is %d, was %d", pid, worker)
	}
}

func TestModeTakesAServerOfflineAndOnline(t *testing.T) {
	t.Parallel()
	s := pgtest.Start(t, pgtest.Options{})
	d := newDaemon(t, map[string]*pgtest.Server{"primary": s})
	d.waitStreaming(t, "primary")
	worker := d.worker(t, "primary")
	if online := d.must(t, "mode", "primary", "offline")["Online"]; online != false {
		t.Errorf("Online is %v after mode offline", online)
	}
	if alive(worker) {
		t.Errorf("WAL worker %d lives", worker)
	}
	if st := d.status(t, "primary"); st["Mode"] != "offline" || st["Online"] != false {
		t.Errorf("status: mode %v, online %v", st["Mode"], st["Online"])
	}
	if out, code := d.cli(t, "backup", "primary"); code == 0 || !strings.Contains(out, "110") {
		t.Errorf("backup while offline: exit %d\n%s", code, out)
	}
	d.effects(t) // a reload leaves it offline
	if pid := d.worker(t, "primary"); pid != 0 {
		t.Errorf("WAL worker %d runs while offline", pid)
	}
	d.kill() // neither does the end of the daemon change that
	d.start(t)
	if st := d.status(t, "primary"); st["Mode"] != "offline" || st["WorkerPID"] != 0.0 {
		t.Errorf("after a restart: mode %v, worker %v", st["Mode"], st["WorkerPID"])
	}
	if log, err := os.ReadFile(d.path("log")); err != nil || !strings.Contains(string(log), "the server is offline until") {
		t.Errorf("the log of the start does not tell: %v", err)
	}
	if online := d.must(t, "mode", "primary", "online")["Online"]; online != true {
		t.Errorf("Online is %v after mode online", online)
	}
	d.end()
	d.start(t)
	d.waitStreaming(t, "primary")
	d.must(t, "backup", "primary")
	if out, code := d.cli(t, "mode", "primary", "sideways"); code == 0 || !strings.Contains(out, "2805") {
		t.Errorf("an unknown mode: exit %d\n%s", code, out)
	}
}
