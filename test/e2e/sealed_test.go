package e2e

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pgmoneta/pgmoneta-go/test/pgtest"
)

const plantedText = "planted text that nobody may read"

// admin runs pgmoneta-admin as the daemon's user and returns what it printed and its exit code.
func (d *daemon) admin(t *testing.T, args ...string) (string, int) {
	t.Helper()
	cmd := pgtest.Command(t, d.dir, filepath.Join(d.bin, "pgmoneta-admin"), args...)
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return string(out), cmd.ProcessState.ExitCode()
}

func (d *daemon) mustAdmin(t *testing.T, args ...string) {
	t.Helper()
	if out, code := d.admin(t, args...); code != 0 {
		t.Fatalf("pgmoneta-admin %s exits with %d:\n%s", strings.Join(args, " "), code, out)
	}
}

// plant writes the text to the server, in rows and in names.
func plant(t *testing.T, s *pgtest.Server, n int) {
	t.Helper()
	s.Exec(t, "CREATE TABLE IF NOT EXISTS secrets (text text)")
	for range n {
		s.Exec(t, "INSERT INTO secrets SELECT '"+plantedText+"' FROM generate_series(1, 1000)")
	}
	s.Exec(t, "SELECT pg_create_restore_point('"+plantedText[:30]+"')")
}

// legible returns the files below the daemon's directory, base_dir and all else, in which the text stands.
func (d *daemon) legible(t *testing.T) []string {
	t.Helper()
	var found []string
	err := filepath.WalkDir(d.dir, func(path string, e fs.DirEntry, err error) error {
		if err == nil && e.Type().IsRegular() {
			var b []byte
			if b, err = os.ReadFile(path); bytes.Contains(b, []byte(plantedText[:30])) {
				found = append(found, path)
			}
		}
		if errors.Is(err, fs.ErrNotExist) {
			return nil // moved while we look
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// The text stands in the server's files and in its WAL. With encryption it stands in no file of the daemon at any
// time, without it does, so that the search is known to find it. Keys are rotated while WAL arrives, and the whole is restored.
func TestNothingOfTheDatabaseIsLegible(t *testing.T) {
	t.Parallel()
	pgtest.ForEach(t, func(t *testing.T, major int) {
		t.Parallel()
		s := pgtest.Start(t, pgtest.Options{Major: major, WALSegmentSize: 1})
		plant(t, s, 5)
		plain := newDaemon(t, map[string]*pgtest.Server{"plain": s}, "compression = none")
		d := prepareDaemon(t, map[string]*pgtest.Server{"primary": s}, "encryption = aes-256", "compression = none")
		if out, err := d.command(t, "pgmoneta.conf").CombinedOutput(); err == nil || !bytes.Contains(out, []byte("master key")) {
			t.Fatalf("the daemon started without a master key: %v\n%s", err, out)
		}
		d.mustAdmin(t, "master-key", "-P", "passphrase of the test")
		d.start(t)
		for _, each := range []struct {
			*daemon
			server string
		}{{plain, "plain"}, {d, "primary"}} {
			each.waitStreaming(t, each.server)
		}
		look := func(when string) {
			t.Helper()
			if found := d.legible(t); len(found) > 0 {
				t.Fatalf("%s: legible in %v", when, found)
			}
		}
		done := make(chan int)
		go func() {
			_, code := plain.cli(t, "backup", "plain")
			done <- code
			_, code = d.cli(t, "backup", "primary")
			done <- code
		}()
		for backups := 0; backups < 2; {
			select {
			case code := <-done:
				if backups++; code != 0 {
					t.Errorf("backup %d exits with %d", backups, code)
				}
			default:
			}
			plant(t, s, 2)
			look("during the backup")
		}
		if len(plain.legible(t)) < 2 {
			t.Fatalf("without encryption it is legible only in %v", plain.legible(t))
		}
		plain.kill()
		if got := d.must(t, "info", "primary", "newest")["Encryption"]; got != float64(1) {
			t.Errorf("info says encryption %v, want 1", got)
		}

		d.administrator(t, "letmein")
		d.mustAdmin(t, "-f", d.path("pgmoneta_users.conf"), "-U", "another", "-P", "letmein", "user", "add")
		d.mustAdmin(t, "key", "rotate", "-D", d.dir)
		plant(t, s, 3)
		look("after the key was rotated")
		d.mustAdmin(t, "master-key", "rotate", "-D", d.dir, "-P", "another passphrase")
		plant(t, s, 3)
		d.kill() // nothing is flushed in order
		d.start(t)
		d.waitStreaming(t, "primary")
		plant(t, s, 3)
		d.must(t, "backup", "primary")
		d.must(t, "verify", "primary", "oldest", d.path("verified"), "all")
		d.must(t, "-C", "zstd", "-E", "aes256", "info", "primary", "newest") // with the new key
		look("after the master key was rotated")
		// From the first backup, over WAL of both keys.
		target := filepath.Join(t.TempDir(), "restore")
		if err := os.Mkdir(target, 0o700); err != nil {
			t.Fatal(err)
		}
		pgtest.Own(t, target)
		dir := d.must(t, "restore", "primary", "oldest", "latest", target)["Directory"].(string)
		copied := pgtest.OpenDir(t, major, dir, pgtest.Options{})
		pgtest.EqualContent(t, s, copied)
		copied.Stop(t, pgtest.Immediate)

		if err := os.Rename(d.path(".pgmoneta/master.key"), d.path("master.key")); err != nil {
			t.Fatal(err)
		}
		if out, code := d.cli(t, "restore", "primary", "newest", d.path("never")); code == 0 || !strings.Contains(out, "master") {
			t.Errorf("restore without the master key: exit %d\n%s", code, out)
		}
	})
}
