package supervisor

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pgmoneta/pgmoneta-go/internal/config"
	"github.com/pgmoneta/pgmoneta-go/internal/ipc"
	"github.com/pgmoneta/pgmoneta-go/internal/logging"
	"github.com/pgmoneta/pgmoneta-go/internal/mgmt"
	"github.com/pgmoneta/pgmoneta-go/internal/shmem"
	"github.com/pgmoneta/pgmoneta-go/internal/worker"
	"github.com/pgmoneta/pgmoneta-go/test/pgtest"
)

// thread is a worker that runs in a goroutine of the test, so that the race
// detector sees both sides.
type thread struct {
	conn *ipc.Conn
	done chan struct{}
	err  error
}

func (c *thread) Conn() *ipc.Conn { return c.conn }
func (c *thread) PID() int        { return os.Getpid() }
func (c *thread) Wait() error     { <-c.done; return c.err }

func startThread(seg *shmem.Segment) func(ipc.Spec) (Child, error) {
	return func(ipc.Spec) (Child, error) {
		parent, file, err := ipc.Pair()
		if err != nil {
			return nil, err
		}
		child, err := ipc.FromFile(file)
		if err != nil {
			return nil, err
		}
		c := &thread{conn: parent, done: make(chan struct{})}
		go func() {
			defer close(c.done)
			defer child.Close()
			c.err = worker.Serve(context.Background(), child, seg, nil)
		}()
		return c, nil
	}
}

// bed runs a supervisor with threads for a server, until the test ends. Settings are of the main section.
func bed(t *testing.T, s *pgtest.Server, dir string, settings ...string) (stop func()) {
	t.Helper()
	passfile := filepath.Join(dir, "pgpass")
	if err := os.WriteFile(passfile, []byte("*:*:*:*:"+pgtest.ReplPassword+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	text := fmt.Sprintf("[pgmoneta]\nhost = 127.0.0.1\nbase_dir = %s/base\nunix_socket_dir = %s\ncreate_slot = yes\npassfile = %s\n%s\n"+
		"[primary]\nhost = %s\nport = %d\nuser = %s\nwal_slot = pgmoneta\n", dir, dir, passfile, strings.Join(settings, "\n"), s.Host, s.Port, pgtest.ReplUser)
	path := filepath.Join(dir, "pgmoneta.conf")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := config.Load(path)
	if err != nil {
		t.Fatal(err)
	}
	seg, err := shmem.Create(shmem.Capacity{Servers: 2, Jobs: 4})
	if err != nil {
		t.Fatal(err)
	}
	level := new(slog.LevelVar)
	log, err := logging.Open(logging.Options{Kind: logging.File, Path: filepath.Join(dir, "log"), Level: level, Count: seg.CountLog})
	if err != nil {
		t.Fatal(err)
	}
	ready := make(chan struct{})
	sv, err := New(Options{Config: c, Log: log, Level: level, Segment: seg, Start: startThread(seg), Ready: func() { close(ready) }})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- sv.Run(ctx) }()
	select {
	case <-ready:
	case err := <-done:
		t.Fatalf("Run: %v", err)
	}
	var once sync.Once
	stop = func() {
		once.Do(func() {
			cancel()
			if err := <-done; err != nil {
				t.Errorf("Run: %v", err)
			}
			_ = log.Close()
			_ = seg.Close()
		})
	}
	t.Cleanup(stop)
	return stop
}

func call(t *testing.T, dir string, cmd mgmt.Command, args mgmt.Document) mgmt.Document {
	t.Helper()
	c, err := mgmt.Dial(context.Background(), filepath.Join(dir, mgmt.SocketName))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	doc, err := c.Call(context.Background(), cmd, args)
	if err != nil {
		t.Fatal(err)
	}
	if err := doc.Outcome().Err(); err != nil {
		t.Fatalf("%s: %v", cmd, err)
	}
	return doc.Object("Response")
}

func waitStreaming(t *testing.T, dir string) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		servers := call(t, dir, mgmt.StatusDetails, nil).List("Servers")
		if servers[0].(mgmt.Document).Bool("WalStreaming") {
			return
		}
	}
	log, _ := os.ReadFile(filepath.Join(dir, "log"))
	t.Fatalf("not streaming:\n%s", log)
}

