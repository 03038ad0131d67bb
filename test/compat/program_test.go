package compat

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/pgmoneta/pgmoneta-go/test/pgtest"
)

// programs builds the programs once; they are removed when the tests have ended.
var programs = sync.OnceValues(pgtest.Build)

func TestMain(m *testing.M) {
	code := m.Run()
	if dir, err := programs(); err == nil {
		_ = os.RemoveAll(dir)
	}
	os.Exit(code)
}

// A home is where programs run: a configuration, and the master key of the repository.
type home struct {
	t   testing.TB
	dir string
	bin string
}

// home writes a configuration for the repository of a server.
func (r *Repository) home(t testing.TB, s *pgtest.Server, settings string) home {
	t.Helper()
	bin, err := programs()
	must(t, err)
	h := home{t: t, dir: t.TempDir(), bin: bin}
	h.write(".pgmoneta/master.key", string(r.MasterKey()))
	h.write("pgpass", "*:*:*:"+pgtest.ReplUser+":"+pgtest.ReplPassword+"\n")
	h.write("pgmoneta.conf", fmt.Sprintf("[pgmoneta]\nhost = 127.0.0.1\nbase_dir = %s\nunix_socket_dir = %s\nlog_type = file\nlog_path = %[2]s/log\n"+
		"create_slot = yes\npassfile = %[2]s/pgpass\n%s\n[%s]\nhost = %s\nport = %d\nuser = %s\nwal_slot = pgmoneta\n",
		r.Base, h.dir, strings.ReplaceAll(settings, "HOME", h.dir), r.Server, s.Host, s.Port, pgtest.ReplUser))
	pgtest.Own(t, h.dir)
	pgtest.Own(t, r.Base)
	return h
}

func (h home) path(name string) string { return filepath.Join(h.dir, name) }

func (h home) write(name, content string) {
	h.t.Helper()
	must(h.t, os.MkdirAll(filepath.Dir(h.path(name)), 0o700))
	must(h.t, os.WriteFile(h.path(name), []byte(content), 0o600))
}

// command prepares a program of ours with that configuration.
func (h home) command(program string, args ...string) *exec.Cmd {
	h.t.Helper()
	cmd := pgtest.Command(h.t, h.dir, filepath.Join(h.bin, program), append([]string{"-c", h.path("pgmoneta.conf")}, args...)...)
	cmd.Env = append(cmd.Environ(), "HOME="+h.dir)
	return cmd
}

// daemon starts the daemon, which ends with the test, and waits until it answers.
func (h home) daemon() {
	h.t.Helper()
	// What /etc/pgmoneta has on this machine must not matter.
	cmd := h.command("pgmoneta", "-u", h.path("pgmoneta_users.conf"), "-A", h.path("pgmoneta_admins.conf"))
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	must(h.t, cmd.Start())
	ended := make(chan struct{})
	go func() { _ = cmd.Wait(); close(ended) }()
	h.t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM) // an error means that it has ended
		<-ended
	})
	pgtest.WaitFor(h.t, time.Minute, "the daemon to answer", func() error {
		select {
		case <-ended:
			h.t.Fatalf("the daemon ended: %s", out.Bytes())
		default:
		}
		return h.command("pgmoneta-cli", "ping").Run()
	})
}

// run runs a program that has to succeed.
func (h home) run(program string, args ...string) string {
	h.t.Helper()
	out, err := h.command(program, args...).CombinedOutput()
	if err != nil {
		h.t.Fatalf("%s %v: %v\n%s", program, args, err, out)
	}
	return string(out)
}

