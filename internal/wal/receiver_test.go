package wal

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pgmoneta/pgmoneta-go/internal/container"
	"github.com/pgmoneta/pgmoneta-go/internal/durable"
	"github.com/pgmoneta/pgmoneta-go/internal/pg"
	"github.com/pgmoneta/pgmoneta-go/internal/pgrepl"
	"github.com/pgmoneta/pgmoneta-go/internal/repo"
	"github.com/pgmoneta/pgmoneta-go/internal/vault"
	"github.com/pgmoneta/pgmoneta-go/test/pgtest"
)

// seen is what a record remembers.
type seen struct {
	tli     pg.Timeline
	slot    string
	flushed pg.LSN
	stored  pg.LSN
	shipped pg.LSN
	waiting int       // segments to be shipped
	behind  time.Time // since when
	conns   int
	last    error
}

// record is a Monitor that remembers the last of everything.
type record struct {
	mu sync.Mutex
	seen
}

func (r *record) set(f func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	f()
}

func (r *record) Connected(Connection)                                 { r.set(func() { r.conns++ }) }
func (r *record) Streaming(tli pg.Timeline, _ pg.LSN)                  { r.set(func() { r.tli = tli }) }
func (r *record) Received(pg.Timeline, pg.LSN, pg.LSN, int, time.Time) {}
func (r *record) Flushed(lsn pg.LSN, _ time.Time, _ time.Duration)     { r.set(func() { r.flushed = lsn }) }
func (r *record) Queued(int)                                           {}
func (r *record) Stored(_ pg.Timeline, end pg.LSN, _ int64) {
	r.set(func() { r.stored = max(r.stored, end) })
}
func (r *record) Slot(state string, _ uint64)       { r.set(func() { r.slot = state }) }
func (r *record) Waiting(time.Time)                 {}
func (r *record) Shipped(_ pg.Timeline, end pg.LSN) { r.set(func() { r.shipped = end }) }
func (r *record) Shipping(waiting int, since time.Time) {
	r.set(func() { r.waiting, r.behind = waiting, since })
}
func (r *record) Archive(int, int64)     {}
func (r *record) Failed(err error)       { r.set(func() { r.last = err }) }
func (r *record) Disconnected(err error) { r.set(func() { r.last = err }) }

func (r *record) snapshot() seen {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.seen
}

