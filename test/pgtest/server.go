package pgtest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

const (
	host           = "127.0.0.1"
	startTimeout   = 60 * time.Second
	stopTimeout    = 60 * time.Second
	queryTimeout   = 2 * time.Minute
	logTailBytes   = 6000
	logName        = "server.log"
	defaultSegment = 16 // MiB, as initdb
)

// Options say what server is wanted. The zero value is a server of the newest of [Versions] with data checksums and
// 16 MiB segments.
type Options struct {
	Major          int  // 14 to 18; 0 is the newest of Versions
	WALSegmentSize int  // MiB, a power of two from 1 to 1024; 0 is 16. Not for OpenDir
	NoChecksums    bool // initialise without data checksums. Not for OpenDir
	Fresh          bool // run initdb for this server alone: its system identifier is its own, and it starts a second later

	// SyncStandbyNames becomes synchronous_standby_names. From then on a commit waits for that standby.
	SyncStandbyNames string

	// Settings are written to postgresql.conf after the defaults of this package, and travel with a base backup.
	// With OpenDir they are given on the command line.
	Settings map[string]string

	// Timeout bounds the wait until the server is ready; 0 is one minute.
	Timeout time.Duration
}

// A Server is one PostgreSQL server. Its methods are called from one goroutine, those that only connect
// (DSN, Conn, Exec, QueryString) from any.
type Server struct {
	Major     int
	Host      string // 127.0.0.1
	Port      int    // stays the same over Restart
	SocketDir string // where the Unix socket of that port is
	DataDir   string

	account account
	bin     string
	base    string   // temporary directory of this server, removed at the end of the test
	args    []string // command line settings that do not change from start to start
	timeout time.Duration
	proc    *process // nil when it is not running
}

// A process is a running postmaster.
type process struct {
	id    procID
	ended chan struct{} // closed when it has ended and err is set
	err   error
}

// Start runs a new server. It is stopped and removed at the end of the test.
func Start(t testing.TB, o Options) *Server {
	t.Helper()
	if o.Major == 0 {
		o.Major = Newest(t)
	}
	s := newServer(t, o.Major, o.Timeout)
	s.DataDir = filepath.Join(s.base, "data")
	kind := clusterKind{o.Major, cmp.Or(o.WALSegmentSize, defaultSegment), o.NoChecksums}
	if err := s.create(kind, o); err != nil {
		t.Fatalf("create a PostgreSQL %d server: %v", o.Major, err)
	}
	s.mustStart(t)
	return s
}

