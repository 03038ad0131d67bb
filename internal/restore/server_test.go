package restore

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pgmoneta/pgmoneta-go/internal/backup"
	"github.com/pgmoneta/pgmoneta-go/internal/container"
	"github.com/pgmoneta/pgmoneta-go/internal/durable"
	"github.com/pgmoneta/pgmoneta-go/internal/pg"
	"github.com/pgmoneta/pgmoneta-go/internal/pgrepl"
	"github.com/pgmoneta/pgmoneta-go/internal/repo"
	"github.com/pgmoneta/pgmoneta-go/internal/wal"
	"github.com/pgmoneta/pgmoneta-go/internal/wal/waltest"
	"github.com/pgmoneta/pgmoneta-go/test/pgtest"
)

// watch is a Monitor that knows how far WAL has been received.
type watch struct {
	wal.Unwatched
	timeline atomic.Uint32
	flushed  atomic.Uint64
}

func (w *watch) Streaming(tli pg.Timeline, _ pg.LSN)              { w.timeline.Store(uint32(tli)) }
func (w *watch) Flushed(lsn pg.LSN, _ time.Time, _ time.Duration) { w.flushed.Store(uint64(lsn)) }

// A bed is a server whose WAL is received into a repository.
type bed struct {
	t      *testing.T
	server *pgtest.Server
	repo   *repo.Repository
	watch  *watch
	log    *slog.Logger
	params pgrepl.Params
	codec  container.Codec
	source backup.Source
}

func newBed(t *testing.T, s *pgtest.Server) *bed {
	t.Helper()
	return newSealedBed(t, s, "pgmoneta", container.Zstd, repo.Keys{})
}

// newSealedBed receives with a slot of its own into a repository that is sealed with keys.
func newSealedBed(t *testing.T, s *pgtest.Server, slot string, codec container.Codec, keys repo.Keys) *bed {
	t.Helper()
	r, err := repo.Open(durable.OS{}, t.TempDir(), "primary")
	if err != nil {
		t.Fatal(err)
	}
	r.UseKeys(keys)
	b := &bed{t: t, server: s, repo: r, codec: codec, watch: &watch{}, log: slog.New(slog.NewTextHandler(t.Output(), nil)), params: waltest.Params(s)}
	waltest.Receive(t, s, &wal.Receiver{Repo: r, Slot: slot, Codec: codec, Level: 3, Monitor: b.watch, Log: b.log})
	b.wait("the stream", func() bool { return b.watch.timeline.Load() == 1 })
	return b
}

func (b *bed) wait(what string, ok func() bool) {
	b.t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(time.Minute); !ok(); <-tick.C {
		if time.Now().After(deadline) {
			b.t.Fatalf("waiting for %s: timeline %d, flushed %s", what, b.watch.timeline.Load(), pg.LSN(b.watch.flushed.Load()))
		}
	}
}

// received waits until all WAL the server has written by now has arrived.
func (b *bed) received() {
	b.t.Helper()
	end, err := pg.ParseLSN(b.server.QueryString(b.t, "SELECT pg_current_wal_flush_lsn()"))
	if err != nil {
		b.t.Fatal(err)
	}
	b.wait("WAL up to "+end.String(), func() bool { return pg.LSN(b.watch.flushed.Load()) >= end })
}

func (b *bed) backup() repo.Summary {
	b.t.Helper()
	s, err := backup.Run(context.Background(), backup.Options{Source: b.source, Params: b.params, Repo: b.repo, Codec: b.codec, Level: 3, Workers: 2,
		Streaming: func() (bool, string) { return true, "" }, Progress: func(string, int64, int64) {}, Now: time.Now, Log: b.log})
	if err != nil {
		b.t.Fatal(err)
	}
	return s
}

// mark commits a row that later tells how far a restored server got, and returns
// its transaction id.
func (b *bed) mark(n int) (xid string) {
	b.t.Helper()
	return b.server.QueryString(b.t, fmt.Sprintf("INSERT INTO marks VALUES (%d) RETURNING pg_current_xact_id()", n))
}

