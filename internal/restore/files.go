package restore

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"sync"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"github.com/pgmoneta/pgmoneta-go/internal/container"
	"github.com/pgmoneta/pgmoneta-go/internal/durable"
	"github.com/pgmoneta/pgmoneta-go/internal/repo"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// controlLimit bounds the size of global/pg_control, which is 8 KiB.
const controlLimit = 1 << 20

// A file is a regular file being restored. It exists from its first piece, or
// its lack of any, until its last.
type file struct {
	root *os.Root
	name string // below root
	row  repo.File
	refs atomic.Int64 // pieces not written, and one for the goroutine that finds them

	// sum is for a file whose checksum the manifest does not know, else nil.
	sum   *checksum
	place int // in files.sums

	dirty atomic.Int64 // bytes written since the kernel was last asked to write them to disk

	mu     sync.Mutex
	f      *os.File        // nil until the first piece
	direct *durable.Direct // set with f
	fresh  bool            // it was not there before; set with f
}

// A piece is a run of a frame that belongs into a file.
type piece struct {
	of     *file
	offset int64 // in the file
	skip   int64 // in the frame
	length int64 // 0 for a file without any bytes in frames
	zero   bool  // it is of no frame: no extent covers it
	found  bool  // the file has it already
}

// waitingWriters are the goroutines beyond the workers: a write past the page cache waits for
// the disk, and others decode meanwhile.
const waitingWriters = 4

// A task is one frame and all files that need it one after the other.
type task struct {
	pack, frame int // pack is -1 when there are only pieces of no length
	pieces      []piece
}

// piecesLimit bounds the pieces of a task, which empty files do not.
const piecesLimit = 4096

// comparedPieces bounds the files that are open at once to compare a frame.
const comparedPieces = 256

// files writes the files of a manifest: one goroutine finds out what belongs
// where, several read each frame once and write its pieces. The number of
// tasks under way is fixed, and so is that of open files, because a file's
// frames follow one another.
type files struct {
	tree     *tree
	manifest *repo.Manifest
	packs    *repo.PackSet
	workers  int
	spend    func(ctx context.Context, n int) error // waits for the rate
	wrote    func(bytes int64)

	stats Stats // changed atomically

	tasks    chan *task    // sending hands the task over
	decoding chan struct{} // holds a token for each goroutine that reads and decodes
	lengths  [][]uint32    // plain lengths of frames, by pack; used by the finding goroutine only
	current  *task         // used by the finding goroutine only
	bytes    int64         // sizes of files so far; used by the finding goroutine only
	control  *repo.File    // row of global/pg_control; used by the finding goroutine only

	mu    sync.Mutex
	opens map[*file]bool
	sums  []string // checksums of the files that the manifest knows none of, in its order
}

// run writes everything but global/pg_control, whose row it leaves in control.
func (w *files) run(ctx context.Context) error {
	w.tasks = make(chan *task, 2*w.workers)
	w.decoding = make(chan struct{}, w.workers)
	w.lengths = make([][]uint32, len(w.manifest.Packs))
	w.opens = map[*file]bool{}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		defer close(w.tasks)
		return w.find(ctx)
	})
	for range w.workers + waitingWriters {
		g.Go(func() error { return w.work(ctx) })
	}
	err := g.Wait()
	for f := range w.opens {
		_ = f.close()
	}
	if err == nil && w.control == nil {
		err = errors.New("the backup has no global/pg_control")
	}
	return err
}

// find turns rows of the manifest into tasks.
func (w *files) find(ctx context.Context) error {
	for row, err := range w.manifest.Files() {
		if err == nil {
			err = w.row(ctx, row)
		}
		if err != nil {
			return err
		}
	}
	return w.submit(ctx)
}

func (w *files) row(ctx context.Context, row repo.File) error {
	if w.tree.isLink(row.Path) && row.Kind != repo.Regular {
		return nil
	}
	switch row.Kind {
	case repo.Directory:
		return w.tree.mkdir(row.Path)
	case repo.Regular:
	default:
		return fmt.Errorf("the manifest lists %q of kind %q: refused", row.Path, row.Kind)
	}
	// The space that was checked is for what the summary announced.
	if w.bytes += row.Size; w.bytes < 0 || w.bytes > w.manifest.Summary.Logical {
		return fmt.Errorf("the files up to %q are larger than the %d bytes the manifest announces", row.Path, w.manifest.Summary.Logical)
	}
	if row.Path == control {
		if w.control != nil || row.Size > controlLimit {
			return fmt.Errorf("the manifest lists %s twice, or with %d bytes", control, row.Size)
		}
		w.control = &row
		return nil
	}
	return w.file(ctx, row)
}

