package mgmt

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

func call(t *testing.T, path string, cmd Command, args Document) (Document, error) {
	t.Helper()
	c, err := Dial(context.Background(), path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	c.Version = "0.22.0"
	return c.Call(context.Background(), cmd, args)
}

func TestCallReturnsTheResponse(t *testing.T) {
	t.Parallel()
	requests := make(chan *Request, 1)
	handle := func(_ context.Context, req *Request) (Response, error) {
		requests <- req
		return Response{"Backups": []string{"a", "b"}, "Server": req.Server()}, nil
	}
	path := start(t, handle, Options{})
	doc, err := call(t, path, Retain, Document{"Server": "east", "Backup": "newest", "Cascade": true})
	if err != nil {
		t.Fatal(err)
	}
	if err := doc.Outcome().Err(); err != nil {
		t.Errorf("outcome = %v, want success", err)
	}
	want := Document{"Backups": []any{"a", "b"}, "Server": "east", "ServerVersion": "0.22.0"}
	if got := doc.Object("Response"); !reflect.DeepEqual(got, want) {
		t.Errorf("Response = %v, want %v", got, want)
	}
	if seen := <-requests; seen.Command != Retain || seen.Backup() != "newest" || !seen.Args.Bool("Cascade") {
		t.Errorf("the handler saw %+v", seen)
	}
}

func TestOutcomeCarriesTheReason(t *testing.T) {
	t.Parallel()
	fail := func(context.Context, *Request) (Response, error) {
		return nil, &Error{Code: CodeBackupOffline, Workflow: "Backup", Err: errors.New("server offline"), WorkerErrors: []string{"w"}}
	}
	doc, err := call(t, start(t, fail, Options{}), Backup, nil)
	if err != nil {
		t.Fatal(err)
	}
	var e *Error
	if !errors.As(doc.Outcome().Err(), &e) || e.Code != CodeBackupOffline || e.Workflow != "Backup" || len(e.WorkerErrors) != 1 {
		t.Fatalf("Outcome.Err() = %#v, want code 110 of Backup", e)
	}
	if want := "server offline (error 110)"; e.Error() != want {
		t.Errorf("Error() = %q, want %q", e.Error(), want)
	}
	if got := (Document{}).Outcome().Err(); got == nil {
		t.Error("a response without Outcome counts as success")
	}
}

// scripted accepts one connection, sends raw and closes.
func scripted(t *testing.T, raw []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s")
	ln, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		conn, err := ln.Accept()
		if err != nil {
			return
		}
		h, err := readHeader(conn)
		if err == nil {
			_, err = readBody(conn, h)
		}
		if err == nil {
			_, _ = conn.Write(raw)
		}
		_ = conn.Close()
	}()
	t.Cleanup(func() {
		_ = ln.Close()
		<-done
	})
	return path
}

func TestCallReportsUnusableResponses(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		raw  []byte
		want string
	}{
		{"closed at once", nil, ErrNoResponse.Error()},
		{"half a header", []byte{0, 0, 0}, "unexpected EOF"},
		{"half a body", frame("{}    ")[:8], "2 of 6 bytes"},
		{"empty LZ4", []byte{3, 0, 0, 0, 0, 0}, "unexpected EOF"},
		{"a code of nobody", []byte{9, 0, 0, 0, 0, 0}, "compression 9"},
		{"array", frame("[]"), "want an object"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			doc, err := call(t, scripted(t, tt.raw), Ping, nil)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("Call = %v, %v, want an error with %q", doc, err, tt.want)
			}
		})
	}
}

func TestCallEndsWithItsContext(t *testing.T) {
	t.Parallel()
	entered, release := make(chan struct{}), make(chan struct{})
	hold := func(context.Context, *Request) (Response, error) {
		close(entered)
		<-release
		return nil, nil
	}
	path := start(t, hold, Options{})
	t.Cleanup(func() { close(release) })
	c, err := Dial(context.Background(), path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	ctx, cancel := context.WithCancelCause(context.Background())
	cause := errors.New("interrupted")
	go func() {
		<-entered
		cancel(cause)
	}()
	if _, err := c.Call(ctx, Backup, nil); !errors.Is(err, cause) {
		t.Errorf("Call after cancel = %v, want %v", err, cause)
	}
}

func TestDialNamesTheSocket(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "none")
	_, err := Dial(context.Background(), path)
	if !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), path) {
		t.Errorf("Dial = %v, want an error that names %s", err, path)
	}
}

func TestListenCreatesAPrivateSocket(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, SocketName)
	ln, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Lstat(path)
	if err != nil || info.Mode() != fs.ModeSocket|0o600 {
		t.Errorf("socket is %v, %v, want mode 0600", info.Mode(), err)
	}
	if got := ln.Addr().String(); got != path {
		t.Errorf("Addr() = %s, want %s", got, path)
	}
	if entries, _ := os.ReadDir(dir); len(entries) != 1 {
		t.Errorf("directory holds %v, want the socket only", entries)
	}
	if err := ln.Close(); err != nil {
		t.Errorf("Close = %v", err)
	}
	if entries, _ := os.ReadDir(dir); len(entries) != 0 {
		t.Errorf("directory holds %v after Close, want nothing", entries)
	}
}

func TestListenRefusesASocketInUse(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), SocketName)
	ln, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = ln.Close() }()
	var inUse *InUseError
	if _, err := Listen(path); !errors.As(err, &inUse) {
		t.Errorf("second Listen = %v, want an InUseError", err)
	}
	if _, err := os.Lstat(path); err != nil {
		t.Errorf("the socket in use: %v, want it untouched", err)
	}
}

func TestListenReplacesAStaleSocket(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), SocketName)
	stale, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	stale.SetUnlinkOnClose(false)
	_ = stale.Close()

	ln, err := Listen(path)
	if err != nil {
		t.Fatalf("Listen over a stale socket = %v", err)
	}
	conn, err := net.Dial("unix", path)
	if err != nil {
		t.Errorf("connect after replacing: %v", err)
	} else {
		_ = conn.Close()
	}
	_ = ln.Close()
}

func TestListenLeavesOtherFilesAlone(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), SocketName)
	if err := os.WriteFile(path, []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Listen(path); err == nil || !strings.Contains(err.Error(), "not a socket") {
		t.Errorf("Listen over a file = %v, want a refusal", err)
	}
	if b, err := os.ReadFile(path); err != nil || string(b) != "mine" {
		t.Errorf("the file is now %q, %v", b, err)
	}
}

func TestCloseLeavesASuccessorsSocket(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), SocketName)
	first, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	second, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	_ = first.Close()
	if _, err := os.Lstat(path); err != nil {
		t.Errorf("closing the first listener removed the second one's socket: %v", err)
	}
	_ = second.Close()
}

func FuzzReadFrame(f *testing.F) {
	f.Add(frame(`{"Header":{"Command":9}}`))
	f.Add([]byte{0, 0, 255, 255, 255, 255})
	f.Add([]byte{1, 2, 0, 0, 0, 0})
	f.Add([]byte{0})
	f.Fuzz(func(t *testing.T, in []byte) {
		r := bytes.NewReader(in)
		h, err := readHeader(r)
		if err != nil || h.check(MaxRequest) != nil {
			return
		}
		body, err := readBody(r, h)
		if err == nil && len(body) != int(h.length) {
			t.Fatalf("body of %d bytes, header says %d", len(body), h.length)
		}
	})
}
