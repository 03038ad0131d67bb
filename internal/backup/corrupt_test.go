package backup

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/pgmoneta/pgmoneta-go/internal/datadir"
	"github.com/pgmoneta/pgmoneta-go/internal/pgrepl"
	"github.com/pgmoneta/pgmoneta-go/internal/repo"
	"github.com/pgmoneta/pgmoneta-go/internal/verify"
	"github.com/pgmoneta/pgmoneta-go/test/pgtest"
)

// poke writes a byte into a file of a server and returns what was there.
func poke(t *testing.T, s *pgtest.Server, name string, at int64, b byte) byte {
	t.Helper()
	f, err := os.OpenFile(filepath.Join(s.DataDir, name), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var old [1]byte
	if _, err := f.ReadAt(old[:], at); err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte{b}, at); err != nil {
		t.Fatal(err)
	}
	return old[0]
}

// A page that is damaged on the server's disk fails a backup and is named, also when an
// earlier backup has it sound. A backup that is kept all the same says so, and so do
// those that hold the page because of it.
func TestDamagedPage(t *testing.T) {
	t.Parallel()
	pgtest.ForEach(t, func(t *testing.T, major int) {
		t.Parallel()
		s := pgtest.Start(t, pgtest.Options{Major: major, WALSegmentSize: 1})
		s.Exec(t, "CREATE TABLE t AS SELECT i, repeat(md5(i::text), 4) AS filler FROM generate_series(1, 20000) i")
		s.Exec(t, "VACUUM FREEZE t")
		s.Exec(t, "CHECKPOINT")
		name := s.QueryString(t, "SELECT pg_relation_filepath('t')")
		o := bed(t, s, t.TempDir())
		allow(t, s)
		sound, err := Run(t.Context(), o)
		if err != nil || sound.CorruptPages != 0 {
			t.Fatalf("before any damage: %+v, %v", sound, err)
		}
		const at = 9*8192 + 4000
		old := poke(t, s, name, at, '!')
		want := []repo.CorruptPage{{Path: name, Block: 9}}
		marked := func(what string, o Options) repo.Summary {
			t.Helper()
			summary, err := Run(t.Context(), o)
			if err != nil || summary.CorruptPages != 1 || !slices.Equal(summary.Corrupt, want) {
				t.Fatalf("%s: %d pages, %v, %v", what, summary.CorruptPages, summary.Corrupt, err)
			}
			if report, err := verify.Backup(t.Context(), o.Repo, summary.Label, verify.Options{}); err != nil || len(report.Problems) > 0 {
				t.Errorf("%s: verify: %+v, %v", what, report.Problems, err)
			}
			return summary
		}
		refused := func(what string, o Options) {
			t.Helper()
			var corrupt *CorruptError
			if _, err := Run(t.Context(), o); !errors.As(err, &corrupt) || corrupt.Pages != 1 || !slices.Equal(corrupt.Found, []datadir.BadPage{{Path: name, Block: 9}}) || !strings.Contains(err.Error(), "allow-corrupt") {
				t.Errorf("%s: %v", what, err)
			}
		}
		refused("stream without the right to read files", o)
		s.Exec(t, "GRANT pg_read_server_files TO "+pgtest.ReplUser+"; GRANT EXECUTE ON FUNCTION pg_read_binary_file(text, bigint, bigint, boolean) TO "+pgtest.ReplUser)
		refused("stream", o)
		files := o
		files.Source = Files
		refused("files", files)
		if list, err := o.Repo.Backups(t.Context()); err != nil || len(list) != 1 {
			t.Errorf("listed: %v, %v", list, err)
		}
		o.AllowCorrupt, files.AllowCorrupt = true, true
		marked("files", files)
		kept := marked("stream", o)
		if list, err := o.Repo.Backups(t.Context()); err != nil || list[len(list)-1].Summary.CorruptPages != 1 {
			t.Errorf("listed: %v, %v", list, err)
		}

		o.Base = kept.Label
		marked("incremental", o)
		o.AllowCorrupt = false
		if major < pgrepl.IncrementalMajor { // all is read, whatever the base holds
			refused("incremental", o)
		} else if _, err := Run(t.Context(), o); err == nil || !strings.Contains(err.Error(), "1 pages whose checksums are wrong") {
			t.Errorf("incremental on a marked base: %v", err)
		}

		poke(t, s, name, at, old)
		s.Exec(t, "UPDATE t SET i = i + 1 WHERE ctid >= '(9,0)' AND ctid < '(10,0)'; CHECKPOINT")
		o.AllowCorrupt = true
		if summary, err := Run(t.Context(), o); err != nil || summary.CorruptPages != 0 {
			t.Errorf("incremental after the page was repaired: %d pages, %v", summary.CorruptPages, err)
		}
		o.Base, o.AllowCorrupt = "", false
		if summary, err := Run(t.Context(), o); err != nil || summary.CorruptPages != 0 {
			t.Errorf("full after the page was repaired: %d pages, %v", summary.CorruptPages, err)
		}
	})
}

// What seemed bad and could not be read again was being written, unless the server says
// that it has bad pages.
func TestDoubtfulPagesAreForTheServerToJudge(t *testing.T) {
	t.Parallel()
	page := datadir.BadPage{Path: "base/5/100", Block: 3}
	for _, tt := range []struct {
		name     string
		pages    *datadir.Pages
		rejected bool
		want     int64
	}{
		{"sound", &datadir.Pages{}, false, 0},
		{"being written", &datadir.Pages{Doubtful: datadir.BadPages{Count: 1, Found: []datadir.BadPage{page}}}, false, 0},
		{"bad", &datadir.Pages{Doubtful: datadir.BadPages{Count: 1, Found: []datadir.BadPage{page}}}, true, 1},
		{"read twice", &datadir.Pages{Bad: datadir.BadPages{Count: 1, Found: []datadir.BadPage{page}}}, false, 1},
		{"found by the server only", &datadir.Pages{}, true, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			j := &job{Options: Options{Log: slog.New(slog.DiscardHandler)}}
			var corrupt *CorruptError
			err := j.corrupt(tt.pages, datadir.BadPages{}, tt.rejected)
			if errors.As(err, &corrupt) != (tt.want > 0) || tt.want > 0 && corrupt.Pages != tt.want {
				t.Errorf("refused: %v", err)
			}
			j.AllowCorrupt = true
			if err := j.corrupt(tt.pages, datadir.BadPages{}, tt.rejected); err != nil || j.summary.CorruptPages != tt.want {
				t.Errorf("kept: %d pages, %v", j.summary.CorruptPages, err)
			}
		})
	}
}