func (w *files) file(ctx context.Context, row repo.File) error {
	root, name, err := w.tree.locate(row.Path)
	if err != nil {
		return err
	}
	f := &file{root: root, name: name, row: row}
	f.refs.Store(1)
	if row.CRC == "" && w.manifest.Summary.Overlaid {
		f.sum, f.place = &checksum{}, w.promise()
	}
	covered := int64(0)
	if err := w.runs(ctx, &row, func(pack, frame int, p piece) error {
		if err := w.gap(ctx, f, covered, p.offset); err != nil {
			return err
		}
		covered, p.of = p.offset+p.length, f
		return w.add(ctx, pack, frame, p)
	}); err != nil {
		return err
	}
	if err := w.gap(ctx, f, covered, row.Size); err != nil {
		return err
	}
	if len(row.Extents) == 0 {
		if err := w.add(ctx, -1, 0, piece{of: f}); err != nil {
			return err
		}
	}
	return w.release(f)
}

// gap adds what no extent covers, from one offset to another. In a new file it is zero.
func (w *files) gap(ctx context.Context, f *file, from, to int64) error {
	if !w.tree.over || from >= to {
		return nil
	}
	return w.add(ctx, -1, 0, piece{of: f, offset: from, length: to - from, zero: true})
}

// promise makes room for a checksum that will be known later.
func (w *files) promise() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.sums = append(w.sums, "")
	return len(w.sums) - 1
}

// runs calls each for every run of a file inside one frame.
func (w *files) runs(ctx context.Context, row *repo.File, each func(pack, frame int, p piece) error) error {
	for _, x := range row.Extents {
		lengths, err := w.frames(ctx, x.Pack)
		if err != nil {
			return fmt.Errorf("file %q: %w", row.Path, err)
		}
		frame, p := x.Frame, piece{offset: x.Offset, skip: x.Skip}
		for left := x.Length; left > 0; frame, p.skip = frame+1, 0 {
			if frame >= len(lengths) || p.skip > int64(lengths[frame]) {
				return &container.DamagedError{Object: w.manifest.Packs[x.Pack].Name, Frame: frame,
					Err: fmt.Errorf("file %q refers to bytes from %d of it, which it does not have", row.Path, p.skip)}
			}
			if p.length = min(int64(lengths[frame])-p.skip, left); p.length == 0 {
				continue
			}
			if err := each(x.Pack, frame, p); err != nil {
				return err
			}
			p.offset, left = p.offset+p.length, left-p.length
		}
	}
	return nil
}

// frames returns the plain lengths of a pack's frames.
func (w *files) frames(ctx context.Context, pack int) ([]uint32, error) {
	if w.lengths[pack] != nil {
		return w.lengths[pack], nil
	}
	err := w.packs.Use(ctx, pack, func(r *container.Reader) error {
		w.lengths[pack] = make([]uint32, r.Frames())
		for i := range w.lengths[pack] {
			w.lengths[pack][i] = r.Frame(i).Plain
		}
		return nil
	})
	return w.lengths[pack], err
}

// add puts a piece into the current task, or begins another when it needs
// another frame.
func (w *files) add(ctx context.Context, pack, frame int, p piece) error {
	if c := w.current; c != nil && (p.length > 0 && !p.zero && c.pack >= 0 && (c.pack != pack || c.frame != frame) || len(c.pieces) >= piecesLimit) {
		if err := w.submit(ctx); err != nil {
			return err
		}
	}
	if w.current == nil {
		w.current = &task{pack: -1}
	}
	if p.length > 0 && !p.zero {
		w.current.pack, w.current.frame = pack, frame
	}
	p.of.refs.Add(1)
	w.current.pieces = append(w.current.pieces, p)
	return nil
}