// A backup of C pgmoneta is rehearsed like one of ours. Nothing is written beside it: the result is in the response, in
// the log and, until the daemon ends, in the status.
func TestRehearsalOfWhatCPgmonetaLeft(t *testing.T) {
	t.Parallel()
	major := pgtest.Newest(t)
	s := pgtest.Start(t, pgtest.Options{Major: major})
	s.Exec(t, "CREATE TABLE here AS SELECT n, md5(n::text) AS sum FROM generate_series(1, 20000) n")
	r := New(t, base(t), "primary")
	const label = "20261121090000"
	r.Backup(t, s, label, "", Storage{"zstd", 256})
	h := r.home(t, s, "rehearse_bindir = "+pgtest.Bin(t, major)+"\nrehearse_checks = HOME/checks")
	h.write("checks", "postgres: SELECT count(*) = 20000 FROM here\n")
	pgtest.Own(t, h.dir)
	h.daemon()
	before := listing(t, r.Path("backup"))
	out := h.run("pgmoneta-cli", "-F", "json", "rehearse", "primary", label, "current")
	var doc struct{ Response map[string]any }
	must(t, json.Unmarshal([]byte(out), &doc))
	if got := doc.Response; got["Proven"] != true || got["Backup"] != label || got["FailedChecks"] != 0.0 {
		t.Errorf("rehearsal: %v", got)
	}
	if after := listing(t, r.Path("backup")); !slices.Equal(before, after) {
		t.Errorf("beside the backup there is now %d files, before %d", len(after), len(before))
	}
	if out := h.run("pgmoneta-cli", "status", "details"); !strings.Contains(out, "LastRehearsal:") || !strings.Contains(out, "Backup: "+label) {
		t.Errorf("status:\n%s", out)
	}
	log, err := os.ReadFile(h.path("log"))
	if err != nil || !strings.Contains(string(log), "rehearsed") {
		t.Errorf("log: %v\n%s", err, log)
	}
}

