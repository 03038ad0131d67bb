package backup

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pgmoneta/pgmoneta-go/internal/container"
	"github.com/pgmoneta/pgmoneta-go/internal/pgrepl"
	"github.com/pgmoneta/pgmoneta-go/internal/repo"
	"github.com/pgmoneta/pgmoneta-go/internal/verify"
	"github.com/pgmoneta/pgmoneta-go/test/pgtest"
)

// allow lets the replication user begin and end a backup of its own.
func allow(t *testing.T, s *pgtest.Server) {
	t.Helper()
	start, stop := functions(s.Major)
	s.Exec(t, "GRANT EXECUTE ON FUNCTION "+start+", "+stop+" TO "+pgtest.ReplUser)
}

func TestSourceThatCannotBeUsedIsRefusedWithTheRemedy(t *testing.T) {
	t.Parallel()
	s := pgtest.Start(t, pgtest.Options{})
	o := bed(t, s, t.TempDir())
	for _, tt := range []struct {
		source Source
		want   string
	}{
		{Files, "GRANT EXECUTE ON FUNCTION pg_backup_start(text,boolean) TO repl"},
		{SQL, "GRANT EXECUTE ON FUNCTION pg_backup_start(text,boolean) TO repl"},
	} {
		o.Source = tt.source
		_, err := Run(t.Context(), o)
		var refused *SourceError
		if !errors.As(err, &refused) || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v", tt.source, err)
		}
	}
	allow(t, s)
	o.Source = SQL
	if _, err := Run(t.Context(), o); err == nil || !strings.Contains(err.Error(), "GRANT EXECUTE ON FUNCTION pg_ls_dir(text,boolean,boolean)") {
		t.Errorf("sql: %v", err)
	}
	o.Source = Auto
	if _, err := Run(t.Context(), o); err != nil {
		t.Errorf("auto: %v", err)
	}
}

func plain(t *testing.T, o Options) *pgrepl.Conn {
	t.Helper()
	conn, err := pgrepl.ConnectSQL(t.Context(), o.Params)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(conn.Close)
	return conn
}

func TestDirectoryOfAnotherServerIsRefused(t *testing.T) {
	t.Parallel()
	s := pgtest.Start(t, pgtest.Options{})
	other := pgtest.Start(t, pgtest.Options{})
	o := bed(t, s, t.TempDir())
	allow(t, s)
	o.Source = Files
	j := &job{Options: o}
	conn := plain(t, o)
	if err := j.sameServer(t.Context(), conn, other.DataDir); err == nil || !strings.Contains(err.Error(), "belongs to another server") {
		t.Errorf("another server's directory: %v", err)
	}
	if err := j.sameServer(t.Context(), conn, t.TempDir()); err == nil || !strings.Contains(err.Error(), "is not on this machine") {
		t.Errorf("no directory: %v", err)
	}
	if err := j.sameServer(t.Context(), conn, s.DataDir); err != nil {
		t.Error(err)
	}
}

// A server that restarts while its directory is read gives no backup.
func TestRestartWhileReadingGivesNoBackup(t *testing.T) {
	t.Parallel()
	s := pgtest.Start(t, pgtest.Options{})
	o := bed(t, s, t.TempDir())
	allow(t, s)
	o.Source = Files
	restarted := false
	o.Progress = func(phase string, done, _ int64) {
		if phase == "Base backup" && done > 1<<20 && !restarted {
			restarted = true
			s.Restart(t)
		}
	}
	if _, err := Run(t.Context(), o); err == nil || !restarted {
		t.Fatalf("the backup ended with %v", err)
	}
	if list, err := o.Repo.Backups(context.Background()); err != nil || len(list) != 0 {
		t.Errorf("listed: %v, %v", list, err)
	}
	o.Progress = func(string, int64, int64) {}
	if _, err := Run(t.Context(), o); err != nil {
		t.Errorf("the next backup: %v", err)
	}
}

// So does a standby that is promoted.
func TestPromotionWhileReadingGivesNoBackup(t *testing.T) {
	t.Parallel()
	primary := pgtest.Start(t, pgtest.Options{})
	allow(t, primary)
	s := primary.Standby(t, "standby")
	o := bed(t, s, t.TempDir())
	o.Source = Files
	promoted := false
	o.Progress = func(phase string, done, _ int64) {
		if phase == "Base backup" && done > 1<<20 && !promoted {
			promoted = true
			s.Promote(t)
		}
	}
	if _, err := Run(t.Context(), o); err == nil || !promoted {
		t.Fatalf("the backup ended with %v", err)
	}
	if list, err := o.Repo.Backups(context.Background()); err != nil || len(list) != 0 {
		t.Errorf("listed: %v, %v", list, err)
	}
}

