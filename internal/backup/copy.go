package backup

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"log/slog"
	"path"
	"runtime"
	"strconv"
	"time"

	"github.com/pgmoneta/pgmoneta-go/internal/container"
	"github.com/pgmoneta/pgmoneta-go/internal/datadir"
	"github.com/pgmoneta/pgmoneta-go/internal/manifest"
	"github.com/pgmoneta/pgmoneta-go/internal/pgrepl"
	"github.com/pgmoneta/pgmoneta-go/internal/repo"
	"github.com/pgmoneta/pgmoneta-go/internal/storage"
)

// CopyOptions tell how to store backups that another program made.
type CopyOptions struct {
	Repo    *repo.Repository
	Codec   container.Codec
	Level   int
	Workers int // encoders; 0 = one per CPU
	// Progress is told phases, and bytes of the current one.
	Progress func(phase string, done, total int64)
	Log      *slog.Logger
}

// A Copier stores backups that another program made as ours. What one of them has stored is
// not stored again for the next. It is used by one goroutine, whose process holds
// [repo.Repository.Lock]. Close it.
type Copier struct {
	job
	begun bool
	frame int // plain bytes of frames; the same for all, so that equal ones are found
}

// NewCopier returns a copier.
func NewCopier(o CopyOptions) *Copier {
	if o.Workers <= 0 {
		o.Workers = runtime.GOMAXPROCS(0)
	}
	return &Copier{job: job{Options: Options{Repo: o.Repo, Codec: o.Codec, Level: o.Level, Workers: o.Workers, Progress: o.Progress, Now: time.Now, Log: o.Log}}}
}

// Close closes what frames are looked up in.
func (c *Copier) Close() {
	if c.base != nil {
		c.base.close()
	}
}

// A Copy is a backup that is stored, on stable storage, and not listed.
type Copy struct {
	Summary repo.Summary
	Packs   []repo.PackRef // that it refers to

	rows *repo.ManifestWriter
}

// Commit makes the backup exist.
func (c *Copy) Commit(ctx context.Context) error { return c.rows.Commit(ctx, c.Summary, c.Packs) }

// Abort drops the copy's manifest; the next sweep removes the rest. After Commit it does nothing.
func (c *Copy) Abort() { c.rows.Abort() }

// Copy stores the data of a backup as that of a full one of ours with its label and its facts. It reads
// the tree twice: what is read first is stored, and what is read then must be the same, byte for byte.
// The backup exists when the result is committed.
func (c *Copier) Copy(ctx context.Context, t repo.Tree) (*Copy, error) {
	sent, err := readSent(ctx, t)
	if err != nil {
		return nil, err
	}
	if err := c.describe(t.Summary(), sent); err != nil {
		return nil, err
	}
	if err := c.begin(ctx); err != nil {
		return nil, err
	}
	first := &copying{Copier: c, tree: t, phase: "Take over", seed: maphash.MakeSeed()}
	_, stored, err := first.run(ctx, everyAgain, noRows{})
	if err != nil {
		return nil, err
	}
	rows, err := c.Repo.NewManifestWriter(ctx, c.summary.Label)
	if err != nil {
		return nil, err
	}
	second := &copying{Copier: c, tree: t, phase: "Compare", seed: first.seed, before: first.files.marks}
	packs, err := second.reread(ctx, rows, sent, stored)
	if err != nil {
		rows.Abort()
		return nil, err
	}
	return &Copy{Summary: c.summary, Packs: packs, rows: rows}, nil
}

// readSent reads PostgreSQL's manifest of a tree for all but its files.
func readSent(ctx context.Context, t repo.Tree) (*manifest.Reader, error) {
	in, err := t.OpenManifest(ctx)
	if err != nil {
		return nil, err
	}
	m := manifest.NewReader(in)
	for _, err := range m.Files() {
		if err := cmp.Or(err, context.Cause(ctx)); err != nil {
			return nil, errors.Join(err, in.Close())
		}
	}
	return m, in.Close()
}

