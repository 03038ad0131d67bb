package expire

import (
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pgmoneta/pgmoneta-go/internal/backup"
	"github.com/pgmoneta/pgmoneta-go/internal/container"
	"github.com/pgmoneta/pgmoneta-go/internal/durable"
	"github.com/pgmoneta/pgmoneta-go/internal/pg"
	"github.com/pgmoneta/pgmoneta-go/internal/pgrepl"
	"github.com/pgmoneta/pgmoneta-go/internal/repo"
	"github.com/pgmoneta/pgmoneta-go/internal/restore"
	"github.com/pgmoneta/pgmoneta-go/internal/retention"
	"github.com/pgmoneta/pgmoneta-go/internal/verify"
	"github.com/pgmoneta/pgmoneta-go/internal/wal"
	"github.com/pgmoneta/pgmoneta-go/internal/wal/waltest"
	"github.com/pgmoneta/pgmoneta-go/internal/walcheck"
	"github.com/pgmoneta/pgmoneta-go/test/pgtest"
)

// A flushed watches how far WAL has been received.
type flushed struct {
	wal.Unwatched
	lsn atomic.Uint64
}

func (f *flushed) Flushed(lsn pg.LSN, _ time.Time, _ time.Duration) { f.lsn.Store(uint64(lsn)) }

// A month is a server with a clock of its own: every hour takes a moment.
type month struct {
	t       *testing.T
	server  *pgtest.Server
	repo    *repo.Repository
	flushed flushed
	log     *slog.Logger
	params  pgrepl.Params
	clock   time.Time
	moments []moment
}

// A moment is what the server held at a time: rows 1 to n.
type moment struct {
	at  time.Time
	lsn pg.LSN
	n   int
}

func newMonth(t *testing.T) *month {
	t.Helper()
	s := pgtest.Start(t, pgtest.Options{})
	s.Exec(t, "CREATE TABLE marks (n int)")
	r, err := repo.Open(durable.OS{}, t.TempDir(), "primary")
	if err != nil {
		t.Fatal(err)
	}
	m := &month{t: t, server: s, repo: r, log: slog.New(slog.DiscardHandler), clock: time.Date(2026, 10, 24, 0, 0, 0, 0, time.UTC),
		params: waltest.Params(s)}
	waltest.Receive(t, s, &wal.Receiver{Repo: r, Codec: container.Zstd, Level: 1, Monitor: &m.flushed, Log: m.log})
	return m
}

// now is the clock, which goes on a little each time it is read.
func (m *month) now() time.Time {
	m.clock = m.clock.Add(time.Second)
	return m.clock
}

// hour lets an hour pass: rows are written, a backup is taken, and the retention runs.
func (m *month) hour(n int, p retention.Policy) Result {
	m.t.Helper()
	s, err := backup.Run(m.t.Context(), backup.Options{Params: m.params, Repo: m.repo, Codec: container.Zstd, Level: 1, Workers: 2,
		Streaming: func() (bool, string) { return true, "" }, Progress: func(string, int64, int64) {}, Now: m.now, Log: m.log})
	if err != nil {
		m.t.Fatal(err)
	}
	m.server.Exec(m.t, fmt.Sprintf("INSERT INTO marks VALUES (%d)", n))
	m.mark(n, s.StoppedAt)
	m.clock = m.clock.Truncate(time.Hour).Add(time.Hour)
	o := Options{Repo: m.repo, Policy: p, Now: m.now, Progress: func(string, int64, int64) {}}
	lock, err := m.repo.Lock()
	if err != nil {
		m.t.Fatal(err)
	}
	defer func() { _ = lock.Release() }()
	at := m.clock
	o.Now = func() time.Time { return at }
	want, err := Look(m.t.Context(), o)
	if err != nil {
		m.t.Fatal(err)
	}
	got, err := Run(m.t.Context(), o)
	if err != nil {
		m.t.Fatal(err)
	}
	if fmt.Sprint(got.Decisions, got.WAL, got.WALBytes) != fmt.Sprint(want.Decisions, want.WAL, want.WALBytes) {
		m.t.Errorf("hour %d: looking says %v, doing %v", n, want, got)
	}
	if again, err := Look(m.t.Context(), o); err != nil || len(again.Delete()) > 0 || len(again.WAL) > 0 {
		m.t.Errorf("hour %d: a second run deletes %v and %v, %v", n, again.Delete(), again.WAL, err)
	}
	if len(got.Refused) > 0 {
		m.t.Errorf("hour %d: refused: %v", n, got.Refused)
	}
	return got
}

