package supervisor

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pgmoneta/pgmoneta-go/internal/config"
	"github.com/pgmoneta/pgmoneta-go/internal/container"
	"github.com/pgmoneta/pgmoneta-go/internal/durable"
	"github.com/pgmoneta/pgmoneta-go/internal/ipc"
	"github.com/pgmoneta/pgmoneta-go/internal/job"
	"github.com/pgmoneta/pgmoneta-go/internal/metrics"
	"github.com/pgmoneta/pgmoneta-go/internal/pg"
	"github.com/pgmoneta/pgmoneta-go/internal/pgrepl"
	"github.com/pgmoneta/pgmoneta-go/internal/repo"
	"github.com/pgmoneta/pgmoneta-go/internal/shmem"
	"github.com/pgmoneta/pgmoneta-go/internal/storage"
	"github.com/pgmoneta/pgmoneta-go/internal/vault"
)

// A server is what the supervisor knows about one PostgreSQL server.
type server struct {
	index int // slot in the shared segment
	name  string
	repo  *repo.Repository
	slot  *shmem.Server
	log   *slog.Logger

	queue queue
	busy  atomic.Pointer[job.Kind] // the job that runs, nil for none

	// catalog is what the metrics page shows: read from disk in the background.
	catalog atomic.Pointer[[]repo.Backup]
	changed chan struct{} // holds one token when the catalog must be read again

	calendar calendar // what was done by the schedule

	rehearsed atomic.Pointer[rehearsed] // the last rehearsal, nil for none
	verified  atomic.Pointer[verified]  // the last verification, nil for none
	usage     atomic.Pointer[usage]     // what the backups take, nil while not known
	freed     atomic.Uint64             // jobs that may have changed that

	unreadable atomic.Bool                        // the catalog could not be read the last time
	timelines  atomic.Pointer[[]metrics.Timeline] // history of the present timeline
	tally      tally

	mode     sync.Mutex // held while the mode changes
	receiver receiver
	watchers sync.WaitGroup
	workers  sync.WaitGroup
	unwatch  context.CancelFunc
	dismiss  context.CancelFunc // of its WAL worker
	ended    chan struct{}      // closed when a removed server has no goroutine and no process left
	before   []<-chan struct{}  // ended of removed servers of the same name
	gone     bool               // removed, or about to be; guarded by Supervisor.mu

	mu       sync.Mutex
	failures map[string]uint64 // of backups, by class
}

// rehearsed is a rehearsal and the backup it was about.
type rehearsed struct {
	label  repo.Label
	result *repo.Rehearsal
}

// verified is a verification and the backup it was about.
type verified struct {
	label  repo.Label
	result *repo.Verification
}

func newServer(index int, name, baseDir string, keys repo.Keys, foreign OpenForeign, seg *shmem.Segment, log *slog.Logger) (*server, error) {
	slot := seg.ServerSlot(index)
	r, err := repo.Open(durable.OS{}, baseDir, name)
	if err != nil {
		return nil, err
	}
	r.Meter(func(o storage.Operation, elapsed time.Duration, failed bool) {
		seg.CountRequest(int(o), elapsed, failed)
	})
	r.UseKeys(keys)
	if foreign != nil {
		f, err := foreign(r, keys.Master)
		if err != nil {
			return nil, err
		}
		r.UseForeign(f)
	}
	slot.Name.Store(name)
	slot.State.Store(shmem.StateStarting)
	return &server{index: index, name: name, repo: r, slot: slot, log: log.With("server", name),
		changed: make(chan struct{}, 1), ended: make(chan struct{}), failures: map[string]uint64{}}, nil
}

const catalogInterval = 30 * time.Second

// refresh keeps the catalog that metrics show up to date.
func (v *server) refresh(ctx context.Context) {
	t := time.NewTicker(catalogInterval)
	defer t.Stop()
	failed, history := "", uint64(0)
	if label, h, err := v.repo.LastRehearsal(ctx); err == nil && h != nil {
		v.rehearsed.CompareAndSwap(nil, &rehearsed{label, h})
	}
	if label, r, err := v.repo.LastVerification(ctx); err == nil && r != nil {
		v.verified.CompareAndSwap(nil, &verified{label, r})
	}
	for {
		list, err := v.repo.Backups(ctx)
		if err == nil {
			for i := range list {
				list[i].Keep, _ = v.note(ctx, list[i])
			}
			v.catalog.Store(&list)
			if v.unreadable.Store(false); failed != "" {
				v.log.Info("the catalog can be read again")
			}
			failed = ""
		} else if ctx.Err() == nil && err.Error() != failed {
			failed = err.Error()
			v.unreadable.Store(true)
			v.log.Error("read catalog", "err", err)
		}
		if tli := v.slot.Timeline.Load(); tli != history && v.learnHistory(ctx, pg.Timeline(tli)) {
			history = tli
		}
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		case <-v.changed:
		}
	}
}

