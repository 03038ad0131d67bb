package wal

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/pgmoneta/pgmoneta-go/internal/container"
	"github.com/pgmoneta/pgmoneta-go/internal/durable"
	"github.com/pgmoneta/pgmoneta-go/internal/pg"
	"github.com/pgmoneta/pgmoneta-go/internal/pgrepl"
	"github.com/pgmoneta/pgmoneta-go/internal/repo"
	"github.com/pgmoneta/pgmoneta-go/test/pgtest"
)

func TestPastMovesOverRecordedHoles(t *testing.T) {
	holes := []repo.Hole{
		{Timeline: 1, From: 0x3000100, To: 0x5000000, Cause: repo.CauseRemoved},
		{Timeline: 1, From: 0x5000000, To: 0x6000000, Cause: repo.CauseSlotLost},
		{Timeline: 1, From: 0xA000000, To: 0xB000000, Cause: repo.CauseMissing},
		{Timeline: 2, From: 0x8000000, To: 0x9000000, Cause: repo.CauseRemoved},
	}
	for _, tt := range []struct{ at, want position }{
		{position{1, 0x2000000}, position{1, 0x2000000}},
		{position{1, 0x3000000}, position{1, 0x6000000}}, // into one, and from there into the next
		{position{1, 0x6000000}, position{1, 0x6000000}},
		{position{1, 0x8000000}, position{1, 0x8000000}}, // a hole of another timeline
		{position{2, 0x8000000}, position{2, 0x9000000}},
		{position{1, 0xA000000}, position{1, 0xA000000}}, // the server may still have it
	} {
		if got := past(tt.at, holes, 16*mib); got != tt.want {
			t.Errorf("past(%+v) = %+v, want %+v", tt.at, got, tt.want)
		}
	}
}

// loseWAL makes the server forget WAL that the receiver has not got.
func loseWAL(t *testing.T, s *pgtest.Server) {
	t.Helper()
	s.Exec(t, "CREATE TABLE IF NOT EXISTS filler (i int)")
	for range 30 {
		s.Exec(t, "INSERT INTO filler SELECT generate_series(1, 1000)")
		s.Exec(t, "SELECT pg_switch_wal()")
	}
	s.Exec(t, "CHECKPOINT")
}

func smallServer(t *testing.T, major int) *pgtest.Server {
	t.Helper()
	return pgtest.Start(t, pgtest.Options{Major: major, WALSegmentSize: 1, Settings: map[string]string{
		"max_wal_size": "2MB", "min_wal_size": "2MB", "wal_keep_size": "0", "max_slot_wal_keep_size": "4MB"}})
}

// The slot loses its WAL while the receiver is away. The hole is recorded with
// both ends, receiving goes on after it, and a second start neither asks for
// the lost WAL again nor records another hole.
func TestReceiverRecordsAHoleAndGoesOn(t *testing.T) {
	pgtest.ForEach(t, func(t *testing.T, major int) {
		t.Parallel()
		s := smallServer(t, major)
		r := newRepo(t)
		rc := func() *Receiver {
			return &Receiver{Params: params(s), Repo: r, FS: durable.OS{}, Slot: "pgmoneta", CreateSlot: true, PassHoles: true, Codec: container.Zstd, Level: 3}
		}
		m, stop := run(t, rc())
		m.wait(t, "the stream", func(m seen) bool { return m.flushed > 0 })
		stop()
		had := lsn(t, s)
		loseWAL(t, s)
		s.WaitFor(t, "(SELECT wal_status FROM pg_replication_slots WHERE slot_name = 'pgmoneta') = 'lost'")
		m, stop = run(t, rc())
		m.wait(t, "WAL after the hole", func(m seen) bool { return m.flushed > had+5*mib })
		stop()
		holes, err := r.Holes(context.Background())
		if err != nil || len(holes) != 1 || holes[0].Timeline != 1 || holes[0].Cause != repo.CauseSlotLost || holes[0].To <= holes[0].From {
			t.Fatalf("holes %+v, %v", holes, err)
		}
		if size := pg.SegmentSize(mib); size.Start(holes[0].From) > size.Start(had) {
			t.Errorf("the hole begins at %s, after the last WAL that was received before %s", holes[0].From, had)
		}
		m, _ = run(t, rc())
		m.wait(t, "the stream", func(m seen) bool { return m.flushed > 0 || m.tli == 1 })
		s.Exec(t, "SELECT pg_switch_wal()")
		end := lsn(t, s)
		m.wait(t, "new WAL", func(m seen) bool { return m.flushed >= end })
		if again, err := r.Holes(context.Background()); err != nil || len(again) != 1 {
			t.Errorf("after a restart there are %d holes, %v", len(again), err)
		}
	})
}

