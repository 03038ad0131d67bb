package compat

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pgmoneta/pgmoneta-go/internal/durable"
	"github.com/pgmoneta/pgmoneta-go/internal/foreign"
	"github.com/pgmoneta/pgmoneta-go/internal/repo"
	"github.com/pgmoneta/pgmoneta-go/internal/restore"
	"github.com/pgmoneta/pgmoneta-go/internal/vault"
	"github.com/pgmoneta/pgmoneta-go/internal/verify"
	"github.com/pgmoneta/pgmoneta-go/test/pgtest"
)

// open opens a repository as the daemon does.
func (r *Repository) open(t testing.TB) *repo.Repository {
	t.Helper()
	opened, err := repo.Open(durable.OS{}, r.Base, r.Server)
	must(t, err)
	key, err := vault.ParseMasterKey(r.MasterKey())
	must(t, err)
	f, err := foreign.Open(durable.OS{}, opened, func() (*vault.MasterKey, error) { return key, nil })
	must(t, err)
	t.Cleanup(func() { _ = f.Close() })
	opened.UseForeign(f)
	return opened
}

// try restores a backup to a position and returns the directory.
func (r *Repository) try(t testing.TB, label, position string) (string, error) {
	t.Helper()
	target, err := restore.ParsePosition(position)
	must(t, err)
	dir := filepath.Join(t.TempDir(), "restore")
	must(t, os.Mkdir(dir, 0o700))
	p, err := restore.MakePlan(context.Background(), r.open(t), restore.Options{Backup: label, Target: target, Directory: dir})
	if err != nil {
		return "", err
	}
	if err := restore.Run(context.Background(), p, restore.RunOptions{Log: slog.New(slog.NewTextHandler(t.Output(), nil))}); err != nil {
		return "", err
	}
	pgtest.Own(t, dir)
	return p.Directory, nil
}

// restored restores a backup, has PostgreSQL's own tool check it, and starts it.
func (r *Repository) restored(t *testing.T, major int, label, position string) *pgtest.Server {
	t.Helper()
	dir, err := r.try(t, label, position)
	must(t, err)
	if tool, ok := pgtest.ToolExact(t, major, "pg_verifybackup"); ok && position == "" {
		out, err := pgtest.Command(t, filepath.Dir(dir), tool, "-n", dir).CombinedOutput()
		if err != nil {
			t.Errorf("pg_verifybackup: %v\n%s", err, out)
		}
	}
	return pgtest.OpenDir(t, major, dir, pgtest.Options{Major: major})
}

// problems verifies a backup.
func (r *Repository) problems(t testing.TB, label string) []string {
	t.Helper()
	report, err := verify.Foreign(context.Background(), r.open(t), repo.Label(label), verify.Options{})
	if err != nil {
		return []string{err.Error()}
	}
	var list []string
	for _, p := range report.Problems {
		list = append(list, fmt.Sprintf("%s %v: %v", p.Object, p.Files, p.Err))
	}
	return list
}

func (r *Repository) sound(t testing.TB, label string) {
	t.Helper()
	if list := r.problems(t, label); len(list) > 0 {
		t.Errorf("backup %s: %s", label, strings.Join(list[:min(5, len(list))], "\n"))
	}
}

// base returns a directory that servers' user can reach.
func base(t testing.TB) string {
	dir := filepath.Join(t.TempDir(), "base")
	must(t, os.Mkdir(dir, 0o700))
	pgtest.Own(t, dir)
	return dir
}

func storages() []Storage {
	if os.Getenv("PGMONETA_TEST_LONG") != "" {
		var all []Storage
		for _, codec := range []string{"", "gz", "zstd", "lz4", "bz2"} {
			for _, bits := range []int{0, 128, 192, 256} {
				all = append(all, Storage{codec, bits})
			}
		}
		return all
	}
	return []Storage{{"", 0}, {"", 256}, {"gz", 192}, {"zstd", 0}, {"zstd", 256}, {"lz4", 0}, {"lz4", 128}, {"bz2", 0}}
}

func TestEveryCodecAndCipherIsRestored(t *testing.T) {
	t.Parallel()
	pgtest.ForEach(t, func(t *testing.T, major int) {
		s := pgtest.Start(t, pgtest.Options{Major: major})
		s.Tablespace(t, "fast")
		s.Exec(t, "CREATE TABLE here AS SELECT n, md5(n::text) AS sum FROM generate_series(1, 20000) n")
		s.Exec(t, "CREATE TABLE there TABLESPACE fast AS SELECT n, repeat('x', n % 100) FROM generate_series(1, 5000) n")
		s.Exec(t, "CREATE TABLE nothing ()")
		some := storages()
		if major != pgtest.Newest(t) && len(some) < 20 {
			some = []Storage{{"zstd", 256}, {"lz4", 0}}
		}
		for i, how := range some {
			t.Run(how.String(), func(t *testing.T) {
				r := New(t, base(t), "primary")
				label := fmt.Sprintf("202611210900%02d", i)
				r.Backup(t, s, label, "", how)
				r.sound(t, label)
				pgtest.EqualContent(t, s, r.restored(t, major, label, ""))
			})
		}
	})
}