func TestPaceKeepsTheRate(t *testing.T) {
	t.Parallel()
	s := pgtest.Start(t, pgtest.Options{})
	o := bed(t, s, t.TempDir())
	allow(t, s)
	o.Source, o.MaxRate = Files, 20<<20
	summary, err := Run(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	took := summary.StoppedAt.Sub(summary.StartedAt).Seconds()
	if least := float64(summary.Logical-(1<<20)) / float64(o.MaxRate); took < least {
		t.Errorf("%d bytes took %.2f s, at least %.2f s were allowed", summary.Logical, took, least)
	}
}

// What the server compresses is stored like what it does not.
func TestServerCompressesOnTheWire(t *testing.T) {
	t.Parallel()
	pgtest.ForEach(t, func(t *testing.T, major int) {
		t.Parallel()
		s := pgtest.Start(t, pgtest.Options{Major: major})
		s.Exec(t, "CREATE TABLE t AS SELECT i, repeat(md5(i::text), 4) AS filler FROM generate_series(1, 20000) i")
		o := bed(t, s, t.TempDir())
		for _, codec := range []container.Codec{container.Zstd, container.Gzip, container.LZ4} {
			o.Codec, o.Level, o.OnWire = codec, 1, true
			summary, err := Run(t.Context(), o)
			if major > 14 && s.QueryString(t, "SELECT setting LIKE '%--with-"+codec.String()+"%' FROM pg_config() WHERE name = 'CONFIGURE'") == "f" && codec != container.Gzip {
				if err == nil || !strings.Contains(err.Error(), "compresses here") {
					t.Errorf("%s, without which the server was built: %v", codec, err)
				}
				continue
			}
			if err != nil {
				t.Fatalf("%s: %v", codec, err)
			}
			report, err := verify.Backup(t.Context(), o.Repo, summary.Label, verify.Options{})
			if err != nil || len(report.Problems) > 0 || report.Files != summary.Files {
				t.Errorf("%s: %+v, %v", codec, report, err)
			}
			if err := o.Repo.Delete(t.Context(), summary.Label); err != nil { // or the next would refer to it
				t.Fatal(err)
			}
		}
	})
}

// A tablespace that comes when the data directory is open is read like the others.
func TestTablespaceMadeDuringABackup(t *testing.T) {
	t.Parallel()
	s := pgtest.Start(t, pgtest.Options{})
	allow(t, s)
	s.Tablespace(t, "gone")
	o := bed(t, s, t.TempDir())
	o.Source = Files
	var location string
	begun := false
	o.Progress = func(phase string, done, _ int64) {
		switch {
		case phase == "Checkpoint":
			location = s.Tablespace(t, "late")
			s.Exec(t, "CREATE TABLE t TABLESPACE late AS SELECT generate_series(1, 1000) i")
		case phase == "Base backup" && !begun: // base comes before pg_tblspc
			begun = true
			s.Exec(t, "DROP TABLESPACE gone")
			s.Tablespace(t, "later")
		}
	}
	summary, err := Run(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	name := s.QueryString(t, "SELECT pg_relation_filepath('t')")
	m, err := o.Repo.OpenManifest(t.Context(), summary.Label)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	links, found := 0, false
	for f, err := range m.Files() {
		if err != nil {
			t.Fatal(err)
		}
		if f.Kind == repo.Symlink {
			links++
		}
		found = found || f.Path == name && f.Size > 0
	}
	if !found || links != len(summary.Tablespaces) || !slices.ContainsFunc(summary.Tablespaces, func(ts repo.Tablespace) bool { return ts.Name == "late" && ts.Location == location }) {
		t.Errorf("%s is there: %t; %d links, tablespaces %v", name, found, links, summary.Tablespaces)
	}
}

// Timeouts that are meant for clients of the database end no backup, however long its
// connections are idle.
func TestTimeoutsOfTheServerEndNoBackup(t *testing.T) {
	t.Parallel()
	pgtest.ForEach(t, func(t *testing.T, major int) {
		t.Parallel()
		s := pgtest.Start(t, pgtest.Options{Major: major})
		allow(t, s)
		names := []string{"idle_session_timeout", "statement_timeout", "idle_in_transaction_session_timeout", "lock_timeout"}
		if major >= 17 {
			names = append(names, "transaction_timeout")
		}
		for _, name := range names {
			s.Exec(t, "ALTER ROLE "+pgtest.ReplUser+" SET "+name+" = '1s'")
			s.Exec(t, "ALTER DATABASE postgres SET "+name+" = '1s'")
		}
		s.Exec(t, "ALTER SYSTEM SET idle_session_timeout = '1s'") // the only way to one for replication
		s.Exec(t, "SELECT pg_reload_conf()")
		o := bed(t, s, t.TempDir())
		o.MaxRate = 8 << 20
		for _, o.Source = range []Source{Files, Stream} {
			summary, err := Run(t.Context(), o)
			if err != nil {
				t.Fatalf("%s: %v", o.Source, err)
			}
			if took := summary.StoppedAt.Sub(summary.StartedAt); took < 2*time.Second {
				t.Errorf("%s: it took only %s", o.Source, took)
			}
		}
	})
}
