package e2e

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/pgmoneta/pgmoneta-go/internal/mgmt"
	"github.com/pgmoneta/pgmoneta-go/test/pgtest"
)

// A crowd is how many bad clients there are at once.
type crowd struct{ idle, slow, malformed int }

// Clients that say nothing, say it slowly or say nonsense delay neither others nor WAL,
// and do not grow the daemon. The long form is the crowd the daemon is promised to bear.
func TestBadClientsDelayNobody(t *testing.T) {
	c, most := crowd{idle: 1500, slow: 100, malformed: 100}, 500*time.Millisecond
	if long() {
		c, most = crowd{idle: 10_000, slow: 1_000, malformed: 1_000}, 50*time.Millisecond
	}
	s := pgtest.Start(t, pgtest.Options{})
	s.Exec(t, "CREATE TABLE t (i int)")
	d := newDaemon(t, map[string]*pgtest.Server{"primary": s})
	d.waitStreaming(t, "primary")

	ctx, cancel := context.WithCancel(t.Context())
	var clients sync.WaitGroup
	defer clients.Wait()
	defer cancel()
	for range c.idle {
		conn := d.connect(t)
		defer conn.Close()
	}
	for i := range c.slow {
		clients.Go(func() { repeat(ctx, d, func(conn net.Conn) { speakSlowly(ctx, conn, i) }) })
	}
	for i := range c.malformed {
		clients.Go(func() { repeat(ctx, d, func(conn net.Conn) { speakNonsense(ctx, conn, i) }) })
	}

	var pings, flushes []time.Duration
	for i := range 300 {
		pings = append(pings, d.ping(t))
		if i%20 == 0 {
			flushes = append(flushes, d.flush(t, s))
		}
	}
	slices.Sort(pings)
	slices.Sort(flushes)
	p99 := pings[len(pings)*99/100]
	memory := d.highWater(t)
	t.Logf("%+v: ping p50 %s, p99 %s, longest %s; commit until flushed: median %s, longest %s; at most %d MB resident",
		c, pings[len(pings)/2], p99, pings[len(pings)-1], flushes[len(flushes)/2], flushes[len(flushes)-1], memory>>20)
	if p99 > most {
		t.Errorf("ping takes %s at p99, want at most %s", p99, most)
	}
	if longest := flushes[len(flushes)-1]; longest > 3*time.Second {
		t.Errorf("WAL was flushed after %s", longest)
	}
	if memory > 256<<20 {
		t.Errorf("the daemon took %d MB", memory>>20)
	}
}

// connect connects as often as it takes: more clients than the kernel queues are told to try again.
func (d *daemon) connect(t *testing.T) net.Conn {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
		conn, err := net.Dial("unix", d.path(mgmt.SocketName))
		if err == nil {
			return conn
		}
		if !errors.Is(err, syscall.EAGAIN) || time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
}

// repeat lets a bad client come again whenever it was turned away.
func repeat(ctx context.Context, d *daemon, speak func(net.Conn)) {
	for ctx.Err() == nil {
		if conn, err := net.Dial("unix", d.path(mgmt.SocketName)); err == nil {
			speak(conn)
			_ = conn.Close()
		}
		select {
		case <-ctx.Done():
		case <-time.After(time.Second):
		}
	}
}

// speakSlowly sends a byte of a request every 100 ms.
func speakSlowly(ctx context.Context, conn net.Conn, i int) {
	message := append([]byte{0, 0, 0, 0, 0x40, 0}, make([]byte, 1<<14)...)
	for _, b := range message[i%4:] {
		select {
		case <-ctx.Done():
			return
		case <-time.After(100 * time.Millisecond):
		}
		if _, err := conn.Write([]byte{b}); err != nil {
			return
		}
	}
}

// speakNonsense sends what is no request and reads the answer.
func speakNonsense(ctx context.Context, conn net.Conn, i int) {
	nonsense := []string{"\xff\xff\xff\xff\xff\xff", "\x00\x00\x7f\xff\xff\xff", "\x00\x00\x00\x00\x00\x03{[{", "GET / HTTP/1.1\r\n\r\n", "\x03\x03\x00\x00\x00\x10" + strings.Repeat("\xa5", 16)}
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	_, _ = io.WriteString(conn, nonsense[i%len(nonsense)])
	_, _ = io.Copy(io.Discard, conn)
}

// ping asks once and tells how long that took, from connecting on.
func (d *daemon) ping(t *testing.T) time.Duration {
	t.Helper()
	began := time.Now()
	c, err := mgmt.Dial(t.Context(), d.path(mgmt.SocketName))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	doc, err := c.Call(t.Context(), mgmt.Ping, nil)
	if err != nil || !doc.Outcome().Status {
		t.Fatalf("ping: %v, %v", doc.Outcome(), err)
	}
	return time.Since(began)
}

// flush commits and tells how long it took until the commit was flushed by the daemon.
func (d *daemon) flush(t *testing.T, s *pgtest.Server) time.Duration {
	t.Helper()
	s.Exec(t, "INSERT INTO t VALUES (1)")
	began := time.Now()
	lsn := s.QueryString(t, "SELECT pg_current_wal_lsn()")
	s.WaitFor(t, fmt.Sprintf("EXISTS (SELECT FROM pg_stat_replication WHERE flush_lsn >= '%s')", lsn))
	return time.Since(began)
}

// highWater returns the most memory that the daemon had, in bytes.
func (d *daemon) highWater(t *testing.T) int64 {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", d.pid()))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(status)) {
		if rest, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			kb, err := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			return kb << 10
		}
	}
	t.Fatal("no VmHWM")
	return 0
}
