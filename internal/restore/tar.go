package restore

import (
	"archive/tar"
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"path"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/pgmoneta/pgmoneta-go/internal/container"
	"github.com/pgmoneta/pgmoneta-go/internal/manifest"
	"github.com/pgmoneta/pgmoneta-go/internal/pg"
	"github.com/pgmoneta/pgmoneta-go/internal/repo"
)

// WriteTar writes a plan that was made with [Options.Tar] as one tar: the restored
// directory, called <server>-<label>, with all WAL in pg_wal, and beside it the
// tablespaces, to which links lead that are relative and so can be moved with the
// whole. Nothing is written to a disk of ours. global/pg_control comes last, so that a
// tar that was cut off is none that PostgreSQL would start from.
//
// The tar is compressed as a stream of complete frames, several at once, so that every
// reader of the codec takes it. out is written in order by one goroutine at a time; it
// is whole when nil is returned.
func WriteTar(ctx context.Context, p *Plan, out io.Writer, codec container.Codec, level int, o RunOptions) error {
	if o.Workers <= 0 {
		o.Workers = runtime.GOMAXPROCS(0)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	r, w := io.Pipe()
	written := make(chan error, 1)
	go func() {
		t := &tarball{ctx: ctx, plan: p, options: o, tar: tar.NewWriter(w), now: time.Now(), spaces: map[string]string{}}
		err := t.write()
		_ = w.CloseWithError(err) // nil ends the stream
		written <- err
	}()
	err := compress(ctx, r, out, codec, level, o.Workers)
	_ = r.CloseWithError(cmp.Or(err, io.ErrClosedPipe))
	if werr := <-written; werr != nil && !errors.Is(werr, err) {
		err = werr
	}
	if err != nil {
		return fmt.Errorf("archive backup %s of server %q: %w", p.Backup.Label, p.Server, err)
	}
	return nil
}

// compress copies in to out as frames of a codec.
func compress(ctx context.Context, in io.Reader, out io.Writer, codec container.Codec, level, workers int) error {
	var stock buffers
	withEncoder := func(run func(*container.Encoder) error) error {
		e, err := container.NewCheckedEncoder(codec, level)
		if err != nil {
			return err
		}
		return run(e)
	}
	return ordered(ctx, workers, withEncoder,
		func(_ context.Context, emit func(func(*container.Encoder) ([]byte, error)) error) error {
			for {
				plain := append(stock.get(), make([]byte, container.FrameLimit)...)
				n, err := io.ReadFull(in, plain)
				if n > 0 {
					if err := emit(func(e *container.Encoder) ([]byte, error) {
						b, _, err := e.Append(stock.get(), plain[:n])
						stock.put(plain)
						return b, err
					}); err != nil {
						return err
					}
				}
				if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
					return nil
				}
				if err != nil {
					return err
				}
			}
		},
		func(b []byte) error {
			_, err := out.Write(b)
			stock.put(b)
			return err
		})
}

// A tarball is a tar being written. Its methods run one after the other.
type tarball struct {
	ctx     context.Context
	plan    *Plan
	options RunOptions
	tar     *tar.Writer
	now     time.Time
	done    int64

	spaces  map[string]string // directories of tablespaces, by OID
	conf    []byte            // content of postgresql.auto.conf
	control *entry            // global/pg_control, which comes last
	sums    []string
}

// An entry is a file that is held back.
type entry struct {
	row     repo.File
	content []byte
}

func (t *tarball) write() error {
	describe, err := t.data()
	if err != nil {
		return err
	}
	if t.control == nil {
		return errors.New("the backup has no global/pg_control")
	}
	for _, step := range []func() error{t.wal, t.configure, func() error { return t.manifest(describe) }} {
		if err := step(); err != nil {
			return err
		}
	}
	if err := t.add(control, int64(t.control.row.Mode), t.control.row.ModTime, t.control.content); err != nil {
		return err
	}
	return t.tar.Close()
}

// root is the directory that everything lies in.
func (t *tarball) root() string { return t.plan.Server + "-" + string(t.plan.Backup.Label) }

func (t *tarball) header(name string, h tar.Header) error {
	if err := context.Cause(t.ctx); err != nil {
		return err
	}
	h.Name, h.Format = t.place(name), tar.FormatPAX
	if h.Typeflag == tar.TypeDir {
		h.Name += "/"
	}
	if h.ModTime.IsZero() {
		h.ModTime = t.now
	}
	return t.tar.WriteHeader(&h)
}