func TestLifeOfABackup(t *testing.T) {
	s := pgtest.Start(t, pgtest.Options{})
	dir := t.TempDir()
	bed(t, s, dir)
	waitStreaming(t, dir)
	server := mgmt.Document{"Server": "primary"}
	label := call(t, dir, mgmt.Backup, server).Text("Backup")
	if n, _ := call(t, dir, mgmt.ListBackup, server).Integer("NumberOfBackups"); n != 1 {
		t.Errorf("%d backups are listed", n)
	}
	one := mgmt.Document{"Server": "primary", "Backup": label}
	if got := call(t, dir, mgmt.Info, one).Text("Backup"); got != label {
		t.Errorf("info of %s shows %s", label, got)
	}
	call(t, dir, mgmt.Verify, one)
	restored := call(t, dir, mgmt.Restore, mgmt.Document{"Server": "primary", "Backup": label, "Directory": filepath.Join(dir, "out")}).Text("Directory")
	if _, err := os.Stat(filepath.Join(restored, "global", "pg_control")); err != nil {
		t.Error(err)
	}
	call(t, dir, mgmt.Progress, server)
	call(t, dir, mgmt.Delete, mgmt.Document{"Server": "primary", "Backup": label, "Force": true}) // the only one
	if n, _ := call(t, dir, mgmt.ListBackup, server).Integer("NumberOfBackups"); n != 0 {
		t.Errorf("%d backups are listed after delete", n)
	}
}

func TestOneJobPerServer(t *testing.T) {
	s := pgtest.Start(t, pgtest.Options{})
	s.Exec(t, "CREATE TABLE big AS SELECT i, md5(i::text) AS m FROM generate_series(1, 300000) i")
	dir := t.TempDir()
	bed(t, s, dir)
	waitStreaming(t, dir)
	var mu sync.Mutex
	outcomes := map[mgmt.Code]int{}
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			c, err := mgmt.Dial(context.Background(), filepath.Join(dir, mgmt.SocketName))
			if err != nil {
				t.Error(err)
				return
			}
			defer c.Close()
			doc, err := c.Call(context.Background(), mgmt.Backup, mgmt.Document{"Server": "primary", "NoWait": true})
			if err != nil {
				t.Error(err)
				return
			}
			mu.Lock()
			defer mu.Unlock()
			outcomes[doc.Outcome().Code]++
		})
	}
	wg.Wait()
	if outcomes[0] == 0 || outcomes[0]+outcomes[mgmt.CodeBackupActive] != 4 || outcomes[mgmt.CodeBackupActive] == 0 {
		t.Errorf("outcomes %v, want some to succeed and the others to be told %d", outcomes, mgmt.CodeBackupActive)
	}
}

func TestNothingIsLeftAfterTheEnd(t *testing.T) {
	s := pgtest.Start(t, pgtest.Options{})
	http.DefaultClient.CloseIdleConnections()
	before, files := runtime.NumGoroutine(), openFiles(t)
	dir := t.TempDir()
	stop := bed(t, s, dir)
	waitStreaming(t, dir)
	call(t, dir, mgmt.Backup, mgmt.Document{"Server": "primary"})
	stop()
	deadline := time.Now().Add(5 * time.Second)
	for time.Now().Before(deadline) && (runtime.NumGoroutine() > before || openFiles(t) > files) {
		time.Sleep(20 * time.Millisecond)
	}
	if n := runtime.NumGoroutine(); n > before {
		buf := make([]byte, 1<<20)
		t.Errorf("%d goroutines, %d before:\n%s", n, before, buf[:runtime.Stack(buf, true)])
	}
	if n := openFiles(t); n > files {
		t.Errorf("%d descriptors, %d before", n, files)
	}
}

func openFiles(t *testing.T) int {
	t.Helper()
	d, err := os.Open("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	names, err := d.Readdirnames(-1)
	if err != nil && err != io.EOF {
		t.Fatal(err)
	}
	return len(names)
}

func TestWhatCannotBeDoneIsRefusedAtTheStart(t *testing.T) {
	for _, line := range []string{"encryption = aes-256", "storage_engine = s3"} {
		c, err := config.ParseBytes("pgmoneta.conf", []byte("[pgmoneta]\nhost = x\nbase_dir = /x\nunix_socket_dir = /x\n"+line+"\n"), os.LookupEnv)
		if err != nil {
			t.Fatal(err)
		}
		segment, err := shmem.Create(shmem.Capacity{})
		if err != nil {
			t.Fatal(err)
		}
		defer segment.Close()
		if _, err := New(Options{Config: c, Segment: segment}); err == nil {
			t.Errorf("%s was accepted", line)
		}
	}
}
