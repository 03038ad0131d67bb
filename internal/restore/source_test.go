package restore

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/pgmoneta/pgmoneta-go/internal/backup"
	"github.com/pgmoneta/pgmoneta-go/internal/pg"
	"github.com/pgmoneta/pgmoneta-go/internal/repo"
	"github.com/pgmoneta/pgmoneta-go/internal/verify"
	"github.com/pgmoneta/pgmoneta-go/test/pgtest"
)

// Whatever a backup is read from, the restored server passes pg_verifybackup and
// pg_amcheck and has the content of its source.
func TestEverySourceGivesAWholeServer(t *testing.T) {
	t.Parallel()
	pgtest.ForEach(t, func(t *testing.T, major int) {
		t.Parallel()
		s := pgtest.Start(t, pgtest.Options{Major: major, WALSegmentSize: 1})
		s.Tablespace(t, "fast disk")
		s.Exec(t, `CREATE TABLE marks (n int); INSERT INTO marks VALUES (0);
			CREATE TABLE spread TABLESPACE "fast disk" AS SELECT i, md5(i::text) AS m FROM generate_series(1, 30000) i;
			CREATE INDEX ON spread (m);
			CREATE UNLOGGED TABLE fleeting AS SELECT generate_series(1, 100) i`)
		grantReading(t, s)
		b := newBed(t, s)
		load := pgtest.StartLoad(t, s, 2)
		load.WaitFor(t, 100)
		labels := map[backup.Source]string{}
		for _, b.source = range []backup.Source{backup.Files, backup.SQL, backup.Stream, backup.Auto} {
			summary := b.backup()
			labels[b.source] = string(summary.Label)
			if len(summary.Tablespaces) != 1 || summary.Tablespaces[0].Name != "fast disk" || summary.EndTLI != 1 || summary.Checkpoint == 0 {
				t.Errorf("%s: %+v", b.source, summary)
			}
		}
		load.WaitFor(t, 100)
		load.Stop()
		b.mark(1)
		b.received()
		for source, label := range labels {
			restored, _ := b.restore(Options{Backup: label}, "latest")
			if got := marks(t, restored); got != "0 1" {
				t.Errorf("%s: marks %q", source, got)
			}
			if n := restored.QueryString(t, "SELECT count(*) FROM fleeting"); n != "0" {
				t.Errorf("%s: the unlogged table has %s rows", source, n)
			}
			restored.Exec(t, "INSERT INTO fleeting VALUES (1); TRUNCATE fleeting")
			s.Exec(t, "TRUNCATE fleeting")
			pgtest.EqualContent(t, s, restored)
			amcheck(t, restored)
			restored.Stop(t, pgtest.Immediate)
			restored, _ = b.restore(Options{Backup: label}, "")
			if got := marks(t, restored); got != "0" {
				t.Errorf("%s: its own state has marks %q", source, got)
			}
			restored.Stop(t, pgtest.Immediate)
		}
	})
}