func (r *record) wait(t *testing.T, what string, ok func(seen) bool) {
	t.Helper()
	deadline := time.Now().Add(60 * time.Second)
	for time.Now().Before(deadline) {
		if ok(r.snapshot()) {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	s := r.snapshot()
	t.Fatalf("waiting for %s: timeline %d, flushed %s, stored %s, last error %v", what, s.tli, s.flushed, s.stored, s.last)
}

func params(s *pgtest.Server) pgrepl.Params {
	return pgrepl.Params{Server: "primary", Host: s.Host, Port: s.Port, User: pgtest.ReplUser, Password: vault.NewSecret(pgtest.ReplPassword)}
}

// receive runs a receiver for a server until the test ends or stop is called.
func receive(t *testing.T, s *pgtest.Server, r *repo.Repository) (m *record, stop func()) {
	t.Helper()
	return receiveThrough(t, s, r, durable.OS{})
}

func receiveThrough(t *testing.T, s *pgtest.Server, r *repo.Repository, fsys durable.FS) (m *record, stop func()) {
	t.Helper()
	return run(t, &Receiver{Params: params(s), Repo: r, FS: fsys, Slot: "pgmoneta", CreateSlot: true, Codec: container.Zstd, Level: 3})
}

// run runs a receiver until the test ends or stop is called.
func run(t *testing.T, rc *Receiver) (m *record, stop func()) {
	t.Helper()
	m = &record{}
	rc.Monitor, rc.Log = m, slog.New(slog.NewTextHandler(t.Output(), nil))
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- rc.Run(ctx) }()
	var once sync.Once
	stop = func() {
		once.Do(func() {
			cancel()
			if err := <-done; err != nil && !errors.Is(err, durable.ErrPowerCut) {
				t.Errorf("Run: %v", err)
			}
		})
	}
	t.Cleanup(stop)
	return m, stop
}

func newRepo(t *testing.T) *repo.Repository {
	t.Helper()
	r, err := repo.Open(durable.OS{}, t.TempDir(), "primary")
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func lsn(t *testing.T, s *pgtest.Server) pg.LSN {
	t.Helper()
	l, err := pg.ParseLSN(s.QueryString(t, "SELECT pg_current_wal_flush_lsn()"))
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// compareWithServer compares every stored segment with the server's own file,
// as far as the server still has it.
func compareWithServer(t *testing.T, r *repo.Repository, s *pgtest.Server) int {
	t.Helper()
	ctx := context.Background()
	listing, err := r.ListWAL(ctx)
	if err != nil {
		t.Fatal(err)
	}
	compared := 0
	for _, name := range listing.Segments {
		want, err := os.ReadFile(filepath.Join(s.DataDir, "pg_wal", name))
		if err != nil {
			continue
		}
		seg, err := r.OpenSegment(ctx, name)
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(seg.Stream())
		_ = seg.Close()
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("segment %s differs from the server's (%v)", name, err)
		}
		compared++
	}
	return compared
}

func TestReceiverStoresWhatTheServerWrote(t *testing.T) {
	pgtest.ForEach(t, func(t *testing.T, major int) {
		t.Parallel()
		s := pgtest.Start(t, pgtest.Options{Major: major, WALSegmentSize: 1, Settings: map[string]string{"wal_keep_size": "256MB"}})
		r := newRepo(t)
		m, stop := receive(t, s, r)
		m.wait(t, "the stream", func(m seen) bool { return m.tli == 1 })
		load := pgtest.StartLoad(t, s, 4)
		load.WaitFor(t, 500)
		s.Exec(t, "CREATE TABLE bulk AS SELECT i, md5(i::text) FROM generate_series(1, 100000) i")
		load.WaitFor(t, 500)
		load.Stop()
		s.Exec(t, "SELECT pg_switch_wal()")
		end := lsn(t, s)
		m.wait(t, "the last segment", func(m seen) bool { return m.flushed >= end && m.stored >= pg.SegmentSize(mib).Start(end) })
		stop()
		if n := compareWithServer(t, r, s); n < 3 {
			t.Errorf("only %d segments compared", n)
		}
	})
}

func TestReceiverResumesAfterServerRestartAndItsOwn(t *testing.T) {
	s := pgtest.Start(t, pgtest.Options{WALSegmentSize: 1, Settings: map[string]string{"wal_keep_size": "256MB"}})
	r := newRepo(t)
	m, stop := receive(t, s, r)
	m.wait(t, "the stream", func(m seen) bool { return m.tli == 1 })
	load := pgtest.StartLoad(t, s, 2)
	load.WaitFor(t, 200)
	s.Kill(t)
	s.Restart(t)
	load.WaitFor(t, 200)
	m.wait(t, "a second connection", func(m seen) bool { return m.conns >= 2 })
	stop()
	load.WaitFor(t, 500)
	m, stop = receive(t, s, r)
	load.Stop()
	s.Exec(t, "SELECT pg_switch_wal()")
	end := lsn(t, s)
	m.wait(t, "the last segment", func(m seen) bool { return m.stored >= pg.SegmentSize(mib).Start(end) })
	stop()
	compareWithServer(t, r, s)
	checkContinuous(t, r, mib)
}

func checkContinuous(t *testing.T, r *repo.Repository, size pg.SegmentSize) {
	t.Helper()
	l, err := r.ListWAL(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	var last position
	for _, name := range l.Segments {
		tli, at, err := pg.ParseSegmentName(name, size)
		if err != nil {
			t.Fatal(err)
		}
		if last.tli == tli && at != last.lsn+pg.LSN(size) {
			t.Errorf("hole on timeline %d between %s and %s", tli, last.lsn, at)
		}
		last = position{tli, at}
	}
}

func TestReceiverKeepsPartialAtTimelineSwitch(t *testing.T) {
	pgtest.ForEach(t, func(t *testing.T, major int) {
		t.Parallel()
		primary := pgtest.Start(t, pgtest.Options{Major: major, WALSegmentSize: 1, Settings: map[string]string{"wal_keep_size": "256MB"}})
		standby := primary.Standby(t, "standby")
		r := newRepo(t)
		m, stop := receive(t, standby, r)
		m.wait(t, "the stream", func(m seen) bool { return m.tli == 1 })
		load := pgtest.StartLoad(t, primary, 2)
		load.WaitFor(t, 300)
		primary.Stop(t, pgtest.Fast)
		standby.Promote(t)
		load.Redirect(standby)
		m.wait(t, "timeline 2", func(m seen) bool { return m.tli == 2 })
		load.WaitFor(t, 300)
		load.Stop()
		standby.Exec(t, "SELECT pg_switch_wal()")
		end := lsn(t, standby)
		m.wait(t, "the last segment", func(m seen) bool { return m.stored >= pg.SegmentSize(mib).Start(end) })
		stop()
		_, partial, err := r.Received()
		if err != nil || !strings.HasPrefix(strings.Join(partial, " "), "00000001") {
			t.Errorf("the last segment of timeline 1 is not partial: %v, %v", partial, err)
		}
		h, err := r.History(context.Background(), 2)
		if err != nil || !h.Contains(1) {
			t.Errorf("history of timeline 2: %+v, %v", h, err)
		}
		compareWithServer(t, r, standby)
		checkContinuous(t, r, mib)
	})
}

func TestReceiverReportsWALThatIsGone(t *testing.T) {
	s := pgtest.Start(t, pgtest.Options{WALSegmentSize: 1, Settings: map[string]string{"max_wal_size": "2MB", "min_wal_size": "2MB", "wal_keep_size": "0"}})
	r := newRepo(t)
	m, stop := receive(t, s, r)
	m.wait(t, "the stream", func(m seen) bool { return m.flushed > 0 })
	stop()
	s.Exec(t, "SELECT pg_drop_replication_slot('pgmoneta')")
	for range 20 {
		s.Exec(t, "SELECT pg_switch_wal()")
		s.Exec(t, "CREATE TABLE IF NOT EXISTS x(i int)")
		s.Exec(t, "INSERT INTO x SELECT generate_series(1,1000)")
	}
	s.Exec(t, "CHECKPOINT")
	m, _ = receive(t, s, r)
	m.wait(t, "the hole", func(m seen) bool { return m.last != nil && strings.Contains(fmt.Sprint(m.last), "is gone") })
}

// The power of the receiver's machine fails at random moments under load. What
// PostgreSQL was told is flushed must be there afterwards, byte for byte, in
// the repository or in the receive directory.
func TestWhatPostgreSQLWasToldIsFlushedSurvivesPowerCuts(t *testing.T) {
	cuts := 15
	if os.Getenv("PGMONETA_TEST_LONG") != "" {
		cuts = 500
	}
	s := pgtest.Start(t, pgtest.Options{WALSegmentSize: 1, SyncStandbyNames: "", Settings: map[string]string{"wal_keep_size": "4GB", "synchronous_commit": "local"}})
	pgtest.StartLoad(t, s, 2)
	defer bulk(t, s)()
	dir := t.TempDir()
	for i := range cuts {
		// Named as a synchronous standby the receiver is eager, else it takes its time.
		s.Exec(t, fmt.Sprintf("ALTER SYSTEM SET synchronous_standby_names = '%s'", []string{"pgmoneta", ""}[i%2]))
		s.Exec(t, "SELECT pg_reload_conf()")
		at := 20 + rand.IntN([]int{1500, 150}[i%2])
		fsys, err := durable.NewPowerCut(dir, at)
		if err != nil {
			t.Fatal(err)
		}
		r, err := repo.Open(fsys, dir, "primary")
		if err != nil {
			t.Fatal(err)
		}
		m, stop := receiveThrough(t, s, r, fsys)
		m.wait(t, "the power cut", func(m seen) bool { return m.last != nil || fsys.Ops() >= at })
		stop()
		told, err := pg.ParseLSN(s.QueryString(t, "SELECT coalesce(restart_lsn, '0/0') FROM pg_replication_slots WHERE slot_name = 'pgmoneta'"))
		if err != nil {
			t.Fatal(err)
		}
		after := t.TempDir()
		if err := fsys.Image(after); err != nil {
			t.Fatal(err)
		}
		survivor, err := repo.Open(durable.OS{}, after, "primary")
		if err != nil {
			t.Fatal(err)
		}
		checked := checkFlushed(t, survivor, s, told)
		t.Logf("cut %d at operation %d: told %s, %d segments checked", i, at, told, checked)
		if err := os.RemoveAll(dir); err != nil {
			t.Fatal(err)
		}
		dir = after // life goes on with what survived
		if i%50 == 49 {
			dir = t.TempDir() // or with nothing but the slot, before checking all of it takes for ever
		}
	}
}

// bulk writes much WAL at a time until it is stopped, so that segments fill
// faster than they are synced. It waits for a slot that is far behind: on a
// slow machine the server would remove what the test still has to compare.
func bulk(t *testing.T, s *pgtest.Server) (stop func()) {
	t.Helper()
	s.Exec(t, "CREATE TABLE bulk (i int, filler text)")
	conn := s.Conn(t)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			var far bool
			_ = conn.QueryRow(ctx, "SELECT coalesce(max(pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn)), 0) > 64 * 1024 * 1024 FROM pg_replication_slots").Scan(&far)
			if far {
				rest(ctx, 50*time.Millisecond)
				continue
			}
			_, _ = conn.Exec(ctx, "INSERT INTO bulk SELECT i, repeat('x', 500) FROM generate_series(1, 1500) i")
			_, _ = conn.Exec(ctx, "TRUNCATE bulk")
			rest(ctx, 50*time.Millisecond)
		}
	}()
	return func() { cancel(); <-done }
}

// checkFlushed compares everything received up to told with the server's own files.
func checkFlushed(t *testing.T, r *repo.Repository, s *pgtest.Server, told pg.LSN) (checked int) {
	t.Helper()
	listing, err := r.ListWAL(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	complete, partial, err := r.Received()
	if err != nil {
		t.Fatal(err)
	}
	all := append(append(listing.Segments, complete...), partial...)
	if len(all) == 0 {
		return 0
	}
	_, first, err := pg.ParseSegmentName(slices.Min(all), mib)
	if err != nil {
		t.Fatal(err)
	}
	for at := first; at < told; at += mib {
		name := pg.SegmentName(1, at, mib)
		want, err := os.ReadFile(filepath.Join(s.DataDir, "pg_wal", name))
		if err != nil {
			t.Fatal(err)
		}
		n := min(int64(told-at), mib)
		got := receivedBytes(t, r, name)
		if int64(len(got)) < n || !bytes.Equal(got[:n], want[:n]) {
			t.Fatalf("PostgreSQL was told %s, but %s does not have its first %d bytes", told, name, n)
		}
		checked++
	}
	return checked
}

// receivedBytes returns a segment from wherever it is.
func receivedBytes(t *testing.T, r *repo.Repository, name string) []byte {
	t.Helper()
	seg, err := r.OpenSegment(context.Background(), name)
	if err == nil {
		defer seg.Close()
		b, err := io.ReadAll(seg.Stream())
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	for _, suffix := range []string{"", partialSuffix} {
		if b, err := os.ReadFile(filepath.Join(r.ReceiveDir(), name+suffix)); err == nil {
			return b
		}
	}
	return nil
}