// The primary has removed WAL that its standby still has: the receiver takes it
// from there, and there is no hole.
func TestReceiverFillsFromAnotherMember(t *testing.T) {
	a := smallServer(t, pgtest.Newest(t))
	b := a.Standby(t, "standby")
	b.Exec(t, "ALTER SYSTEM SET wal_keep_size = '512MB'")
	b.Exec(t, "SELECT pg_reload_conf()")
	p := params(a)
	p.Others, p.Target = []pgrepl.Address{{Host: b.Host, Port: b.Port}}, pgrepl.Primary
	r := newRepo(t)
	rc := func() *Receiver {
		return &Receiver{Params: p, Repo: r, FS: durable.OS{}, Slot: "pgmoneta", CreateSlot: true, PassHoles: true, Codec: container.Zstd, Level: 3}
	}
	m, stop := run(t, rc())
	m.wait(t, "the stream", func(m seen) bool { return m.flushed > 0 })
	stop()
	loseWAL(t, a)
	b.CatchUp(t, a)
	a.WaitFor(t, "(SELECT wal_status FROM pg_replication_slots WHERE slot_name = 'pgmoneta') = 'lost'")
	end := lsn(t, a)
	m, stop = run(t, rc())
	m.wait(t, "all WAL", func(m seen) bool { return m.flushed >= end && m.slot == "reserved" })
	a.Exec(t, "SELECT pg_switch_wal()")
	end = lsn(t, a)
	m.wait(t, "the last segment", func(m seen) bool { return m.stored >= pg.SegmentSize(mib).Start(end) })
	stop()
	if holes, err := r.Holes(context.Background()); err != nil || len(holes) != 0 {
		t.Errorf("holes %v, %v", holes, err)
	}
	checkContinuous(t, r, mib)
	if n := compareWithServer(t, r, b); n < 20 {
		t.Errorf("only %d segments compared with the standby's", n)
	}
}

func TestReceiverStopsAtAHoleWhenToldTo(t *testing.T) {
	s := smallServer(t, pgtest.Newest(t))
	r := newRepo(t)
	m, stop := receive(t, s, r)
	m.wait(t, "the stream", func(m seen) bool { return m.flushed > 0 })
	stop()
	loseWAL(t, s)
	m, _ = receive(t, s, r)
	m.wait(t, "the hole", func(m seen) bool { return errors.Is(m.last, ErrHole) })
	if holes, err := r.Holes(context.Background()); err != nil || len(holes) != 0 {
		t.Errorf("a hole that was not passed is recorded: %v, %v", holes, err)
	}
}

// WAL that the server has removed lies in the directory of another archive: it is
// taken from there, and there is no hole, not even for a receiver that passes none.
func TestReceiverFillsFromAnotherArchive(t *testing.T) {
	dir := t.TempDir()
	pgtest.Own(t, dir)
	s := pgtest.Start(t, pgtest.Options{WALSegmentSize: 1, Settings: map[string]string{
		"max_wal_size": "4MB", "min_wal_size": "2MB", "max_slot_wal_keep_size": "1MB", "wal_keep_size": "0",
		"archive_mode": "on", "archive_command": "cp %p " + dir + "/%f"}})
	r := newRepo(t)
	rc := func() *Receiver {
		return &Receiver{Params: params(s), Repo: r, FS: durable.OS{}, Slot: "pgmoneta", CreateSlot: true, Codec: container.Zstd, Level: 3,
			Filler: &Filler{Repo: r, Dir: dir, Codec: container.Zstd, Level: 3, Log: slog.New(slog.NewTextHandler(t.Output(), nil))}}
	}
	m, stop := run(t, rc())
	m.wait(t, "the stream", func(m seen) bool { return m.flushed > 0 })
	stop()
	loseWAL(t, s)
	s.WaitFor(t, "(SELECT wal_status FROM pg_replication_slots WHERE slot_name = 'pgmoneta') = 'lost'")
	end := lsn(t, s)
	m, stop = run(t, rc())
	m.wait(t, "all WAL", func(m seen) bool { return m.flushed >= end })
	stop()
	if holes, err := r.Holes(context.Background()); err != nil || len(holes) != 0 {
		t.Errorf("holes %v, %v", holes, err)
	}
	checkContinuous(t, r, mib)
}

