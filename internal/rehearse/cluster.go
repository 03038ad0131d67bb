package rehearse

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/pgmoneta/pgmoneta-go/internal/pgrepl"
)

// port names the socket; nothing listens on it.
const port = 5432

// A cluster is a running PostgreSQL on the scratch directory.
type cluster struct {
	programs Programs
	data     string // restored data directory
	private  string // directory of the socket, the configuration and the log
	conf     string // further settings, "" for none

	process *os.Process
	ended   chan struct{} // closed when the postmaster has ended; err is set before
	err     error
}

// start starts the postmaster. The caller calls stop in any case.
func (c *cluster) start(ctx context.Context) error {
	if err := c.configure(ctx); err != nil {
		return err
	}
	log, err := os.OpenFile(c.logFile(), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer func() { _ = log.Close() }()
	cmd := &exec.Cmd{
		Path: c.programs.path("postgres"),
		// It finds its libraries by the path it was called by.
		Args: []string{c.programs.path("postgres"), "-D", c.data, "-c", "config_file=" + filepath.Join(c.private, "postgresql.conf"), "-c", "recovery_target_action=promote"},
		Env:  environment(), Dir: c.private, Stdout: log, Stderr: log,
		// Immediate shutdown when we are killed. The signal follows the thread that
		// starts the process, which lives as long as the process does.
		SysProcAttr: &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGQUIT},
	}
	started := make(chan error)
	c.ended = make(chan struct{})
	go func() {
		defer close(c.ended)
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		c.process = cmd.Process
		started <- err
		if err == nil {
			c.err = cmd.Wait()
		}
	}()
	if err := <-started; err != nil {
		return fmt.Errorf("start PostgreSQL %s: %w", c.programs.Version, err)
	}
	return nil
}

func (c *cluster) logFile() string { return filepath.Join(c.private, "log") }

// configure writes the server's configuration.
func (c *cluster) configure(ctx context.Context) error {
	settings, err := c.needed(ctx)
	if err != nil {
		return err
	}
	settings = append(settings,
		"listen_addresses = ''", fmt.Sprintf("port = %d", port), "unix_socket_permissions = 0700",
		"unix_socket_directories = "+quote(c.private), "hba_file = "+quote(filepath.Join(c.private, "hba")), "ident_file = "+quote(filepath.Join(c.private, "ident")),
		// Until the end of recovery nobody is to be let in: what is asked is asked of the result.
		"hot_standby = off", "archive_mode = off", "primary_conninfo = ''", "autovacuum = off", "ssl = off", "max_wal_size = '4GB'",
		"logging_collector = off", "log_destination = stderr", "log_line_prefix = '%n '", "lc_messages = C", "log_min_messages = log", "log_statement = none",
	)
	if c.conf != "" {
		settings = append(settings, "include = "+quote(c.conf))
	}
	for name, content := range map[string]string{
		"postgresql.conf": strings.Join(settings, "\n") + "\n", "hba": "local all all trust\n", "ident": "",
	} {
		if err := os.WriteFile(filepath.Join(c.private, name), []byte(content), 0o600); err != nil {
			return err
		}
	}
	return nil
}

func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }

// needed returns the settings that recovery needs to be at least what they were on
// the server; see "Administrator Overview" of hot standby in PostgreSQL's manual.
func (c *cluster) needed(ctx context.Context) ([]string, error) {
	cmd := exec.CommandContext(ctx, c.programs.path("pg_controldata"), "-D", c.data)
	cmd.Env = environment()
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("pg_controldata of the restored directory: %w", err)
	}
	return controlSettings(string(out)), nil
}

// controlSettings reads lines such as "max_connections setting:   100".
func controlSettings(out string) []string {
	var settings []string
	for line := range strings.Lines(out) {
		name, value, ok := strings.Cut(line, " setting:")
		value = strings.TrimSpace(value)
		if name == "max_prepared_xacts" {
			name = "max_prepared_transactions"
		}
		if name == "max_locks_per_xact" {
			name = "max_locks_per_transaction"
		}
		switch name {
		case "max_connections", "max_worker_processes", "max_wal_senders", "max_prepared_transactions", "max_locks_per_transaction":
			if _, err := strconv.ParseUint(value, 10, 31); ok && err == nil {
				settings = append(settings, name+" = "+value)
			}
		}
	}
	return settings
}

// An EndedError reports that PostgreSQL did not come up on the restored directory.
type EndedError struct {
	Err error
	Log string // its last lines
}

