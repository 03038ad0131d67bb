package mgmt

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

type handlerFunc func(ctx context.Context, req *Request) (Response, error)

func (f handlerFunc) Handle(ctx context.Context, req *Request) (Response, error) { return f(ctx, req) }

func succeed(context.Context, *Request) (Response, error) { return nil, nil }

// wantServer refuses info of no server as the daemon does, and nothing else.
func wantServer(_ context.Context, req *Request) (Response, error) {
	if req.Command == Info && req.Server() == "" {
		return nil, &Error{Code: Info.Codes().NoServer, Err: errors.New(`server "" is not configured`)}
	}
	return nil, nil
}

// frozen returns a clock that moves by step at each reading.
func frozen(step time.Duration) func() time.Time {
	var mu sync.Mutex
	now := time.Unix(1_800_000_000, 0)
	return func() time.Time {
		mu.Lock()
		defer mu.Unlock()
		now = now.Add(step)
		return now
	}
}

// start serves h on a socket of its own until the test ends and returns the socket's path.
func start(t *testing.T, h handlerFunc, o Options) string {
	t.Helper()
	if o.Version == "" {
		o.Version = "0.22.0"
	}
	path := filepath.Join(t.TempDir(), SocketName)
	ln, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- NewServer(h, o).Serve(ctx, ln) }()
	t.Cleanup(func() {
		cancel()
		if err := <-served; err != nil {
			t.Errorf("Serve = %v, want nil after cancel", err)
		}
	})
	return path
}

func dial(t *testing.T, path string) *net.UnixConn {
	t.Helper()
	conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return conn
}

func frame(body string) []byte {
	b := binary.BigEndian.AppendUint32([]byte{0, 0}, uint32(len(body)))
	return append(b, body...)
}

// exchange sends raw bytes, then the end of the stream, and returns all that comes back.
func exchange(t *testing.T, path string, raw []byte) []byte {
	t.Helper()
	conn := dial(t, path)
	if _, err := conn.Write(raw); err != nil {
		t.Fatal(err)
	}
	if err := conn.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(conn)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

// TestMalformedRequests compares whole frames with the recorded ones of testdata/wire/malformed.
func TestMalformedRequests(t *testing.T) {
	t.Parallel()
	path := start(t, wantServer, Options{Now: frozen(0)})
	const bad = `"Outcome":{"Error":1,`
	const badTail = `"Status":false,"Workflow":"main"},"Response":{"Server":null,"ServerVersion":"0.22.0"}}`
	tests := []struct {
		name string
		raw  []byte
		want []string // parts of the response body
	}{
		{"not JSON", frame("hello"), []string{bad, badTail}},
		{"empty body", frame(""), []string{bad, badTail}},
		{"unknown escape", frame(`{"Header":{"Command":9,"x":"\q"}}`), []string{bad, badTail}},
		{"end inside the body", frame("{}        ")[:9], []string{bad, badTail, "3 of 10 bytes"}},
		{"end inside the header", []byte{0, 0, 0}, []string{bad, badTail}},
		{"array", frame(`[{"Header":{"Command":9}}]`), []string{bad, badTail}},
		{"no server", frame(`{"Header":{"Command":18},"Request":{"Backup":"newest"}}`), []string{`"Error":2201,`, `"Server":null`}},
		{"no request", frame(`{"Header":{"Command":18}}`), []string{`"Error":2201,`, `"Server":null`}},
		{"gzip code", append([]byte{1, 0, 0, 0, 0, 4}, "H4sI"...), []string{bad, badTail, "body of a frame: unexpected EOF"}},
		{"encryption code", []byte{0, 3, 0, 0, 0, 0}, []string{bad, badTail}},
		{"unknown codes", []byte{77, 99, 0, 0, 0, 0}, []string{bad, badTail}},
		{"four gigabytes announced", []byte{0, 0, 255, 255, 255, 255, '{'}, []string{bad, badTail, "4294967295 bytes"}},
		{"garbage", []byte("GET / HTTP/1.0\r\n\r\n"), []string{bad, badTail}},
		{"unknown command", frame(`{"Header":{"Command":4711},"Request":{"Server":"east"},"extra":[1]}`),
			[]string{`{"Header":{"Command":4711}`, `"Error":2,`, `"Request":{"Server":"east"},"Response":{"Server":"east",`, `"extra":[1]`}},
		{"command as text", frame(`{"Header":{"Command":"9"}}`), []string{`{"Header":{"Command":"9"}`, `"Error":2,`}},
		{"no header", frame(`{"Request":{}}`), []string{`"Error":2,`, `"Request":{}`}},
		{"header of another type", frame(`{"Header":9}`), []string{`"Error":2,`, `"Header":9`}},
		{"bytes after the object", frame(`{"Header":{"Command":9}} tail`), []string{`"Status":true`}},
		{"request of another type", frame(`{"Header":{"Command":9},"Request":[]}`), []string{`"Status":true`, `"Request":{}`}},
		{"outcome in a request", frame(`{"Header":{"Command":10},"Outcome":{"Status":7},"Response":{"x":1}}`),
			[]string{`{"Header":{"Command":10},"Outcome":{"Status":true,"Time":"`, `"}}`}},
		{"apostrophe", frame(`{"Header":{"Command":9},"Request":{"Comment":"it\'s"}}`), []string{`"Comment":"it's"`}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got := exchange(t, path, tt.raw)
			if len(got) < headerSize || !bytes.Equal(got, frame(string(got[headerSize:]))) {
				t.Fatalf("response %q is not one plain frame", got)
			}
			for _, part := range tt.want {
				if !strings.Contains(string(got), part) {
					t.Errorf("response %q lacks %q", got, part)
				}
			}
			exchanged := fmt.Sprintf("> %q\n< %q\n", tt.raw, got)
			name := filepath.Join("malformed", strings.ReplaceAll(tt.name, " ", "-")+".txt")
			if want := goldenNow(t, name, exchanged); exchanged != want {
				t.Errorf("exchanged\n%swant\n%s", exchanged, want)
			}
		})
	}
}

