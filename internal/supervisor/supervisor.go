// Package supervisor is the process that stays: it reads no WAL byte and no
// backup byte, but owns the listeners, the configuration, the shared segment and
// the worker processes.
//
// # Guarantees
//
// Each server has one WAL worker. One that ends without being asked is started
// again after 0.5 to 1 s, then later and later, up to a minute; what happens to
// it touches no other server. Each running job is a process of its own; at most
// one runs per server, and a check of its WAL beside that. Of those that convert a file
// and belong to no server, one runs.
//
// [Supervisor.Run] returns after everything it started has ended: first no more
// requests are accepted, then jobs are cancelled, then WAL workers flush and stop.
// When the supervisor is killed, workers see their control socket close and end
// by themselves.
//
// Requests that only look (ping, status, list, info, conf) are answered here,
// from the catalog on disk and the shared segment.
package supervisor

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pgmoneta/pgmoneta-go/internal/config"
	"github.com/pgmoneta/pgmoneta-go/internal/durable"
	"github.com/pgmoneta/pgmoneta-go/internal/ipc"
	"github.com/pgmoneta/pgmoneta-go/internal/logging"
	"github.com/pgmoneta/pgmoneta-go/internal/metrics"
	"github.com/pgmoneta/pgmoneta-go/internal/mgmt"
	"github.com/pgmoneta/pgmoneta-go/internal/repo"
	"github.com/pgmoneta/pgmoneta-go/internal/shmem"
	"github.com/pgmoneta/pgmoneta-go/internal/vault"
	"github.com/pgmoneta/pgmoneta-go/internal/version"
)

// A Child is a worker process; [*ipc.Process] is the real one.
type Child interface {
	Conn() *ipc.Conn
	PID() int
	Wait() error
}

// Options tell what to supervise.
type Options struct {
	Config *config.Config
	Files  config.Files
	// LoadUsers reads the users file and checks it against a configuration. It
	// is called at the start and at each reload; its result may be nil.
	LoadUsers func(*config.Config) (*vault.Users, error)
	// LoadAdmins reads the admins file, who may log in over TCP. It is called at the
	// start and at each reload; its result may be nil.
	LoadAdmins func() (*vault.Users, error)
	// MasterKey returns the master key as it is now. It is called whenever a
	// worker starts; nil means that there is none.
	MasterKey func() (*vault.MasterKey, error)
	// Foreign opens what another program keeps in the directories of the servers; nil
	// means that nothing is looked for.
	Foreign OpenForeign
	Log     *logging.Log
	Level   *slog.LevelVar // of Log
	// Segment is the shared segment, already counting the lines of Log.
	Segment *shmem.Segment
	// Start starts a worker; nil means our own binary as a new process.
	Start func(ipc.Spec) (Child, error)
	// Reload and Rebind deliver the requests of SIGHUP and SIGUSR1; may be nil.
	Reload, Rebind <-chan os.Signal
	// Notifier tells systemd what happens; may be nil.
	Notifier *Notifier
	// Ready is called when requests are answered; may be nil.
	Ready func()
}

// An OpenForeign opens what another program keeps in the directory of a repository.
type OpenForeign func(r *repo.Repository, master func() (*vault.MasterKey, error)) (repo.Foreign, error)

// A Supervisor runs the daemon. Make one with [New] and run it once.
type Supervisor struct {
	Options
	config   atomic.Pointer[config.Config] // current; the one in Options is that of the start
	changing sync.Mutex                    // held while the configuration is replaced
	users    atomic.Pointer[vault.Users]
	admins   atomic.Pointer[vault.Users]
	fleet    fleet
	files    *server // takes the jobs about files; it has a queue, as a server has, and nothing else
	stop     context.CancelCauseFunc
	ctx      context.Context

	mu   sync.Mutex
	jobs map[int]*running // by job slot
	book book

	looking chan struct{} // holds a token for each job that only looks

	audit audit

	holes     holeBoard
	listeners listeners

	requests atomic.Uint64 // numbers given so far

	started   atomic.Bool // requests are answered
	measured  atomic.Pointer[measure]
	page      atomic.Pointer[metrics.Handler]
	trend     trend
	forecast  atomic.Pointer[metrics.Forecast] // nil before the first look
	reloaded  atomic.Int64                     // Unix nanoseconds of the last reload that succeeded
	reloadBad atomic.Bool                      // the last one did not
}

// errShutdown is the cause of an orderly end.
var errShutdown = errors.New("shutdown")

