package pgtest

import (
	"context"
	"crypto/md5"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// loadSchema does not wait for a synchronous standby: no row that is acknowledged later can be on the standby without it.
const loadSchema = `
set synchronous_commit = local;
create table if not exists pgtest_load (worker int, seq bigint, payload text, md5 text, primary key (worker, seq));
create table if not exists pgtest_accounts (worker int primary key, balance bigint not null);
`

// A Load writes to a server all the time and remembers what the server acknowledged. Each transaction inserts one row
// into pgtest_load and adds 1 to the worker's row of pgtest_accounts. Workers survive the end of the server: they
// connect again until [Load.Stop].
type Load struct {
	workers sync.WaitGroup
	cancel  context.CancelFunc
	target  atomic.Pointer[loadTarget]
	count   atomic.Int64

	mu    sync.Mutex
	acked []Ack
}

// A loadTarget is the server that workers write to; its context ends when they are sent to another.
type loadTarget struct {
	ctx    context.Context // ends statements that would wait forever on a server we turned away from
	cancel context.CancelFunc
	dsn    string
}

// An Ack is a row whose commit a server has acknowledged.
type Ack struct {
	Worker int
	Seq    int64
	Time   time.Time // when the acknowledgement arrived
}

// StartLoad runs workers against the database postgres of a server until [Load.Stop] or the end of the test.
// A second load on the same data continues the numbers of the first.
func StartLoad(t testing.TB, s *Server, workers int) *Load {
	t.Helper()
	s.Exec(t, loadSchema)
	ctx, cancel := context.WithCancel(context.Background())
	l := &Load{cancel: cancel}
	l.Redirect(s)
	for worker := range workers {
		s.Exec(t, fmt.Sprintf("set synchronous_commit = local; insert into pgtest_accounts values (%d, 0) on conflict do nothing", worker))
		var first int64
		next := s.QueryString(t, fmt.Sprintf("select coalesce(max(seq), 0) + 1 from pgtest_load where worker = %d", worker))
		if _, err := fmt.Sscan(next, &first); err != nil {
			t.Fatal(err)
		}
		l.workers.Go(func() { l.work(ctx, worker, first) })
	}
	t.Cleanup(func() { l.Stop() })
	return l
}

// Redirect sends the workers to another server. Transactions that are open on the old one are given up; whether they
// were committed is not known and they are not acknowledged.
func (l *Load) Redirect(s *Server) {
	ctx, cancel := context.WithCancel(context.Background())
	old := l.target.Swap(&loadTarget{ctx: ctx, cancel: cancel, dsn: s.DSN("postgres")})
	if old != nil {
		old.cancel()
	}
}

// Count returns how many transactions have been acknowledged so far.
func (l *Load) Count() int { return int(l.count.Load()) }

// WaitFor waits up to a minute until n more transactions have been acknowledged.
func (l *Load) WaitFor(t testing.TB, n int) {
	t.Helper()
	goal := l.Count() + n
	if !waitUntil(time.Minute, func() bool { return l.Count() >= goal }) {
		t.Fatalf("the load got %d transactions acknowledged within a minute, want %d", l.Count()-goal+n, n)
	}
}

// stopGrace is what transactions that are open at the end have to be acknowledged: one that were cut off could still
// commit on the server after the test has looked where its WAL ends.
const stopGrace = 5 * time.Second

// Stop ends the workers, each after the transaction it is in, waits for them and returns all that was acknowledged. A
// transaction of a server that does not answer within 5 s is given up. It may be called again.
func (l *Load) Stop() Acked {
	l.cancel()
	late := time.AfterFunc(stopGrace, l.target.Load().cancel)
	l.workers.Wait()
	late.Stop()
	l.target.Load().cancel()
	l.mu.Lock()
	defer l.mu.Unlock()
	return Acked(l.acked)
}

// work is one worker: connection after connection.
func (l *Load) work(ctx context.Context, worker int, seq int64) {
	retry := time.NewTicker(20 * time.Millisecond)
	defer retry.Stop()
	for ctx.Err() == nil {
		seq = l.session(ctx, worker, seq)
		select {
		case <-ctx.Done():
		case <-retry.C:
		}
	}
}

// session writes over one connection until it fails or the load is sent elsewhere, and returns the next number.
func (l *Load) session(ctx context.Context, worker int, seq int64) int64 {
	target := l.target.Load()
	connecting, cancel := context.WithTimeout(target.ctx, 2*time.Second)
	conn, err := pgx.Connect(connecting, target.dsn)
	cancel()
	if err != nil {
		return seq
	}
	defer func() {
		closing, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_ = conn.Close(closing)
	}()
	random := rand.New(rand.NewPCG(uint64(worker), uint64(seq)))
	for ; ctx.Err() == nil && l.target.Load() == target; seq++ {
		if err := transaction(target.ctx, conn, worker, seq, payload(random)); err != nil {
			// The commit may have reached the server: this number is never used again.
			return seq + 1
		}
		l.acknowledge(Ack{Worker: worker, Seq: seq, Time: time.Now()})
	}
	return seq
}

func (l *Load) acknowledge(a Ack) {
	l.mu.Lock()
	l.acked = append(l.acked, a)
	l.mu.Unlock()
	l.count.Add(1)
}

// payload is text of 100 to 400 bytes that does not compress well.
func payload(random *rand.Rand) string {
	raw := make([]byte, 50+random.IntN(150))
	for i := range raw {
		raw[i] = byte(random.Uint32())
	}
	return hex.EncodeToString(raw)
}

func transaction(ctx context.Context, conn *pgx.Conn, worker int, seq int64, payload string) error {
	tx, err := conn.Begin(ctx)
	if err != nil {
		return err
	}
	sum := md5.Sum([]byte(payload))
	if _, err := tx.Exec(ctx, "insert into pgtest_load values ($1, $2, $3, $4)", worker, seq, payload, hex.EncodeToString(sum[:])); err != nil {
		return err
	}
	if _, err := tx.Exec(ctx, "update pgtest_accounts set balance = balance + 1 where worker = $1", worker); err != nil {
		return err
	}
	return tx.Commit(ctx)
}

// Acked are the rows that a server promised to keep.
type Acked []Ack

// Until returns what was acknowledged at or before a time.
func (a Acked) Until(when time.Time) Acked {
	var before Acked
	for _, ack := range a {
		if !ack.Time.After(when) {
			before = append(before, ack)
		}
	}
	return before
}

// Missing returns a line for every acknowledged row that a server does not have or has with other contents, and for
// every worker whose account disagrees with its rows, which would be half a transaction. Nothing is as it should be.
func (a Acked) Missing(t testing.TB, s *Server) []string {
	t.Helper()
	state, wrong := loadState(t, s)
	for _, ack := range a {
		switch intact, found := state[[2]int64{int64(ack.Worker), ack.Seq}]; {
		case !found:
			wrong = append(wrong, fmt.Sprintf("worker %d seq %d, acknowledged %s: missing", ack.Worker, ack.Seq, ack.Time.Format(time.RFC3339Nano)))
		case !intact:
			wrong = append(wrong, fmt.Sprintf("worker %d seq %d: contents damaged", ack.Worker, ack.Seq))
		}
	}
	return wrong
}

// loadState reads which rows are there, and whether each is intact, and the accounts that do not add up.
func loadState(t testing.TB, s *Server) (rows map[[2]int64]bool, wrong []string) {
	t.Helper()
	rows = map[[2]int64]bool{}
	err := s.do("postgres", func(ctx context.Context, conn *pgx.Conn) error {
		found, err := conn.Query(ctx, "select worker, seq, md5(payload) = md5 from pgtest_load")
		if err != nil {
			return err
		}
		var worker, seq int64
		var intact bool
		if _, err := pgx.ForEachRow(found, []any{&worker, &seq, &intact}, func() error {
			rows[[2]int64{worker, seq}] = intact
			return nil
		}); err != nil {
			return err
		}
		off, err := queryText(ctx, conn, `select string_agg(format('worker %s: balance %s, but %s rows', worker, balance, n), E'\n')
			from pgtest_accounts join lateral (select count(*) n from pgtest_load l where l.worker = pgtest_accounts.worker) c on balance <> n`)
		wrong = strings.FieldsFunc(off, func(r rune) bool { return r == '\n' })
		return err
	})
	if err != nil {
		t.Fatalf("read what the load wrote: %v", err)
	}
	return rows, wrong
}
