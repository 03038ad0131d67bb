package e2e

import (
	"strings"
	"testing"

	"github.com/pgmoneta/pgmoneta-go/test/pgtest"
)

// none fails the test unless no backup is listed.
func (d *daemon) none(t *testing.T) {
	t.Helper()
	if n := d.must(t, "list-backup", "primary")["NumberOfBackups"]; n != 0.0 {
		t.Errorf("%v backups are left", n)
	}
}

// Several backups go at once, or none of them: not when one is unknown, is retained, or is what the retention promises.
func TestSeveralBackupsAreDeletedOrNone(t *testing.T) {
	t.Parallel()
	s := pgtest.Start(t, pgtest.Options{})
	d := newDaemon(t, map[string]*pgtest.Server{"primary": s}, "retention_min = 2", "retention_interval = 3600")
	d.waitStreaming(t, "primary")
	s.Exec(t, "CREATE TABLE ledger AS SELECT i, md5(i::text) FROM generate_series(1, 20000) i")
	var labels []string
	for range 5 {
		s.Exec(t, "UPDATE ledger SET i = i + 1")
		labels = append(labels, d.must(t, "backup", "primary")["Backup"].(string))
	}
	d.must(t, "retain", "primary", labels[1])
	for _, tt := range []struct {
		args []string
		code int
		says string
	}{
		{[]string{labels[0], "20200101000000", labels[2]}, 505, "20200101000000"},
		{[]string{labels[0], labels[1]}, 506, "is to be kept"},
		{[]string{labels[0], labels[2], labels[3], labels[4]}, 506, "retention_min is 2"},
		{[]string{"newest", "oldest", labels[2], labels[3]}, 506, "retention_min is 2"},
	} {
		code, out := d.failed(t, append([]string{"delete", "primary"}, tt.args...)...)
		if code != tt.code || !strings.Contains(out, tt.says) {
			t.Errorf("delete %v: error %d, %s", tt.args, code, out)
		}
		d.labels(t, labels...)
	}
	got := d.must(t, "delete", "primary", labels[2], "oldest", labels[0]) // one of them twice
	if got["NumberOfBackups"] != 2.0 {
		t.Errorf("deleted: %v", got)
	}
	d.labels(t, labels[1], labels[3], labels[4])
	d.must(t, "repo", "check", "primary")
	d.must(t, "expunge", "primary", labels[1])
	d.must(t, "delete", "primary", labels[1])
	if code, out := d.failed(t, "delete", "primary", labels[3]); code != 506 || !strings.Contains(out, "--force") {
		t.Errorf("delete of one that retention_min keeps: error %d, %s", code, out)
	}
	pgtest.EqualContent(t, s, d.restoredFrom(t, s.Major, labels[3], "latest"))
	d.must(t, "delete", "--force", "primary", labels[3], labels[4])
	d.none(t)
	d.must(t, "repo", "check", "primary")
}

// By hand nothing goes that the recovery window is reached from, unless somebody says so.
func TestDeletingByHandLeavesTheRecoveryWindow(t *testing.T) {
	t.Parallel()
	s := pgtest.Start(t, pgtest.Options{})
	d := newDaemon(t, map[string]*pgtest.Server{"primary": s}, "recovery_window = 30d", "retention_interval = 3600")
	d.waitStreaming(t, "primary")
	first := d.must(t, "backup", "primary")["Backup"].(string)
	second := d.must(t, "backup", "primary")["Backup"].(string)
	if code, out := d.failed(t, "delete", "primary", first); code != 506 || !strings.Contains(out, "could not be restored") {
		t.Errorf("the oldest: error %d, %s", code, out)
	}
	d.must(t, "delete", "primary", second) // all moments are reached from the first
	d.labels(t, first)
	if code, _ := d.failed(t, "delete", "primary", first); code != 506 {
		t.Errorf("the last: error %d", code)
	}
	d.must(t, "delete", "--force", "primary", first)
	d.none(t)
}