// New checks that this version can do what the configuration asks for.
func New(o Options) (*Supervisor, error) {
	if err := supported(o.Config); err != nil {
		return nil, err
	}
	if len(o.Config.Servers) > o.Segment.Servers() {
		return nil, fmt.Errorf("%d servers are configured, at most %d are possible", len(o.Config.Servers), o.Segment.Servers())
	}
	if o.Start == nil {
		o.Start = func(spec ipc.Spec) (Child, error) {
			p, err := ipc.Start(spec)
			if err != nil {
				return nil, err
			}
			return p, nil
		}
	}
	s := &Supervisor{Options: o, jobs: map[int]*running{}, looking: make(chan struct{}, maxLooking)}
	s.config.Store(o.Config)
	s.reloaded.Store(time.Now().UnixNano())
	if err := s.sealable(o.Config); err != nil {
		return nil, err
	}
	if o.LoadUsers != nil {
		users, err := o.LoadUsers(o.Config)
		if err != nil {
			return nil, err
		}
		s.users.Store(users)
	}
	return s, s.loadAdmins()
}

func (s *Supervisor) loadAdmins() error {
	if s.LoadAdmins == nil {
		return nil
	}
	admins, err := s.LoadAdmins()
	if err != nil {
		return err
	}
	s.admins.Store(admins)
	return nil
}

// adminPassword returns the password of an administrator.
func (s *Supervisor) adminPassword(user string) (vault.Secret, bool) {
	admins := s.admins.Load()
	if admins == nil {
		return vault.Secret{}, false
	}
	return admins.Lookup(user)
}

// sealable refuses encryption that cannot be done: a plain copy where an encrypted
// one was wanted would be worse than none.
func (s *Supervisor) sealable(c *config.Config) error {
	if c.Main.Encryption == config.EncryptionNone {
		return nil
	}
	if _, err := s.master(); err != nil {
		return fmt.Errorf("%s: encryption = %s needs the master key: %w", c.Path, c.Main.Encryption, err)
	}
	return nil
}

// supported refuses what was asked for and cannot be done.
func supported(c *config.Config) error {
	var errs []error
	if c.Main.StorageEngines != config.StorageLocal {
		errs = append(errs, fmt.Errorf("%s: this version stores on the local disk only: set storage_engine = local", c.Path))
	}
	return errors.Join(errs...)
}

// without lists the settings that are accepted and have no effect yet.
func without(c *config.Config) []string {
	var names []string
	note := func(set bool, name string) {
		if set {
			names = append(names, name)
		}
	}
	note(c.Main.Console > 0, "console")
	note(c.Main.Nagios > 0, "nagios")
	for _, s := range c.Servers {
		note(s.Follow != "", s.Name+".follow")
		note(len(s.HotStandby) > 0, s.Name+".hot_standby")
		note(len(s.Extra) > 0, s.Name+".extra")
	}
	return names
}

// Run runs the daemon until ctx ends or a client asks for its shutdown.
func (s *Supervisor) Run(parent context.Context) error {
	s.ctx, s.stop = context.WithCancelCause(parent)
	defer s.stop(nil)
	c := s.config.Load()
	if err := durable.MkdirAll(durable.OS{}, c.Main.BaseDir); err != nil {
		return err
	}
	release, err := s.lock(c)
	if err != nil {
		return err
	}
	defer release()
	if err := s.open(c); err != nil {
		return err
	}
	s.audit.path = c.Main.AuditPath
	if err := s.audit.check(); err != nil {
		return err
	}
	if damaged, err := s.book.load(c.Main.BaseDir); err != nil || damaged > 0 {
		s.Log.Warn("history of jobs not read whole", "file", filepath.Join(c.Main.BaseDir, historyName), "damaged", damaged, "err", err)
	}
	if err := s.answer(c); err != nil {
		return err
	}
	var watchers sync.WaitGroup
	watchers.Go(s.handleSignals)
	watchers.Go(func() { s.watchSizes(s.ctx) })
	watchers.Go(func() { s.watchSpace(s.ctx) })
	watchers.Go(func() { s.watchTrend(s.ctx) })
	s.Log.Info("started", "version", version.Version, "pid", os.Getpid(), "servers", len(c.Servers), "file", c.Path)
	if names := without(c); len(names) > 0 {
		s.Log.Warn("settings without effect in this version", "settings", strings.Join(names, ", "))
	}
	s.started.Store(true)
	if err := s.Notifier.tell("READY=1"); err != nil {
		s.Log.Warn("the service manager is not told that the daemon runs", "err", err)
	}
	watchers.Go(func() { s.Notifier.keepAlive(s.ctx, s.lives) })
	if s.Ready != nil {
		s.Ready()
	}

	<-s.ctx.Done()
	s.Log.Info("shutdown", "cause", context.Cause(s.ctx))
	_ = s.Notifier.tell("STOPPING=1")
	s.cancelJobs()
	watchers.Wait()
	s.fleet.stopWatching()
	s.listeners.close() // waits for requests, and these for their jobs
	s.fleet.stopReceiving()
	s.Log.Info("stopped")
	return nil
}

