package backup

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/pgmoneta/pgmoneta-go/internal/pgrepl"
	"github.com/pgmoneta/pgmoneta-go/internal/repo"
	"github.com/pgmoneta/pgmoneta-go/test/pgtest"
)

// In whatever phase a backup is cancelled, it ends at once with the cause, is not listed,
// and leaves no files and no session that is in a backup.
func TestCancelledBackupEndsAtOnce(t *testing.T) {
	t.Parallel()
	s := pgtest.Start(t, pgtest.Options{WALSegmentSize: 1})
	allow(t, s)
	s.Exec(t, "GRANT pg_read_server_files TO "+pgtest.ReplUser+"; GRANT EXECUTE ON FUNCTION pg_read_binary_file(text, bigint, bigint, boolean), pg_ls_dir(text,boolean,boolean), pg_stat_file(text,boolean) TO "+pgtest.ReplUser)
	s.Exec(t, "CREATE TABLE big AS SELECT i, md5(i::text) AS m FROM generate_series(1, 100000) i")
	o := bed(t, s, t.TempDir())
	full, err := Run(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	phases := map[Source][]string{
		Stream: {"Checkpoint", "Base backup", "Manifest", "Sync", "WAL"},
		Files:  {"Checkpoint", "Base backup", "Sync", "WAL"},
		SQL:    {"Checkpoint", "Base backup", "Sync", "WAL"},
		"":     {"Base", "Checkpoint", "Base backup", "Manifest", "Cross-check", "Sync", "WAL"}, // incremental
	}
	for source, list := range phases {
		for _, at := range list {
			o := o
			if o.Source, o.MaxRate = source, 0; source == "" {
				o.Base, o.CrossCheck = full.Label, 1
				if s.Major < pgrepl.IncrementalMajor && (at == "Cross-check" || at == "Manifest") {
					continue
				}
			} else {
				o.MaxRate = 4 << 20 // so that it would last for long
			}
			if at != "Base backup" && at != "Checkpoint" {
				o.MaxRate = 0
			}
			ctx, cancel := context.WithCancelCause(t.Context())
			enough := errors.New("enough")
			var cancelled time.Time
			o.Progress = func(phase string, done, _ int64) {
				if phase == at && (done > 1<<20 || at != "Base backup") && cancelled.IsZero() {
					cancelled = time.Now()
					cancel(enough)
				}
			}
			_, err := Run(ctx, o)
			took := time.Since(cancelled)
			cancel(nil)
			if !errors.Is(err, enough) || took > 3*time.Second {
				t.Errorf("%q cancelled at %q: %v after %v", source, at, err, took)
			}
			nothingLeft(t, s, o.Repo, 1)
		}
	}
}

// nothingLeft checks that only so many backups are listed and nothing is under way.
func nothingLeft(t *testing.T, s *pgtest.Server, r *repo.Repository, listed int) {
	t.Helper()
	if list, err := r.Backups(t.Context()); err != nil || len(list) != listed {
		t.Errorf("listed: %v, %v", list, err)
	}
	stages, err := os.ReadDir(filepath.Join(r.Dir(), "tmp", repo.OwnerJob))
	if err != nil && !errors.Is(err, os.ErrNotExist) || len(stages) > 0 {
		t.Errorf("unfinished objects: %v, %v", stages, err)
	}
	s.WaitFor(t, "NOT EXISTS (SELECT FROM pg_stat_activity WHERE application_name = 'pgmoneta' AND backend_type = 'client backend' OR query LIKE 'BASE_BACKUP%' AND state = 'active')")
}