func TestReceiverTellsTheStateOfItsSlot(t *testing.T) {
	s := pgtest.Start(t, pgtest.Options{})
	m, _ := receive(t, s, newRepo(t))
	m.wait(t, "the state of the slot", func(m seen) bool { return m.slot == "reserved" })
}

// Three hosts, one of them dead, one a standby: the primary is found, and again
// after it fails and the standby is promoted.
func TestReceiverFollowsThePrimaryOfACluster(t *testing.T) {
	a := pgtest.Start(t, pgtest.Options{WALSegmentSize: 1, Settings: map[string]string{"wal_keep_size": "256MB"}})
	b := a.Standby(t, "standby")
	p := params(b) // the standby comes first and is passed over
	p.Others = []pgrepl.Address{{Host: "127.0.0.1", Port: 1}, {Host: a.Host, Port: a.Port}}
	p.Target = pgrepl.Primary
	r := newRepo(t)
	m, stop := run(t, &Receiver{Params: p, Repo: r, FS: durable.OS{}, Slot: "pgmoneta", CreateSlot: true, Codec: container.Zstd, Level: 3})
	m.wait(t, "the stream", func(m seen) bool { return m.tli == 1 })
	if n := a.QueryString(t, "SELECT count(*) FROM pg_stat_replication WHERE application_name = 'pgmoneta'"); n != "1" {
		t.Errorf("%s receivers on the primary", n)
	}
	load := pgtest.StartLoad(t, a, 2)
	load.WaitFor(t, 200)
	b.CatchUp(t, a)
	a.Kill(t)
	promoted := time.Now()
	b.Promote(t)
	load.Redirect(b)
	m.wait(t, "timeline 2", func(m seen) bool { return m.tli == 2 })
	if took := time.Since(promoted); took > 10*time.Second {
		t.Errorf("the new primary was followed after %s", took)
	}
	load.WaitFor(t, 200)
	load.Stop()
	b.Exec(t, "SELECT pg_switch_wal()")
	end := lsn(t, b)
	m.wait(t, "the last segment", func(m seen) bool { return m.stored >= pg.SegmentSize(mib).Start(end) })
	stop()
	compareWithServer(t, r, b)
	checkContinuous(t, r, mib)
}