// learnHistory reads where the timelines of a server begin; false if that is not stored so far.
func (v *server) learnHistory(ctx context.Context, tli pg.Timeline) bool {
	var list []metrics.Timeline
	if tli > 1 {
		h, err := v.repo.History(ctx, tli)
		if err != nil {
			return false
		}
		for i, a := range h.Ancestors {
			next := h.Timeline
			if i+1 < len(h.Ancestors) {
				next = h.Ancestors[i+1].Timeline
			}
			list = append(list, metrics.Timeline{ID: uint32(next), Parent: uint32(a.Timeline), Switch: uint64(a.End)})
		}
	}
	v.timelines.Store(&list)
	return true
}

func (v *server) catalogChanged() {
	select {
	case v.changed <- struct{}{}:
	default:
	}
}

// orders fills in what every worker is told, whatever its work.
func (s *Supervisor) orders(c *config.Config, kind job.Kind) (job.Start, error) {
	codec, err := container.ParseCodec(c.Main.Compression.Codec.String())
	if err != nil {
		return job.Start{}, err
	}
	keys, err := s.keys(c)
	if err != nil {
		return job.Start{}, err
	}
	o := job.Start{Kind: kind, Config: c.Path, BaseDir: c.Main.BaseDir, Codec: codec, Level: c.Main.CompressionLevel, Cipher: keys.Cipher, Nice: c.Main.JobNice, Log: s.logOptions(c)}
	if kind == job.Receive {
		o.Nice = 0 // WAL comes first
	}
	master, err := keys.Master()
	if err != nil {
		o.Keyless = err.Error() // nobody may need it
		return o, nil
	}
	o.Master, err = master.Wire()
	return o, err
}

// start fills in what every worker of a server is told.
func (s *Supervisor) start(v *server, kind job.Kind) (job.Start, error) {
	c := s.config.Load()
	o, err := s.orders(c, kind)
	if err != nil || kind.OfFile() {
		return o, err
	}
	sc, ok := c.Server(v.name)
	if !ok {
		return job.Start{}, fmt.Errorf("server %q is not configured", v.name)
	}
	if o.Keyless != "" && o.Cipher != container.Plain {
		return job.Start{}, fmt.Errorf("server %q: encryption is %s and cannot be done: %s", v.name, o.Cipher, o.Keyless)
	}
	password, err := s.password(c, sc)
	if err != nil {
		return job.Start{}, err
	}
	members := sc.Addresses()
	var others []pgrepl.Address
	for _, a := range members[1:] {
		others = append(others, pgrepl.Address(a))
	}
	target := map[config.Target]pgrepl.Target{config.TargetPrimary: pgrepl.Primary, config.TargetStandby: pgrepl.PreferStandby}[sc.Follows()]
	return job.Start{
		Kind: o.Kind, Server: v.name, ServerSlot: v.index, Config: o.Config, BaseDir: o.BaseDir,
		Host: members[0].Host, Port: members[0].Port, Others: others, Target: target,
		User: sc.User, Password: password.Wire(),
		WALAlways: c.Main.WALSync == config.WALSyncAlways, WALFlushInterval: c.Main.WALFlushInterval, WALMaxAge: c.Main.WALMaxAge, OnGap: job.Gap(c.Main.OnGap.String()),
		ShipTo: sc.WALShipping, ShipPlain: sc.WALShippingPlain, FillFrom: c.WALArchive(sc),
		TLS:  pgrepl.TLS{CA: sc.TLSFiles.CA, Cert: sc.TLSFiles.Cert, Key: sc.TLSFiles.Key, Bound: sc.TLSBound},
		Slot: sc.WALSlot, CreateSlot: c.CreateSlot(sc),
		Codec: o.Codec, Level: o.Level, OnWire: c.Main.Compression.Server, Cipher: o.Cipher, Master: o.Master, Keyless: o.Keyless, Nice: o.Nice, Workers: c.Workers(sc), MaxRate: c.MaxRate(sc), Source: c.BackupSource(sc).String(), CrossCheck: float64(c.Main.CrossCheck) / 100, AllowCorrupt: c.Main.AllowCorrupt,
		Rehearsal: job.Rehearsal{Scratch: scratch(c, sc), BinDir: c.Main.RehearseBinDir, Settings: sc.RehearseSettings, Checks: sc.RehearseChecks, Amcheck: c.Main.RehearseAmcheck},
		Policy:    policy(c, sc),
		Log:       o.Log,
	}, nil
}

// logOptions tells a worker how to go on with our log.
func (s *Supervisor) logOptions(c *config.Config) job.LogOptions {
	o := job.LogOptions{Level: int(c.Main.LogLevel), Prefix: c.Main.LogLinePrefix, Color: logColor(c.Main.LogType),
		Syslog: c.Main.LogType == config.LogSyslog, JSON: c.Main.LogType == config.LogJSON}
	// The keys of the start: all of these need a restart.
	o.Path, o.RotationSize, o.RotationAge = s.Log.Rotation()
	return o
}

// scratch is where rehearsals of a server restore to, "" for nowhere: with encryption
// nothing of a database may lie in plain text below base_dir.
func scratch(c *config.Config, sc *config.Server) string {
	if dir := c.Workspace(sc); dir != "" {
		return filepath.Join(dir, sc.Name)
	}
	if c.Main.Encryption != config.EncryptionNone {
		return ""
	}
	return filepath.Join(c.Main.BaseDir, sc.Name, "tmp")
}