// restore restores to a position, checks the result with pg_verifybackup, and starts it.
func (b *bed) restore(o Options, position string) (*pgtest.Server, *Plan) {
	b.t.Helper()
	target, err := ParsePosition(position)
	if err != nil {
		b.t.Fatal(err)
	}
	o.Target, o.Directory = target, b.t.TempDir()
	p, err := MakePlan(context.Background(), b.repo, o)
	if err != nil {
		b.t.Fatal(err)
	}
	if err := Run(context.Background(), p, RunOptions{Log: b.log}); err != nil {
		b.t.Fatal(err)
	}
	for _, dir := range p.roots() {
		pgtest.Own(b.t, dir)
	}
	if tool, ok := pgtest.ToolExact(b.t, b.server.Major, "pg_verifybackup"); ok {
		pgtest.RunTool(b.t, b.server, tool, p.Directory)
	} else {
		pgtest.RunTool(b.t, b.server, pgtest.Tool(b.t, b.server.Major, "pg_verifybackup"), "--no-parse-wal", p.Directory)
	}
	return pgtest.OpenDir(b.t, b.server.Major, p.Directory, pgtest.Options{}), p
}

func marks(t *testing.T, s *pgtest.Server) string {
	t.Helper()
	return s.QueryString(t, "SELECT string_agg(n::text, ' ' ORDER BY n) FROM marks")
}

const now = "SELECT to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS.US') || '+00'"

func TestRestoreToEveryKindOfTarget(t *testing.T) {
	t.Parallel()
	pgtest.ForEach(t, func(t *testing.T, major int) {
		t.Parallel()
		s := pgtest.Start(t, pgtest.Options{Major: major, WALSegmentSize: 1})
		s.Tablespace(t, "fast disk")
		s.Exec(t, `CREATE TABLE marks (n int); INSERT INTO marks VALUES (0);
			CREATE TABLE spread TABLESPACE "fast disk" AS SELECT i, md5(i::text) AS m FROM generate_series(1, 30000) i;
			CREATE INDEX ON spread (m)`)
		b := newBed(t, s)
		load := pgtest.StartLoad(t, s, 2)
		load.WaitFor(t, 100)
		label := string(b.backup().Label)
		b.mark(1)
		lsn := s.QueryString(t, "SELECT pg_current_wal_insert_lsn()")
		b.mark(2)
		at := s.QueryString(t, now)
		b.mark(3)
		s.Exec(t, "SELECT pg_create_restore_point('before 4')")
		b.mark(4)
		xid := b.mark(5)
		load.WaitFor(t, 200)
		b.mark(6)
		load.Stop()
		b.received()

		tests := []struct{ position, want string }{
			{"", "0"},
			{"immediate", "0"},
			{"lsn=" + lsn, "0 1"},
			{"lsn=" + lsn + ",inclusive=off,action=promote", "0 1"},
			{"time=" + at, "0 1 2"},
			{"name=before 4,action=promote", "0 1 2 3"},
			{"xid=" + xid, "0 1 2 3 4 5"},
			{"xid=" + xid + ",inclusive=off", "0 1 2 3 4"},
			{"latest", "0 1 2 3 4 5 6"},
		}
		for position, want := range map[string]string{
			"time=" + s.QueryString(t, strings.Replace(now, "clock_timestamp()", "(clock_timestamp() + interval '1 hour')", 1)): "the last transaction",
			"xid=4000000000":   "not in the archived WAL",
			"xid=3":            "not in the archived WAL",
			"name=never made":  "not in the archived WAL",
			"name=before 4":    "",
			"xid=" + xid:       "",
			"time=" + at:       "",
			"lsn=FFF/FFFFFFFF": "archived WAL of timeline 1 ends",
		} {
			target, err := ParsePosition(position)
			if err != nil {
				t.Fatal(err)
			}
			_, err = MakePlan(context.Background(), b.repo, Options{Backup: label, Target: target, Directory: t.TempDir()})
			var refused *TargetError
			switch {
			case want == "" && err == nil:
			case want == "" || !errors.As(err, &refused) || !strings.Contains(err.Error(), want) || refused.Before != (Point{repo.Label(label), "latest"}):
				t.Errorf("plan for %q: %v; want a refusal with %q that offers latest", position, err, want)
			}
		}
		for _, tt := range tests {
			restored, _ := b.restore(Options{Backup: label}, tt.position)
			if got := marks(t, restored); got != tt.want {
				t.Errorf("restored to %q: marks %q, want %q", tt.position, got, tt.want)
			}
			if n := restored.QueryString(t, "SELECT count(*) FROM spread"); n != "30000" {
				t.Errorf("restored to %q: %s rows in the tablespace", tt.position, n)
			}
			if tt.position == "latest" {
				pgtest.EqualContent(t, s, restored)
				amcheck(t, restored)
			}
			restored.Stop(t, pgtest.Immediate)
		}
	})
}

