package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pgmoneta/pgmoneta-go/test/pgtest"
)

// The slot loses WAL while the daemon is down. Afterwards the daemon goes on,
// says where the hole is, refuses to restore across it, and has taken a full
// backup by itself.
func TestAHoleIsRecordedAndABackupFollowsByItself(t *testing.T) {
	t.Parallel()
	s := pgtest.Start(t, pgtest.Options{Major: pgtest.Newest(t), WALSegmentSize: 1, Settings: map[string]string{
		"max_wal_size": "2MB", "min_wal_size": "2MB", "wal_keep_size": "0", "max_slot_wal_keep_size": "4MB"}})
	d := newDaemon(t, map[string]*pgtest.Server{"primary": s})
	d.waitStreaming(t, "primary")
	first := d.must(t, "backup", "primary")["Backup"].(string)
	s.Exec(t, "CREATE TABLE marker (i int)")
	s.Exec(t, "INSERT INTO marker VALUES (1)")
	if _, code := d.cli(t, "shutdown"); code != 0 {
		t.Fatal("shutdown")
	}
	<-d.exited
	for range 30 {
		s.Exec(t, "INSERT INTO marker SELECT generate_series(1, 1000)")
		s.Exec(t, "SELECT pg_switch_wal()")
	}
	s.Exec(t, "CHECKPOINT")
	s.WaitFor(t, "(SELECT wal_status FROM pg_replication_slots) = 'lost'")
	d.start(t)
	d.waitStreaming(t, "primary")
	waitFor(t, time.Minute, "a backup after the hole", func() error {
		if n := d.must(t, "list-backup", "primary")["NumberOfBackups"]; n != 2.0 {
			return fmt.Errorf("%v backups", n)
		}
		return nil
	})
	if out, code := d.cli(t, "restore", "primary", first, "latest", d.path("across")); code != 2 || !strings.Contains(out, "hole") {
		t.Errorf("restore across the hole: exit %d\n%s", code, out)
	}
	copy := d.restored(t, s.Major, "primary", "latest")
	if n := copy.QueryString(t, "SELECT count(*) FROM marker"); n != "30001" {
		t.Errorf("%s rows in the server restored from the backup after the hole", n)
	}
}

// The server itself no longer has the WAL, but archives it with another program as well: the hole is filled from
// there, checked, and can be restored across.
func TestAHoleIsFilledFromTheArchiveDirectory(t *testing.T) {
	t.Parallel()
	archive := filepath.Join(t.TempDir(), "archive")
	if err := os.Mkdir(archive, 0o700); err != nil {
		t.Fatal(err)
	}
	pgtest.Own(t, archive)
	s := pgtest.Start(t, pgtest.Options{Major: pgtest.Newest(t), WALSegmentSize: 1, Settings: map[string]string{
		"archive_mode": "on", "archive_command": "gzip < %p > " + archive + "/%f.tmp && mv " + archive + "/%f.tmp " + archive + "/%f.gz",
		"max_wal_size": "2MB", "min_wal_size": "2MB", "wal_keep_size": "0", "max_slot_wal_keep_size": "4MB"}})
	d := newDaemon(t, map[string]*pgtest.Server{"primary": s}, "on_gap = continue", "wal_archive = "+archive)
	d.waitStreaming(t, "primary")
	d.must(t, "backup", "primary")
	d.kill()
	s.Exec(t, "CREATE TABLE marker (i int)")
	for range 30 {
		s.Exec(t, "INSERT INTO marker SELECT generate_series(1, 1000)")
		s.SwitchWAL(t)
	}
	s.Exec(t, "CHECKPOINT")
	s.WaitFor(t, "(SELECT wal_status FROM pg_replication_slots) = 'lost'")
	d.start(t)
	d.waitStreaming(t, "primary")
	s.Exec(t, "INSERT INTO marker VALUES (1)")
	d.stored(t, "primary", s.SwitchWAL(t))
	waitFor(t, 30*time.Second, "the hole to be filled", func() error {
		if n := d.status(t, "primary")["Holes"]; n != 0.0 {
			return fmt.Errorf("%v holes", n)
		}
		return nil
	})
	d.must(t, "wal", "check", "primary")
	copy := d.restored(t, s.Major, "primary", "latest")
	if n := copy.QueryString(t, "SELECT count(*) FROM marker"); n != "30001" {
		t.Errorf("%s rows in the server restored across the filled hole", n)
	}
}