// place returns the name in the tar of a name in the data directory.
func (t *tarball) place(name string) string {
	if rest, ok := strings.CutPrefix(name, tablespaceLinks+"/"); ok {
		oid, below, inside := strings.Cut(rest, "/")
		if dir := t.spaces[oid]; inside && dir != "" {
			return path.Join(dir, below)
		}
	}
	return path.Join(t.root(), name)
}

const tablespaceLinks = "pg_tblspc"

// tablespaces writes the directories of tablespaces and the links to them.
func (t *tarball) tablespaces() error {
	if len(t.plan.Backup.Tablespaces) == 0 {
		return nil
	}
	if err := t.directory(tablespaceLinks); err != nil {
		return err
	}
	for _, ts := range t.plan.Backup.Tablespaces {
		oid, dir := strconv.FormatUint(uint64(ts.OID), 10), t.root()+"-tblspc_"+directoryName(ts)
		if ts.OID == 0 || t.spaces[oid] != "" {
			return fmt.Errorf("backup %s lists tablespace %d, %q twice or without a number", t.plan.Backup.Label, ts.OID, ts.Name)
		}
		link := tar.Header{Typeflag: tar.TypeSymlink, Mode: 0o777, Linkname: "../../" + dir}
		if err := t.header(tablespaceLinks+"/"+oid, link); err != nil {
			return err
		}
		t.spaces[oid] = dir
		if err := t.directory(tablespaceLinks + "/" + oid + "/."); err != nil {
			return err
		}
	}
	return nil
}

func (t *tarball) directory(name string) error {
	return t.header(name, tar.Header{Typeflag: tar.TypeDir, Mode: 0o700})
}

// add writes a small file.
func (t *tarball) add(name string, mode int64, modified time.Time, content []byte) error {
	if err := t.header(name, tar.Header{Typeflag: tar.TypeReg, Mode: fileMode(mode), Size: int64(len(content)), ModTime: modified}); err != nil {
		return err
	}
	_, err := t.tar.Write(content)
	return err
}

func fileMode(mode int64) int64 { return cmp.Or(mode&0o777, 0o600) }

// data writes the files of the backup, and returns what writes a manifest of them.
func (t *tarball) data() (describe func(io.Writer) error, err error) {
	if err := t.directory("."); err != nil {
		return nil, err
	}
	if err := t.tablespaces(); err != nil {
		return nil, err
	}
	if t.plan.Foreign {
		return t.foreign()
	}
	m, err := t.plan.repo.OpenManifest(t.ctx, t.plan.Backup.Label)
	if err != nil {
		return nil, err
	}
	packs := t.plan.repo.PackSet(m.Packs, t.options.Workers+openPacks)
	defer packs.Close()
	if packs.Printer, err = t.plan.repo.Printer(t.ctx); err != nil && t.options.Log != nil {
		t.options.Log.Warn("frames are checked by their SHA-256 instead of their prints", "err", err)
	}
	if err := errors.Join(t.own(m, packs), m.Close()); err != nil {
		return nil, err
	}
	return t.describeOwn, nil
}

// A part is bytes of a file, or with a row its beginning.
type part struct {
	row   *repo.File
	bytes []byte
}

// partLimit is how much of a file is read at once.
const partLimit = container.FrameLimit

// own writes the files of a backup of ours. They are read ahead, several parts at once.
func (t *tarball) own(m *repo.Manifest, packs *repo.PackSet) error {
	var stock buffers
	var file *fileWriter
	withScratch := func(run func(*container.Scratch) error) error {
		var s container.Scratch
		defer s.Close()
		return run(&s)
	}
	err := ordered(t.ctx, t.options.Workers, withScratch,
		func(ctx context.Context, emit func(func(*container.Scratch) (part, error)) error) error {
			for row, err := range m.Files() {
				if err != nil {
					return err
				}
				if err := emit(func(*container.Scratch) (part, error) { return part{row: &row}, nil }); err != nil {
					return err
				}
				for at := int64(0); at < row.Size; at += partLimit {
					if err := emit(func(s *container.Scratch) (part, error) {
						b := append(stock.get(), make([]byte, min(partLimit, row.Size-at))...)
						err := packs.ReadAt(ctx, row.Extents, b, at, s)
						if err != nil {
							err = fmt.Errorf("file %q: %w", row.Path, err)
						}
						return part{bytes: b}, err
					}); err != nil {
						return err
					}
				}
			}
			return nil
		},
		func(p part) (err error) {
			if p.row == nil {
				err = file.write(p.bytes)
				stock.put(p.bytes)
				return err
			}
			if file != nil {
				file.finish()
			}
			file, err = t.begin(*p.row)
			return err
		})
	if err == nil && file != nil {
		file.finish()
	}
	return err
}