// answer begins to answer requests, and then everything else. A reload waits until that
// has been done: it may end it again.
func (s *Supervisor) answer(c *config.Config) error {
	s.changing.Lock()
	defer s.changing.Unlock()
	if err := s.listeners.bind(s, c); err != nil {
		return err
	}
	for _, v := range s.servers {
		s.begin(v)
	}
	return nil
}

// lock makes sure that this is the only daemon with this base_dir and pid file.
func (s *Supervisor) lock(c *config.Config) (release func(), err error) {
	base, err := durable.TryLock(filepath.Join(c.Main.BaseDir, "pgmoneta.lock"))
	if err != nil {
		return nil, fmt.Errorf("another daemon uses base_dir %s: %w", c.Main.BaseDir, err)
	}
	path := c.Main.PIDPath()
	// A pid file that nobody holds locked is stale: its daemon did not end in order.
	pid, err := durable.TryLock(path)
	if err != nil {
		_ = base.Release()
		return nil, fmt.Errorf("PID file [%s]: is there another instance running? %w", path, err)
	}
	_ = os.Chmod(path, 0o640)
	return func() {
		_ = os.Remove(path)
		_ = pid.Release()
		_ = base.Release()
	}, nil
}

// open prepares the state of every server.
func (s *Supervisor) open(c *config.Config) error {
	list, err := s.enlist(c, c.Servers)
	if err != nil {
		return err
	}
	s.fleet.set(list)
	s.files = &server{index: noServer, log: s.Log.Logger}
	return nil
}

// handleSignals serves SIGHUP and SIGUSR1 until the end.
func (s *Supervisor) handleSignals() {
	for {
		select {
		case <-s.ctx.Done():
			return
		case <-s.Reload:
			if err := s.Log.Reopen(); err != nil {
				s.Log.Error("open the log file again", "err", err)
			}
			// A refusal is in the log already.
			_, _ = s.reload()
		case <-s.Rebind:
			s.listeners.rebind(s, s.config.Load())
		}
	}
}

// listeners are the sockets requests arrive on.
type listeners struct {
	mu         sync.Mutex
	metrics    *service
	management *service // remote
	socket     *service
	retired    []*service // closed by a rebind, their last requests may go on

	held         sync.Mutex
	certificates map[string]*certificate // by listener
}

// hold remembers the certificate of a listener, nil for none.
func (l *listeners) hold(listener string, c *certificate) {
	l.held.Lock()
	defer l.held.Unlock()
	if l.certificates == nil {
		l.certificates = map[string]*certificate{}
	}
	delete(l.certificates, listener)
	if c != nil {
		l.certificates[listener] = c
	}
}

// A service is a listener and the goroutine that serves it.
type service struct {
	cancel context.CancelFunc
	ln     net.Listener
	done   chan struct{}
}

func serve(s *Supervisor, what string, ln net.Listener, run func(context.Context) error) *service {
	// Not derived from the supervisor's context: requests in flight may go on
	// until the listener is closed in its turn.
	ctx, cancel := context.WithCancel(context.WithoutCancel(s.ctx))
	v := &service{cancel: cancel, ln: ln, done: make(chan struct{})}
	go func() {
		defer close(v.done)
		if err := run(ctx); err != nil && ctx.Err() == nil {
			s.Log.Error("listener ended", "listener", what, "err", err)
		}
	}()
	return v
}

func (v *service) close() {
	if v != nil {
		v.cancel()
		<-v.done
	}
}

// retire closes a listener, so that its port is free, and does not wait for its
// requests: the one that asked for it may be among them.
func (l *listeners) retire(v *service) {
	l.retired = slices.DeleteFunc(l.retired, (*service).ended)
	if v == nil {
		return
	}
	v.cancel()
	_ = v.ln.Close() // again: the end of the context closes it as well, but later
	l.retired = append(l.retired, v)
}

