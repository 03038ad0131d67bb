package restore

import (
	"context"
	"errors"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/pgmoneta/pgmoneta-go/internal/backup"
	"github.com/pgmoneta/pgmoneta-go/internal/container"
	"github.com/pgmoneta/pgmoneta-go/internal/pgrepl"
	"github.com/pgmoneta/pgmoneta-go/internal/repo"
	"github.com/pgmoneta/pgmoneta-go/internal/verify"
	"github.com/pgmoneta/pgmoneta-go/test/pgtest"
)

// on takes an incremental backup, comparing every block that was not sent.
func (b *bed) on(base repo.Label) (repo.Summary, error) {
	return backup.Run(context.Background(), backup.Options{Params: b.params, Repo: b.repo, Codec: container.Zstd, Level: 3, Workers: 2,
		Base: base, CrossCheck: 1,
		Streaming: func() (bool, string) { return true, "" }, Progress: func(string, int64, int64) {}, Now: time.Now, Log: b.log})
}

func (b *bed) incremental(base repo.Label) repo.Summary {
	b.t.Helper()
	s, err := b.on(base)
	if err != nil {
		b.t.Fatal(err)
	}
	if s.Type != repo.Incremental || s.Base != base || s.Overlaid != (b.server.Major >= pgrepl.IncrementalMajor) {
		b.t.Errorf("summary of an incremental backup on %s: %+v", base, s)
	}
	return s
}

// Every backup stands alone: whichever of the others are deleted, each restores.
func TestEveryBackupStandsAlone(t *testing.T) {
	t.Parallel()
	pgtest.ForEach(t, func(t *testing.T, major int) {
		t.Parallel()
		s := pgtest.Start(t, pgtest.Options{Major: major, WALSegmentSize: 1})
		s.Exec(t, "GRANT pg_read_server_files TO "+pgtest.ReplUser+"; GRANT EXECUTE ON FUNCTION pg_read_binary_file(text, bigint, bigint, boolean) TO "+pgtest.ReplUser)
		s.Tablespace(t, "fast disk")
		s.Exec(t, `CREATE TABLE marks (n int); INSERT INTO marks VALUES (0);
			CREATE TABLE spread TABLESPACE "fast disk" AS SELECT i, md5(i::text) AS m FROM generate_series(1, 30000) i;
			CREATE INDEX ON spread (m);
			CREATE TABLE shrinks AS SELECT i, repeat('x', 500) AS x FROM generate_series(1, 5000) i;
			CREATE TABLE moves AS SELECT i, md5(i::text) AS m FROM generate_series(1, 20000) i;
			CREATE UNLOGGED TABLE volatile AS SELECT 1 AS i; CREATE TABLE goes AS SELECT 1 AS i;`)
		b := newBed(t, s)
		load := pgtest.StartLoad(t, s, 2)
		load.WaitFor(t, 100)
		first := b.backup()
		s.Exec(t, "UPDATE spread SET m = md5(m) WHERE i % 100 = 0; DELETE FROM shrinks WHERE i > 1000; DROP TABLE goes")
		s.Exec(t, "VACUUM shrinks")
		load.WaitFor(t, 100)
		second := b.backup()
		if second.Stored > first.Stored*7/10 {
			t.Errorf("the second full backup stored %d bytes, the first %d", second.Stored, first.Stored)
		}
		s.Exec(t, "VACUUM FULL moves")
		s.Exec(t, "CREATE TABLE comes AS SELECT i FROM generate_series(1, 1000) i; UPDATE spread SET m = md5(m) WHERE i % 1000 = 0")
		load.WaitFor(t, 100)
		third := b.incremental(first.Label)
		s.Exec(t, "TRUNCATE shrinks; INSERT INTO shrinks SELECT i, 'y' FROM generate_series(1, 100) i")
		s.Exec(t, "CREATE DATABASE another")
		load.WaitFor(t, 100)
		fourth := b.incremental(third.Label)
		load.Stop()
		s.Exec(t, "INSERT INTO marks VALUES (1)")
		fifth := b.incremental(fourth.Label)
		content := pgtest.ContentHash(t, s)

		b.restoresTo(third.Label, content)
		left := []repo.Label{first.Label, second.Label, third.Label, fourth.Label, fifth.Label}
		compacted := 0
		for _, gone := range left[:4] {
			packs := b.repo.PacksOf(context.Background(), gone)
			if err := b.repo.Delete(context.Background(), gone); err != nil {
				t.Fatal(err)
			}
			done, err := b.repo.Compact(context.Background(), repo.CompactOptions{Packs: packs, Share: 0.05, Budget: 1 << 30})
			if err != nil {
				t.Fatal(err)
			}
			compacted += done.Packs
			left = left[1:]
			for _, label := range left {
				report, err := verify.Backup(context.Background(), b.repo, label, verify.Options{})
				if err != nil || len(report.Problems) > 0 {
					t.Fatalf("backup %s when %s is deleted: %+v, %v", label, gone, report.Problems, err)
				}
			}
			if gone == first.Label {
				b.restoresTo(second.Label, content)
			}
		}
		b.restoresTo(fifth.Label, content)
		if compacted == 0 {
			t.Error("no pack was compacted")
		}
	})
}