func TestSharedFilesSurviveMovingAndDeleting(t *testing.T) {
	t.Parallel()
	major := pgtest.Newest(t)
	s := pgtest.Start(t, pgtest.Options{Major: major})
	s.Tablespace(t, "fast")
	s.Exec(t, "CREATE TABLE there TABLESPACE fast AS SELECT n FROM generate_series(1, 5000) n")
	how := Storage{"zstd", 256}
	r := New(t, base(t), "primary")
	labels := []string{"20261121090000", "20261121100000", "20261121110000", "20261121120000"}
	for i, label := range labels {
		s.Exec(t, fmt.Sprintf("CREATE TABLE t%d AS SELECT n FROM generate_series(1, 1000) n", i))
		r.Backup(t, s, label, "", how)
		if i > 0 {
			if n := r.Link(t, label, labels[i-1], how); n < 500 {
				t.Fatalf("only %d files of %s are links", n, label)
			}
		}
	}
	r.Move(t, filepath.Join(t.TempDir(), "moved"))
	last := labels[3]
	r.sound(t, last)
	pgtest.EqualContent(t, s, r.restored(t, major, last, ""))
	for _, gone := range []string{labels[1], labels[0], labels[2]} { // from the middle, the end, and the newest but one
		must(t, r.open(t).Foreign().Delete(context.Background(), repo.Label(gone)))
		list, err := r.open(t).Backups(context.Background())
		must(t, err)
		for _, b := range list {
			if string(b.Label) == gone || b.Err != nil {
				t.Errorf("after %s was deleted: %s, %v", gone, b.Label, b.Err)
			}
			r.sound(t, string(b.Label))
		}
	}
	walkLinks(t, r.Path("backup/"+last+"/data"), func(path string) {
		if filepath.Base(filepath.Dir(path)) != "pg_tblspc" {
			t.Errorf("%s is still a link", path)
		}
	})
	pgtest.EqualContent(t, s, r.restored(t, major, last, ""))
}

func walkLinks(t testing.TB, dir string, each func(path string)) {
	must(t, filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err == nil && d.Type()&os.ModeSymlink != 0 {
			each(path)
		}
		return err
	}))
}

// A chain of more incremental backups than C pgmoneta could combine without trouble, with
// files that grow, shrink, appear and go.
func TestLongChainOfIncrementalBackups(t *testing.T) {
	t.Parallel()
	pgtest.ForEach(t, func(t *testing.T, major int) {
		if major < 17 {
			return
		}
		s := pgtest.Start(t, pgtest.Options{Major: major, Settings: map[string]string{"summarize_wal": "on"}})
		s.Tablespace(t, "fast")
		s.Exec(t, "CREATE TABLE here AS SELECT n, 0 AS turn, repeat('x', 100) AS fill FROM generate_series(1, 20000) n")
		s.Exec(t, "CREATE TABLE there TABLESPACE fast AS SELECT n FROM generate_series(1, 5000) n")
		r := New(t, base(t), "primary")
		how := Storage{"zstd", 192}
		label := func(i int) string { return fmt.Sprintf("202611210900%02d", i) }
		r.Backup(t, s, label(0), "", how)
		const length = 18
		for i := 1; i <= length; i++ {
			s.Exec(t, fmt.Sprintf("UPDATE here SET turn = %d WHERE n %% 500 = %d", i, i))
			s.Exec(t, fmt.Sprintf("INSERT INTO there SELECT n FROM generate_series(1, %d) n", i*300))
			s.Exec(t, fmt.Sprintf("CREATE TABLE new%d AS SELECT %d", i, i))
			switch {
			case i == 9:
				s.Exec(t, "TRUNCATE there")
			case i%6 == 0:
				s.Exec(t, "DELETE FROM here WHERE n > 19000 - 100")
				s.Exec(t, "VACUUM here")
			}
			r.Backup(t, s, label(i), label(i-1), how)
			r.Link(t, label(i), label(i-1), how)
		}
		r.sound(t, label(length))
		pgtest.EqualContent(t, s, r.restored(t, major, label(length), ""))
		err := r.open(t).Foreign().Delete(context.Background(), repo.Label(label(3)))
		if err == nil || !strings.Contains(err.Error(), label(4)) {
			t.Errorf("deleting a parent: %v", err)
		}
		r.sound(t, label(length))
	})
}

// Recovery goes on from the backup over WAL of each codec, through the switch of timelines, into a
// segment that was still being received.
func TestWALBesideTheBackupIsReplayed(t *testing.T) {
	t.Parallel()
	major := pgtest.Newest(t)
	s := pgtest.Start(t, pgtest.Options{Major: major, WALSegmentSize: 1, Settings: map[string]string{"wal_keep_size": "64MB", "autovacuum": "off"}})
	storages := []Storage{{"", 0}, {"", 128}, {"gz", 0}, {"zstd", 256}, {"lz4", 192}, {"bz2", 0}}
	repositories := make([]*Repository, len(storages))
	const label = "20261121090000"
	first := s.QueryString(t, "SELECT pg_walfile_name(pg_current_wal_lsn())")
	for i, how := range storages {
		repositories[i] = New(t, base(t), "primary")
		repositories[i].Backup(t, s, label, "", how)
	}
	s.Exec(t, "CREATE TABLE later AS SELECT n, repeat('y', 200) AS fill FROM generate_series(1, 20000) n")
	standby := s.Standby(t, "follower")
	standby.CatchUp(t, s)
	for i, how := range storages {
		if n := len(repositories[i].Archive(t, s, first, how)); n < 4 {
			t.Fatalf("only %d segments", n)
		}
	}
	s.Stop(t, pgtest.Fast)
	standby.Promote(t)
	standby.Exec(t, "CREATE TABLE after_promotion AS SELECT 1 AS one")
	for i, how := range storages {
		repositories[i].Archive(t, standby, "000000020000000000000000", how)
		repositories[i].Histories(t, standby)
	}
	for i, how := range storages {
		t.Run(how.String(), func(t *testing.T) {
			pgtest.EqualContent(t, standby, repositories[i].restored(t, major, label, "latest"))
		})
	}
}