// describe makes the summary, of what is known before anything is read.
func (c *Copier) describe(s repo.Summary, sent *manifest.Reader) error {
	if sent.System != 0 {
		s.System = strconv.FormatUint(sent.System, 10)
	}
	if s.System == "" {
		return fmt.Errorf("of which system backup %s is stands neither in its manifest nor in its WAL", s.Label)
	}
	s.Type, s.Base, s.Overlaid = repo.Full, "", false
	s.Codec, s.Cipher = c.Codec.String(), c.Repo.Cipher().String()
	c.summary = s
	return nil
}

// begin prepares the repository, and before the first backup what frames are looked up in.
func (c *Copier) begin(ctx context.Context) (err error) {
	if err := c.Repo.Bind(ctx, repo.OwnerJob, c.summary.System); err != nil {
		return err
	}
	if !c.begun {
		if c.base, c.known, err = c.openBase(ctx); err != nil {
			return err
		}
		if err := c.prints(ctx); err != nil {
			return err
		}
		c.frame, c.begun = c.frameBytes(c.summary.Logical), true
	}
	c.summary.FrameBytes = c.frame
	return nil
}

// A copying is one reading of a tree.
type copying struct {
	*Copier
	tree   repo.Tree
	phase  string
	seed   maphash.Seed
	before []uint64 // marks of the files as they were read before; nil in the first reading
	list   *manifest.Writer
	files  *files
	system uint64 // that global/pg_control names
}

// run reads all files through a pipeline.
func (c *copying) run(ctx context.Context, a again, rows rows) ([]repo.PackRef, int64, error) {
	l := c.layout()
	l.again = a
	// As in any backup only frames with sound pages are found by later ones. Nobody else is asked
	// about the others: it is too late for that.
	pages := &datadir.Pages{BlockSize: pageSize, SegmentOf: segmentPages}
	l.check = func(f *frame) (bool, error) { return checkPages(ctx, nil, pages, f) }
	pipe, err := newPipeline(ctx, c.Repo, c.summary.Label, l, c.known, rows)
	if err != nil {
		return nil, 0, err
	}
	total := c.summary.Logical
	c.files = &files{pipe: pipe, seed: c.seed, received: func(n int64) { c.Progress(c.phase, n, max(n, total)) }}
	return c.fill(c.files, func() error { return c.readAll(ctx) })
}

// Pages of PostgreSQL unless it was built otherwise; C pgmoneta knows no others.
const (
	pageSize     = 8192
	segmentPages = 1 << 30 / pageSize
)

func (c *copying) readAll(ctx context.Context) error {
	for f, err := range c.tree.Files() {
		if err == nil {
			err = context.Cause(ctx)
		}
		if err == nil {
			err = c.take(ctx, f)
		}
		if err != nil {
			return err
		}
	}
	if c.before != nil && len(c.files.marks) != len(c.before) {
		return &DifferenceError{manifestFile}
	}
	return c.judge()
}

// manifestFile is the name of PostgreSQL's manifest in a data directory.
const manifestFile = "backup_manifest"

func (c *copying) take(ctx context.Context, f repo.File) error {
	if f.ModTime.IsZero() {
		f.ModTime = c.summary.StartedAt
	}
	switch f.Kind {
	case repo.Regular:
		return c.regular(ctx, f)
	case repo.Symlink:
		f.Link = c.location(f.Path)
	}
	return c.files.pipe.end(&entry{file: f})
}

// location returns where the tablespace was whose link has a name.
func (c *copying) location(name string) string {
	for _, ts := range c.summary.Tablespaces {
		if path.Base(name) == strconv.FormatUint(uint64(ts.OID), 10) {
			return ts.Location
		}
	}
	return ""
}

func (c *copying) regular(ctx context.Context, f repo.File) error {
	in, err := c.tree.OpenFile(ctx, f)
	if err != nil {
		return err
	}
	e := &entry{file: f}
	var control bytes.Buffer
	if err = c.content(e, in, &control); err != nil {
		return errors.Join(err, in.Close())
	}
	if err := in.Close(); err != nil {
		return err
	}
	if f.Path == datadir.ControlFile {
		read, err := datadir.ParseControl(control.Bytes())
		if err != nil {
			return fmt.Errorf("%s: %w", f.Path, err)
		}
		c.system = read.System
	}
	if err := c.count(e); err != nil {
		return err
	}
	return c.files.pipe.end(e)
}

