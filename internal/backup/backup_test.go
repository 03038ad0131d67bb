package backup

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/pgmoneta/pgmoneta-go/internal/container"
	"github.com/pgmoneta/pgmoneta-go/internal/durable"
	"github.com/pgmoneta/pgmoneta-go/internal/pg"
	"github.com/pgmoneta/pgmoneta-go/internal/repo"
	"github.com/pgmoneta/pgmoneta-go/internal/verify"
	"github.com/pgmoneta/pgmoneta-go/internal/wal"
	"github.com/pgmoneta/pgmoneta-go/internal/wal/waltest"
	"github.com/pgmoneta/pgmoneta-go/test/pgtest"
)

// bed is a server whose WAL is received into a repository.
func bed(t *testing.T, s *pgtest.Server, dir string) Options {
	t.Helper()
	return sealedBed(t, s, dir, repo.Keys{})
}

// sealedBed receives into a repository that is sealed with keys.
func sealedBed(t *testing.T, s *pgtest.Server, dir string, keys repo.Keys) Options {
	t.Helper()
	r, err := repo.Open(durable.OS{}, dir, "primary")
	if err != nil {
		t.Fatal(err)
	}
	r.UseKeys(keys)
	log := slog.New(slog.NewTextHandler(t.Output(), nil))
	waltest.Receive(t, s, &wal.Receiver{Repo: r, Codec: container.Zstd, Level: 3, Monitor: wal.Unwatched{}, Log: log})
	s.WaitFor(t, "exists (SELECT FROM pg_stat_replication WHERE application_name = 'pgmoneta')")
	return Options{Params: waltest.Params(s), Repo: r, Codec: container.Zstd, Level: 3, Workers: 2,
		Streaming: func() (bool, string) { return true, "" }, Progress: func(string, int64, int64) {}, Now: time.Now, Log: log}
}

func TestBackupUnderLoadVerifies(t *testing.T) {
	pgtest.ForEach(t, func(t *testing.T, major int) {
		t.Parallel()
		s := pgtest.Start(t, pgtest.Options{Major: major, WALSegmentSize: 1})
		s.Tablespace(t, "fast disk")
		s.Exec(t, `CREATE TABLE spread TABLESPACE "fast disk" AS SELECT i, md5(i::text) FROM generate_series(1, 50000) i`)
		o := bed(t, s, t.TempDir())
		load := pgtest.StartLoad(t, s, 2)
		load.WaitFor(t, 100)
		ctx := context.Background()
		summary, err := Run(ctx, o)
		load.Stop()
		if err != nil {
			t.Fatal(err)
		}
		if summary.Start == 0 || summary.End <= summary.Start || summary.Checkpoint == 0 || summary.StartTLI != 1 ||
			len(summary.Tablespaces) != 1 || summary.Tablespaces[0].Name != "fast disk" || summary.Biggest == 0 {
			t.Errorf("summary %+v", summary)
		}
		report, err := verify.Backup(ctx, o.Repo, summary.Label, verify.Options{})
		if err != nil || len(report.Problems) > 0 || report.Files != summary.Files || report.Segments == 0 {
			t.Errorf("verify: %+v, %v", report, err)
		}
		checkPaths(t, o.Repo, summary)
	})
}

func checkPaths(t *testing.T, r *repo.Repository, s repo.Summary) {
	t.Helper()
	m, err := r.OpenManifest(context.Background(), s.Label)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	seen := map[string]bool{}
	spread := false
	for f, err := range m.Files() {
		if err != nil {
			t.Fatal(err)
		}
		seen[f.Path] = true
		spread = spread || strings.HasPrefix(f.Path, "pg_tblspc/") && strings.Contains(f.Path, "/PG_") && f.Size > 0
	}
	for _, p := range []string{"backup_label", "global/pg_control", "PG_VERSION", "pg_wal", "postgresql.conf"} {
		if !seen[p] {
			t.Errorf("%s is not in the manifest", p)
		}
	}
	if !spread || seen["backup_manifest"] {
		t.Errorf("tablespace file found: %v, backup_manifest listed: %v", spread, seen["backup_manifest"])
	}
}