// amcheck checks all tables and indexes where the server brings the extension.
func amcheck(t *testing.T, s *pgtest.Server) {
	t.Helper()
	if s.QueryString(t, "SELECT count(*) FROM pg_available_extensions WHERE name = 'amcheck'") == "1" {
		pgtest.RunTool(t, s, pgtest.Tool(t, 18, "pg_amcheck"), "--install-missing", "--heapallindexed",
			"--host="+s.SocketDir, fmt.Sprintf("--port=%d", s.Port), "--username=postgres", "postgres")
	}
}

func TestRestoreAcrossATimelineSwitch(t *testing.T) {
	t.Parallel()
	pgtest.ForEach(t, func(t *testing.T, major int) {
		t.Parallel()
		primary := pgtest.Start(t, pgtest.Options{Major: major, WALSegmentSize: 1, Settings: map[string]string{"wal_keep_size": "256MB"}})
		primary.Exec(t, "CREATE TABLE marks (n int); INSERT INTO marks VALUES (0)")
		standby := primary.Standby(t, "standby")
		b := newBed(t, standby)
		load := pgtest.StartLoad(t, primary, 2)
		load.WaitFor(t, 100)
		label := string(b.backup().Label)
		primary.Exec(t, "INSERT INTO marks VALUES (1)")
		before := primary.QueryString(t, "SELECT pg_current_wal_insert_lsn()")
		primary.Exec(t, "INSERT INTO marks VALUES (2)")
		load.WaitFor(t, 100)
		primary.Stop(t, pgtest.Fast)
		standby.Promote(t)
		load.Redirect(standby)
		b.wait("timeline 2", func() bool { return b.watch.timeline.Load() == 2 })
		b.mark(3)
		after := standby.QueryString(t, "SELECT pg_current_wal_insert_lsn()")
		b.mark(4)
		load.WaitFor(t, 100)
		load.Stop()
		b.received()

		tests := []struct{ position, want, timeline string }{
			{"", "0", "1"},
			{"lsn=" + before, "0 1", ""},
			{"timeline=1,lsn=" + before, "0 1", ""},
			{"lsn=" + after, "0 1 2 3", ""},
			{"latest", "0 1 2 3 4", "3"},
			// Number 2 is in use: a second timeline 2 could never be archived beside it.
			{"timeline=1", "0 1 2", "3"},
		}
		for _, tt := range tests {
			restored, _ := b.restore(Options{Backup: label}, tt.position)
			if got := marks(t, restored); tt.position != "" && got != tt.want || !strings.HasPrefix(got, tt.want) {
				t.Errorf("restored to %q: marks %q, want %q", tt.position, got, tt.want)
			}
			if tt.timeline != "" {
				if got := restored.QueryString(t, "SELECT timeline_id FROM pg_control_checkpoint()"); got != tt.timeline {
					t.Errorf("restored to %q: timeline %s, want %s", tt.position, got, tt.timeline)
				}
			}
			if tt.position == "latest" {
				pgtest.EqualContent(t, standby, restored)
			}
			restored.Stop(t, pgtest.Immediate)
		}
	})
}

func TestRestoredReplicaFollowsThePrimary(t *testing.T) {
	t.Parallel()
	s := pgtest.Start(t, pgtest.Options{WALSegmentSize: 1})
	s.Exec(t, "CREATE TABLE marks (n int); INSERT INTO marks VALUES (0)")
	b := newBed(t, s)
	label := string(b.backup().Label)
	b.mark(1)
	s.SwitchWAL(t)
	b.mark(2)
	b.received()
	s.Exec(t, "SELECT pg_create_physical_replication_slot('replica')")
	o := Options{Backup: label, PrimarySlot: "replica", PrimaryConninfo: fmt.Sprintf("host=%s port=%d user=postgres", s.SocketDir, s.Port)}
	replica, p := b.restore(o, "replica")
	replica.CatchUp(t, s)
	b.mark(3)
	replica.CatchUp(t, s)
	if got := marks(t, replica); got != "0 1 2 3" {
		t.Errorf("marks on the replica: %q", got)
	}
	if got := s.QueryString(t, "SELECT active FROM pg_replication_slots WHERE slot_name = 'replica'"); got != "t" {
		t.Errorf("slot active: %s", got)
	}
	if !exists(filepath.Join(p.Directory, standbySignal)) {
		t.Error("standby.signal is missing")
	}
}
