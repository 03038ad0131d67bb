package compat

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/pgmoneta/pgmoneta-go/doc/schema/schematest"
	"github.com/pgmoneta/pgmoneta-go/test/pgtest"
)

// What incremental backups of C pgmoneta need is deleted, and they are taken over: each restores to the
// same bytes as before, starts, and passes PostgreSQL's own check. One of them is the base of a new
// incremental backup of ours.
func TestTakenOverBackupsAreWhatTheirChainsWere(t *testing.T) {
	t.Parallel()
	storages := []Storage{{"zstd", 256}}
	if os.Getenv("PGMONETA_TEST_LONG") != "" {
		storages = append(storages, Storage{"", 0}, Storage{"lz4", 0}, Storage{"gz", 128}, Storage{"bz2", 192})
	}
	pgtest.ForEach(t, func(t *testing.T, major int) {
		if major < 17 {
			return
		}
		for _, how := range storages {
			t.Run(how.String(), func(t *testing.T) {
				t.Parallel()
				takeOver(t, major, how)
			})
		}
	})
}

func takeOver(t *testing.T, major int, how Storage) {
	s := pgtest.Start(t, pgtest.Options{Major: major, WALSegmentSize: 1, Settings: settings(major)})
	s.Tablespace(t, "fast")
	s.Exec(t, "CREATE TABLE here AS SELECT n, 0 AS turn, repeat('x', 100) AS fill FROM generate_series(1, 20000) n")
	s.Exec(t, "CREATE TABLE there TABLESPACE fast AS SELECT n FROM generate_series(1, 50000) n")
	s.Exec(t, "CREATE INDEX ON there (n) TABLESPACE fast")
	r := New(t, base(t), "primary")
	labels := []string{"20261121090000", "20261121100000", "20261121110000", "20261121120000", "20261121130000"}
	for i, label := range labels {
		if i == 0 {
			r.Backup(t, s, label, "", how)
			continue
		}
		s.Exec(t, fmt.Sprintf("UPDATE here SET turn = %d WHERE n %% 500 = %[1]d", i))
		s.Exec(t, fmt.Sprintf("INSERT INTO there SELECT n FROM generate_series(1, %d) n", i*1000))
		s.Exec(t, fmt.Sprintf("CREATE TABLE new%d AS SELECT %[1]d", i))
		if i == 3 {
			s.Exec(t, "DELETE FROM here WHERE n > 15000")
			s.Exec(t, "VACUUM here")
		}
		r.Backup(t, s, label, labels[i-1], how)
		r.Link(t, label, labels[i-1], how)
	}
	info := r.Path("backup/" + labels[2] + "/backup.info")
	text, err := os.ReadFile(info)
	must(t, err)
	must(t, os.WriteFile(info, []byte(strings.NewReplacer("KEEP=0", "KEEP=1", "COMMENTS=", "COMMENTS=why|because,who|me").Replace(string(text))), 0o600))
	conf := "compression = zstd\n"
	if how.Bits > 0 {
		conf += "encryption = aes\n"
	}
	// WAL of the first ones lies in them alone.
	r.Archive(t, s, firstSegment(t, r.Path("backup/"+labels[3]+"/data"))[:24], how)
	h := r.home(t, s, conf)
	before := map[string]map[string]string{}
	for _, label := range labels[1:] {
		before[label] = hashes(t, h.restore(label))
	}
	h.daemon()

	out := h.run("pgmoneta-cli", "-F", "json", "delete", "--force", "primary", labels[0])
	var doc struct {
		Response struct {
			Backup    string
			TakenOver []string
		}
	}
	must(t, json.Unmarshal([]byte(out), &doc))
	schematest.Check(t, "delete", out)
	if doc.Response.Backup != labels[0] || !slices.Equal(doc.Response.TakenOver, labels[1:]) {
		t.Errorf("answer %s", out)
	}
	for _, label := range labels[1:] {
		if _, err := os.Stat(r.Path("backup/" + label + "/backup.info")); err == nil {
			t.Errorf("%s still has a backup.info", label)
		}
		dir := h.restore(label)
		after := hashes(t, dir)
		for name, sum := range before[label] {
			if after[name] != sum {
				t.Errorf("%s: file %s is not what it was", label, name)
			}
		}
		if len(after) != len(before[label]) {
			t.Errorf("%s: %d files, before %d", label, len(after), len(before[label]))
		}
		if out, err := pgtest.Command(t, filepath.Dir(dir), pgtest.Tool(t, major, "pg_verifybackup"), dir).CombinedOutput(); err != nil {
			t.Errorf("pg_verifybackup: %v\n%s", err, out)
		}
		h.run("pgmoneta-cli", "verify", "primary", label, h.dir)
	}
	if out := h.run("pgmoneta-cli", "info", "primary", labels[2]); !strings.Contains(out, "Keep: yes") && !strings.Contains(out, "Keep: on") && !strings.Contains(out, "Keep: true") || !strings.Contains(out, "why|because,who|me") {
		t.Errorf("flag and comments:\n%s", out)
	}
	old := pgtest.OpenDir(t, major, h.restore(labels[3]), pgtest.Options{Major: major})
	if got := old.QueryString(t, "SELECT count(*) || ' ' || max(turn) || ' ' || (SELECT count(*) FROM there) FROM here"); got != "15000 3 56000" {
		t.Errorf("the started backup holds %s", got)
	}
	old.Stop(t, pgtest.Fast)

	s.Exec(t, "CREATE TABLE ours AS SELECT 1 AS one")
	s.SwitchWAL(t)
	must(t, json.Unmarshal([]byte(h.run("pgmoneta-cli", "-F", "json", "backup", "primary", labels[4])), &doc))
	newest := doc.Response.Backup
	if out := h.run("pgmoneta-cli", "info", "primary", newest); !strings.Contains(out, labels[4]) {
		t.Errorf("not based on what was taken over:\n%s", out)
	}
	into := filepath.Join(base(t), "data") // over WAL of both programs
	h.run("pgmoneta-cli", "restore", "--offline", "--exact", "--wal", "copy", "primary", labels[3], "latest", into)
	pgtest.EqualContent(t, s, pgtest.OpenDir(t, major, into, pgtest.Options{Major: major}))
	h.run("pgmoneta-cli", append([]string{"delete", "--force", "primary"}, labels[1:]...)...)
	dir := h.restore(newest)
	if out, err := pgtest.Command(t, filepath.Dir(dir), pgtest.Tool(t, major, "pg_verifybackup"), dir).CombinedOutput(); err != nil {
		t.Errorf("pg_verifybackup: %v\n%s", err, out)
	}
	pgtest.EqualContent(t, s, pgtest.OpenDir(t, major, dir, pgtest.Options{Major: major}))
	h.run("pgmoneta-cli", "repo", "check", "primary")
}

// restore restores a backup without the daemon and returns its directory.
func (h home) restore(label string) string {
	h.t.Helper()
	into := filepath.Join(base(h.t), "data")
	h.run("pgmoneta-cli", "restore", "--offline", "--exact", "primary", label, into)
	return into
}

// hashes returns the hashes of all files below a data directory, through its links, but for
// PostgreSQL's manifest, which names the times of files.
func hashes(t testing.TB, dir string) map[string]string {
	sums := map[string]string{}
	var read func(rel string)
	read = func(rel string) {
		entries, err := os.ReadDir(filepath.Join(dir, rel))
		must(t, err)
		for _, e := range entries {
			name := filepath.Join(rel, e.Name())
			info, err := os.Stat(filepath.Join(dir, name))
			must(t, err)
			if info.IsDir() {
				sums[name] = "directory"
				read(name)
				continue
			}
			b, err := os.ReadFile(filepath.Join(dir, name))
			must(t, err)
			if e.Name() != "backup_manifest" {
				sums[name] = fmt.Sprintf("%x", sha256.Sum256(b))
			}
		}
	}
	read(".")
	return sums
}
