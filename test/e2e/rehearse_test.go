package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/pgmoneta/pgmoneta-go/internal/pg"
	"github.com/pgmoneta/pgmoneta-go/test/pgtest"
)

// rehearsing starts a daemon for a server, with the settings of rehearsals.
func rehearsing(t *testing.T, s *pgtest.Server, settings ...string) *daemon {
	t.Helper()
	d := prepareDaemon(t, map[string]*pgtest.Server{"primary": s}, append(settings, "rehearse_bindir = "+pgtest.Bin(t, s.Major))...)
	conf, err := os.ReadFile(d.path("pgmoneta.conf"))
	if err != nil {
		t.Fatal(err)
	}
	d.write(t, "pgmoneta.conf", string(conf)+"rehearse_checks = "+d.path("checks")+"\n")
	d.write(t, "checks", "")
	pgtest.Own(t, d.dir)
	d.start(t)
	d.waitStreaming(t, "primary")
	return d
}

// checks replaces the operator's checks.
func (d *daemon) checks(t *testing.T, lines string) {
	t.Helper()
	d.write(t, "checks", lines)
	pgtest.Own(t, d.dir)
}

// unproven runs a rehearsal that must not prove the backup, and returns its response.
func (d *daemon) unproven(t *testing.T) map[string]any {
	t.Helper()
	out, code := d.cli(t, "-F", "json", "rehearse", "primary")
	var doc struct {
		Outcome  struct{ Error int }
		Response map[string]any
	}
	if err := json.Unmarshal([]byte(out), &doc); err != nil || code != 2 || doc.Outcome.Error != 4202 {
		t.Fatalf("rehearse exits with %d, %v; want 2 and error 4202:\n%s", code, err, out)
	}
	return doc.Response
}

// atRest makes sure that nothing of a rehearsal is left.
func (d *daemon) atRest(t *testing.T) {
	t.Helper()
	left, err := filepath.Glob(filepath.Join(d.path("base"), "primary", "tmp", "rehearsal*"))
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
	if pids := postmasters(t, filepath.Join(d.path("base"), "primary")); len(pids) > 0 {
		t.Errorf("processes %v still run there", pids)
	}
}

// postmasters returns the processes that work in a directory below dir.
func postmasters(t *testing.T, dir string) (pids []int) {
	t.Helper()
	links, err := filepath.Glob("/proc/[0-9]*/cwd")
	if err != nil {
		t.Fatal(err)
	}
	for _, link := range links {
		if cwd, err := os.Readlink(link); err == nil && strings.HasPrefix(cwd, dir+"/") {
			pid, err := strconv.Atoi(filepath.Base(filepath.Dir(link)))
			if err != nil {
				t.Fatal(err)
			}
			pids = append(pids, pid)
		}
	}
	return pids
}