// A parent whose children cannot be taken over, because it is damaged, goes together with them or not at all.
func TestDamagedParentsAndChildrenAreDeletedTogether(t *testing.T) {
	t.Parallel()
	major := pgtest.Newest(t)
	if major < 17 {
		return
	}
	s := pgtest.Start(t, pgtest.Options{Major: major, Settings: map[string]string{"summarize_wal": "on"}})
	r := New(t, base(t), "primary")
	labels := []string{"20261121090000", "20261121100000", "20261121110000"}
	parent := ""
	for _, label := range labels {
		s.Exec(t, "CREATE TABLE t"+label+" AS SELECT 1 AS one")
		r.Backup(t, s, label, parent, Storage{"zstd", 0})
		parent = label
	}
	damaged := someFile(t, r.Path("backup/"+labels[0]))
	content, err := os.ReadFile(damaged)
	must(t, err)
	must(t, os.Truncate(damaged, int64(len(content))/2))
	before := listing(t, r.Path("backup"))
	h := r.home(t, s, "")
	h.daemon()
	together := "delete --force primary " + strings.Join(labels, " ")
	for _, some := range [][]string{labels[:1], labels[:2], {labels[2], labels[0]}} {
		newest := labels[2] // of those that need one of them
		if slices.Contains(some, newest) {
			newest = labels[1]
		}
		why := "cannot be taken over: backup " + newest
		out, err := h.command("pgmoneta-cli", append([]string{"delete", "--force", "primary"}, some...)...).CombinedOutput()
		for _, part := range []string{"Error: 501\n", ": pgmoneta-cli " + together + "\n", why, "backup/" + labels[0] + "/data/base/1/1255.zstd: damaged"} {
			if err == nil || !strings.Contains(string(out), part) {
				t.Errorf("delete %v: %v\n%s\nlacks %q", some, err, out, part)
			}
		}
		if after := listing(t, r.Path("backup")); !slices.Equal(before, after) {
			t.Errorf("delete %v: there are now %d files, before %d", some, len(after), len(before))
		}
		for _, name := range listing(t, r.Path("")) {
			if strings.HasPrefix(name, r.Path("pack")) || strings.HasPrefix(name, r.Path("tmp/job")) {
				t.Errorf("delete %v left %v", some, name)
			}
		}
	}
	h.run("pgmoneta-cli", strings.Fields(together)...)
	if left := listing(t, r.Path("backup")); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

// An archive of what C pgmoneta left is made without a daemon, with its tablespaces, its chain of
// incremental backups and the WAL beside it. Nothing in the repository is changed by that.
func TestOfflineArchiveOfWhatCPgmonetaLeft(t *testing.T) {
	t.Parallel()
	major := pgtest.Newest(t)
	s := pgtest.Start(t, pgtest.Options{Major: major, WALSegmentSize: 1, Settings: settings(major)})
	s.Tablespace(t, "fast")
	s.Exec(t, "CREATE TABLE here AS SELECT n FROM generate_series(1, 1000) n")
	s.Exec(t, "CREATE TABLE there TABLESPACE fast AS SELECT n FROM generate_series(1, 1000) n")
	r, how, label := New(t, base(t), "primary"), Storage{"lz4", 192}, "20261121090000"
	first := s.QueryString(t, "SELECT pg_walfile_name(pg_current_wal_lsn())")
	r.Backup(t, s, label, "", how)
	if major >= 17 {
		s.Exec(t, "UPDATE there SET n = n + 1 WHERE n % 100 = 0")
		r.Backup(t, s, "20261121100000", label, how)
		r.Link(t, "20261121100000", label, how)
		label = "20261121100000"
	}
	s.Exec(t, "CREATE TABLE later AS SELECT n FROM generate_series(1, 1000) n")
	s.SwitchWAL(t)
	r.Archive(t, s, first, how)
	h := r.home(t, s, "compression = none")
	files := func() []string { return slices.Concat(listing(t, r.Path("backup")), listing(t, r.Path("wal"))) }
	before := files()
	cmd := h.command("pgmoneta-cli", "archive", "--offline", "--plain", "primary", label, "latest", "-")
	var tar, complaints bytes.Buffer
	cmd.Stdout, cmd.Stderr = &tar, &complaints
	if err := cmd.Run(); err != nil {
		t.Fatalf("%v\n%s", err, complaints.Bytes())
	}
	if after := files(); !slices.Equal(before, after) {
		t.Errorf("there are now %d files, before %d", len(after), len(before))
	}
	into := base(t)
	unpack := pgtest.Command(t, into, "/usr/bin/tar", "-x", "-f", "-", "-C", into)
	unpack.Stdin = &tar
	if out, err := unpack.CombinedOutput(); err != nil {
		t.Fatalf("tar: %v\n%s", err, out)
	}
	pgtest.EqualContent(t, s, pgtest.OpenDir(t, major, filepath.Join(into, "primary-"+label), pgtest.Options{}))
	out, err := h.command("pgmoneta-cli", "archive", "--offline", "primary", label, "lsn=FF/0", "-").Output()
	if err == nil || len(out) > 0 {
		t.Errorf("to a position beyond its WAL: %v, %d bytes", err, len(out))
	}
}

// settings keeps WAL and, where there are incremental backups, what they need.
func settings(major int) map[string]string {
	m := map[string]string{"wal_keep_size": "64MB", "autovacuum": "off"}
	if major >= 17 {
		m["summarize_wal"] = "on"
	}
	return m
}

func listing(t testing.TB, dir string) (names []string) {
	walk(t, dir, func(path string) { names = append(names, path) })
	return names
}

// What C pgmoneta left is restored without a daemon, sealed or not, over WAL beside the backup.
func TestOfflineRestoreOfWhatCPgmonetaLeft(t *testing.T) {
	t.Parallel()
	major := pgtest.Newest(t)
	s := pgtest.Start(t, pgtest.Options{Major: major, WALSegmentSize: 1, Settings: map[string]string{"wal_keep_size": "64MB", "autovacuum": "off"}})
	s.Exec(t, "CREATE TABLE here AS SELECT n FROM generate_series(1, 1000) n")
	for _, how := range []Storage{{"zstd", 256}, {"gz", 0}} {
		r := New(t, base(t), "primary")
		first := s.QueryString(t, "SELECT pg_walfile_name(pg_current_wal_lsn())")
		r.Backup(t, s, "20261121090000", "", how)
		s.Exec(t, "CREATE TABLE later_"+how.Codec+" AS SELECT n FROM generate_series(1, 1000) n")
		s.SwitchWAL(t)
		r.Archive(t, s, first, how)
		h := r.home(t, s, "")
		into := filepath.Join(base(t), "data")
		h.run("pgmoneta-cli", "restore", "--offline", "--exact", "--wal", "copy", "primary", "newest", "latest", into)
		pgtest.EqualContent(t, s, pgtest.OpenDir(t, major, into, pgtest.Options{}))
	}
}
