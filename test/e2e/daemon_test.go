// Package e2e runs the built programs against real servers, as an operator would.
package e2e

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/pgmoneta/pgmoneta-go/test/pgtest"
)

// programs builds the programs once; they are removed when the tests have ended.
var programs = sync.OnceValues(pgtest.Build)

func TestMain(m *testing.M) {
	code := m.Run()
	if dir, err := programs(); err == nil {
		_ = os.RemoveAll(dir)
	}
	os.Exit(code)
}

// A daemon is a running pgmoneta with its configuration in a directory of its own.
type daemon struct {
	dir     string
	bin     string
	metrics int
	cmd     *exec.Cmd
	exited  chan struct{}
}

// newDaemon prepares a daemon for the given servers, by section name, and starts it.
func newDaemon(t *testing.T, servers map[string]*pgtest.Server, settings ...string) *daemon {
	t.Helper()
	d := prepareDaemon(t, servers, settings...)
	d.start(t)
	return d
}

func prepareDaemon(t *testing.T, servers map[string]*pgtest.Server, settings ...string) *daemon {
	t.Helper()
	bin, err := programs()
	if err != nil {
		t.Fatal(err)
	}
	d := &daemon{dir: t.TempDir(), bin: bin, metrics: freePort(t)}
	var conf strings.Builder
	fmt.Fprintf(&conf, "[pgmoneta]\nhost = 127.0.0.1\nmetrics = %d\nbase_dir = %s\nunix_socket_dir = %s\n", d.metrics, d.path("base"), d.dir)
	fmt.Fprintf(&conf, "log_type = file\nlog_level = debug\nlog_path = %s\ncreate_slot = yes\npassfile = %s\n%s\n", d.path("log"), d.path("pgpass"), strings.Join(settings, "\n"))
	for name, s := range servers {
		fmt.Fprintf(&conf, "\n[%s]\nhost = %s\nport = %d\nuser = %s\nwal_slot = pgmoneta_%s\n", name, s.Host, s.Port, pgtest.ReplUser, name)
	}
	d.write(t, "pgmoneta.conf", conf.String())
	d.write(t, "pgpass", "*:*:*:"+pgtest.ReplUser+":"+pgtest.ReplPassword+"\n")
	pgtest.Own(t, d.dir)
	t.Cleanup(func() {
		if d.cmd != nil {
			d.end()
		}
		if t.Failed() {
			log, _ := os.ReadFile(d.path("log"))
			t.Logf("log of the daemon:\n%s", tail(log, 8000))
		}
	})
	return d
}

func tail(b []byte, n int) []byte { return b[max(0, len(b)-n):] }

func freePort(t *testing.T) int {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	return ln.Addr().(*net.TCPAddr).Port
}

func (d *daemon) path(name string) string { return filepath.Join(d.dir, name) }

func (d *daemon) write(t *testing.T, name, content string) {
	t.Helper()
	if err := os.WriteFile(d.path(name), []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

// command prepares the daemon. All files are named, also those of users and admins that
// need not exist: what /etc/pgmoneta has on this machine must not matter.
func (d *daemon) command(t *testing.T, conf string, options ...string) *exec.Cmd {
	t.Helper()
	files := []string{"-c", d.path(conf), "-u", d.path("pgmoneta_users.conf"), "-A", d.path("pgmoneta_admins.conf")}
	return pgtest.Command(t, d.dir, filepath.Join(d.bin, "pgmoneta"), append(files, options...)...)
}

// start starts the daemon and waits until it answers.
func (d *daemon) start(t *testing.T) {
	t.Helper()
	d.cmd = d.command(t, "pgmoneta.conf")
	var out bytes.Buffer
	d.cmd.Stdout, d.cmd.Stderr = &out, &out
	if err := d.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	exited := make(chan struct{})
	d.exited = exited
	go func(cmd *exec.Cmd) { _ = cmd.Wait(); close(exited) }(d.cmd)
	waitFor(t, 20*time.Second, "the daemon to answer", func() error {
		select {
		case <-d.exited:
			t.Fatalf("the daemon ended: %s", out.Bytes())
		default:
		}
		if _, code := d.cli(t, "ping"); code != 0 {
			return fmt.Errorf("ping exits with %d", code)
		}
		return nil
	})
}

func (d *daemon) pid() int { return d.cmd.Process.Pid }

// end ends the daemon in order: its workers have then ended too, and nothing writes
// into the directory any more.
func (d *daemon) end() {
	_ = d.cmd.Process.Signal(syscall.SIGTERM) // an error means that it has ended
	select {
	case <-d.exited:
	case <-time.After(20 * time.Second):
		d.kill()
	}
}

// kill kills the supervisor and waits for it.
func (d *daemon) kill() {
	_ = d.cmd.Process.Kill()
	<-d.exited
}

// administrator writes an admins file with the user dba, who may use the daemon from
// other machines once it starts, and an empty configuration for the client on one of those.
func (d *daemon) administrator(t *testing.T, password string) {
	t.Helper()
	d.mustAdmin(t, "-f", d.path("pgmoneta_admins.conf"), "-U", "dba", "-P", password, "user", "add")
	d.write(t, "client.conf", "")
	pgtest.Own(t, d.dir)
}

// cli runs pgmoneta-cli and returns what it printed and its exit code.
func (d *daemon) cli(t *testing.T, args ...string) (string, int) {
	t.Helper()
	cmd := pgtest.Command(t, d.dir, filepath.Join(d.bin, "pgmoneta-cli"), append([]string{"-c", d.path("pgmoneta.conf")}, args...)...)
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return string(out), cmd.ProcessState.ExitCode()
}

// must runs a command that has to succeed and returns its Response.
func (d *daemon) must(t *testing.T, args ...string) map[string]any {
	t.Helper()
	out, code := d.cli(t, append([]string{"-F", "raw"}, args...)...)
	if code != 0 {
		t.Fatalf("pgmoneta-cli %s exits with %d:\n%s", strings.Join(args, " "), code, out)
	}
	var doc struct{ Response map[string]any }
	if err := json.Unmarshal([]byte(out), &doc); err != nil {
		t.Fatalf("%v in:\n%s", err, out)
	}
	return doc.Response
}

// status returns the details of one server.
func (d *daemon) status(t *testing.T, name string) map[string]any {
	t.Helper()
	for _, s := range d.must(t, "status", "details")["Servers"].([]any) {
		if s := s.(map[string]any); s["Server"] == name {
			return s
		}
	}
	t.Fatalf("server %s is not in the status", name)
	return nil
}

func (d *daemon) waitStreaming(t *testing.T, name string) {
	t.Helper()
	waitFor(t, 30*time.Second, "WAL of "+name, func() error {
		if s := d.status(t, name); s["WalStreaming"] != true {
			return fmt.Errorf("not streaming: %v", s["LastError"])
		}
		return nil
	})
}

// worker returns the process id of a server's WAL worker, 0 when there is none.
func (d *daemon) worker(t *testing.T, name string) int {
	return int(d.status(t, name)["WorkerPID"].(float64))
}

// waitFor is how everybody waits here.
func waitFor(t *testing.T, patience time.Duration, what string, ok func() error) {
	t.Helper()
	pgtest.WaitFor(t, patience, what, ok)
}

// alive reports whether a process runs and is no zombie.
func alive(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	rest := string(b[bytes.LastIndexByte(b, ')')+1:])
	return !strings.HasPrefix(strings.TrimSpace(rest), "Z") && syscall.Kill(pid, 0) == nil
}

// long reports whether the tests that take minutes are wanted (make test-all).
func long() bool { return os.Getenv("PGMONETA_TEST_LONG") != "" }