// OpenDir runs a server on an existing data directory, usually a restored one, which it gives to the user that servers
// run as. The configuration in the directory stays as it is; port, sockets and log are set on the command line.
// A postgresql.conf, pg_hba.conf or pg_ident.conf that is missing is replaced from outside the directory.
//
// It returns when a connection works and recovery has ended, or is paused at its target, or goes on forever because
// there is a standby.signal.
func OpenDir(t testing.TB, major int, dir string, o Options) *Server {
	t.Helper()
	s, err := TryOpenDir(t, major, dir, o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TryOpenDir is [OpenDir] for directories that may not start. The error holds the end of the server's log. The server
// is returned in any case: its Log can be read.
func TryOpenDir(t testing.TB, major int, dir string, o Options) (*Server, error) {
	t.Helper()
	s := newServer(t, major, o.Timeout)
	dir, err := filepath.Abs(dir)
	if err != nil {
		return s, err
	}
	s.DataDir = dir
	if err := s.adopt(o); err != nil {
		return s, fmt.Errorf("open data directory %s: %w", dir, err)
	}
	return s, s.start()
}

// newServer prepares a server that has no data directory yet, and its removal.
func newServer(t testing.TB, major int, timeout time.Duration) *Server {
	t.Helper()
	a, err := serverAccount()
	if err != nil {
		t.Fatal(err)
	}
	reap(a)
	bin := Bin(t, major)
	base, err := makeBase(a)
	if err != nil {
		t.Fatalf("create the directory of a server: %v", err)
	}
	s := &Server{Major: major, Host: host, SocketDir: base, account: a, bin: bin, base: base,
		timeout: cmp.Or(timeout, startTimeout)}
	t.Cleanup(func() { s.remove(t) })
	return s
}

// create makes the cluster of a new server and writes its settings.
func (s *Server) create(kind clusterKind, o Options) error {
	if o.Fresh {
		if err := s.account.mkdir(s.DataDir, 0o700); err != nil {
			return err
		}
		if err := initCluster(s.account, kind, s.DataDir); err != nil {
			return err
		}
	} else if err := makeCluster(s.account, kind, s.DataDir); err != nil {
		return err
	}
	settings := defaultSettings(kind)
	if o.SyncStandbyNames != "" {
		settings["synchronous_standby_names"] = o.SyncStandbyNames
	}
	maps.Copy(settings, o.Settings)
	return appendFile(filepath.Join(s.DataDir, "postgresql.conf"), formatSettings(settings))
}

func defaultSettings(kind clusterKind) map[string]string {
	settings := map[string]string{
		"wal_level":              "replica",
		"max_wal_senders":        "10",
		"max_replication_slots":  "10",
		"shared_buffers":         "64MB",
		"max_wal_size":           fmt.Sprintf("%dMB", max(1024, 4*kind.segmentMiB)),
		"hot_standby":            "on",
		"full_page_writes":       "on",
		"track_commit_timestamp": "on",
		"log_line_prefix":        "%m [%p] %a ",
		"timezone":               "UTC",
		"log_timezone":           "UTC",
	}
	if kind.major >= 17 {
		settings["summarize_wal"] = "on"
	}
	return settings
}

func formatSettings(settings map[string]string) string {
	quote := strings.NewReplacer(`'`, `''`, `\`, `\\`)
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(settings)) {
		fmt.Fprintf(&b, "%s = '%s'\n", name, quote.Replace(settings[name]))
	}
	return b.String()
}

func appendFile(path, text string) error {
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	return errors.Join(err, f.Close())
}

// adopt makes a data directory of any origin fit to be served: owner, mode and, outside of it, the configuration
// files it lacks.
func (s *Server) adopt(o Options) error {
	if err := s.adoptOwner(); err != nil {
		return err
	}
	if o.SyncStandbyNames != "" {
		s.args = append(s.args, "-c", "synchronous_standby_names="+o.SyncStandbyNames)
	}
	for _, name := range slices.Sorted(maps.Keys(o.Settings)) {
		s.args = append(s.args, "-c", name+"="+o.Settings[name])
	}
	lacking := []struct{ setting, file, text string }{
		{"config_file", "postgresql.conf", ""},
		{"hba_file", "pg_hba.conf", hba},
		{"ident_file", "pg_ident.conf", ""},
	}
	for _, l := range lacking {
		if exists(filepath.Join(s.DataDir, l.file)) {
			continue
		}
		path := filepath.Join(s.base, l.file)
		if err := os.WriteFile(path, []byte(l.text), 0o644); err != nil {
			return err
		}
		s.args = append(s.args, "-c", l.setting+"="+path)
	}
	return nil
}

// adoptOwner gives the data directory and the tablespaces it links to, to the account of the server.
func (s *Server) adoptOwner() error {
	roots := []string{s.DataDir}
	links, _ := filepath.Glob(filepath.Join(s.DataDir, "pg_tblspc", "*"))
	for _, link := range links {
		if target, err := filepath.EvalSymlinks(link); err == nil {
			roots = append(roots, target)
		}
	}
	if target, err := filepath.EvalSymlinks(filepath.Join(s.DataDir, "pg_wal")); err == nil {
		roots = append(roots, target)
	}
	for _, root := range roots {
		if err := s.account.ownTree(root); err != nil {
			return err
		}
		if err := s.account.openWay(root); err != nil {
			return err
		}
	}
	return os.Chmod(s.DataDir, 0o700)
}

func (s *Server) mustStart(t testing.TB) {
	t.Helper()
	if err := s.start(); err != nil {
		t.Fatal(err)
	}
}

// start runs the server and waits until it is ready. A port that somebody took between the choice and the start is
// replaced by another one, but only at the first start: clients of a server that comes back know its port.
func (s *Server) start() error {
	chosen := s.Port != 0
	for attempt := 1; ; attempt++ {
		if !chosen {
			s.Port = freePort()
		}
		logged := s.logSize()
		err := s.launch()
		if err == nil {
			err = s.waitReady()
		}
		if err == nil {
			return nil
		}
		if attempt < 5 && strings.Contains(s.logFrom(logged), "Address already in use") {
			continue
		}
		return errors.Join(fmt.Errorf("start PostgreSQL %d in %s: %w\n%s", s.Major, s.DataDir, err, s.logTail()), s.kill())
	}
}

// freePort picks a port below the range that the kernel gives to outgoing connections, so that it is still free when
// the server comes back after a restart.
func freePort() int {
	const low, high = 15000, 32000
	for {
		port := low + rand.IntN(high-low)
		l, err := net.Listen("tcp", net.JoinHostPort(host, strconv.Itoa(port)))
		if err == nil {
			_ = l.Close()
			return port
		}
	}
}

// launch starts the postmaster as our own child process.
func (s *Server) launch() error {
	log, err := os.OpenFile(filepath.Join(s.base, logName), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer log.Close()
	args := []string{"-D", s.DataDir,
		"-c", "listen_addresses=" + s.Host, "-c", fmt.Sprintf("port=%d", s.Port), "-c", "unix_socket_directories=" + s.SocketDir,
		"-c", "logging_collector=off", "-c", "log_destination=stderr", "-c", "cluster_name=",
		// In the data directory rather than in /dev/shm, where a killed server would leave it.
		"-c", "dynamic_shared_memory_type=mmap",
	}
	cmd := s.account.command(s.base, filepath.Join(s.bin, "postgres"), append(args, s.args...)...)
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		return err
	}
	p := &process{ended: make(chan struct{})}
	st, statErr := readStat(cmd.Process.Pid)
	p.id = st.procID
	go func() {
		p.err = cmd.Wait()
		close(p.ended)
	}()
	s.proc = p
	return errors.Join(statErr, recordPostmaster(s.base, s.DataDir, p.id))
}

// waitReady polls until the server is ready as [OpenDir] describes it, or has ended, or time is up.
func (s *Server) waitReady() error {
	last := errors.New("no connection was tried")
	ready := waitUntil(s.timeout, func() bool {
		last = s.probe()
		return last == nil || s.ended()
	})
	switch {
	case s.ended():
		return fmt.Errorf("it ended before it was ready: %w", cmp.Or(s.proc.err, errors.New("exit status 0")))
	case !ready:
		return fmt.Errorf("not ready after %s: %w", s.timeout, last)
	}
	return last
}

func (s *Server) ended() bool {
	select {
	case <-s.proc.ended:
		return true
	default:
		return false
	}
}

// probe returns nil when the server is ready, else what stands in the way.
func (s *Server) probe() error {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	conn, err := pgx.Connect(ctx, s.DSN("postgres"))
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	state, err := queryText(ctx, conn, "select case when not pg_is_in_recovery() then 'running' else pg_get_wal_replay_pause_state() end")
	if err != nil {
		return err
	}
	if state == "running" || state == "paused" || exists(filepath.Join(s.DataDir, "standby.signal")) {
		return nil
	}
	return errors.New("still in recovery")
}

// A StopMode is the way a server is told to end.
type StopMode syscall.Signal

const (
	// Fast ends all sessions and writes a shutdown checkpoint. It waits for WAL receivers to get the last record.
	Fast = StopMode(syscall.SIGINT)
	// Immediate ends without a checkpoint: the next start is a crash recovery.
	Immediate = StopMode(syscall.SIGQUIT)
)

// Stop ends the server and waits for its end.
func (s *Server) Stop(t testing.TB, mode StopMode) {
	t.Helper()
	if s.proc == nil {
		return
	}
	if err := s.stop(mode, stopTimeout); err != nil {
		t.Fatalf("stop PostgreSQL %d: %v\n%s", s.Major, err, s.logTail())
	}
}

func (s *Server) stop(mode StopMode, timeout time.Duration) error {
	if err := syscall.Kill(s.proc.id.pid, syscall.Signal(mode)); err != nil && !s.ended() {
		return err
	}
	timer := time.NewTimer(timeout)
	defer timer.Stop()
	select {
	case <-s.proc.ended:
		s.proc = nil
		return nil
	case <-timer.C:
		return fmt.Errorf("still running %s after %s", timeout, syscall.Signal(mode))
	}
}

// Kill ends the server and all its processes at one moment with SIGKILL, as a crash of the machine would, except
// that what was written to the operating system is not lost.
func (s *Server) Kill(t testing.TB) {
	t.Helper()
	if err := s.kill(); err != nil {
		t.Fatal(err)
	}
}

func (s *Server) kill() error {
	if s.proc == nil {
		return nil
	}
	if err := killTree(s.proc.id); err != nil {
		return err
	}
	<-s.proc.ended
	s.proc = nil
	removeSharedMemory(s.DataDir)
	return nil
}

// Running reports whether the server has been started and has not ended by itself or by a method of Server.
func (s *Server) Running() bool { return s.proc != nil && !s.ended() }

// Restart stops the server (fast) if it runs and starts it on the same port.
func (s *Server) Restart(t testing.TB) {
	t.Helper()
	s.Stop(t, Fast)
	s.mustStart(t)
}

// remove is the end of every server. A server that does not obey at once is killed.
func (s *Server) remove(t testing.TB) {
	if t.Failed() {
		t.Logf("log of PostgreSQL %d on port %d:\n%s", s.Major, s.Port, s.logTail())
	}
	if s.proc != nil && s.stop(Immediate, 3*time.Second) != nil {
		if err := s.kill(); err != nil {
			t.Error(err)
		}
	}
	if err := os.RemoveAll(s.base); err != nil {
		t.Errorf("remove the directory of a server: %v", err)
	}
}

// Log returns the end of the server's log, a few kilobytes. When a test fails it is printed by itself.
func (s *Server) Log(t testing.TB) string {
	t.Helper()
	return s.logTail()
}

func (s *Server) logTail() string { return s.logFrom(max(0, s.logSize()-logTailBytes)) }

func (s *Server) logSize() int64 {
	info, err := os.Stat(filepath.Join(s.base, logName))
	if err != nil {
		return 0
	}
	return info.Size()
}

func (s *Server) logFrom(offset int64) string {
	f, err := os.Open(filepath.Join(s.base, logName))
	if err != nil {
		return ""
	}
	defer f.Close()
	text, err := io.ReadAll(io.NewSectionReader(f, offset, 1<<20))
	if err != nil {
		return err.Error()
	}
	return string(text)
}