// A standby gives the same, from its files and over SQL.
func TestFilesOfAStandbyGiveAWholeServer(t *testing.T) {
	t.Parallel()
	pgtest.ForEach(t, func(t *testing.T, major int) {
		t.Parallel()
		primary := pgtest.Start(t, pgtest.Options{Major: major, WALSegmentSize: 1, Settings: map[string]string{"wal_keep_size": "256MB"}})
		primary.Tablespace(t, "fast disk")
		primary.Exec(t, `CREATE TABLE marks (n int); INSERT INTO marks VALUES (0);
			CREATE TABLE spread TABLESPACE "fast disk" AS SELECT i, md5(i::text) AS m FROM generate_series(1, 30000) i`)
		grantReading(t, primary)
		standby := primary.Standby(t, "standby")
		b := newBed(t, standby)
		load := pgtest.StartLoad(t, primary, 2)
		load.WaitFor(t, 50)
		labels := map[backup.Source]string{}
		for _, b.source = range []backup.Source{backup.Files, backup.SQL} {
			summary := b.backup()
			labels[b.source] = string(summary.Label)
			if !summary.Standby || len(summary.Tablespaces) != 1 || summary.Tablespaces[0].Name != "fast disk" {
				t.Errorf("%s: %+v", b.source, summary)
			}
			load.WaitFor(t, 50)
		}
		load.Stop()
		primary.Exec(t, "INSERT INTO marks VALUES (1)")
		standby.CatchUp(t, primary)
		b.wait("the last WAL", func() bool {
			end, err := pg.ParseLSN(standby.QueryString(t, "SELECT pg_last_wal_receive_lsn()"))
			return err == nil && pg.LSN(b.watch.flushed.Load()) >= end
		})
		for source, label := range labels {
			restored, _ := b.restore(Options{Backup: label}, "latest")
			if got := marks(t, restored); got != "0 1" {
				t.Errorf("%s: marks %q", source, got)
			}
			pgtest.EqualContent(t, primary, restored)
			amcheck(t, restored)
			restored.Stop(t, pgtest.Immediate)
		}
	})
}

// The key of the prints only saves space: without it, or with a damaged one, every backup
// restores and verifies, and the next one is taken.
func TestLossOfThePrintsCostsSpaceAndNothingElse(t *testing.T) {
	t.Parallel()
	s := pgtest.Start(t, pgtest.Options{WALSegmentSize: 1})
	s.Exec(t, "CREATE TABLE marks (n int); INSERT INTO marks VALUES (0)")
	b := newBed(t, s)
	print := filepath.Join(b.repo.Dir(), "print")
	restores := func(label repo.Label) {
		t.Helper()
		restored, _ := b.restore(Options{Backup: string(label)}, "")
		if got := marks(t, restored); got != "0" {
			t.Errorf("backup %s: marks %q", label, got)
		}
		restored.Stop(t, pgtest.Immediate)
		if report, err := verify.Backup(t.Context(), b.repo, label, verify.Options{}); err != nil || len(report.Problems) > 0 {
			t.Errorf("backup %s: %+v, %v", label, report.Problems, err)
		}
	}
	first := b.backup()
	for name, lose := range map[string]func() error{
		"lost":    func() error { return os.Remove(print) },
		"damaged": func() error { return os.Truncate(print, 5) },
	} {
		if err := lose(); err != nil {
			t.Fatal(err)
		}
		restores(first.Label)
		again, last := b.backup(), b.backup()
		if again.Stored < first.Stored*9/10 || last.Stored > first.Stored/2 {
			t.Errorf("%s: %d bytes stored before, %d after, %d by the next one", name, first.Stored, again.Stored, last.Stored)
		}
		for _, label := range []repo.Label{first.Label, again.Label, last.Label} {
			restores(label)
		}
	}
	if report, err := b.repo.Check(t.Context(), repo.CheckOptions{Full: true}); err != nil || len(report.Findings) > 0 {
		t.Errorf("check: %+v, %v", report.Findings, err)
	}
}

// grantReading lets the replication user read the data directory.
func grantReading(t *testing.T, s *pgtest.Server) {
	t.Helper()
	begin, end := "pg_backup_start(text,boolean)", "pg_backup_stop(boolean)"
	if s.Major < 15 {
		begin, end = "pg_start_backup(text,boolean,boolean)", "pg_stop_backup(boolean,boolean)"
	}
	for _, f := range []string{begin, end, "pg_ls_dir(text,boolean,boolean)", "pg_stat_file(text,boolean)", "pg_read_binary_file(text,bigint,bigint,boolean)"} {
		s.Exec(t, "GRANT EXECUTE ON FUNCTION "+f+" TO "+pgtest.ReplUser)
	}
	s.Exec(t, "GRANT pg_read_server_files, pg_read_all_settings TO "+pgtest.ReplUser)
}
