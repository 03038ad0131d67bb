package backup

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"log/slog"
	"runtime"
	"strconv"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/pgmoneta/pgmoneta-go/internal/container"
	"github.com/pgmoneta/pgmoneta-go/internal/manifest"
	"github.com/pgmoneta/pgmoneta-go/internal/pg"
	"github.com/pgmoneta/pgmoneta-go/internal/pgrepl"
	"github.com/pgmoneta/pgmoneta-go/internal/repo"
	"github.com/pgmoneta/pgmoneta-go/internal/storage"
	"github.com/pgmoneta/pgmoneta-go/internal/verify"
)

// Options tell how to take a backup.
type Options struct {
	Params  pgrepl.Params
	Repo    *repo.Repository
	Codec   container.Codec
	Level   int
	Workers int    // encoders; 0 = one per CPU
	MaxRate int64  // bytes per second, limited at the server; 0 = unlimited
	Source  Source // "" means Stream
	// OnWire asks the server to compress what it sends, with the same codec.
	OnWire bool

	// Base makes the backup an incremental one. PostgreSQL 17 and later then send
	// what has changed; earlier versions send all, of which what has changed is stored.
	Base repo.Label
	// CrossCheck is the fraction of the blocks that the server did not send, from 0
	// to 1, to compare with what it has. It is done where the user may read files.
	CrossCheck float64

	// AllowCorrupt keeps a backup with pages whose checksums are wrong, and marks it.
	AllowCorrupt bool

	// Streaming reports whether WAL is being received, and if not why. A backup
	// whose WAL does not arrive is given up after walPatience.
	Streaming func() (bool, string)
	// Progress is told phases, and bytes of the current one; total 0 = unknown.
	Progress func(phase string, done, total int64)
	Now      func() time.Time
	Log      *slog.Logger

	packBytes int64 // stored bytes at which a pack is closed, for tests; 0 = [repo.PackTarget]
}

// walPatience is how long a backup waits while no WAL is being received.
const walPatience = 2 * time.Minute

// Run takes one backup. The caller holds [repo.Repository.Lock].
func Run(ctx context.Context, o Options) (repo.Summary, error) {
	if o.Workers <= 0 {
		o.Workers = runtime.GOMAXPROCS(0)
	}
	j := &job{Options: o}
	j.Progress = timed(o.Progress, o.Log)
	s, err := j.run(ctx)
	if cause := context.Cause(ctx); err != nil && cause != nil && !errors.Is(err, cause) {
		err = fmt.Errorf("%w: %w", cause, err)
	}
	if err != nil {
		return repo.Summary{}, fmt.Errorf("backup of server %q: %w", o.Params.Server, err)
	}
	return s, nil
}

// timed also logs how long each phase took.
func timed(progress func(phase string, done, total int64), log *slog.Logger) func(string, int64, int64) {
	current, began := "Start", time.Now()
	return func(phase string, done, total int64) {
		if phase != current {
			log.Debug("phase of the backup is over", "phase", current, "elapsed", time.Since(began).Round(time.Microsecond))
			current, began = phase, time.Now()
		}
		progress(phase, done, total)
	}
}

type job struct {
	Options
	summary repo.Summary
	stage   storage.Stage
	rows    *repo.ManifestWriter
	base    *base // nil when there is nothing to refer to
	known   *known
}

func (j *job) run(ctx context.Context) (repo.Summary, error) {
	err := errors.Join(j.Repo.ForgetUnfinished(ctx, j.Now().Add(-repo.KeepUnfinished)), j.Repo.Sweep(ctx))
	if err != nil {
		return repo.Summary{}, err
	}
	conn, err := pgrepl.Connect(ctx, j.Params)
	if err != nil {
		return repo.Summary{}, err
	}
	defer conn.Close()
	system, err := j.identify(ctx, conn)
	if err != nil {
		return repo.Summary{}, err
	}
	if j.base, j.known, err = j.openBase(ctx); err != nil {
		return repo.Summary{}, err
	}
	if j.base != nil {
		defer j.base.close()
	}
	if err := j.prints(ctx); err != nil {
		return repo.Summary{}, err
	}
	if err := j.incremental(ctx, conn, system); err != nil {
		return repo.Summary{}, err
	}
	if err := j.Repo.Begin(ctx, j.summary.Label); err != nil {
		return repo.Summary{}, err
	}
	if j.stage, err = j.Repo.Engine().Stage(ctx, repo.OwnerJob); err != nil {
		return repo.Summary{}, err
	}
	defer func() { _ = j.stage.Abort() }()
	if j.rows, err = j.Repo.NewManifestWriter(ctx, j.summary.Label); err != nil {
		return repo.Summary{}, err
	}
	defer j.rows.Abort()

	packs, err := j.read(ctx, conn)
	if err != nil {
		return repo.Summary{}, err
	}
	if err := j.settle(ctx); err != nil {
		return repo.Summary{}, err
	}
	if ctx.Err() != nil {
		return repo.Summary{}, context.Cause(ctx)
	}
	j.Progress("Commit", 0, 0)
	j.summary.EndedAt = j.Now().UTC()
	if err := j.rows.Commit(ctx, j.summary, packs); err != nil {
		return repo.Summary{}, err
	}
	j.tidy(ctx)
	j.Progress("Done", 0, 0)
	return j.summary, nil
}