func TestRehearsalProvesABackup(t *testing.T) {
	t.Parallel()
	pgtest.ForEach(t, func(t *testing.T, major int) {
		t.Parallel()
		s := pgtest.Start(t, pgtest.Options{Major: major, Settings: map[string]string{"max_connections": "137", "max_prepared_transactions": "3"}})
		d := rehearsing(t, s)
		s.Exec(t, "CREATE TABLE ledger AS SELECT i, md5(i::text) AS sum FROM generate_series(1, 20000) i")
		s.Exec(t, "CREATE INDEX ON ledger (sum)")
		backup := d.must(t, "backup", "primary")
		s.Exec(t, "INSERT INTO ledger SELECT i, 'after the backup' FROM generate_series(20001, 20100) i")
		s.Exec(t, "BEGIN; INSERT INTO ledger VALUES (1, 'prepared'); PREPARE TRANSACTION 'two'")
		d.stored(t, "primary", s.SwitchWAL(t))

		d.checks(t, "# rows\npostgres: SELECT count(*) = 20100 FROM ledger\n\npostgres: SELECT count(*) = 1 FROM pg_prepared_xacts\n")
		began := time.Now()
		resp := d.must(t, "rehearse", "primary")
		took := time.Since(began).Seconds()
		if resp["Proven"] != true || resp["Backup"] != backup["Backup"] || resp["Target"] != "latest" {
			t.Errorf("%v", resp)
		}
		if rto, _ := resp["RTO"].(float64); rto <= 0 || rto > took {
			t.Errorf("RTO %v after %.1f s", resp["RTO"], took)
		}
		if from, err := pg.ParseLSN(fmt.Sprint(resp["ReplayFrom"])); err != nil || from == 0 || resp["ReplaySize"].(float64) <= 0 {
			t.Errorf("replayed from %v, %v bytes", resp["ReplayFrom"], resp["ReplaySize"])
		}
		if at, err := time.Parse(time.RFC3339Nano, fmt.Sprint(resp["LastCommit"])); err != nil || time.Since(at) > time.Hour {
			t.Errorf("last commit %v", resp["LastCommit"])
		}
		if n := resp["NumberOfChecks"].(float64); n < 4 || resp["FailedChecks"].(float64) != 0 { // two of ours, two or more databases
			t.Errorf("checks: %v", resp["Checks"])
		}
		if s := fmt.Sprint(resp["Checks"]); !strings.Contains(s, "tables and indexes") {
			t.Errorf("amcheck did not run: %s", s)
		}
		d.atRest(t)

		d.checks(t, "postgres: SELECT count(*) = 5 FROM ledger\nnowhere: SELECT true\n")
		resp = d.unproven(t)
		if resp["Started"] != true || resp["FailedChecks"].(float64) != 2 || !strings.Contains(fmt.Sprint(resp["Failure"]), "count(*) = 5") {
			t.Errorf("%v", resp)
		}
		last := d.status(t, "primary")["LastRehearsal"].(map[string]any)
		if last["Proven"] != false || last["Backup"] != backup["Backup"] {
			t.Errorf("status shows %v", last)
		}
		d.checks(t, "this is no check\n")
		if out, code := d.cli(t, "rehearse", "primary"); code != 2 || !strings.Contains(out, "checks:1: want DATABASE: QUERY") {
			t.Errorf("exit %d: %s", code, out)
		}
		d.atRest(t)
	})
}

func TestRehearsalWithoutProgramsSaysSo(t *testing.T) {
	t.Parallel()
	s := pgtest.Start(t, pgtest.Options{})
	d := newDaemon(t, map[string]*pgtest.Server{"primary": s}, "rehearse_bindir = /nowhere/%v/bin")
	d.waitStreaming(t, "primary")
	d.must(t, "backup", "primary")
	resp := d.unproven(t)
	want := fmt.Sprintf("no programs of PostgreSQL %d in /nowhere/%d/bin", s.Major, s.Major)
	if resp["Started"] != false || resp["RestoreSize"].(float64) == 0 || !strings.Contains(fmt.Sprint(resp["Failure"]), want) {
		t.Errorf("%v", resp)
	}
	d.atRest(t)
}

