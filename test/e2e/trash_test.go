package e2e

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pgmoneta/pgmoneta-go/test/pgtest"
)

// trash returns the labels in the trash of the only server, as list-backup tells.
func (d *daemon) trash(t *testing.T) (labels []string) {
	t.Helper()
	rows, _ := d.must(t, "list-backup", "primary")["Trash"].([]any)
	for _, row := range rows {
		row := row.(map[string]any)
		if row["Deleted"] == "" || row["Until"] == "" {
			t.Errorf("in the trash: %v", row)
		}
		labels = append(labels, row["Backup"].(string))
	}
	return labels
}

func TestDeletedBackupsWaitInTheTrash(t *testing.T) {
	t.Parallel()
	s := pgtest.Start(t, pgtest.Options{})
	d := newDaemon(t, map[string]*pgtest.Server{"primary": s}, "retention_interval = 3600", "delete_delay = 2d")
	d.waitStreaming(t, "primary")
	s.Exec(t, "CREATE TABLE t AS SELECT generate_series(1, 1000) a")
	var labels []string
	for range 3 {
		labels = append(labels, d.must(t, "backup", "primary")["Backup"].(string))
		s.SwitchWAL(t)
	}
	d.must(t, "retain", "primary", labels[1])
	if out, code := d.cli(t, "delete", "primary", labels[1]); code != 2 || !strings.Contains(out, "506") {
		t.Errorf("delete of a kept backup: %d\n%s", code, out)
	}
	if got := d.must(t, "delete", "primary", labels[0])["Until"]; got == nil || got == "" {
		t.Errorf("delete says until %v", got)
	}
	d.must(t, "delete", "--force", "primary", labels[1])
	if got := d.trash(t); fmt.Sprint(got) != fmt.Sprint(labels[:2]) {
		t.Errorf("in the trash: %v, want %v", got, labels[:2])
	}
	for _, args := range [][]string{
		{"restore", "primary", labels[0], t.TempDir()}, {"info", "primary", labels[0]}, {"backup", "primary", labels[0]},
		{"delete", "primary", labels[0]}, {"retain", "primary", labels[0]}, {"verify", "primary", labels[0], "/tmp"},
	} {
		if out, code := d.cli(t, args...); code != 2 || !strings.Contains(out, "undelete primary "+labels[0]) {
			t.Errorf("%v: %d\n%s", args, code, out)
		}
	}
	report := d.retained(t)
	waiting := report["Trash"].([]any)
	if len(waiting) != 2 || waiting[0].(map[string]any)["Action"] != "wait" || report["PurgedBackups"] != 0.0 {
		t.Errorf("retention: %v", report)
	}
	// What needs it is still there: it comes back whole, and is restored to the end of all WAL.
	d.must(t, "undelete", "primary", labels[0])
	d.must(t, "verify", "primary", labels[0], "/tmp")
	d.must(t, "restore", "--dry-run", "primary", labels[0], "latest", d.path("back"))
	if got := d.trash(t); fmt.Sprint(got) != fmt.Sprint(labels[1:2]) {
		t.Errorf("in the trash: %v, want %v", got, labels[1])
	}
	if out, code := d.cli(t, "undelete", "primary", labels[0]); code != 2 || !strings.Contains(out, "4421") {
		t.Errorf("undelete of a backup that is not in the trash: %d\n%s", code, out)
	}
	d.must(t, "delete", "primary", labels[0])
	d.must(t, "delete", "--force", "primary", labels[1]) // at once
	if got := d.trash(t); fmt.Sprint(got) != fmt.Sprint(labels[:1]) {
		t.Errorf("in the trash: %v, want %v", got, labels[:1])
	}
	// Its time has come.
	if out, code := d.cli(t, "conf", "set", "delete_delay", "1s"); code != 0 {
		t.Fatal(out)
	}
	waitFor(t, 20*time.Second, "the trash to be emptied", func() error {
		if got := d.retained(t); len(d.trash(t)) > 0 {
			return fmt.Errorf("%v", got)
		}
		return nil
	})
	if out, code := d.cli(t, "undelete", "primary", labels[0]); code != 2 || !strings.Contains(out, "4421") {
		t.Errorf("undelete of a backup that is gone: %d\n%s", code, out)
	}
	d.must(t, "repo", "check", "primary")
	d.must(t, "wal", "check", "primary")
	d.must(t, "verify", "primary", "newest", "/tmp")
	if n := d.must(t, "list-backup", "primary")["NumberOfBackups"]; n != 1.0 {
		t.Errorf("%v backups are left", n)
	}
}

// By force several backups that wait in the trash go for good in one command, and beside them those that are listed:
// into the trash, or at once when they cannot be read. All go or none.
func TestSeveralGoFromTheTrashByForce(t *testing.T) {
	t.Parallel()
	s := pgtest.Start(t, pgtest.Options{WALSegmentSize: 1})
	d := newDaemon(t, map[string]*pgtest.Server{"primary": s}, "retention_interval = 3600", "delete_delay = 2d")
	d.waitStreaming(t, "primary")
	var labels []string
	for range 6 {
		s.Exec(t, fmt.Sprintf("CREATE TABLE t%d AS SELECT generate_series(1, 1000) a", len(labels)))
		labels = append(labels, d.must(t, "backup", "primary")["Backup"].(string))
	}
	remove := func(which ...string) map[string]any {
		t.Helper()
		return d.must(t, append([]string{"delete", "--force", "primary"}, which...)...)
	}
	there := func(listed, trashed []string) {
		t.Helper()
		var got []string
		for _, row := range d.must(t, "list-backup", "primary")["Backups"].([]any) {
			got = append(got, row.(map[string]any)["Backup"].(string))
		}
		if trash := d.trash(t); !slices.Equal(got, listed) || !slices.Equal(trash, trashed) {
			t.Fatalf("listed %v, in the trash %v; want %v and %v", got, trash, listed, trashed)
		}
	}
	remove(labels[:2]...)
	there(labels[2:], labels[:2])
	remove(labels[1], labels[0], labels[1]) // from the trash, in any order
	there(labels[2:], nil)

	inTrash, unreadable, own := labels[2], labels[3], labels[4]
	remove(inTrash)
	if err := os.Truncate(d.path("base/primary/backup/"+unreadable+"/manifest"), 100); err != nil {
		t.Fatal(err)
	}
	mix := []string{own, unreadable, inTrash}
	if out, code := d.cli(t, append([]string{"delete", "primary"}, mix...)...); code != 2 || !strings.Contains(out, "trash") {
		t.Errorf("without force: %d\n%s", code, out)
	}
	if out, code := d.cli(t, append([]string{"delete", "--force", "primary", "20000101000000"}, mix...)...); code != 2 || !strings.Contains(out, "505") {
		t.Errorf("with one that is unknown: %d\n%s", code, out)
	}
	there(labels[3:], labels[2:3])
	answer := remove(mix...)
	if until, _ := answer["Until"].(string); fmt.Sprint(answer["Backups"]) != fmt.Sprint(labels[2:5]) || until == "" {
		t.Errorf("the answer is %v", answer)
	}
	there(labels[5:], []string{own})
	d.must(t, "repo", "check", "primary")
	d.must(t, "undelete", "primary", own)
	there(labels[4:], nil)
	d.must(t, "verify", "primary", own, "/tmp")
	d.must(t, "verify", "primary", "newest", "/tmp")
}
