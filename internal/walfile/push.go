package walfile

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/pgmoneta/pgmoneta-go/internal/container"
	"github.com/pgmoneta/pgmoneta-go/internal/durable"
	"github.com/pgmoneta/pgmoneta-go/internal/pg"
	"github.com/pgmoneta/pgmoneta-go/internal/repo"
	"github.com/pgmoneta/pgmoneta-go/internal/vault"
	"github.com/pgmoneta/pgmoneta-go/internal/walpage"
)

// A Pusher stores files that PostgreSQL wants archived, as the receiver would.
type Pusher struct {
	FS      durable.FS // through which the repository is changed
	BaseDir string
	Server  string // section name in pgmoneta.conf
	Codec   container.Codec
	Level   int
	Cipher  container.Cipher
	// MasterKey returns the master key; it is called when the archive is encrypted.
	MasterKey func() (*vault.MasterKey, error)

	// MaxQueue is how many bytes may wait to be archived before Warn is
	// called; 0 for no limit. With Drop, segments are then given up instead.
	MaxQueue int64
	Drop     bool
	Warn     func(text string) // may be nil
}

// lockPatience is how long a push waits for another one to the same archive.
const lockPatience = 30 * time.Second

// A source is a file to be archived, open and checked.
type source struct {
	*os.File
	name   string // as PostgreSQL calls it
	object string
	size   int64
	system string // system identifier of its cluster, "" if unknown
	small  []byte // content of a history file; nil for segments
}

// Push stores the file at path under its base name. The error is a [*FileError].
func (p *Pusher) Push(ctx context.Context, path string) error {
	return annotate(p.Server, filepath.Base(path), p.push(ctx, path))
}

func (p *Pusher) push(ctx context.Context, path string) error {
	src, err := openSource(path)
	if err != nil {
		return err
	}
	defer func() { _ = src.Close() }()
	r, err := p.open()
	if err != nil {
		return err
	}
	unlock, err := p.lock(ctx, r)
	if err != nil {
		return err
	}
	defer unlock()
	// We hold the lock: no stage of this owner is open, what lies there was left
	// by a push that was killed.
	if err := r.Engine().Sweep(ctx, repo.OwnerPush); err != nil {
		return err
	}
	if err := bind(ctx, r, src.system); err != nil {
		return err
	}
	// Holes that earlier pushes left unrecorded. What this one brings may be stored nevertheless.
	if err := recall(ctx, r, filepath.Dir(path)); err != nil && p.Warn != nil {
		p.Warn(fmt.Sprintf("server %q: dropped segments are still not recorded as holes: %v", p.Server, err))
	}
	if err := p.queue(ctx, r, src); err != nil {
		return err
	}
	return p.keep(ctx, r, src)
}

// keep stores src or makes sure that it is stored.
func (p *Pusher) keep(ctx context.Context, r *repo.Repository, src *source) error {
	err := p.store(ctx, r, src)
	if errors.Is(err, fs.ErrExist) {
		err = p.compare(ctx, r, src)
	}
	if err != nil || !pg.IsSegmentName(src.name) {
		return err
	}
	// It is archived, whatever becomes of the record of a hole it has filled: a
	// check of the archive removes that too.
	if err := r.FillHolesAround(ctx, src.name, pg.SegmentSize(src.size)); err != nil && p.Warn != nil {
		p.Warn(fmt.Sprintf("server %q: %s is archived, but the hole it fills stays recorded: %v", p.Server, src.name, err))
	}
	return nil
}

// open opens the repository. base_dir must be there: making it would fill the
// root directory's disk when a file system is not mounted.
func (p *Pusher) open() (*repo.Repository, error) {
	if _, err := os.Stat(p.BaseDir); err != nil {
		return nil, fmt.Errorf("no base_dir: %w: check that its file system is mounted", err)
	}
	r, err := repo.Open(p.FS, p.BaseDir, p.Server)
	if err == nil {
		r.UseKeys(repo.Keys{Cipher: p.Cipher, Master: p.MasterKey})
	}
	return r, err
}