func TestPacksAreReadableByZstd(t *testing.T) {
	s := pgtest.Start(t, pgtest.Options{})
	o := bed(t, s, t.TempDir())
	summary, err := Run(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("zstd", "-dc", o.Repo.Dir()+"/"+repo.PackName(summary.Label, 1)).Output()
	if err != nil || len(out) == 0 || !strings.Contains(string(out), "START WAL LOCATION") {
		t.Errorf("zstd -dc gave %d bytes, %v", len(out), err)
	}
}

func TestFailedBackupLeavesNothingListed(t *testing.T) {
	s := pgtest.Start(t, pgtest.Options{})
	s.Exec(t, "CREATE TABLE big AS SELECT i, md5(i::text) AS m FROM generate_series(1, 200000) i")
	o := bed(t, s, t.TempDir())
	for _, at := range []int64{1, 5 << 20} {
		ctx, cancel := context.WithCancel(context.Background())
		o.Progress = func(phase string, done, _ int64) {
			if phase == "Base backup" && done >= at {
				cancel()
			}
		}
		if _, err := Run(ctx, o); err == nil {
			t.Error("a cancelled backup succeeded")
		}
		cancel()
	}
	o.Progress = func(string, int64, int64) {}
	ctx := context.Background()
	if list, err := o.Repo.Backups(ctx); err != nil || len(list) != 0 {
		t.Errorf("listed: %v, %v", list, err)
	}
	if err := errors.Join(o.Repo.ForgetUnfinished(ctx, time.Now().Add(time.Hour)), o.Repo.Sweep(ctx)); err != nil {
		t.Fatal(err)
	}
	if list, err := o.Repo.Engine().List(ctx, "pack"); err != nil || len(list) != 0 {
		t.Errorf("packs left: %v, %v", list, err)
	}
	if _, err := Run(ctx, o); err != nil {
		t.Errorf("the next backup: %v", err)
	}
}

// Whatever disk operation of a backup the power fails at, no incomplete backup is
// listed afterwards, and a sweep leaves nothing of it.
func TestPowerCutAtEveryOperationOfABackup(t *testing.T) {
	s := pgtest.Start(t, pgtest.Options{WALSegmentSize: 1})
	base := t.TempDir()
	o := bed(t, s, base) // WAL goes into the real repository
	ctx := context.Background()
	for cut := 1; ; cut++ {
		fsys, err := durable.NewPowerCut(base, cut)
		if err != nil {
			t.Fatal(err)
		}
		faulty := o
		if faulty.Repo, err = repo.Open(fsys, base, "primary"); err != nil {
			t.Fatal(err)
		}
		summary, failed := Run(ctx, faulty)
		after := t.TempDir()
		if err := fsys.Image(after); err != nil {
			t.Fatal(err)
		}
		survivor, err := repo.Open(durable.OS{}, after, "primary")
		if err != nil {
			t.Fatal(err)
		}
		checkSurvivor(t, cut, survivor, failed == nil)
		if failed == nil {
			t.Logf("%d operations, backup %s", fsys.Ops(), summary.Label)
			return
		}
		reset(t, o.Repo)
	}
}

// reset removes what the directory holds that a power cut would have taken.
func reset(t *testing.T, r *repo.Repository) {
	t.Helper()
	ctx := context.Background()
	list, err := r.Backups(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range list {
		if err := r.Delete(ctx, b.Label); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(r.ForgetUnfinished(ctx, time.Now().Add(time.Hour)), r.Sweep(ctx)); err != nil {
		t.Fatal(err)
	}
}

func checkSurvivor(t *testing.T, cut int, r *repo.Repository, succeeded bool) {
	t.Helper()
	ctx := context.Background()
	list, err := r.Backups(ctx)
	if err != nil || succeeded && len(list) != 1 {
		t.Fatalf("cut %d: listed %v, %v", cut, list, err)
	}
	for _, b := range list {
		if b.Err != nil {
			t.Fatalf("cut %d: %v", cut, b.Err)
		}
		// WAL went through the real file system and is not part of the image.
		report, err := verify.Backup(ctx, r, b.Label, verify.Options{})
		for _, p := range report.Problems {
			if !strings.HasPrefix(p.Object, "wal/") {
				t.Fatalf("cut %d: listed backup %s: %s: %v", cut, b.Label, p.Object, p.Err)
			}
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(r.ForgetUnfinished(ctx, time.Now().Add(time.Hour)), r.Sweep(ctx)); err != nil {
		t.Fatal(err)
	}
	if packs, err := r.Engine().List(ctx, "pack"); err != nil || len(list) == 0 && len(packs) > 0 {
		t.Fatalf("cut %d: dead packs %v, %v", cut, packs, err)
	}
}

// A block that changed after the base and was not sent is found on the server; what may
// not be read is not compared, and said so.
func TestCrossCheckFindsAMissedBlock(t *testing.T) {
	pgtest.ForEach(t, func(t *testing.T, major int) {
		t.Parallel()
		s := pgtest.Start(t, pgtest.Options{Major: major, WALSegmentSize: 1})
		s.Exec(t, "CREATE TABLE marks AS SELECT i AS n, md5(i::text) AS m FROM generate_series(1, 50000) i")
		s.Exec(t, "VACUUM FREEZE marks")
		o := bed(t, s, t.TempDir())
		ctx := context.Background()
		full, err := Run(ctx, o)
		if err != nil {
			t.Fatal(err)
		}
		s.Exec(t, "UPDATE marks SET m = 'x' WHERE n = 40000")
		s.Exec(t, "CHECKPOINT")
		// The last block of the table is where the new row went: the server is asked for
		// all, as if it had sent nothing.
		path := s.QueryString(t, "SELECT pg_relation_filepath('marks')")
		check := func() error {
			m, err := o.Repo.OpenManifest(ctx, full.Label)
			if err != nil {
				t.Fatal(err)
			}
			b := &base{summary: full, manifest: m, blockSize: 8192, fraction: 1, rand: rand.New(rand.NewPCG(1, 1))}
			defer b.close()
			if b.rows, err = m.Index(ctx); err != nil {
				t.Fatal(err)
			}
			row, err := b.find(path)
			if err != nil {
				t.Fatal(err)
			}
			b.sample(&overlay{base: row, sent: blockMap{truncation: uint32(row.Size / 8192)}, blockSize: 8192})
			j := &job{Options: o, base: b, summary: repo.Summary{Start: pg.LSN(1) << 60}}
			return j.crossCheck(ctx, b)
		}
		if err := check(); err != nil {
			t.Errorf("without the right to read files: %v", err)
		}
		s.Exec(t, "GRANT pg_read_server_files TO "+pgtest.ReplUser+"; GRANT EXECUTE ON FUNCTION pg_read_binary_file(text, bigint, bigint, boolean) TO "+pgtest.ReplUser)
		var missed *MissedBlockError
		if err := check(); !errors.As(err, &missed) || missed.Path != path || missed.LSN < full.Start {
			t.Errorf("a block that was not sent: %v", err)
		}
	})
}