// A disk that refuses for a while: nothing is acknowledged meanwhile, and once
// it is good again receiving goes on by itself without a hole.
func TestReceiverOutlivesDiskTrouble(t *testing.T) {
	for _, trouble := range []struct {
		kinds string
		err   error
	}{
		{"write allocate create", syscall.ENOSPC},
		{"write", syscall.EIO},
		{"datasync", syscall.EIO},
		{"sync", syscall.EIO},
		{"rename", syscall.EROFS},
		{"syncdir", syscall.EIO},
	} {
		t.Run(fmt.Sprintf("%s %v", trouble.kinds, trouble.err), func(t *testing.T) {
			t.Parallel()
			s := pgtest.Start(t, pgtest.Options{WALSegmentSize: 1, Settings: map[string]string{"wal_keep_size": "256MB"}})
			var now atomic.Bool
			hit := make(chan struct{}, 1)
			dir := t.TempDir()
			fsys, err := durable.NewFault(dir, func(op durable.Op) error {
				if now.Load() && strings.Contains(" "+trouble.kinds+" ", " "+op.Kind+" ") {
					select {
					case hit <- struct{}{}:
					default:
					}
					return trouble.err
				}
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
			r, err := repo.Open(fsys, dir, "primary")
			if err != nil {
				t.Fatal(err)
			}
			m, stop := receiveThrough(t, s, r, fsys)
			load := pgtest.StartLoad(t, s, 2)
			m.wait(t, "the stream", func(m seen) bool { return m.flushed != 0 })
			now.Store(true)
			s.SwitchWAL(t)
			m.wait(t, "the trouble", func(m seen) bool { return m.last != nil })
			<-hit
			load.WaitFor(t, 100)
			s.SwitchWAL(t)
			now.Store(false)
			load.WaitFor(t, 100)
			load.Stop()
			s.SwitchWAL(t)
			end := lsn(t, s)
			m.wait(t, "the last segment", func(m seen) bool { return m.stored >= pg.SegmentSize(mib).Start(end) })
			stop()
			if n := compareWithServer(t, r, s); n < 2 {
				t.Errorf("only %d segments compared", n)
			}
			checkContinuous(t, r, mib)
		})
	}
}

// Every stored segment and history arrives in the other directory, plain and
// whole. While that directory cannot be used WAL is received and stored as ever.
func TestShippingCopiesSegmentsAndNeverDelaysReceiving(t *testing.T) {
	s := pgtest.Start(t, pgtest.Options{WALSegmentSize: 1, Settings: map[string]string{"wal_keep_size": "256MB"}})
	r := newRepo(t)
	to := t.TempDir()
	block := filepath.Join(to, "primary") // a file where a directory is wanted
	if err := os.WriteFile(block, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	m, stop := run(t, &Receiver{Params: params(s), Repo: r, FS: durable.OS{}, Slot: "pgmoneta", CreateSlot: true, Codec: container.Zstd, Level: 3, ShipTo: to})
	s.Exec(t, "CREATE TABLE bulk AS SELECT i, md5(i::text) FROM generate_series(1, 30000) i")
	s.Exec(t, "SELECT pg_switch_wal()")
	end := lsn(t, s)
	m.wait(t, "the last segment to be stored", func(m seen) bool { return m.stored >= pg.SegmentSize(mib).Start(end) })
	m.wait(t, "the lag to show", func(m seen) bool { return m.waiting >= 2 && !m.behind.IsZero() })
	if err := os.Remove(block); err != nil {
		t.Fatal(err)
	}
	m.wait(t, "the last segment to be shipped", func(m seen) bool { return m.shipped >= pg.SegmentSize(mib).Start(end) })
	m.wait(t, "the lag to be gone", func(m seen) bool { return m.waiting == 0 && m.behind.IsZero() })
	stop()
	listing, err := r.ListWAL(context.Background())
	if err != nil || len(listing.Segments) < 2 {
		t.Fatalf("%v, %v", listing, err)
	}
	for _, name := range listing.Segments {
		want, err := os.ReadFile(filepath.Join(s.DataDir, "pg_wal", name))
		if err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(filepath.Join(to, "primary", "wal", name)); err != nil || !bytes.Equal(got, want) {
			t.Errorf("shipped %s differs from the server's, %v", name, err)
		}
	}
}

// On a server with hardly any load a segment would take days to fill; with
// MaxAge it is ended, and stored, soon.
func TestMaxAgeEndsASegmentOfAQuietServer(t *testing.T) {
	s := pgtest.Start(t, pgtest.Options{})
	s.Exec(t, "GRANT EXECUTE ON FUNCTION pg_switch_wal() TO "+pgtest.ReplUser)
	r := newRepo(t)
	m, _ := run(t, &Receiver{Params: params(s), Repo: r, FS: durable.OS{}, Slot: "pgmoneta", CreateSlot: true, Codec: container.Zstd, Level: 3, MaxAge: time.Second})
	s.Exec(t, "CREATE TABLE quiet (i int)")
	end := lsn(t, s)
	m.wait(t, "the segment to be stored", func(m seen) bool { return m.stored > end })
}