func (e *EndedError) Error() string {
	return fmt.Sprintf("PostgreSQL ended before it accepted connections (%v); its last words: %s", e.Err, e.Log)
}

func (e *EndedError) Unwrap() error { return e.Err }

// pollInterval is how often a server that is not ready is asked again.
const pollInterval = 50 * time.Millisecond

// ready waits until connections are accepted, which is when recovery has ended.
// However long that takes: only ctx and the end of the server end the wait.
func (c *cluster) ready(ctx context.Context, user string) error {
	t := time.NewTicker(pollInterval)
	defer t.Stop()
	for {
		conn, err := c.connect(ctx, user, maintenance)
		if err == nil {
			conn.Close()
			return nil
		}
		select {
		case <-c.ended:
			return &EndedError{Err: c.err, Log: c.lastWords()}
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-t.C:
		}
		if refused(err) {
			return fmt.Errorf("the restored cluster refuses user %q: %w", user, err)
		}
	}
}

// maintenance is the database that every cluster has unless somebody dropped it.
const maintenance = "postgres"

// refused reports whether a server that is up says no.
func refused(err error) bool {
	for _, state := range []string{"28000", "3D000", "42704"} { // authorization, database, role
		if strings.Contains(err.Error(), "SQLSTATE "+state) {
			return true
		}
	}
	return false
}

func (c *cluster) connect(ctx context.Context, user, database string) (*pgrepl.Conn, error) {
	return pgrepl.ConnectSQL(ctx, pgrepl.Params{Server: "rehearsal", Host: c.private, Port: port, User: user, Database: database, Application: "pgmoneta rehearse"})
}

// logTail is how much of the log is read for what is told, in bytes.
const logTail = 64 << 10

// log returns the end of the server's log.
func (c *cluster) log() string {
	f, err := os.Open(c.logFile())
	if err != nil {
		return ""
	}
	defer func() { _ = f.Close() }()
	if info, err := f.Stat(); err == nil && info.Size() > logTail {
		_, _ = f.Seek(-logTail, io.SeekEnd)
	}
	b, _ := io.ReadAll(io.LimitReader(f, logTail))
	return string(b)
}

// lastWords returns the last lines of the log without their times, on one line.
func (c *cluster) lastWords() string {
	lines := strings.Split(strings.TrimSpace(c.log()), "\n")
	lines = lines[max(len(lines)-5, 0):]
	for i, line := range lines {
		_, text, _ := strings.Cut(line, " ")
		lines[i] = strings.TrimSpace(text)
	}
	return strings.Join(lines, "; ")
}

// stopTimeout is how long an immediate shutdown may take.
const stopTimeout = 30 * time.Second

// stop ends the server. Nothing of it is needed any more.
func (c *cluster) stop() error {
	if c.process == nil {
		return nil
	}
	_ = c.process.Signal(syscall.SIGQUIT) // an error means that it has ended
	select {
	case <-c.ended:
		return nil
	case <-time.After(stopTimeout):
	}
	_ = c.process.Kill()
	<-c.ended
	return fmt.Errorf("PostgreSQL in %s did not stop and was killed", c.data)
}

// reap ends the server of an earlier rehearsal that was left behind in a data directory.
func reap(ctx context.Context, data string) error {
	content, err := os.ReadFile(filepath.Join(data, "postmaster.pid"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	line, _, _ := strings.Cut(string(content), "\n")
	pid, err := strconv.Atoi(line)
	// The number may be that of another process by now: a postmaster works in its data directory.
	if err != nil || pid <= 1 || workingDirectory(pid) != data {
		return nil
	}
	t := time.NewTicker(pollInterval)
	defer t.Stop()
	for deadline := time.Now().Add(stopTimeout); workingDirectory(pid) == data; {
		if time.Now().After(deadline) {
			return fmt.Errorf("PostgreSQL of an earlier rehearsal runs in %s as process %d and does not stop: end it", data, pid)
		}
		if err := syscall.Kill(pid, syscall.SIGQUIT); err != nil && !errors.Is(err, syscall.ESRCH) {
			return fmt.Errorf("stop PostgreSQL of an earlier rehearsal in %s, process %d: %w", data, pid, err)
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-t.C:
		}
	}
	return nil
}

func workingDirectory(pid int) string {
	dir, err := os.Readlink(fmt.Sprintf("/proc/%d/cwd", pid))
	if err != nil {
		return ""
	}
	return dir
}