// mark notes what the server holds, once that has been received.
func (m *month) mark(n int, after time.Time) {
	m.t.Helper()
	lsn, err := pg.ParseLSN(m.server.QueryString(m.t, "SELECT pg_current_wal_flush_lsn()"))
	if err != nil {
		m.t.Fatal(err)
	}
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(time.Minute); pg.LSN(m.flushed.lsn.Load()) < lsn; <-tick.C {
		if time.Now().After(deadline) {
			m.t.Fatalf("WAL up to %s did not come", lsn)
		}
	}
	m.moments = append(m.moments, moment{after.Add(time.Minute), lsn, n})
}

// restored restores a moment and compares it.
func (m *month) restored(at moment) {
	m.t.Helper()
	target, err := restore.ParsePosition("lsn=" + at.lsn.String() + ",inclusive=off")
	if err != nil {
		m.t.Fatal(err)
	}
	plan, err := restore.MakePlan(m.t.Context(), m.repo, restore.Options{Backup: "newest", Target: target, Directory: m.t.TempDir()})
	if err != nil {
		m.t.Fatalf("%s, %s: %v", at.at, at.lsn, err)
	}
	if err := restore.Run(m.t.Context(), plan, restore.RunOptions{Log: m.log}); err != nil {
		m.t.Fatal(err)
	}
	pgtest.Own(m.t, plan.Directory)
	s := pgtest.OpenDir(m.t, m.server.Major, plan.Directory, pgtest.Options{})
	want := fmt.Sprintf("%d %d", at.n, at.n*(at.n+1)/2)
	if got := s.QueryString(m.t, "SELECT count(*) || ' ' || sum(n) FROM marks"); got != want {
		m.t.Errorf("%s from backup %s: rows %s, want %s", at.at, plan.Backup.Label, got, want)
	}
	s.Stop(m.t, pgtest.Immediate)
}

// TestAMonthOfHourlyBackups takes a backup every hour of a month, of a real server with a
// clock of its own. Random moments of the window are restored and compared. The short
// form has 36 hours.
func TestAMonthOfHourlyBackups(t *testing.T) {
	t.Parallel()
	hours, restores := 36, 3
	p := retention.Policy{Days: 1, Window: 14 * time.Hour}
	if os.Getenv("PGMONETA_TEST_LONG") != "" {
		hours, restores = 31*24, 20
		p = retention.Policy{Days: 2, Weeks: 2, Months: 1, Window: 5 * 24 * time.Hour}
	}
	m := newMonth(t)
	deleted, segments := 0, 0
	for n := 1; n <= hours; n++ {
		r := m.hour(n, p)
		deleted, segments = deleted+len(r.Delete()), segments+len(r.WAL)
	}
	t.Logf("%d backups and %d segments deleted in %d hours", deleted, segments, hours)
	if deleted < hours/4 || segments < hours/2 { // two segments an hour
		t.Error("too little was deleted")
	}
	list, err := m.repo.Backups(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range list {
		if report, err := verify.Backup(t.Context(), m.repo, b.Label, verify.Options{}); err != nil || len(report.Problems) > 0 {
			t.Errorf("backup %s: %v, %v", b.Label, report.Problems, err)
		}
	}
	if report, err := walcheck.Check(t.Context(), m.repo, walcheck.Options{Deep: true}); err != nil || len(report.Findings) > 0 {
		t.Errorf("WAL: %v, %v", report.Findings, err)
	}
	first := len(m.moments)
	for first > 0 && m.moments[first-1].at.After(m.clock.Add(-p.Window)) {
		first--
	}
	m.restored(m.moments[first])
	r := rand.New(rand.NewPCG(1, 2))
	for range restores {
		m.restored(m.moments[first+r.IntN(len(m.moments)-first)])
	}
}