func TestConnectionWithoutAByteGetsNothing(t *testing.T) {
	t.Parallel()
	path := start(t, succeed, Options{})
	if got := exchange(t, path, nil); len(got) != 0 {
		t.Errorf("response to nothing = %q, want none", got)
	}
}

func TestOversizeRequestIsAnsweredWhileItIsStillSent(t *testing.T) {
	t.Parallel()
	path := start(t, succeed, Options{})
	conn := dial(t, path)
	size := MaxRequest + 1
	raw := binary.BigEndian.AppendUint32([]byte{0, 0}, uint32(size))
	if _, err := conn.Write(append(raw, make([]byte, size)...)); err != nil {
		t.Fatalf("sending the oversize frame: %v, want it read to its end", err)
	}
	_ = conn.CloseWrite()
	got, err := io.ReadAll(conn)
	if err != nil || !strings.Contains(string(got), `"Error":1,`) {
		t.Errorf("response = %q, %v, want error 1", got, err)
	}
}

func TestHandlerErrors(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		err  error
		want string
	}{
		{"typed", &Error{Code: CodeInfoNoBackup, Workflow: "info", Err: errors.New(`no backup "x": see list-backup`)},
			`"Outcome":{"Error":2200,"Message":"no backup \"x\": see list-backup","Status":false,"Workflow":"info"},` +
				`"Request":{"Server":"east"},"Response":{"Server":"east","ServerVersion":"v"}}`},
		{"of any type", errors.New("disk on fire"),
			`"Outcome":{"Error":2204,"Message":"disk on fire","Status":false,"Workflow":"main"},` +
				`"Request":{"Server":"east"},"Response":{"Server":"east","ServerVersion":"v"}}`},
		{"with all members", &Error{Code: CodeRestoreFailed, Server: "west", WorkerErrors: []string{"w1"}, Response: Document{"Need": 7}},
			`"Outcome":{"Error":601,"Status":false,"WorkerErrors":["w1"],"Workflow":"main"},` +
				`"Request":{"Server":"east"},"Response":{"Need":7,"Server":"west","ServerVersion":"v"}}`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			fail := func(context.Context, *Request) (Response, error) { return nil, tt.err }
			path := start(t, fail, Options{Version: "v"})
			got := exchange(t, path, frame(`{"Header":{"Command":18},"Request":{"Server":"east"}}`))
			if !strings.HasSuffix(string(got), tt.want) {
				t.Errorf("response %q, want it to end with %q", got, tt.want)
			}
		})
	}
}

func TestPanicIsAnsweredAndLogged(t *testing.T) {
	t.Parallel()
	var log bytes.Buffer
	boom := func(_ context.Context, req *Request) (Response, error) {
		if req.Command == Backup {
			panic("boom")
		}
		return nil, nil
	}
	path := start(t, boom, Options{Log: slog.New(slog.NewTextHandler(&log, nil))})

	got := exchange(t, path, frame(`{"Header":{"Command":1},"Request":{"Server":"east"}}`))
	if !strings.Contains(string(got), `"Error":1,`) || !strings.Contains(string(got), `"Workflow":"main"`) {
		t.Errorf("response after a panic = %q, want error 1 of main", got)
	}
	if strings.Contains(string(got), "boom") {
		t.Errorf("response %q carries the panic's text", got)
	}
	if !strings.Contains(log.String(), "err=boom") || !strings.Contains(log.String(), "server=east") {
		t.Errorf("log %q lacks the panic or the server", log.String())
	}
	if got := exchange(t, path, frame(`{"Header":{"Command":9}}`)); !strings.Contains(string(got), `"Status":true`) {
		t.Errorf("ping after a panic = %q, want success", got)
	}
}

