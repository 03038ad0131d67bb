package e2e

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/pgmoneta/pgmoneta-go/test/pgtest"
)

// A backup that is cancelled, by command or by interrupting the one who waits for it, ends
// at once, leaves no session on the server, and is not listed; the next one is taken.
func TestBackupIsCancelled(t *testing.T) {
	t.Parallel()
	s := pgtest.Start(t, pgtest.Options{WALSegmentSize: 1})
	d := newDaemon(t, map[string]*pgtest.Server{"primary": s}, "max_rate = 1048576")
	d.waitStreaming(t, "primary")
	for _, by := range []string{"command", "interrupt"} {
		cmd := pgtest.Command(t, d.dir, filepath.Join(d.bin, "pgmoneta-cli"), "-c", d.path("pgmoneta.conf"), "backup", "primary")
		var stderr strings.Builder
		cmd.Stderr = &stderr
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		waitFor(t, time.Minute, "progress", func() error {
			p := d.must(t, "progress", "primary", "backup")
			if p["Done"].(float64) == 0 {
				return errors.New("nothing is done")
			}
			if p["Kind"] != "backup" || p["Phase"] == "" {
				t.Errorf("the backup's progress is %v", p)
			}
			return nil
		})
		began := time.Now()
		if by == "command" {
			if d.must(t, "cancel", "primary")["Cancelled"] != true {
				t.Error("no job is cancelled where one runs")
			}
		} else if err := cmd.Process.Signal(os.Interrupt); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait()
		status := cmd.ProcessState.ExitCode()
		if want := map[string]int{"command": 2, "interrupt": 130}[by]; status != want || time.Since(began) > 5*time.Second {
			t.Errorf("%s: exit status %d, want %d, after %v: %s", by, status, want, time.Since(began), stderr.String())
		}
		if by == "command" && !strings.Contains(stderr.String(), "cancelled on request") {
			t.Errorf("who waits is told %s", stderr.String())
		}
		s.WaitFor(t, "NOT EXISTS (SELECT FROM pg_stat_progress_basebackup)")
		waitFor(t, 5*time.Second, "the end of the job", func() error {
			if d.status(t, "primary")["ActiveBackup"] == true {
				return errors.New("it is running")
			}
			return nil
		})
		if n := d.must(t, "list-backup", "primary")["NumberOfBackups"].(float64); n != 0 {
			t.Errorf("%s: %v backups are listed", by, n)
		}
		if d.must(t, "cancel", "primary")["Cancelled"] != false {
			t.Errorf("%s: a job is cancelled where none runs", by)
		}
	}
}

// Interrupting the one who waits cancels a backup of a daemon on another machine as well. What was asked there for the
// login, on standard input, is not asked again.
func TestRemoteBackupIsCancelled(t *testing.T) {
	t.Parallel()
	s := pgtest.Start(t, pgtest.Options{WALSegmentSize: 1})
	port := freePort(t)
	d := prepareDaemon(t, map[string]*pgtest.Server{"primary": s}, "max_rate = 1048576", fmt.Sprintf("management = %d", port))
	d.mustAdmin(t, "master-key", "-P", "passphrase of the test")
	d.administrator(t, "letmein")
	d.start(t)
	d.waitStreaming(t, "primary")

	cmd := pgtest.Command(t, d.dir, filepath.Join(d.bin, "pgmoneta-cli"), "-c", d.path("client.conf"), "-h", "127.0.0.1", "-p", strconv.Itoa(port), "-C", "zstd", "-E", "aes256", "backup", "primary")
	var stderr strings.Builder
	cmd.Stderr, cmd.Stdin = &stderr, strings.NewReader("dba\nletmein\n")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	waitFor(t, time.Minute, "progress", func() error {
		if p := d.must(t, "progress", "primary", "backup"); p["Done"].(float64) == 0 {
			return errors.New("nothing is done")
		}
		return nil
	})
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	if status := cmd.ProcessState.ExitCode(); status != 130 || !strings.Contains(stderr.String(), "backup was cancelled") {
		t.Errorf("exit status %d: %s", status, stderr.String())
	}
	waitFor(t, time.Minute, "the end of the job", func() error {
		if d.status(t, "primary")["ActiveBackup"] == true {
			return errors.New("it is running")
		}
		return nil
	})
}
