package e2e

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pgmoneta/pgmoneta-go/test/pgtest"
)

// failed runs a command that has to fail and returns its error code and message.
func (d *daemon) failed(t *testing.T, args ...string) (int, string) {
	t.Helper()
	out, code := d.cli(t, append([]string{"-F", "json"}, args...)...)
	var doc struct {
		Outcome struct {
			Error   int
			Message string
		}
	}
	if err := json.Unmarshal([]byte(out), &doc); err != nil || code != 2 {
		t.Fatalf("%s exits with %d, %v; want 2:\n%s", strings.Join(args, " "), code, err, out)
	}
	return doc.Outcome.Error, doc.Outcome.Message
}

// An incremental backup shows its parent, stands without it, and what is damaged is found
// and not built upon.
func TestIncrementalBackupByCommand(t *testing.T) {
	t.Parallel()
	pgtest.ForEach(t, func(t *testing.T, major int) {
		t.Parallel()
		s := pgtest.Start(t, pgtest.Options{Major: major, WALSegmentSize: 1})
		d := newDaemon(t, map[string]*pgtest.Server{"primary": s})
		d.waitStreaming(t, "primary")
		if code, message := d.failed(t, "backup", "primary", "newest"); code != 103 {
			t.Errorf("an incremental backup without a base fails with %d: %s", code, message)
		}
		s.Exec(t, "CREATE TABLE marks AS SELECT i, md5(i::text) AS m FROM generate_series(1, 20000) i")
		full := d.must(t, "backup", "primary")
		s.Exec(t, "UPDATE marks SET m = 'x' WHERE i = 1")
		incremental := d.must(t, "backup", "primary", "newest")
		if incremental["Incremental"] != true || incremental["IncrementalParent"] != full["Backup"] || incremental["BackupSize"].(float64) > full["BackupSize"].(float64)/2 {
			t.Errorf("incremental %v\nfull %v", incremental, full)
		}
		rows := d.must(t, "list-backup", "primary")["Backups"].([]any)
		if row := rows[1].(map[string]any); row["Incremental"] != true || row["IncrementalParent"] != full["Backup"] {
			t.Errorf("listed as %v", row)
		}
		stats := d.must(t, "repo", "stats", "primary")
		number(t, stats, "NumberOfBackups", 2)
		number(t, stats, "DeadSize", 0)
		if stats["SharedSize"].(float64) < stats["StoredSize"].(float64)/2 {
			t.Errorf("stats %v", stats)
		}
		d.must(t, "delete", "primary", full["Backup"].(string))
		number(t, d.must(t, "repo", "check", "primary"), "NumberOfFindings", 0)
		d.must(t, "restore", "primary", "newest", d.path("restored"))

		d.damage(t, "primary", full["Backup"].(string))
		d.must(t, "repo", "check", "primary", "fast") // damage inside a frame does not show
		if code, message := d.failed(t, "repo", "check", "primary", "full"); code != 4102 || !strings.Contains(message, "pack/"+full["Backup"].(string)) {
			t.Errorf("the check of a damaged pack: %d, %s", code, message)
		}
		if code, message := d.failed(t, "backup", "primary", "newest"); code != 200 || !strings.Contains(message, "take a full backup") {
			t.Errorf("an incremental backup on a damaged one: %d, %s", code, message)
		}
		if again := d.must(t, "backup", "primary"); again["BackupSize"].(float64) < full["BackupSize"].(float64)/2 {
			t.Errorf("a full backup after damage is %v", again)
		}
		d.must(t, "verify", "primary", "newest", "/tmp")
	})
}

// damage flips a bit of the first frame of a backup's first pack.
func (d *daemon) damage(t *testing.T, server, label string) {
	t.Helper()
	path := filepath.Join(d.path("base"), server, "pack", label, "1")
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b := make([]byte, 1)
	if _, err := f.ReadAt(b, 80); err != nil {
		t.Fatal(err)
	}
	b[0] ^= 0x40
	if _, err := f.WriteAt(b, 80); err != nil {
		t.Fatal(err)
	}
}