// What PostgreSQL itself does not notice when it starts is found by amcheck.
func TestRehearsalFindsADamagedIndex(t *testing.T) {
	t.Parallel()
	s := pgtest.Start(t, pgtest.Options{NoChecksums: true})
	d := rehearsing(t, s)
	s.Exec(t, "CREATE TABLE ledger AS SELECT i, md5(i::text) AS sum FROM generate_series(1, 20000) i")
	s.Exec(t, "CREATE INDEX ledger_sum ON ledger (sum)")
	s.Exec(t, "CHECKPOINT")
	file := filepath.Join(s.DataDir, s.QueryString(t, "SELECT pg_relation_filepath('ledger_sum')"))
	f, err := os.OpenFile(file, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt(make([]byte, 8192), 3*8192); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	d.must(t, "backup", "primary")
	resp := d.unproven(t)
	if !strings.Contains(fmt.Sprint(resp["Failure"]), "index ledger_sum") {
		t.Errorf("%v", resp["Failure"])
	}
	d.atRest(t)
}

// The server of a rehearsal ends with the process that rehearses, and the next
// rehearsal clears away what is left.
func TestRehearsalLeavesNoServerBehind(t *testing.T) {
	t.Parallel()
	s := pgtest.Start(t, pgtest.Options{})
	d := rehearsing(t, s)
	d.must(t, "backup", "primary")
	d.checks(t, "postgres: SELECT pg_sleep(600) IS NOT NULL\n")
	done := make(chan int)
	go func() {
		_, code := d.cli(t, "rehearse", "primary")
		done <- code
	}()
	dir := filepath.Join(d.path("base"), "primary")
	waitFor(t, time.Minute, "the server of the rehearsal", func() error {
		if len(postmasters(t, dir)) < 5 { // it and its children, the one that sleeps too
			return fmt.Errorf("it has not started")
		}
		return nil
	})
	pid := parentOf(t, postmasters(t, dir))
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if code := <-done; code != 2 {
		t.Errorf("exit %d", code)
	}
	waitFor(t, 30*time.Second, "the end of the server", func() error {
		if pids := postmasters(t, dir); len(pids) > 0 {
			return fmt.Errorf("processes %v", pids)
		}
		return nil
	})
	d.checks(t, "")
	d.must(t, "rehearse", "primary")
	d.atRest(t)
}

// With encryption nothing of a database is restored below base_dir: a rehearsal needs a workspace. What one leaves there
// when its process is killed goes when the WAL worker starts, without another rehearsal.
func TestRehearsalOfAnEncryptedRepositoryNeedsAWorkspace(t *testing.T) {
	t.Parallel()
	s := pgtest.Start(t, pgtest.Options{WALSegmentSize: 1})
	plant(t, s, 1)
	d := prepareDaemon(t, map[string]*pgtest.Server{"primary": s}, "encryption = aes-256", "compression = none",
		"rehearse_bindir = "+pgtest.Bin(t, s.Major))
	d.mustAdmin(t, "-P", "correct horse battery", "master-key")
	d.start(t)
	d.waitStreaming(t, "primary")
	d.must(t, "backup", "primary")
	if out, code := d.cli(t, "rehearse", "primary"); code != 2 || !strings.Contains(out, "set workspace") {
		t.Errorf("without a workspace: exit %d\n%s", code, out)
	}
	d.atRest(t)

	workspace := t.TempDir()
	pgtest.Own(t, workspace)
	conf, err := os.ReadFile(d.path("pgmoneta.conf"))
	if err != nil {
		t.Fatal(err)
	}
	d.write(t, "checks", "postgres: SELECT count(*) > 0 FROM secrets\n")
	d.write(t, "pgmoneta.conf", strings.Replace(string(conf), "[pgmoneta]\n", "[pgmoneta]\nworkspace = "+workspace+"\nrehearse_checks = "+d.path("checks")+"\n", 1))
	pgtest.Own(t, d.dir)
	d.end()
	d.start(t)
	d.waitStreaming(t, "primary")
	if got := d.must(t, "rehearse", "primary"); got["Proven"] != true || got["FailedChecks"] != 0.0 {
		t.Errorf("with a workspace: %v", got)
	}
	if found := d.legible(t); len(found) > 0 {
		t.Errorf("legible in %v", found)
	}

	dir := filepath.Join(workspace, "primary")
	left := func() []string {
		names, err := filepath.Glob(filepath.Join(dir, "*"))
		if err != nil {
			t.Fatal(err)
		}
		return names
	}
	if names := left(); len(names) > 0 {
		t.Errorf("left behind: %v", names)
	}
	d.checks(t, "postgres: SELECT pg_sleep(600) IS NOT NULL\n")
	done := make(chan int)
	go func() {
		_, code := d.cli(t, "rehearse", "primary")
		done <- code
	}()
	waitFor(t, time.Minute, "the server of the rehearsal", func() error {
		if len(postmasters(t, dir)) < 5 {
			return fmt.Errorf("it has not started")
		}
		return nil
	})
	if err := syscall.Kill(parentOf(t, postmasters(t, dir)), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if code := <-done; code != 2 {
		t.Errorf("exit %d", code)
	}
	if len(left()) == 0 {
		t.Error("the killed rehearsal left nothing, so that nothing is proven here")
	}
	private, err := os.Readlink(filepath.Join(dir, "rehearsal", "private"))
	if err != nil {
		t.Error(err)
	}
	if err := syscall.Kill(d.worker(t, "primary"), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	waitFor(t, time.Minute, "the WAL worker to sweep", func() error {
		if names, pids := left(), postmasters(t, dir); len(names)+len(pids) > 0 {
			return fmt.Errorf("%v and processes %v are left", names, pids)
		}
		return nil
	})
	if _, err := os.Lstat(private); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the private directory %s is left: %v", private, err)
	}
}

// parentOf returns the process that started those of a list and is none of them.
func parentOf(t *testing.T, pids []int) int {
	t.Helper()
	in := map[int]bool{}
	for _, pid := range pids {
		in[pid] = true
	}
	for _, pid := range pids {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			continue
		}
		rest := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
		if parent, err := strconv.Atoi(rest[1]); err == nil && !in[parent] {
			return parent
		}
	}
	t.Fatalf("no parent of %v", pids)
	return 0
}