// keys tells how the repositories are sealed.
func (s *Supervisor) keys(c *config.Config) (repo.Keys, error) {
	cipher, err := container.ParseCipher(c.Main.Encryption.String())
	return repo.Keys{Cipher: cipher, Master: s.master}, err
}

// master returns the master key as it is now.
func (s *Supervisor) master() (*vault.MasterKey, error) {
	if s.MasterKey == nil {
		return nil, vault.ErrNoMasterKey
	}
	return s.MasterKey()
}

// password looks a server's password up: in the users file, else in its pgpass
// file. None at all is no error: the server may trust us.
func (s *Supervisor) password(c *config.Config, sc *config.Server) (vault.Secret, error) {
	if users := s.users.Load(); users != nil {
		if p, ok := users.Lookup(sc.User); ok {
			return p, nil
		}
	}
	path := c.Passfile(sc)
	if path == "" {
		return vault.Secret{}, nil
	}
	f, err := vault.LoadPassfile(path)
	if err != nil {
		return vault.Secret{}, err
	}
	for _, a := range sc.Addresses() {
		for _, database := range []string{"replication", "postgres"} {
			if p, ok := f.Lookup(a.Host, a.Port, database, sc.User); ok {
				return p, nil
			}
		}
	}
	return vault.Secret{}, nil
}

// launch starts a worker process and sends it its orders.
func (s *Supervisor) launch(start job.Start, name string) (Child, error) {
	file, err := s.Log.File()
	if err != nil {
		return nil, err
	}
	if file != nil {
		defer func() { _ = file.Close() }()
	}
	log := s.Log.With(start.LogAttrs()...)
	child, err := s.Start(ipc.Spec{
		Title: start.Title(), Name: name, Segment: s.Segment.File(), Log: file, Nice: start.Nice,
		OnStderr: func(line string) { log.Error("worker says", "worker", string(start.Kind), "line", line) },
	})
	if err != nil {
		return nil, fmt.Errorf("start worker for the %s: %w", start.Work(), err)
	}
	if err := child.Conn().Send(job.KindStart, start); err != nil {
		_ = child.Conn().Close()
		return nil, errors.Join(fmt.Errorf("instruct worker for the %s: %w", start.Work(), err), child.Wait())
	}
	return child, nil
}

// receiveTurn runs the WAL worker of a server until ctx ends, starting it
// again whenever it ends by itself.
func (s *Supervisor) receiveTurn(ctx context.Context, v *server) {
	delay, said := restartMin, ""
	for ctx.Err() == nil {
		began := time.Now()
		streamed, err := s.receiveOnce(ctx, v)
		if ctx.Err() != nil {
			break
		}
		// One that worked until something killed it comes back at once: commits of
		// its server may be waiting for it.
		if streamed && time.Since(began) > restartMin {
			delay, said = restartMin, ""
		}
		wait := delay/2 + rand.N(delay/2)
		delay = min(2*delay, restartMax)
		v.slot.State.Store(shmem.StateWaiting)
		v.slot.LastExit.Store(fmt.Sprint(err))
		v.slot.Restarts.Add(1)
		level := slog.LevelDebug // the same as before
		if text := fmt.Sprint(err); text != said {
			level, said = slog.LevelError, text
		}
		v.log.Log(ctx, level, "WAL worker ended, starting it again", "after", wait.Round(time.Millisecond), "err", err)
		t := time.NewTimer(wait)
		select {
		case <-ctx.Done():
		case <-t.C:
		}
		t.Stop()
	}
	v.slot.State.Store(shmem.StateStopped)
}

// Delays before a WAL worker is started again.
const (
	restartMin = time.Second
	restartMax = time.Minute
)

// receiveOnce runs one WAL worker to its end. streamed tells whether it was
// receiving WAL when it ended.
func (s *Supervisor) receiveOnce(ctx context.Context, v *server) (streamed bool, err error) {
	start, err := s.start(v, job.Receive)
	if err != nil {
		return false, err
	}
	child, err := s.launch(start, "pgmoneta-wal")
	if err != nil {
		return false, err
	}
	v.slot.WorkerPID.Store(int64(child.PID()))
	v.slot.StartedAt.StoreTime(time.Now())
	v.slot.State.Store(shmem.StateRunning)
	defer v.slot.WorkerPID.Store(0)
	// Only the end of the control socket or of ctx moves this goroutine on; a
	// worker that was stopped has the time it needs for its last flush.
	stopped := context.AfterFunc(ctx, func() { _ = child.Conn().Send(job.KindStop, nil) })
	defer stopped()
	err = child.Wait()
	_ = child.Conn().Close()
	streamed = v.slot.Streaming.Load() == 1
	v.slot.Streaming.Store(0)
	if err == nil {
		err = errors.New("it ended without being asked")
	}
	return streamed, err
}

// logColor reports whether workers should write coloured lines.
func logColor(kind config.LogType) bool {
	if kind != config.LogConsole {
		return false
	}
	info, err := os.Stdout.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}
