package backup

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"strconv"

	"github.com/pgmoneta/pgmoneta-go/internal/container"
	"github.com/pgmoneta/pgmoneta-go/internal/datadir"
	"github.com/pgmoneta/pgmoneta-go/internal/manifest"
	"github.com/pgmoneta/pgmoneta-go/internal/pg"
	"github.com/pgmoneta/pgmoneta-go/internal/pgrepl"
	"github.com/pgmoneta/pgmoneta-go/internal/repo"
	"github.com/pgmoneta/pgmoneta-go/internal/storage"
)

// readTree takes the backup from the data directory itself and returns the pack table.
func (j *job) readTree(ctx context.Context, conn *pgrepl.Conn, r *reading) ([]repo.PackRef, error) {
	pages, err := r.pages(ctx)
	if err != nil {
		return nil, err
	}
	j.Progress("Checkpoint", 0, 0)
	start, err := r.begin(ctx, "pgmoneta_"+string(j.summary.Label))
	if err != nil {
		return nil, err
	}
	if pages != nil {
		pages.Start = start
	}
	total := r.total(ctx)
	j.summary.FrameBytes = j.frameBytes(total)
	l := j.layout()
	if pages != nil {
		l.check = func(f *frame) (bool, error) { return checkPages(ctx, r.tree, pages, f) }
	}
	pipe, err := newPipeline(ctx, j.Repo, j.summary.Label, l, j.known, j.rows)
	if err != nil {
		return nil, err
	}
	f := &files{pipe: pipe, received: func(n int64) { j.Progress("Base backup", n, max(n, total)) }}
	t := &treeBackup{job: j, reading: r, files: f, pace: newPace(j.MaxRate)}
	packs, stored, err := j.store(f, func() error { return t.run(ctx, conn) })
	if err != nil {
		return nil, err
	}
	j.summary.Tablespaces = j.named(ctx, t.spaces)
	if err := j.corrupt(pages, datadir.BadPages{}, false); err != nil {
		return nil, err
	}
	return packs, j.conclude(f, stored+t.written)
}

// A treeBackup reads one tree.
type treeBackup struct {
	*job
	reading *reading
	files   *files

	pace    *pace
	upload  storage.Upload
	out     *container.StreamWriter
	list    *manifest.Writer // PostgreSQL's manifest, which nobody else writes here
	control datadir.Control
	spaces  []repo.Tablespace // whose links were read
	written int64
}

func (t *treeBackup) run(ctx context.Context, conn *pgrepl.Conn) error {
	if err := t.beginManifest(ctx); err != nil {
		return err
	}
	if err := t.readAll(ctx); err != nil {
		return err
	}
	end, err := t.reading.end(ctx)
	if err != nil {
		return err
	}
	t.summary.StoppedAt = t.Now().UTC()
	if err := t.judge(ctx, conn, end); err != nil {
		return err
	}
	label := datadir.File{Path: backupLabel, Mode: 0o600, ModTime: t.summary.StoppedAt, Size: int64(len(end.label))}
	if err := t.regular(label, bytes.NewReader(end.label)); err != nil {
		return err
	}
	return t.endManifest()
}

// readAll reads everything but backup_label.
func (t *treeBackup) readAll(parent context.Context) error {
	ctx, stop := context.WithCancel(parent)
	files := t.open(ctx, t.reading)
	defer func() {
		stop()
		for o := range files { // until the goroutine has ended
			if o.reader != nil {
				_ = o.reader.Close()
			}
		}
	}()
	for o := range files {
		if o.err != nil {
			return o.err
		}
		if err := t.take(parent, o); err != nil {
			return fmt.Errorf("read %s: %w", o.file.Path, err)
		}
	}
	return context.Cause(parent)
}

func (t *treeBackup) take(ctx context.Context, o opened) error {
	switch {
	case o.file.Path == datadir.ControlFile:
		var err error
		if t.control, err = datadir.ReadControl(ctx, t.reading.tree); err != nil {
			return err
		}
		o.file.Size = int64(len(t.control.Content))
		return t.regular(o.file, bytes.NewReader(t.control.Content))
	case o.reader == nil:
		if space, ok := tablespace(o.file); ok {
			t.spaces = append(t.spaces, space)
		}
		return t.files.pipe.end(&entry{file: described(o.file)})
	}
	err := t.regular(o.file, sourceReader{paced{ctx: ctx, in: o.reader, pace: t.pace}})
	if errors.Is(err, errDropped) {
		err = nil
	}
	return errors.Join(err, o.reader.Close())
}

