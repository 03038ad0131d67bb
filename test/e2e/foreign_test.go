package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pgmoneta/pgmoneta-go/test/compat"
	"github.com/pgmoneta/pgmoneta-go/test/pgtest"
)

// The daemon takes the place of C pgmoneta in its own base_dir: what that left is listed, shown,
// verified, restored and deleted by the usual commands, and new backups lie beside it.
func TestTakingOverARepositoryOfCPgmoneta(t *testing.T) {
	t.Parallel()
	major := pgtest.Newest(t)
	s := pgtest.Start(t, pgtest.Options{Major: major, WALSegmentSize: 1})
	s.Exec(t, "CREATE TABLE before AS SELECT n, md5(n::text) AS sum FROM generate_series(1, 10000) n")
	d := prepareDaemon(t, map[string]*pgtest.Server{"primary": s}, "encryption = aes-256")
	for _, dir := range []string{"base", ".pgmoneta"} {
		if err := os.Mkdir(d.path(dir), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	how := compat.Storage{Codec: "zstd", Bits: 256}
	r := compat.New(t, d.path("base"), "primary")
	d.write(t, ".pgmoneta/master.key", string(r.MasterKey()))
	older, newer := "20250101090000", "20250101100000"
	r.Backup(t, s, older, "", how)
	s.Exec(t, "CREATE TABLE between AS SELECT 1 AS one")
	r.Backup(t, s, newer, "", how)
	r.Link(t, newer, older, how)
	first := s.QueryString(t, "SELECT pg_walfile_name(pg_current_wal_lsn())")
	s.SwitchWAL(t)
	s.Exec(t, "CREATE TABLE archived_by_c AS SELECT 1 AS one")
	s.SwitchWAL(t)
	r.Archive(t, s, first, how)
	pgtest.Own(t, d.dir)
	d.start(t)
	d.waitStreaming(t, "primary")

	d.labels(t, older, newer)
	info := d.must(t, "info", "primary", older)
	if info["Compression"] != float64(18) || info["Encryption"] != float64(1) || info["MajorVersion"] != float64(major) {
		t.Errorf("info %v", info)
	}
	d.must(t, "verify", "primary", newer, d.dir, "failed")

	s.Exec(t, "CREATE TABLE after AS SELECT 1 AS one")
	own := d.must(t, "backup", "primary")["Backup"].(string)
	d.labels(t, older, newer, own)
	pgtest.EqualContent(t, s, d.restoredFrom(t, major, newer, "latest")) // over WAL of both programs

	if code, out := d.failed(t, "info", "primary", "20250101093000"); code == 0 {
		t.Errorf("a backup that does not exist: %s", out)
	}
	d.must(t, "delete", "primary", older)
	d.labels(t, newer, own)
	d.must(t, "verify", "primary", newer, d.dir, "failed")
	kept := d.restoredFrom(t, major, newer, "")
	if n := kept.QueryString(t, "SELECT count(*) FROM before, between"); n != "10000" {
		t.Errorf("%s rows", n)
	}

	d.keep(t, newer)
	if code, out := d.failed(t, "delete", "primary", newer); code != 506 {
		t.Errorf("deleting what is to be kept: error %d, %s", code, out)
	}
	d.must(t, "delete", "primary", newer, "--force")
	d.labels(t, own)
	pgtest.EqualContent(t, s, d.restoredFrom(t, major, own, "latest"))
}

// labels compares the listed backups, which all must be valid.
func (d *daemon) labels(t *testing.T, want ...string) {
	t.Helper()
	var have []string
	for _, b := range d.must(t, "list-backup", "primary")["Backups"].([]any) {
		b := b.(map[string]any)
		have = append(have, b["Backup"].(string))
		if b["Valid"] != float64(1) {
			t.Errorf("backup %v", b)
		}
	}
	if fmt.Sprint(have) != fmt.Sprint(want) {
		t.Errorf("backups %v, want %v", have, want)
	}
}

// restoredFrom restores a backup and starts the result.
func (d *daemon) restoredFrom(t *testing.T, major int, label, position string) *pgtest.Server {
	t.Helper()
	target := filepath.Join(t.TempDir(), "restore")
	if err := os.Mkdir(target, 0o700); err != nil {
		t.Fatal(err)
	}
	pgtest.Own(t, target)
	args := []string{"restore", "primary", label}
	if position != "" {
		args = append(args, position)
	}
	resp := d.must(t, append(args, target)...)
	return pgtest.OpenDir(t, major, resp["Directory"].(string), pgtest.Options{Major: major})
}

// keep sets the flag as C pgmoneta's retain does.
func (d *daemon) keep(t *testing.T, label string) {
	t.Helper()
	path := filepath.Join("base", "primary", "backup", label, "backup.info")
	b, err := os.ReadFile(d.path(path))
	if err != nil {
		t.Fatal(err)
	}
	d.write(t, path, strings.Replace(string(b), "KEEP=0", "KEEP=1", 1))
}