// A fileWriter takes the content of one row.
type fileWriter struct {
	t    *tarball
	row  repo.File
	sum  uint32
	held *[]byte // where the content goes instead of into the tar; nil for into it
}

// begin writes what comes before the content of a row.
func (t *tarball) begin(row repo.File) (*fileWriter, error) {
	f := &fileWriter{t: t, row: row}
	if err := checkName(row.Path); err != nil {
		return nil, err
	}
	switch {
	case row.Kind != repo.Regular && t.isLink(row.Path):
		return f, nil
	case row.Kind == repo.Directory:
		return f, t.directory(row.Path)
	case row.Kind != repo.Regular:
		return nil, fmt.Errorf("the manifest lists %q of kind %q: refused", row.Path, row.Kind)
	case row.Path == control:
		if t.control != nil || row.Size > controlLimit {
			return nil, fmt.Errorf("the manifest lists %s twice, or with %d bytes", control, row.Size)
		}
		t.control = &entry{row: row}
		f.held = &t.control.content
		return f, nil
	case row.Path == autoConf:
		f.held = &t.conf
		return f, nil
	case row.Path == recoverySignal, row.Path == standbySignal:
		f.held = new([]byte) // of the server that was backed up
		return f, nil
	}
	return f, t.header(row.Path, tar.Header{Typeflag: tar.TypeReg, Mode: fileMode(int64(row.Mode)), Size: row.Size, ModTime: row.ModTime})
}

// isLink reports whether a name is that of the link to a tablespace, or of the directory of links.
func (t *tarball) isLink(name string) bool {
	if name == tablespaceLinks {
		return len(t.spaces) > 0
	}
	return path.Dir(name) == tablespaceLinks && t.spaces[path.Base(name)] != ""
}

func (f *fileWriter) write(b []byte) error {
	f.sum = crc32.Update(f.sum, castagnoli, b)
	if f.held != nil {
		*f.held = append(*f.held, b...)
		return nil
	}
	if _, err := f.t.tar.Write(b); err != nil {
		return err
	}
	f.t.done += int64(len(b))
	if f.t.options.Progress != nil {
		f.t.options.Progress("Archive", f.t.done, f.t.plan.Bytes())
	}
	return nil
}

// finish keeps the checksum of a file whose row has none.
func (f *fileWriter) finish() {
	if f.row.Kind == repo.Regular && f.row.CRC == "" && f.t.plan.Backup.Overlaid {
		f.t.sums = append(f.t.sums, manifest.Checksum(f.sum))
	}
}

// wal writes segments and histories.
func (t *tarball) wal() error {
	for _, dir := range []string{walDirectory, statusDirectory} {
		if err := t.directory(dir); err != nil {
			return err
		}
	}
	for _, tli := range t.plan.Histories {
		content, err := t.plan.repo.HistoryContent(t.ctx, tli)
		if err != nil {
			return err
		}
		name := pg.HistoryName(tli)
		if err := t.add(walDirectory+"/"+name, 0o600, t.now, content); err != nil {
			return err
		}
		if err := t.archived(name, true); err != nil {
			return err
		}
	}
	source := walSource{repo: t.plan.repo, size: t.plan.Backup.SegmentSize}
	if t.plan.Foreign {
		tree, err := t.plan.repo.Foreign().Open(t.ctx, t.plan.Backup.Label)
		if err != nil {
			return err
		}
		defer func() { _ = tree.Close() }()
		source.tree = tree
	}
	for _, s := range t.plan.Segments {
		if err := t.segment(source, s); err != nil {
			return fmt.Errorf("WAL segment %s: %w", s.Name, err)
		}
	}
	return nil
}