// settle waits until what was stored is on stable storage and the repository holds the WAL
// of the backup, and meanwhile compares blocks that were not sent.
func (j *job) settle(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	synced := make(chan struct{})
	g.Go(func() error {
		defer close(synced)
		return j.stage.Commit(ctx)
	})
	g.Go(func() error { return j.awaitWAL(ctx) })
	g.Go(func() error { // the only one that tells progress
		if j.summary.Overlaid {
			if err := j.crossCheck(ctx, j.base); err != nil {
				return err
			}
		}
		j.Progress("Sync", 0, 0)
		<-synced
		j.Progress("WAL", 0, 0)
		return nil
	})
	return g.Wait()
}

// tidy removes what interrupted backups have left and this one did not need. This one is
// listed, whether that succeeds or not.
func (j *job) tidy(ctx context.Context) {
	left, err := j.Repo.Unfinished(ctx)
	if err == nil && len(left) > 1 {
		err = j.Repo.ForgetUnfinished(ctx, j.summary.Label.Time())
	}
	if err := errors.Join(err, j.Repo.Sweep(ctx)); err != nil {
		j.Log.Warn("leftovers of interrupted backups stay for now", "err", err)
	}
}

// identify asks everything that is known before the backup starts.
func (j *job) identify(ctx context.Context, conn *pgrepl.Conn) (pgrepl.System, error) {
	system, err := conn.System(ctx)
	if err != nil {
		return system, err
	}
	if err := j.Repo.Bind(ctx, repo.OwnerJob, system.ID); err != nil {
		return system, err
	}
	size, err := conn.SegmentSize(ctx)
	if err != nil {
		return system, err
	}
	started := j.Now().UTC()
	label, err := j.Repo.NextLabel(ctx, started)
	j.summary = repo.Summary{
		Server: j.Params.Server, Label: label, Type: repo.Full, System: system.ID,
		PostgreSQL: conn.Version(), SegmentSize: size, StartedAt: started,
		Codec: j.Codec.String(), Cipher: j.Repo.Cipher().String(),
	}
	return system, err
}

// prints makes sure that the key of the prints is there or can be made. Losing it costs
// space and nothing else, so that it stops no backup.
func (j *job) prints(ctx context.Context) error {
	const lost = "the key of the prints is lost: this backup stores everything once more"
	p, err := j.Repo.Printer(ctx)
	var damaged *container.DamagedError
	if errors.As(err, &damaged) {
		j.Log.Warn(lost, "label", string(j.summary.Label), "err", err)
		return j.Repo.ForgetPrinter(ctx)
	}
	if err == nil && p == nil && j.base != nil {
		j.Log.Warn(lost, "label", string(j.summary.Label))
	}
	return err
}

// incremental prepares an incremental backup, if one is wanted.
func (j *job) incremental(ctx context.Context, conn *pgrepl.Conn, system pgrepl.System) error {
	if j.Base == "" {
		return nil
	}
	j.Progress("Base", 0, 0)
	if err := j.prepare(ctx, conn, j.base, system); err != nil {
		return unsuitable(ctx, j.base.summary.Label, err)
	}
	j.summary.Type, j.summary.Base, j.summary.Overlaid = repo.Incremental, j.base.summary.Label, j.base.rows != nil
	return nil
}

// read stores the data directory, from where it can be read best, and returns the
// pack table.
func (j *job) read(ctx context.Context, conn *pgrepl.Conn) ([]repo.PackRef, error) {
	r, err := j.openReading(ctx)
	if err != nil {
		return nil, err
	}
	if r == nil {
		return j.receive(ctx, conn)
	}
	defer r.close()
	return j.readTree(ctx, conn, r)
}