func TestResponseThatCannotBeEncodedIsAnError(t *testing.T) {
	t.Parallel()
	odd := func(context.Context, *Request) (Response, error) { return Response{"x": make(chan int)}, nil }
	path := start(t, odd, Options{})
	got := exchange(t, path, frame(`{"Header":{"Command":9}}`))
	if !strings.Contains(string(got), `"Error":1,`) {
		t.Errorf("response = %q, want error 1", got)
	}
}

func TestIdleClientBlocksNobody(t *testing.T) {
	t.Parallel()
	path := start(t, succeed, Options{})
	dial(t, path) // says nothing
	half := dial(t, path)
	if _, err := half.Write([]byte{0, 0, 0}); err != nil {
		t.Fatal(err)
	}
	for range 20 {
		if got := exchange(t, path, frame(`{"Header":{"Command":9}}`)); !strings.Contains(string(got), `"Status":true`) {
			t.Fatalf("ping beside idle clients = %q, want success", got)
		}
	}
}

func TestOldestSilentClientGivesWay(t *testing.T) {
	t.Parallel()
	path := start(t, succeed, Options{MaxWaiting: 3})
	silent := make([]*net.UnixConn, 10)
	for i := range silent {
		silent[i] = dial(t, path)
	}
	for i := range 20 {
		if got := exchange(t, path, frame(`{"Header":{"Command":9}}`)); !strings.Contains(string(got), `"Status":true`) {
			t.Fatalf("ping %d among silent clients = %q, want success", i, got)
		}
	}
	for i, conn := range silent[:7] {
		if err := conn.SetReadDeadline(time.Now().Add(5 * time.Second)); err != nil {
			t.Fatal(err)
		}
		if n, err := conn.Read(make([]byte, 1)); n != 0 || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("silent client %d read %d, %v, want its end", i, n, err)
		}
	}
}

func TestClientBeyondTheLimitWaits(t *testing.T) {
	t.Parallel()
	entered, release := make(chan struct{}), make(chan struct{})
	hold := func(_ context.Context, req *Request) (Response, error) {
		if req.Command == Backup {
			close(entered)
			<-release
		}
		return nil, nil
	}
	path := start(t, hold, Options{MaxClients: 1})
	first, second := dial(t, path), dial(t, path)
	if _, err := first.Write(frame(`{"Header":{"Command":1}}`)); err != nil {
		t.Fatal(err)
	}
	<-entered
	if _, err := second.Write(frame(`{"Header":{"Command":19}}`)); err != nil {
		t.Fatal(err)
	}
	for _, c := range []Command{Ping, Retain, Expunge, Annotate, Undelete} { // that need no job
		if got := exchange(t, path, frame(fmt.Sprintf(`{"Header":{"Command":%d}}`, c))); !strings.Contains(string(got), `"Status":true`) {
			t.Fatalf("%s beside jobs = %q, want success", c, got)
		}
	}
	if err := second.SetReadDeadline(time.Now().Add(50 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if n, err := second.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("second client read %d, %v while the only place was taken, want a timeout", n, err)
	}
	close(release)
	if err := second.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(second); err != nil || !strings.Contains(string(got), `"Status":true`) {
		t.Errorf("second client = %q, %v, want success", got, err)
	}
}

func TestDisconnectDoesNotCancelTheJob(t *testing.T) {
	t.Parallel()
	entered, gone, result := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	job := func(ctx context.Context, _ *Request) (Response, error) {
		close(entered)
		<-gone
		result <- ctx.Err()
		return nil, nil
	}
	path := start(t, job, Options{})
	conn := dial(t, path)
	if _, err := conn.Write(frame(`{"Header":{"Command":1}}`)); err != nil {
		t.Fatal(err)
	}
	<-entered
	_ = conn.Close()
	close(gone)
	if err := <-result; err != nil {
		t.Errorf("context of the job after its client left = %v, want nil", err)
	}
}

func TestStopLetsRequestsAnswer(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), SocketName)
	ln, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	// Shutdown is such a request: it stops the server it is answered by.
	shutdown := func(ctx context.Context, _ *Request) (Response, error) {
		cancel()
		<-ctx.Done()
		return nil, nil
	}
	served := make(chan error, 1)
	go func() { served <- NewServer(handlerFunc(shutdown), Options{Version: "v"}).Serve(ctx, ln) }()

	idle := dial(t, path)
	got := exchange(t, path, frame(`{"Header":{"Command":6},"Request":{}}`))
	if !strings.Contains(string(got), `"Status":true`) || strings.Contains(string(got), `"Response"`) {
		t.Errorf("response to shutdown = %q, want success without Response", got)
	}
	if err := <-served; err != nil {
		t.Errorf("Serve = %v, want nil", err)
	}
	if rest, err := io.ReadAll(idle); err == nil && !strings.Contains(string(rest), "shutting down") && len(rest) != 0 {
		t.Errorf("idle client got %q, want the news or nothing", rest)
	}
	if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("socket after Serve: %v, want it gone", err)
	}
}