func (w *files) submit(ctx context.Context) error {
	if w.current == nil {
		return nil
	}
	select {
	case w.tasks <- w.current:
		w.current = nil
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (w *files) work(ctx context.Context) error {
	var s container.Scratch
	defer s.Close()
	c := newComparer(w.tree.over)
	for t := range w.tasks {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err := w.task(ctx, t, &s, c); err != nil {
			return err
		}
	}
	return nil
}

func (w *files) task(ctx context.Context, t *task, s *container.Scratch, c *comparer) error {
	if t.pack < 0 {
		return w.pieces(ctx, t, nil, c)
	}
	return w.packs.Use(ctx, t.pack, func(r *container.Reader) error {
		plain, err := w.frame(r, t, s, c)
		if err != nil {
			return fmt.Errorf("file %q: %w", t.pieces[0].of.row.Path, err)
		}
		return w.pieces(ctx, t, plain, c)
	})
}

// frame returns the bytes of a task's frame, from the target if that has them.
func (w *files) frame(r *container.Reader, t *task, s *container.Scratch, c *comparer) ([]byte, error) {
	var used []*piece
	if w.tree.over && len(t.pieces) <= comparedPieces {
		var err error
		if used, err = c.gather(w, r, t); err != nil {
			return nil, err
		}
	}
	w.decoding <- struct{}{}
	defer func() { <-w.decoding }()
	if used != nil && r.Matches(t.frame, c.have[:r.Frame(t.frame).Plain]) {
		for _, p := range used {
			p.found = true
		}
		return c.have[:r.Frame(t.frame).Plain], nil
	}
	atomic.AddInt64(&w.stats.Read, int64(r.Frame(t.frame).Stored))
	return r.ReadFrame(t.frame, s)
}

// pieces brings the pieces of a task to their places.
func (w *files) pieces(ctx context.Context, t *task, plain []byte, c *comparer) error {
	sum := int64(0)
	for _, p := range t.pieces {
		if err := w.opened(p.of); err != nil {
			return err
		}
		if err := w.piece(p, plain, c); err != nil {
			return err
		}
		if err := w.release(p.of); err != nil {
			return err
		}
		sum += p.length
	}
	if err := w.spend(ctx, int(sum)); err != nil {
		return err
	}
	w.wrote(sum)
	return nil
}

// writebackEvery is how many bytes of a file, of those in the page cache, the kernel is asked to write at once, while
// others are decoded. Left to itself it would begin with a tenth of the memory full.
const writebackEvery = 16 << 20

// piece writes one piece, unless the file has it already.
func (w *files) piece(p piece, plain []byte, c *comparer) error {
	switch {
	case p.length == 0 || p.zero && p.of.fresh:
		return nil
	case p.zero:
		n, err := c.clear(w, p.of, p.offset, p.length)
		atomic.AddInt64(&w.stats.Written, n)
		return err
	}
	want := plain[p.skip : p.skip+p.length]
	if p.found {
		p.of.wrote(p.offset, want)
		return nil
	}
	if !p.of.fresh {
		other, err := c.differs(p.of, want, p.offset)
		if err != nil {
			return err
		}
		if !other {
			p.of.wrote(p.offset, want)
			return nil
		}
	}
	if err := w.tree.op("write", p.of.row.Path); err != nil {
		return err
	}
	if err := p.of.write(want, p.offset); err != nil {
		return err
	}
	atomic.AddInt64(&w.stats.Written, p.length)
	p.of.wrote(p.offset, want)
	return nil
}

// write writes bytes of a file, past the page cache if that can be.
func (f *file) write(b []byte, offset int64) error {
	if done, err := f.direct.WriteAt(b, offset); done || err != nil {
		return err
	}
	_, err := f.f.WriteAt(b, offset)
	if f.dirty.Add(int64(len(b))) >= writebackEvery {
		f.dirty.Store(0)
		durable.StartWriteback(f.f)
	}
	return err
}

// wrote takes note of bytes whose checksum will be needed.
func (f *file) wrote(offset int64, b []byte) {
	if f.sum == nil {
		return
	}
	sum := crc32.Checksum(b, castagnoli)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.sum.add(offset, int64(len(b)), sum)
}

// opened opens a file, at its full size, for its first piece. What no piece covers
// of a new one stays zero.
func (w *files) opened(f *file) (err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.f != nil {
		return nil
	}
	if w.tree.over {
		f.f, f.fresh, err = w.tree.reuse(f.root, f.name)
	} else {
		f.f, err = w.tree.create(f.root, f.name, 0o600)
		f.fresh = true
	}
	if err != nil {
		return err
	}
	f.direct = durable.NewDirect(f.f)
	w.mu.Lock()
	w.opens[f] = true
	w.mu.Unlock()
	switch {
	case f.fresh && f.row.Size >= durable.DirectLeast:
		return durable.Reserve(f.f, f.row.Size)
	case f.row.Size > 0 || !f.fresh:
		return f.f.Truncate(f.row.Size)
	}
	return nil
}

// read reads bytes of a file, past the page cache if that can be.
func (f *file) read(b []byte, offset int64) (int, error) {
	if n, done, err := f.direct.ReadAt(b, offset); done {
		return n, err
	}
	return f.f.ReadAt(b, offset)
}

// close closes a file of which something was opened.
func (f *file) close() error { return errors.Join(f.direct.Close(), f.f.Close()) }

// release ends one reference to a file; the last one finishes the file.
func (w *files) release(f *file) error {
	if f.refs.Add(-1) > 0 {
		return nil
	}
	w.mu.Lock()
	delete(w.opens, f)
	if f.sum != nil {
		w.sums[f.place] = f.sum.of(f.row.Size)
	}
	w.mu.Unlock()
	if err := w.tree.op("close", f.row.Path); err != nil {
		return errors.Join(err, f.close())
	}
	var err error
	if mode := fs.FileMode(f.row.Mode) & fs.ModePerm; mode != 0 && (mode != 0o600 || !f.fresh) {
		err = f.f.Chmod(mode)
	}
	if err := errors.Join(err, f.close()); err != nil {
		return err
	}
	return f.root.Chtimes(f.name, f.row.ModTime, f.row.ModTime)
}

// content returns the bytes of a small file.
func (w *files) content(ctx context.Context, row *repo.File) ([]byte, error) {
	out := make([]byte, row.Size)
	var s container.Scratch
	defer s.Close()
	err := w.runs(ctx, row, func(pack, frame int, p piece) error {
		return w.packs.Use(ctx, pack, func(r *container.Reader) error {
			plain, err := r.ReadFrame(frame, &s)
			if err != nil {
				return fmt.Errorf("file %q: %w", row.Path, err)
			}
			copy(out[p.offset:], plain[p.skip:p.skip+p.length])
			return nil
		})
	})
	return out, err
}