// receive takes the base backup itself and returns the pack table.
func (j *job) receive(ctx context.Context, conn *pgrepl.Conn) ([]repo.PackRef, error) {
	j.Progress("Checkpoint", 0, 0)
	wire := j.wire(conn)
	o := pgrepl.BaseBackupOptions{Label: "pgmoneta_" + string(j.summary.Label), MaxRate: maxRate(j.MaxRate), Incremental: j.summary.Overlaid}
	if wire != container.None {
		o.Compression, o.Level = wire.String(), wireLevel(wire, j.Level)
	}
	pages, err := streamPages(ctx, conn)
	if err != nil {
		return nil, err
	}
	bb, err := conn.BaseBackup(ctx, o)
	if err != nil {
		return nil, j.refused(err)
	}
	j.summary.Start, j.summary.StartTLI = bb.Start, bb.Timeline
	j.summary.Tablespaces = j.tablespaces(ctx, bb)
	total := int64(0)
	for _, ts := range bb.Tablespaces {
		total += ts.Bytes
	}
	j.summary.FrameBytes = j.frameBytes(total)
	l := j.layout()
	if pages != nil {
		pages.Start = bb.Start
		again := &secondLook{params: j.Params}
		defer func() { _ = again.Close() }()
		l.check = func(f *frame) (bool, error) { return checkPages(ctx, again, pages, f) }
	}
	pipe, err := newPipeline(ctx, j.Repo, j.summary.Label, l, j.known, j.rows)
	if err != nil {
		return nil, err
	}
	f := &files{pipe: pipe, wire: wire, pages: pages, seed: maphash.MakeSeed(), received: func(n int64) { j.Progress("Base backup", n, max(n, total)) }}
	if j.summary.Overlaid {
		f.base = j.base
		f.kept.Count = j.base.unnamed()
	}
	packs, stored, err := j.store(f, func() error { return j.archives(bb, f) })
	if err != nil {
		return nil, err
	}
	manifestBytes, err := j.manifest(ctx, bb, f)
	if err != nil {
		return nil, err
	}
	j.summary.End, j.summary.EndTLI, err = bb.Finish()
	rejected := pages != nil && pgrepl.Code(err) == pgrepl.CodeDataCorruption
	if err != nil && !rejected {
		return nil, err
	}
	j.summary.StoppedAt = j.Now().UTC()
	if err := j.corrupt(pages, f.kept, rejected); err != nil {
		return nil, err
	}
	return packs, j.conclude(f, stored+manifestBytes)
}

// store runs the pipeline of f while read fills it, and returns the pack table and
// the stored bytes.
func (j *job) store(f *files, read func() error) ([]repo.PackRef, int64, error) {
	packs, stored, err := j.fill(f, read)
	if err == nil {
		j.Log.Info("stored what was new", "label", string(j.summary.Label), "bytes", f.total, "unchanged", f.pipe.reused, "stored", stored)
	}
	return packs, stored, err
}

// fill is store without a word about it.
func (j *job) fill(f *files, read func() error) ([]repo.PackRef, int64, error) {
	if err := read(); err != nil {
		f.pipe.abort(err)
		// What broke the pipeline explains more than the read that it stopped.
		if cause := context.Cause(f.pipe.ctx); cause != nil {
			err = cause
		}
		return nil, 0, err
	}
	return f.pipe.finish()
}

// wire returns the codec in which the server sends its archives.
func (j *job) wire(conn *pgrepl.Conn) container.Codec {
	if !j.OnWire || j.Codec == container.Bzip2 {
		return container.None
	}
	if major := conn.Version().Major(); major < pgrepl.CompressionMajor {
		j.Log.Warn("the server cannot compress what it sends", "version", major)
		return container.None
	}
	return j.Codec
}

// wireLevel keeps a level within what the server takes.
func wireLevel(codec container.Codec, level int) int {
	most := map[container.Codec]int{container.Gzip: 9, container.LZ4: 12, container.Zstd: 22}[codec]
	return min(max(level, 1), most)
}

// refused explains why a server does not make a backup as it was asked to.
func (j *job) refused(err error) error {
	if j.OnWire && pgrepl.Code(err) == pgrepl.CodeSyntax {
		return fmt.Errorf("%w (compression = server-%s needs a server built with it; compression = %s compresses here)", err, j.Codec, j.Codec)
	}
	if j.summary.Overlaid && (pgrepl.Code(err) == pgrepl.CodeNotInState || pgrepl.Code(err) == pgrepl.CodeInvalidValue) {
		return &BaseError{Base: j.summary.Base, Err: err}
	}
	return err
}

// Frames of 128 KiB cost a third of what frames of 1 MiB cost when single pages
// change here and there; but each takes 48 bytes of memory in the next backup, so
// that they grow with the database: to 1 MiB from 1 TiB on.
const (
	smallFrame = 128 << 10
	frameGoal  = 2 << 20 // frames of a backup, as long as they can grow
)

func (j *job) layout() layout {
	return layout{codec: j.Codec, level: j.Level, workers: j.Workers, frame: j.summary.FrameBytes, pack: cmp.Or(j.packBytes, repo.PackTarget)}
}

// frameBytes returns the size of frames for total bytes. That of the base is kept if it
// fits about, because frames of another size are not found again.
func (j *job) frameBytes(total int64) int {
	size := smallFrame
	for size < container.FrameLimit && total/int64(size) > frameGoal {
		size *= 2
	}
	if j.base == nil {
		return size
	}
	have := j.base.summary.FrameBytes
	if have >= size/2 && have <= 2*size && have >= smallFrame && have <= container.FrameLimit {
		return have
	}
	return size
}