// pipes is a listener of in-memory connections, for tests whose clock is not the machine's.
type pipes struct {
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func newPipes() *pipes { return &pipes{conns: make(chan net.Conn), done: make(chan struct{})} }

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.done:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error {
	p.once.Do(func() { close(p.done) })
	return nil
}

func (p *pipes) Addr() net.Addr { return &net.UnixAddr{} }

func (p *pipes) dial() net.Conn {
	client, server := net.Pipe()
	p.conns <- server
	return client
}

func TestSlowClientsAreRefusedInTime(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		sent []byte
		want time.Duration
	}{
		{"nothing sent", nil, 10 * time.Second},
		{"half a header", []byte{0, 0, 0}, 10 * time.Second},
		{"half a body", frame("{}   ")[:8], 30 * time.Second},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithCancel(context.Background())
				ln := newPipes()
				served := make(chan error, 1)
				go func() { served <- NewServer(handlerFunc(succeed), Options{}).Serve(ctx, ln) }()

				begin := time.Now()
				conn := ln.dial()
				if len(tt.sent) > 0 {
					if _, err := conn.Write(tt.sent); err != nil {
						t.Fatal(err)
					}
				}
				got, err := io.ReadAll(conn)
				if err != nil || !strings.Contains(string(got), `"Error":1,`) {
					t.Errorf("response = %q, %v, want error 1", got, err)
				}
				if waited := time.Since(begin); waited != tt.want {
					t.Errorf("answered after %s, want %s", waited, tt.want)
				}
				cancel()
				<-served
			})
		})
	}
}

func TestClientThatDoesNotReadIsGivenUp(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(context.Background())
		ln := newPipes()
		served := make(chan error, 1)
		go func() { served <- NewServer(handlerFunc(succeed), Options{}).Serve(ctx, ln) }()

		conn := ln.dial()
		if _, err := conn.Write(frame(`{"Header":{"Command":9}}`)); err != nil {
			t.Fatal(err)
		}
		begin := time.Now()
		cancel()
		<-served // waits for the connection, which waits for its write deadline
		if waited := time.Since(begin); waited != 30*time.Second {
			t.Errorf("Serve returned after %s, want the write deadline of 30s", waited)
		}
		_ = conn.Close()
	})
}

func TestFormatElapsed(t *testing.T) {
	t.Parallel()
	tests := []struct {
		in   time.Duration
		want string
	}{
		{0, "00:00:0.0000"},
		{-time.Second, "00:00:0.0000"},
		{961 * time.Millisecond, "00:00:0.9610"},
		{39_149 * time.Microsecond, "00:00:0.0391"},
		{59*time.Second + 999_960*time.Microsecond, "00:01:0.0000"},
		{3*time.Hour + 25*time.Minute + 45*time.Second + 100*time.Microsecond, "03:25:45.0001"},
		{100 * time.Hour, "100:00:0.0000"},
	}
	for _, tt := range tests {
		if got := formatElapsed(tt.in); got != tt.want {
			t.Errorf("formatElapsed(%s) = %s, want %s", tt.in, got, tt.want)
		}
	}
}

func TestCommandCodesFallBackToOther(t *testing.T) {
	t.Parallel()
	if got := Verify.Codes(); got.NoServer != 800 || got.NoBackup != 806 || got.Busy != 806 {
		t.Errorf("Verify.Codes() = %+v, want 800 for no server, 806 for the rest", got)
	}
	if got := Command(4711).Codes().Other; got != CodeBadPayload {
		t.Errorf("Codes of an unknown command = %d, want %d", got, CodeBadPayload)
	}
	for _, c := range []Command{1, 2, 25, 200, 201} {
		if !c.Known() || c.Codes().Other == 0 {
			t.Errorf("command %d: known %t, code for everything else %d", int(c), c.Known(), c.Codes().Other)
		}
	}
}