// restoresTo restores a backup and all WAL and compares the content.
func (b *bed) restoresTo(label repo.Label, content map[string]string) {
	b.t.Helper()
	restored, _ := b.restore(Options{Backup: string(label)}, "latest")
	if got := pgtest.ContentHash(b.t, restored); !maps.Equal(got, content) {
		b.t.Errorf("backup %s restores %v, want %v", label, got, content)
	}
	amcheck(b.t, restored)
	restored.Stop(b.t, pgtest.Immediate)
}

func TestIncrementalIsRefusedWithTheRemedy(t *testing.T) {
	t.Parallel()
	pgtest.ForEach(t, func(t *testing.T, major int) {
		t.Parallel()
		o := pgtest.Options{Major: major, WALSegmentSize: 1}
		if major >= pgrepl.IncrementalMajor {
			o.Settings = map[string]string{"summarize_wal": "off"}
		}
		s := pgtest.Start(t, o)
		b := newBed(t, s)
		full := b.backup()
		refused := func(why string) {
			t.Helper()
			_, err := b.on(full.Label)
			var base *backup.BaseError
			if !errors.As(err, &base) || !strings.Contains(err.Error(), why) || !strings.Contains(err.Error(), "take a full backup") {
				t.Errorf("incremental backup: %v, want one about %q", err, why)
			}
		}
		if major >= pgrepl.IncrementalMajor {
			refused("summarize_wal")
			s.Exec(t, "ALTER SYSTEM SET summarize_wal = on")
			s.Exec(t, "SELECT pg_reload_conf()")
			s.WaitFor(t, "current_setting('summarize_wal') = 'on'")
		}
		if _, err := b.on("20010101000000"); !errors.Is(err, repo.ErrNoBackup) {
			t.Errorf("on a backup that is not there: %v", err)
		}
		damaged := map[string]error{repo.PackName(full.Label, 1): errors.New("rotten")}
		if err := b.repo.RecordDamage(context.Background(), time.Now(), nil, damaged); err != nil {
			t.Fatal(err)
		}
		refused("was found damaged")
	})
}

// The base may lie on an earlier timeline, as long as the server's goes on from there.
func TestIncrementalAfterPromotion(t *testing.T) {
	t.Parallel()
	pgtest.ForEach(t, func(t *testing.T, major int) {
		t.Parallel()
		primary := pgtest.Start(t, pgtest.Options{Major: major, WALSegmentSize: 1, Settings: map[string]string{"wal_keep_size": "256MB"}})
		primary.Exec(t, "CREATE TABLE marks AS SELECT i AS n, md5(i::text) AS m FROM generate_series(1, 20000) i")
		standby := primary.Standby(t, "standby")
		b := newBed(t, standby)
		load := pgtest.StartLoad(t, primary, 2)
		load.WaitFor(t, 50)
		full := b.backup()
		primary.Exec(t, "UPDATE marks SET m = 'x' WHERE n % 500 = 0")
		load.WaitFor(t, 50)
		// A standby begins backups at the last checkpoint it has replayed.
		primary.Exec(t, "CHECKPOINT")
		standby.CatchUp(t, primary)
		before := b.incremental(full.Label)
		primary.Stop(t, pgtest.Fast)
		standby.Promote(t)
		load.Redirect(standby)
		b.wait("timeline 2", func() bool { return b.watch.timeline.Load() == 2 })
		standby.Exec(t, "UPDATE marks SET m = 'y' WHERE n % 700 = 0")
		load.WaitFor(t, 50)
		after := b.incremental(before.Label)
		load.Stop()
		b.received()
		content := pgtest.ContentHash(t, standby)
		for _, gone := range []repo.Label{full.Label, before.Label} {
			if err := b.repo.Delete(context.Background(), gone); err != nil {
				t.Fatal(err)
			}
		}
		if after.StartTLI != 2 {
			t.Errorf("summary %+v", after)
		}
		b.restoresTo(after.Label, content)
	})
}