// maxRate converts to what MAX_RATE takes: 32 kB/s to 1 GB/s.
func maxRate(bytes int64) int {
	if bytes <= 0 {
		return 0
	}
	return int(min(max((bytes+1023)/1024, 32), 1<<20))
}

// tablespaces returns those of a base backup.
func (j *job) tablespaces(ctx context.Context, bb *pgrepl.BaseBackup) []repo.Tablespace {
	var list []repo.Tablespace
	for _, ts := range bb.Tablespaces {
		if ts.OID != 0 {
			list = append(list, repo.Tablespace{OID: ts.OID, Name: strconv.FormatUint(uint64(ts.OID), 10), Location: ts.Location})
		}
	}
	return j.named(ctx, list)
}

// named gives tablespaces that go by their OID their names. That needs a plain
// connection; without one, and where it was dropped meanwhile, the OID stays.
func (j *job) named(ctx context.Context, list []repo.Tablespace) []repo.Tablespace {
	if len(list) == 0 {
		return nil
	}
	names := map[string]string{}
	if conn, err := pgrepl.ConnectSQL(ctx, j.Params); err == nil {
		defer conn.Close()
		rows, err := conn.Query(ctx, "SELECT oid, spcname FROM pg_tablespace")
		for _, r := range rows {
			names[r[0]] = r[1]
		}
		if err != nil {
			j.Log.Warn("names of tablespaces are not known", "err", err)
		}
	}
	for i := range list {
		if name := names[list[i].Name]; name != "" {
			list[i].Name = name
		}
	}
	return list
}

func (j *job) archives(bb *pgrepl.BaseBackup, f *files) error {
	for {
		ts, err := bb.NextArchive()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := f.archive(ts, bb); err != nil {
			return err
		}
	}
}

// manifest stores PostgreSQL's manifest while comparing it with what arrived.
func (j *job) manifest(ctx context.Context, bb *pgrepl.BaseBackup, f *files) (int64, error) {
	j.Progress("Manifest", 0, 0)
	up, err := j.stage.Create(ctx, repo.PostgresManifestName(j.summary.Label))
	if err != nil {
		return 0, err
	}
	w, err := j.Repo.NewPostgresManifest(up, j.summary.Label)
	if err != nil {
		return 0, err
	}
	m := manifest.NewReader(io.TeeReader(bb.Manifest(), w))
	if err := f.compare(m); err != nil {
		return 0, err
	}
	if m.System != 0 && strconv.FormatUint(m.System, 10) != j.summary.System {
		return 0, fmt.Errorf("backup_manifest is of system %d, the connection of %s", m.System, j.summary.System)
	}
	if err := w.Finish(); err != nil {
		return 0, err
	}
	return w.Len(), up.Close()
}

func (j *job) conclude(f *files, stored int64) error {
	label, err := pg.ParseBackupLabel(f.label)
	if err != nil {
		return err
	}
	j.summary.Checkpoint, j.summary.Standby = label.Checkpoint, label.FromStandby
	j.summary.BackupLabel = string(f.label)
	j.summary.Files, j.summary.Logical, j.summary.Biggest, j.summary.Stored = f.count, f.logical, f.biggest, stored
	return nil
}

// awaitWAL waits until the repository holds all WAL from start to end, and
// checks it. A primary switches segments at the end of a backup, so that the
// last segment is soon complete; behind a standby it fills at the speed of the
// primary.
func (j *job) awaitWAL(ctx context.Context) error {
	plan, err := verify.PlanWAL(ctx, j.Repo, j.summary)
	if err != nil {
		return err
	}
	began := time.Now()
	idleSince := began
	announced := false
	for {
		missing, err := verify.FirstMissing(ctx, j.Repo, plan)
		if err != nil || missing == "" {
			return errors.Join(err, verify.Segments(ctx, j.Repo, plan, j.summary.SegmentSize, j.Workers))
		}
		streaming, why := j.Streaming()
		if streaming {
			idleSince = time.Now()
		}
		if idle := time.Since(idleSince); idle > walPatience {
			return fmt.Errorf("WAL up to %s is needed, segment %s has not arrived, and no WAL was received for %s (%s): "+
				"the backup was dropped; mend WAL streaming, then take it again", j.summary.End, missing, idle.Round(time.Second), why)
		}
		if !announced {
			j.Log.Info("waiting for WAL of the backup", "label", j.summary.Label, "segment", missing, "lsn", j.summary.End)
			announced = true
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		// On a quiet server the last segment is all there is to wait for.
		case <-time.After(min(max(time.Since(began)/16, time.Millisecond), 50*time.Millisecond)):
		}
	}
}