// lock waits until no other push works on the repository.
func (p *Pusher) lock(ctx context.Context, r *repo.Repository) (unlock func(), err error) {
	dir := filepath.Join(r.Dir(), "tmp")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	lock, err := waitLock(ctx, filepath.Join(dir, "push.lock"), lockPatience)
	if err != nil {
		return nil, err
	}
	return func() { _ = lock.Release() }, nil
}

// openSource opens and checks the file at path.
func openSource(path string) (*source, error) {
	src := &source{name: filepath.Base(path)}
	var ok bool
	if src.object, ok = repo.WALObject(src.name); !ok {
		return nil, refusal{errors.New("not a name of a file of WAL: the arguments are SERVER %p")}
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	src.File = f
	info, err := f.Stat()
	if err == nil {
		src.size = info.Size()
		err = src.check(filepath.Dir(path))
	}
	if err != nil {
		_ = f.Close()
		return nil, err
	}
	return src, nil
}

func (s *source) check(dir string) error {
	segment := strings.TrimSuffix(s.name, partialSuffix)
	if !pg.IsSegmentName(segment) {
		s.system = clusterOf(dir)
		return s.readSmall()
	}
	page := make([]byte, walpage.LongSize)
	if _, err := s.ReadAt(page, 0); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	h, err := firstPage(segment, page, s.size)
	if err != nil {
		return refusal{err}
	}
	s.system = strconv.FormatUint(h.System, 10)
	return nil
}

func (s *source) readSmall() error {
	if s.size > smallLimit {
		return refusal{fmt.Errorf("it has %d bytes, expected at most %d", s.size, smallLimit)}
	}
	s.small = make([]byte, s.size)
	if _, err := s.ReadAt(s.small, 0); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	if err := checkSmall(s.name, s.small); err != nil {
		return refusal{err}
	}
	return nil
}

// bind ties the repository to the cluster, or makes sure that it is tied to it.
func bind(ctx context.Context, r *repo.Repository, system string) error {
	if system == "" {
		return nil // a history file by itself does not say
	}
	err := r.Bind(ctx, repo.OwnerPush, system)
	var mismatch *repo.SystemMismatchError
	if errors.As(err, &mismatch) {
		return &ForeignError{System: mismatch.Have, Repository: mismatch.Repository}
	}
	return err
}

// queue applies the limit. Only complete segments are ever dropped, and none that
// is archived already: that takes no time.
func (p *Pusher) queue(ctx context.Context, r *repo.Repository, src *source) error {
	if p.MaxQueue == 0 {
		return nil
	}
	queued, err := queued(filepath.Dir(src.Name()))
	if err != nil {
		return err
	}
	if queued <= p.MaxQueue {
		return nil
	}
	stored, err := exists(ctx, r, src.object)
	if err != nil {
		return err
	}
	if p.Drop && pg.IsSegmentName(src.name) && !stored {
		return p.drop(ctx, r, src, queued)
	}
	if p.Warn != nil {
		p.Warn(fmt.Sprintf("server %q: %s: archiving falls behind: %d bytes wait in pg_wal, the limit is %d: "+
			"find out why before the disk is full", p.Server, src.name, queued, p.MaxQueue))
	}
	return nil
}

func exists(ctx context.Context, r *repo.Repository, object string) (bool, error) {
	o, err := r.Engine().Open(ctx, object)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	return true, o.Close()
}

// queued returns the bytes in walDir that PostgreSQL has marked as ready to be archived.
//
// See src/backend/postmaster/pgarch.c.
func queued(walDir string) (int64, error) {
	entries, err := os.ReadDir(filepath.Join(walDir, "archive_status"))
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	total := int64(0)
	for _, e := range entries {
		name, ready := strings.CutSuffix(e.Name(), ".ready")
		if !ready {
			continue
		}
		if info, err := os.Stat(filepath.Join(walDir, name)); err == nil {
			total += info.Size()
		}
	}
	return total, nil
}

// store stores src. It is [fs.ErrExist] when the name is taken.
func (p *Pusher) store(ctx context.Context, r *repo.Repository, src *source) error {
	// Asking first saves compressing what the receiver has stored already; that
	// the name is free is only sure when the stage is committed.
	stored, err := exists(ctx, r, src.object)
	if err != nil {
		return err
	}
	if stored {
		return fs.ErrExist
	}
	if src.small != nil {
		return r.PutRecord(ctx, repo.OwnerPush, src.object, src.small)
	}
	stage, err := r.Engine().Stage(ctx, repo.OwnerPush)
	if err != nil {
		return err
	}
	defer func() { _ = stage.Abort() }()
	up, err := stage.Create(ctx, src.object)
	if err != nil {
		return err
	}
	w, err := r.NewContainer(up, src.object, container.Segment, p.Codec)
	if err != nil {
		return err
	}
	if err := p.encode(ctx, src, w); err != nil {
		return err
	}
	if err := w.Finish(); err != nil {
		return err
	}
	if err := up.Close(); err != nil {
		return err
	}
	return stage.Commit(ctx)
}

// A piece is one frame on its way into a container.
type piece struct {
	enc    *container.Encoder
	plain  []byte
	stored []byte
	frame  container.Frame
}

// encode writes the frames of src to w. As many as there are CPUs are encoded
// side by side, then written in order.
func (p *Pusher) encode(ctx context.Context, src *source, w *container.Writer) error {
	pieces := make([]piece, min(runtime.GOMAXPROCS(0), int((src.size+container.FrameLimit-1)/container.FrameLimit)))
	for i := range pieces {
		enc, err := container.NewEncoder(p.Codec, p.Level)
		if err != nil {
			return err
		}
		pieces[i] = piece{enc: enc, plain: make([]byte, container.FrameLimit)}
	}
	for at := int64(0); at < src.size; {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		var g errgroup.Group
		n := 0
		for ; n < len(pieces) && at < src.size; n++ {
			c, from, length := &pieces[n], at, min(src.size-at, container.FrameLimit)
			g.Go(func() error { return c.encode(src, from, length) })
			at += length
		}
		if err := g.Wait(); err != nil {
			return err
		}
		for _, c := range pieces[:n] {
			if _, err := w.WriteFrame(c.stored, c.frame); err != nil {
				return err
			}
		}
	}
	return nil
}

func (c *piece) encode(in io.ReaderAt, at, length int64) error {
	plain := c.plain[:length]
	n, err := in.ReadAt(plain, at)
	if n < len(plain) {
		return err
	}
	c.stored, c.frame, err = c.enc.Append(c.stored[:0], plain)
	return err
}

// compare makes sure that what is stored under the name is src, readable and durable.
func (p *Pusher) compare(ctx context.Context, r *repo.Repository, src *source) error {
	path := filepath.Join(r.Dir(), filepath.FromSlash(src.object))
	same, err := p.same(ctx, r, src)
	if err != nil {
		return err
	}
	if !same {
		return &DifferentError{Path: src.Name(), Stored: path}
	}
	// The receiver may have given it its name this very moment and not have
	// synced that yet.
	return p.FS.SyncDir(filepath.Dir(path))
}

func (p *Pusher) same(ctx context.Context, r *repo.Repository, src *source) (bool, error) {
	if src.small != nil {
		stored, err := r.ReadRecord(ctx, src.object, smallLimit)
		return bytes.Equal(stored, src.small), err
	}
	a := &archive{repo: r}
	c, object, err := a.openContainer(ctx, src.name)
	if err != nil {
		return false, err
	}
	defer func() { _ = object.Close() }()
	if c.Plain() != src.size {
		return false, nil
	}
	scratch := make([]container.Scratch, runtime.GOMAXPROCS(0))
	defer closeAll(scratch)
	err = eachFrame(ctx, c, scratch, func(at int64, plain []byte) error {
		have := make([]byte, len(plain))
		if n, err := src.ReadAt(have, at); n < len(have) {
			return err
		}
		if !bytes.Equal(have, plain) {
			return errDifferent
		}
		return nil
	})
	if errors.Is(err, errDifferent) {
		return false, nil
	}
	return err == nil, err
}

var errDifferent = errors.New("the contents differ")