// errDropped reports a file that was dropped since it was listed, of which nothing was
// read. A missing file is something else when the repository misses it.
var errDropped = errors.New("dropped since it was listed")

// A sourceReader reads a file of the server.
type sourceReader struct{ in io.Reader }

func (r sourceReader) Read(p []byte) (int, error) {
	n, err := r.in.Read(p)
	if errors.Is(err, fs.ErrNotExist) {
		err = errDropped
	}
	return n, err
}

// regular adds a regular file to the backup and to PostgreSQL's manifest.
func (t *treeBackup) regular(file datadir.File, in io.Reader) error {
	e := &entry{file: described(file)}
	if _, err := t.files.content(e, in); err != nil {
		return err
	}
	t.files.count++
	t.files.logical += e.file.Size
	t.files.biggest = max(t.files.biggest, e.file.Size)
	err := t.list.Add(manifest.File{Path: e.file.Path, Size: e.file.Size, Modified: e.file.ModTime.Format(manifest.TimeLayout), Algorithm: "CRC32C", Checksum: e.file.CRC})
	if err != nil {
		return err
	}
	return t.files.pipe.end(e)
}

// described makes the row of a file of a tree.
func described(f datadir.File) repo.File {
	kind := map[datadir.Kind]repo.Kind{datadir.Regular: repo.Regular, datadir.Directory: repo.Directory, datadir.Symlink: repo.Symlink}[f.Kind]
	return repo.File{Path: f.Path, Kind: kind, Mode: f.Mode, ModTime: f.ModTime, Size: f.Size, Link: f.Link}
}

// judge checks that what was read is one backup of one server.
func (t *treeBackup) judge(ctx context.Context, conn *pgrepl.Conn, end ending) error {
	label, err := pg.ParseBackupLabel(end.label)
	if err != nil {
		return err
	}
	if t.summary.End, err = pg.ParseLSN(end.lsn); err != nil {
		return err
	}
	after, err := conn.System(ctx)
	if err != nil {
		return err
	}
	t.summary.Start, t.summary.StartTLI, t.summary.EndTLI = label.Start, label.Timeline, after.Timeline
	switch {
	case strconv.FormatUint(t.control.System, 10) != t.summary.System:
		return fmt.Errorf("the data directory is of system %d, the server is %s", t.control.System, t.summary.System)
	case t.control.Checkpoint < label.Checkpoint:
		// The backup begins with a checkpoint, which the server has written to its directory.
		return fmt.Errorf("the data directory has its last checkpoint at %s, the backup began with one at %s: it is not the server's own", t.control.Checkpoint, label.Checkpoint)
	case after.ID != t.summary.System || after.Timeline != label.Timeline:
		return fmt.Errorf("the server went from timeline %d to %d while it was read: the backup was dropped, take it again", label.Timeline, after.Timeline)
	}
	return nil
}

func (t *treeBackup) beginManifest(ctx context.Context) error {
	var err error
	if t.upload, err = t.stage.Create(ctx, repo.PostgresManifestName(t.summary.Label)); err != nil {
		return err
	}
	if t.out, err = t.Repo.NewPostgresManifest(t.upload, t.summary.Label); err != nil {
		return err
	}
	system := uint64(0) // manifests of PostgreSQL 16 and older do not name it
	if t.summary.PostgreSQL.Major() >= 17 {
		if system, err = strconv.ParseUint(t.summary.System, 10, 64); err != nil {
			return err
		}
	}
	t.list = manifest.NewWriter(t.out, system)
	return nil
}

func (t *treeBackup) endManifest() error {
	s := t.summary
	if err := t.list.Finish([]manifest.WALRange{{Timeline: s.StartTLI, Start: s.Start, End: s.End}}); err != nil {
		return err
	}
	if err := t.out.Finish(); err != nil {
		return err
	}
	t.written = t.out.Len()
	return t.upload.Close()
}

// tablespace returns the tablespace whose link f is. It goes by its OID.
func tablespace(f datadir.File) (repo.Tablespace, bool) {
	dir, name := path.Split(f.Path)
	oid, err := strconv.ParseUint(name, 10, 32)
	if dir != "pg_tblspc/" || f.Kind != datadir.Symlink || err != nil {
		return repo.Tablespace{}, false
	}
	return repo.Tablespace{OID: uint32(oid), Name: name, Location: f.Link}, true
}