func (v *service) ended() bool {
	select {
	case <-v.done:
		return true
	default:
		return false
	}
}

func (l *listeners) bind(s *Supervisor, c *config.Config) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.bindMetrics(s, c); err != nil {
		return err
	}
	if err := l.bindManagement(s, c); err != nil {
		return err
	}
	return l.bindSocket(s, c)
}

// bindManagement opens the port for remote clients, if one is configured.
func (l *listeners) bindManagement(s *Supervisor, c *config.Config) error {
	if c.Main.Management <= 0 {
		return nil
	}
	l.hold("management", nil)
	door := mgmt.NewDoor(s.adminPassword, nil, c.Main.TLS == config.TLSRequire)
	if c.Main.TLS != config.TLSOff {
		cert, err := loadCertificate(c.Main.TLSFiles, s.Log.Warn)
		if err != nil {
			return fmt.Errorf("%s: invalid TLS configuration: %w", c.Path, err)
		}
		door.TLS = cert.Config
		l.hold("management", cert)
	}
	ln, err := listenTCP(c, c.Main.Management)
	if err != nil {
		return fmt.Errorf("management: %w", err)
	}
	if s.admins.Load() == nil {
		s.Log.Warn("nobody can log in to remote management: add users with pgmoneta-admin", "file", s.Files.Admins)
	}
	server := s.managementServer()
	l.management = serve(s, "remote management", ln, func(ctx context.Context) error { return server.ServeRemote(ctx, ln, door) })
	return nil
}

func (s *Supervisor) managementServer() *mgmt.Server {
	return mgmt.NewServer(handler{Supervisor: s}, mgmt.Options{Version: version.Version, Log: s.Log.Logger, Keys: s.master, Audit: s.record})
}

// listenTCP listens on a port of the configured host.
func listenTCP(c *config.Config, port int) (net.Listener, error) {
	host := c.Main.Host
	if host == "*" {
		host = ""
	}
	return net.Listen("tcp", net.JoinHostPort(host, strconv.Itoa(port)))
}

func (l *listeners) bindSocket(s *Supervisor, c *config.Config) error {
	ln, err := mgmt.Listen(c.Main.SocketPath())
	if err != nil {
		return err
	}
	server := s.managementServer()
	l.socket = serve(s, "management", ln, func(ctx context.Context) error { return server.Serve(ctx, ln) })
	return nil
}

func (l *listeners) bindMetrics(s *Supervisor, c *config.Config) error {
	if c.Main.Metrics <= 0 {
		return nil
	}
	l.hold("metrics", nil)
	var cert *certificate
	if c.Main.MetricsTLS != (config.TLSFiles{}) {
		var err error
		if cert, err = loadCertificate(c.Main.MetricsTLS, s.Log.Warn); err != nil {
			return fmt.Errorf("%s: metrics: %w", c.Path, err)
		}
		l.hold("metrics", cert)
	}
	ln, err := listenTCP(c, c.Main.Metrics)
	if err != nil {
		return fmt.Errorf("metrics: %w", err)
	}
	if cert != nil {
		ln = tls.NewListener(ln, &tls.Config{GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return cert.Config() }})
	}
	h := metrics.New(s, metrics.Options{
		CacheAge:  func() time.Duration { return s.config.Load().Main.MetricsCacheMaxAge },
		CacheSize: c.Main.MetricsCacheMaxSize, Health: s.Health,
	})
	s.page.Store(h)
	l.metrics = serve(s, "metrics", ln, func(ctx context.Context) error { return metrics.Serve(ctx, ln, h) })
	return nil
}

// rebind closes and opens the metrics and management listeners. A listener that
// cannot be opened again is reported and left out; the others and WAL go on.
func (l *listeners) rebind(s *Supervisor, c *config.Config) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.retire(l.metrics)
	l.metrics = nil
	if err := l.bindMetrics(s, c); err != nil {
		s.Log.Error("metrics listener", "err", err)
	}
	l.retire(l.management)
	l.management = nil
	if err := l.bindManagement(s, c); err != nil {
		s.Log.Error("remote management listener", "err", err)
	}
	s.Log.Info("rebound listeners", "metrics", c.Main.Metrics, "management", c.Main.Management)
}

func (l *listeners) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.socket.close()
	l.management.close()
	l.metrics.close()
	for _, v := range l.retired {
		v.close()
	}
}