// content reads a file to its end, where the tree says whether it was whole.
func (c *copying) content(e *entry, in io.Reader, control *bytes.Buffer) error {
	if e.file.Path == datadir.ControlFile {
		in = io.TeeReader(in, control)
	}
	_, err := c.files.content(e, in)
	if err != nil {
		return err
	}
	n, err := io.Copy(io.Discard, in)
	if err == nil && n > 0 {
		err = fmt.Errorf("file %q has %d bytes, want %d", e.file.Path, e.file.Size+n, e.file.Size)
	}
	return err
}

// count takes note of a file, and in the second reading compares it with the first.
func (c *copying) count(e *entry) error {
	f, files := &e.file, c.files // extents come while we look
	files.count++
	files.logical += f.Size
	files.biggest = max(files.biggest, f.Size)
	mark := files.mark(f.Path, f.Size, f.CRC)
	if n := len(files.marks); c.before != nil && (n >= len(c.before) || c.before[n] != mark) {
		return &DifferenceError{f.Path}
	}
	files.marks = append(files.marks, mark)
	if c.list == nil {
		return nil
	}
	return c.list.Add(manifest.File{Path: f.Path, Size: f.Size, Modified: f.ModTime.UTC().Format(manifest.TimeLayout), Algorithm: "CRC32C", Checksum: f.CRC})
}

// judge checks that what was read is a data directory of the system.
func (c *copying) judge() error {
	switch system := strconv.FormatUint(c.system, 10); {
	case c.system == 0:
		return fmt.Errorf("backup %s has no %s", c.summary.Label, datadir.ControlFile)
	case system != c.summary.System:
		return fmt.Errorf("%s of backup %s is of system %s, its manifest or WAL of %s", datadir.ControlFile, c.summary.Label, system, c.summary.System)
	}
	return nil
}

// reread reads the tree a second time. Nothing may be new in it; its rows are those of the manifest, and
// a manifest of PostgreSQL's kind is written that describes the files.
func (c *copying) reread(ctx context.Context, rows *repo.ManifestWriter, sent *manifest.Reader, stored int64) ([]repo.PackRef, error) {
	stage, err := c.Repo.Engine().Stage(ctx, repo.OwnerJob)
	if err != nil {
		return nil, err
	}
	defer func() { _ = stage.Abort() }()
	up, out, err := c.beginManifest(ctx, stage)
	if err != nil {
		return nil, err
	}
	packs, _, err := c.run(ctx, onlyAgain, rows)
	if err != nil {
		return nil, err
	}
	if err := c.list.Finish(sent.Ranges); err != nil {
		return nil, err
	}
	if err := errors.Join(out.Finish(), up.Close()); err != nil {
		return nil, err
	}
	if err := c.conclude(c.files, stored+out.Len()); err != nil {
		return nil, err
	}
	return packs, stage.Commit(ctx)
}

// beginManifest begins PostgreSQL's manifest. That of servers before 17 does not name the system.
func (c *copying) beginManifest(ctx context.Context, stage storage.Stage) (storage.Upload, *container.StreamWriter, error) {
	up, err := stage.Create(ctx, repo.PostgresManifestName(c.summary.Label))
	if err != nil {
		return nil, nil, err
	}
	out, err := c.Repo.NewPostgresManifest(up, c.summary.Label)
	if err != nil {
		return nil, nil, err
	}
	system := uint64(0)
	if c.summary.PostgreSQL.Major() >= pgrepl.IncrementalMajor {
		system, err = strconv.ParseUint(c.summary.System, 10, 64)
	}
	c.list = manifest.NewWriter(out, system)
	return up, out, err
}

// noRows forgets rows.
type noRows struct{}

func (noRows) Add(repo.File) error { return nil }
