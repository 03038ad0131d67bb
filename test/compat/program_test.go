package compat

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"

	"github.com/pgmoneta/pgmoneta-go/test/pgtest"
)

// programs builds the programs once; they are removed when the tests have ended.
var programs = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "pgmoneta-compat-bin-")
	if err != nil {
		return "", err
	}
	cmd := exec.Command("go", "build", "-o", dir, "../../cmd/...")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return dir, fmt.Errorf("%w\n%s", err, out)
	}
	return dir, os.Chmod(dir, 0o755)
})

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
		r.Base, h.dir, settings, r.Server, s.Host, s.Port, pgtest.ReplUser))
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

// run runs a program that has to succeed.
func (h home) run(program string, args ...string) string {
	h.t.Helper()
	out, err := h.command(program, args...).CombinedOutput()
	if err != nil {
		h.t.Fatalf("%s %v: %v\n%s", program, args, err, out)
	}
	return string(out)
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
