package restore

import (
	"testing"

	"github.com/pgmoneta/pgmoneta-go/internal/backup"
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
