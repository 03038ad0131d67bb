package wal

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pgmoneta/pgmoneta-go/internal/container"
	"github.com/pgmoneta/pgmoneta-go/internal/durable"
	"github.com/pgmoneta/pgmoneta-go/internal/pg"
	"github.com/pgmoneta/pgmoneta-go/internal/pgrepl"
	"github.com/pgmoneta/pgmoneta-go/test/pgtest"
)

// A proxy stands between a receiver and its server and mistreats what passes.
type proxy struct {
	ln     net.Listener
	server string

	fragment atomic.Bool // towards the receiver, byte by byte
	silent   atomic.Bool // pass nothing on, but keep connections open

	wg    sync.WaitGroup
	mu    sync.Mutex
	conns []net.Conn
}

func newProxy(t *testing.T, s *pgtest.Server) *proxy {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{ln: ln, server: fmt.Sprintf("%s:%d", s.Host, s.Port)}
	p.wg.Go(p.accept)
	t.Cleanup(func() {
		_ = ln.Close()
		p.mu.Lock()
		for _, c := range p.conns {
			_ = c.Close()
		}
		p.mu.Unlock()
		p.wg.Wait()
	})
	return p
}

func (p *proxy) port() int { return p.ln.Addr().(*net.TCPAddr).Port }

func (p *proxy) accept() {
	for {
		in, err := p.ln.Accept()
		if err != nil {
			return
		}
		out, err := net.Dial("tcp", p.server)
		if err != nil {
			_ = in.Close()
			continue
		}
		p.mu.Lock()
		p.conns = append(p.conns, in, out)
		p.mu.Unlock()
		p.wg.Go(func() { p.pass(out, in, false) })
		p.wg.Go(func() { p.pass(in, out, true) })
	}
}

func (p *proxy) pass(to, from net.Conn, down bool) {
	defer to.Close()
	b := make([]byte, 32<<10)
	for {
		n, err := from.Read(b)
		for p.silent.Load() && err == nil { // swallow it
			n, err = from.Read(b)
		}
		rest := b[:n]
		for len(rest) > 0 {
			piece := len(rest)
			if down && p.fragment.Load() {
				piece = 1
			}
			if _, werr := to.Write(rest[:piece]); werr != nil {
				return
			}
			rest = rest[piece:]
		}
		if err != nil {
			return
		}
	}
}

func TestReceiverReadsWALByteByByte(t *testing.T) {
	s := pgtest.Start(t, pgtest.Options{WALSegmentSize: 1, Settings: map[string]string{"wal_keep_size": "64MB"}})
	x := newProxy(t, s)
	x.fragment.Store(true)
	p := params(s)
	p.Port = x.port()
	r := newRepo(t)
	m, stop := run(t, &Receiver{Params: p, Repo: r, FS: durable.OS{}, Slot: "pgmoneta", CreateSlot: true, Codec: container.Zstd, Level: 3})
	s.Exec(t, "CREATE TABLE bulk AS SELECT i, md5(i::text) FROM generate_series(1, 5000) i")
	s.Exec(t, "SELECT pg_switch_wal()")
	end := lsn(t, s)
	m.wait(t, "the last segment", func(m seen) bool { return m.stored >= pg.SegmentSize(mib).Start(end) })
	stop()
	if n := compareWithServer(t, r, s); n < 1 {
		t.Error("nothing was compared")
	}
}

// A connection that is open and dead is noticed within the server's own
// patience, and made again.
func TestReceiverNoticesAHalfOpenConnection(t *testing.T) {
	s := pgtest.Start(t, pgtest.Options{Settings: map[string]string{"wal_sender_timeout": "3s"}})
	x := newProxy(t, s)
	p := params(s)
	p.Port = x.port()
	m, _ := run(t, &Receiver{Params: p, Repo: newRepo(t), FS: durable.OS{}, Slot: "pgmoneta", CreateSlot: true, Codec: container.Zstd, Level: 3})
	m.wait(t, "the stream", func(m seen) bool { return m.tli == 1 })
	x.silent.Store(true)
	went := time.Now()
	m.wait(t, "the loss to be noticed", func(m seen) bool { return m.last != nil })
	if took := time.Since(went); took > 8*time.Second {
		t.Errorf("noticed after %s, the server's patience is 3s", took)
	}
	x.silent.Store(false)
	conns := m.snapshot().conns
	m.wait(t, "a new connection", func(m seen) bool { return m.conns > conns })
}

// The probe waited for ever for an answer that a dead network had swallowed, and
// with it the news that a server waits for us synchronously.
func TestProbeNeverHangs(t *testing.T) {
	t.Parallel()
	s := pgtest.Start(t, pgtest.Options{})
	x := newProxy(t, s)
	p := params(s)
	p.Port = x.port()
	ctx := context.Background()
	conn, err := pgrepl.Connect(ctx, p)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	r := &Receiver{Params: p, Slot: "pgmoneta", Monitor: &record{}, Log: slog.New(slog.NewTextHandler(t.Output(), nil))}
	probe := r.newProbe(source{params: p}, conn, func(err error) { t.Errorf("the probe ends the session: %v", err) })
	defer probe.close()
	probe.turn(ctx)
	if probe.conn == nil {
		t.Fatal("the probe has no connection")
	}
	x.silent.Store(true)
	for _, what := range []string{"asking", "connecting"} {
		began := time.Now()
		probe.turn(ctx)
		if took := time.Since(began); took > probePatience+2*time.Second || probe.conn != nil {
			t.Errorf("%s took %s, limit %s", what, took, probePatience)
		}
	}
	x.silent.Store(false)
	s.Exec(t, "ALTER SYSTEM SET synchronous_standby_names = 'nobody'")
	s.Exec(t, "SELECT pg_reload_conf()")
	for deadline := time.Now().Add(30 * time.Second); !r.eager.Load(); probe.turn(ctx) {
		if time.Now().After(deadline) {
			t.Fatal("the probe sees nothing when the network is back")
		}
	}
}