// segment writes a segment as it is read: up to where the plan uses it, and zeros behind.
func (t *tarball) segment(source walSource, s Segment) error {
	size := int64(source.size)
	if err := t.header(walDirectory+"/"+s.Name, tar.Header{Typeflag: tar.TypeReg, Mode: 0o600, Size: size}); err != nil {
		return err
	}
	used := min(int64(s.End-s.Start), size)
	w := &clipped{out: t.tar, left: used}
	whole, err := source.segment(t.ctx, s, w)
	if err != nil {
		return err
	}
	zeros := make([]byte, min(w.left+size-used, 64<<10))
	for left := w.left + size - used; left > 0; left -= int64(len(zeros)) {
		if _, err := t.tar.Write(zeros[:min(int64(len(zeros)), left)]); err != nil {
			return err
		}
	}
	return t.archived(s.Name, whole)
}

// A clipped passes on a number of bytes and no more.
type clipped struct {
	out  io.Writer
	left int64
}

func (c *clipped) Write(b []byte) (int, error) {
	n := min(int64(len(b)), c.left)
	c.left -= n
	_, err := c.out.Write(b[:n])
	return len(b), err
}

// archived marks a file of pg_wal as one that need not be archived again, if it is whole.
func (t *tarball) archived(name string, whole bool) error {
	if !whole {
		return nil
	}
	return t.add(statusDirectory+"/"+name+".done", 0o600, t.now, nil)
}

// configure writes recovery settings and the signal file.
func (t *tarball) configure() error {
	if err := t.add(autoConf, 0o600, t.now, rewriteConf(t.conf, t.plan)); err != nil {
		return err
	}
	if t.plan.Signal == "" {
		return nil
	}
	return t.add(t.plan.Signal, 0o600, t.now, nil)
}

// manifest writes backup_manifest, which pg_verifybackup reads.
func (t *tarball) manifest(describe func(io.Writer) error) error {
	var b bytes.Buffer // its size comes first
	if err := describe(&b); err != nil {
		return err
	}
	return t.add("backup_manifest", 0o600, t.now, b.Bytes())
}

func (t *tarball) describeOwn(out io.Writer) error {
	if !t.plan.Backup.Overlaid {
		return t.plan.repo.ReadPostgresManifest(t.ctx, t.plan.Backup.Label, out)
	}
	in, err := t.plan.repo.OpenPostgresManifest(t.ctx, t.plan.Backup.Label)
	if err != nil {
		return err
	}
	sent, err := readSent(in)
	if err := errors.Join(err, in.Close()); err != nil {
		return err
	}
	m, err := t.plan.repo.OpenManifest(t.ctx, t.plan.Backup.Label)
	if err != nil {
		return err
	}
	return errors.Join(describe(out, sent, m.Files(), t.sums), m.Close())
}

// foreign writes the files of a backup that another program made.
func (t *tarball) foreign() (describe func(io.Writer) error, err error) {
	tree, err := t.plan.repo.Foreign().Open(t.ctx, t.plan.Backup.Label)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, tree.Close()) }()
	for row, err := range tree.Files() {
		if err != nil {
			return nil, err
		}
		row.CRC = "" // of other algorithms
		f, err := t.begin(row)
		if err != nil {
			return nil, err
		}
		if row.Kind == repo.Regular {
			if err := t.copy(tree, f); err != nil {
				return nil, fmt.Errorf("file %q: %w", row.Path, err)
			}
		}
		f.finish()
	}
	return t.describeForeign, nil
}

func (t *tarball) copy(tree repo.Tree, f *fileWriter) error {
	in, err := tree.OpenFile(t.ctx, f.row)
	if err != nil {
		return err
	}
	_, err = io.Copy(writerFunc(f.write), in)
	return errors.Join(err, in.Close())
}

type writerFunc func([]byte) error

func (w writerFunc) Write(b []byte) (int, error) { return len(b), w(b) }

func (t *tarball) describeForeign(out io.Writer) error {
	tree, err := t.plan.repo.Foreign().Open(t.ctx, t.plan.Backup.Label)
	if err != nil {
		return err
	}
	defer func() { _ = tree.Close() }()
	in, err := tree.OpenManifest(t.ctx)
	if err != nil {
		return err
	}
	defer func() { _ = in.Close() }()
	if !t.plan.Backup.Overlaid {
		_, err := io.Copy(out, in)
		return err
	}
	sent, err := readSent(in)
	if err != nil {
		return err
	}
	return describe(out, sent, tree.Files(), t.sums)
}
