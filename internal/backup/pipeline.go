package backup

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/pgmoneta/pgmoneta-go/internal/container"
	"github.com/pgmoneta/pgmoneta-go/internal/repo"
	"github.com/pgmoneta/pgmoneta-go/internal/sha256s"
	"github.com/pgmoneta/pgmoneta-go/internal/storage"
)

// A pipeline turns files into frames of packs and rows of the manifest, in the
// order in which they are added. One goroutine adds, several hash and encode, one
// writes. The number of frames under way is fixed; when all are, add waits.
//
// A print of a frame is taken first. When an equal one is stored already, in the packs of
// the base or of this backup, it is referred to and neither encoded nor stored.
type pipeline struct {
	repo    *repo.Repository
	label   repo.Label
	codec   container.Codec
	limit   int64 // of a pack
	rows    rows
	known   *known
	again   again
	printer *container.Printer
	check   func(*frame) (sound bool, err error) // of a frame that is not known, before it is encoded; may be nil
	free    chan *frame                          // owned by the receiver of a frame until it is put back
	encode  chan *frame
	write   chan *frame // same frames, in order

	wg      sync.WaitGroup
	commits errgroup.Group // packs that are complete become durable and visible
	cancel  context.CancelCauseFunc
	ctx     context.Context // of all goroutines of the pipeline

	// used by the adding goroutine only
	current *frame // being filled
	last    int64  // size of the file before, which ends in current

	// used by the writing goroutine only, until it has ended
	pack   *packWriter
	buffer *bufio.Writer  // before pack
	opened int            // packs begun
	table  []repo.PackRef // the manifest's pack table
	row    map[int]int    // of the table, by number in known
	stored int64
	reused int64 // plain bytes that were stored already
}

// A frame travels from the adding goroutine to an encoder to the writer and back.
type frame struct {
	plain  []byte
	stored []byte
	index  container.Frame
	print  container.Print // by which this frame is found from now on; none for one that is not to be found
	loose  bool            // holds blocks of several files that will not come together again
	zero   bool            // all bytes are
	known  int             // frame that is equal, -1 if none is known
	pieces []piece
	ended  []*entry      // files that are complete once this frame is written
	done   chan struct{} // holds one token when stored and index are set
}

// A piece is a run of one file inside a frame.
type piece struct {
	of     *entry
	offset int64 // in the file
	skip   int   // in the frame
	length int
}

// An entry is a row of the manifest being put together.
type entry struct {
	file repo.File
	next repo.Extent // where a run would go on that continues the last extent
	over *overlay    // nil for a file that came whole
}

type packWriter struct {
	stage  storage.Stage
	upload storage.Upload
	writer *container.Writer
}

// packsCommitting is how many packs are synced while the next is written, so that dirty
// pages stay bounded.
const packsCommitting = 2

// packBuffer is what one write takes to a pack: frames are small once they are compressed.
const packBuffer = 1 << 20

const (
	// batchLimit bounds the bytes of a batch: frames of the largest databases are encoded
	// one by one, as it would take too much memory.
	batchLimit = 4 << 20
	// batchPatience is how long an encoder waits for a batch to fill.
	batchPatience = 2 * time.Millisecond
	// underWayLimit bounds the bytes of all frames where there are many encoders.
	underWayLimit = 128 << 20
)

// A layout says how a pipeline makes frames and packs.
type layout struct {
	codec   container.Codec
	level   int
	workers int
	frame   int   // plain bytes of a frame, at most [container.FrameLimit]
	pack    int64 // stored bytes at which a pack is closed
	check   func(*frame) (sound bool, err error)
	again   again
}

// underWay returns how many frames an encoder takes at once, and how many there are in
// all: two batches for each encoder, two for the reader and the writer.
func (l layout) underWay() (batch, frames int) {
	batch = sha256s.Batch
	if batch*l.frame > batchLimit {
		batch = 1
	}
	frames = (2*l.workers + 2) * batch
	return batch, min(frames, max(underWayLimit/l.frame, l.workers+2))
}

// An again says what is done with frames that have been seen before in the same run.
type again int

const (
	soundAgain again = iota // those are found whose pages are sound
	everyAgain              // all are found, in this run
	onlyAgain               // nothing else may come: there are no new frames
)

// rows take the rows of a manifest.
type rows interface{ Add(repo.File) error }

// A DifferenceError reports a file that was read twice and was not the same.
type DifferenceError struct{ Path string }

func (e *DifferenceError) Error() string {
	return fmt.Sprintf("file %s was not the same when it was read again: check memory and disk of this machine", e.Path)
}

// newPipeline starts the encoders and the writer. What k knows is not stored again.
func newPipeline(ctx context.Context, r *repo.Repository, label repo.Label, l layout, k *known, rows rows) (*pipeline, error) {
	batch, frames := l.underWay()
	printer, err := r.NewPrinter(ctx)
	if err != nil {
		return nil, err
	}
	p := &pipeline{repo: r, printer: printer, check: l.check, again: l.again, label: label, codec: l.codec, limit: l.pack, rows: rows, known: k, row: map[int]int{}, buffer: bufio.NewWriterSize(nil, packBuffer),
		free: make(chan *frame, frames), encode: make(chan *frame, frames), write: make(chan *frame, frames)}
	p.ctx, p.cancel = context.WithCancelCause(ctx)
	p.commits.SetLimit(packsCommitting)
	for range frames {
		p.free <- &frame{plain: make([]byte, 0, l.frame), done: make(chan struct{}, 1)}
	}
	for range l.workers {
		enc, err := container.NewEncoder(l.codec, l.level)
		if err != nil {
			p.abort(err)
			return nil, err
		}
		p.wg.Go(func() { p.encodeAll(enc, batch) })
	}
	p.wg.Go(p.writeAll)
	return p, nil
}

// Where frames begin decides what is found again when other files have changed:
//   - A file of a quarter of a frame or more has frames of its own.
//   - Smaller ones share frames and are not split. Which file begins a frame
//     depends on its path, so that a file that changes, comes or goes alters the
//     frame that it is in and no other.
//   - Blocks of incremental files never share a frame with files.
const (
	ownFrames  = 4 // a file of at least this part of a frame does not share
	shareFiles = 8 // files that share a frame, on average
)

// begin prepares for the bytes of a file.
func (p *pipeline) begin(path string, size int64) {
	if size == 0 {
		return
	}
	before := p.last
	p.last = size
	c := p.current
	if c == nil || len(c.plain) == 0 {
		return
	}
	large := int64(cap(c.plain) / ownFrames)
	first := crc32.Checksum([]byte(path), castagnoli)%shareFiles == 0
	if c.loose || first || max(size, before) >= large || int64(cap(c.plain)-len(c.plain)) < size {
		p.submit()
	}
}

// beginBlocks prepares for the blocks of an incremental file.
func (p *pipeline) beginBlocks() {
	if c := p.current; c != nil && len(c.plain) > 0 && !c.loose {
		p.submit()
	}
}

// reserve returns the part of the current frame that is free. It begins a new
// frame when the current one is full.
func (p *pipeline) reserve() ([]byte, error) {
	if c := p.current; c != nil && len(c.plain) == cap(c.plain) {
		p.submit()
	}
	if p.current == nil {
		select {
		case p.current = <-p.free:
		case <-p.ctx.Done():
			return nil, context.Cause(p.ctx)
		}
	}
	return p.current.plain[len(p.current.plain):cap(p.current.plain)], nil
}

// commit takes n bytes that were put into the reserved part as the bytes of e at offset.
func (p *pipeline) commit(e *entry, offset int64, n int) {
	c := p.current
	c.pieces = append(c.pieces, piece{of: e, offset: offset, skip: len(c.plain), length: n})
	c.plain = c.plain[:len(c.plain)+n]
	c.loose = e.over != nil
}

// end completes a file: its row is written after the frame that holds its last byte.
func (p *pipeline) end(e *entry) error {
	if _, err := p.reserve(); err != nil {
		return err
	}
	p.current.ended = append(p.current.ended, e)
	return nil
}

// submit hands the current frame to an encoder and, in order, to the writer.
// Neither channel can be full, because there are no more frames than places.
func (p *pipeline) submit() {
	p.encode <- p.current
	p.write <- p.current
	p.current = nil
}

// finish waits until everything is written and returns the pack table and the
// stored bytes.
func (p *pipeline) finish() ([]repo.PackRef, int64, error) {
	if p.current != nil {
		p.submit()
	}
	close(p.encode)
	close(p.write)
	p.wg.Wait()
	if err := p.commits.Wait(); err != nil {
		p.cancel(err)
	}
	if err := context.Cause(p.ctx); err != nil {
		p.dropPack()
		return nil, 0, err
	}
	p.cancel(nil)
	return p.table, p.stored, nil
}

// abort stops all goroutines and waits for them.
func (p *pipeline) abort(err error) {
	p.cancel(err)
	p.wg.Wait()
	_ = p.commits.Wait()
	p.dropPack()
}

// dropPack drops a pack that was not ended.
func (p *pipeline) dropPack() {
	if p.pack != nil {
		_ = p.pack.stage.Abort()
		p.pack = nil
	}
}

func (p *pipeline) encodeAll(enc *container.Encoder, batch int) {
	frames := make([]*frame, 0, batch)
	plain := make([][]byte, 0, batch)
	sums := make([]sha256s.Sum, 0, batch)
	patience := time.NewTimer(batchPatience)
	defer patience.Stop()
	for {
		frames = p.take(frames[:0], patience)
		if len(frames) == 0 {
			return
		}
		fresh := frames[:0]
		plain = plain[:0]
		for _, f := range frames {
			known, err := p.look(f)
			if err != nil {
				p.cancel(err)
				return
			}
			if known {
				f.done <- struct{}{}
				continue
			}
			fresh, plain = append(fresh, f), append(plain, f.plain)
		}
		sums = sha256s.Sums(sums[:0], plain)
		for i, f := range fresh {
			if p.ctx.Err() != nil {
				return
			}
			if err := f.encode(enc, sums[i]); err != nil {
				p.cancel(err)
				return
			}
			f.done <- struct{}{}
		}
	}
}

// take appends a frame to a batch, and those that come behind it in no time, until the
// batch is full. It appends none when all is over.
func (p *pipeline) take(batch []*frame, patience *time.Timer) []*frame {
	select {
	case <-p.ctx.Done():
		return batch
	case f, ok := <-p.encode:
		if !ok {
			return batch
		}
		batch = append(batch, f)
	}
	patience.Reset(batchPatience)
	for len(batch) < cap(batch) {
		select {
		case f, ok := <-p.encode:
			if !ok {
				return batch
			}
			batch = append(batch, f)
		// More may never come: all other frames can be waiting for one of these to be written.
		case <-patience.C:
			return batch
		case <-p.ctx.Done():
			return batch
		}
	}
	return batch
}

// look reports whether a frame need not be encoded, because it is zero or known.
func (p *pipeline) look(f *frame) (known bool, err error) {
	if f.zero = container.Zeros(f.plain); f.zero {
		return true, nil
	}
	print := p.printer.Print(f.plain)
	at, found := p.known.find(print)
	if f.known = at; found {
		return true, nil
	}
	if p.again == onlyAgain {
		return false, &DifferenceError{f.pieces[0].of.file.Path}
	}
	f.known, f.print, f.index.Print = -1, print, print
	if p.check == nil {
		return false, nil
	}
	sound, err := p.check(f)
	if err == nil && !sound {
		// Without a print it is never found, so that whoever reads it is checked.
		f.index.Print = container.Print{}
		if p.again == soundAgain {
			f.print = container.Print{}
		}
	}
	return false, err
}

// encode encodes a frame that is new.
func (f *frame) encode(enc *container.Encoder, sum sha256s.Sum) (err error) {
	print := f.index.Print
	f.stored, f.index, err = enc.AppendSummed(f.stored[:0], f.plain, sum)
	f.index.Print = print
	return err
}

func (p *pipeline) writeAll() {
	for {
		select {
		case <-p.ctx.Done():
			return
		case f, ok := <-p.write:
			if !ok {
				if err := p.closePack(); err != nil {
					p.cancel(err)
				}
				return
			}
			select {
			case <-p.ctx.Done():
				return
			case <-f.done:
			}
			if err := p.writeFrame(f); err != nil {
				p.cancel(err)
				return
			}
			f.plain, f.pieces, f.ended, f.loose = f.plain[:0], f.pieces[:0], f.ended[:0], false
			p.free <- f
		}
	}
}

func (p *pipeline) writeFrame(f *frame) error {
	// Zeros have no extents: what no extent covers is zero.
	if !f.zero {
		if err := p.place(f); err != nil {
			return err
		}
	}
	for _, e := range f.ended {
		if e.over != nil {
			if err := p.layOver(e); err != nil {
				return err
			}
		}
		if err := p.rows.Add(e.file); err != nil {
			return err
		}
	}
	return nil
}

// place records where the pieces of a frame are found, after storing it if need be.
func (p *pipeline) place(f *frame) error {
	// An equal frame may have been stored since the encoder looked.
	if f.known < 0 {
		if at, found := p.known.find(f.print); found {
			f.known = at
		}
	}
	fresh := f.known < 0
	if fresh {
		if err := p.store(f); err != nil {
			return err
		}
	} else {
		p.reused += int64(len(f.plain))
	}
	pack, number := p.known.place(f.known)
	row := p.rowOf(pack)
	for _, pc := range f.pieces {
		pc.of.add(pc, row, number, len(f.plain))
		p.table[row].Live += int64(pc.length)
	}
	if fresh && p.pack.writer.Len() >= p.limit {
		return p.closePack()
	}
	return nil
}

// rowOf returns the row of the pack table for a pack, which it adds on first use.
func (p *pipeline) rowOf(pack int) int {
	row, ok := p.row[pack]
	if !ok {
		row = len(p.table)
		p.row[pack] = row
		p.table = append(p.table, repo.PackRef{Name: p.known.packs[pack].name})
	}
	return row
}

// store writes a frame to the current pack.
func (p *pipeline) store(f *frame) error {
	if p.pack == nil {
		if err := p.openPack(); err != nil {
			return err
		}
	}
	if _, err := p.pack.writer.WriteFrame(f.stored, f.index); err != nil {
		return err
	}
	f.known = p.known.add(container.Frame{Plain: f.index.Plain, Print: f.print})
	return nil
}

// add records where a piece went, as part of the last extent if it continues it.
func (e *entry) add(pc piece, pack, number, plain int) {
	x := repo.Extent{Offset: pc.offset, Length: int64(pc.length), Pack: pack, Frame: number, Skip: int64(pc.skip)}
	if n := len(e.file.Extents); n > 0 && e.next == (repo.Extent{Offset: x.Offset, Pack: pack, Frame: number, Skip: x.Skip}) {
		e.file.Extents[n-1].Length += x.Length
	} else {
		e.file.Extents = append(e.file.Extents, x)
	}
	e.next = repo.Extent{Offset: x.Offset + x.Length, Pack: pack, Frame: number, Skip: x.Skip + x.Length}
	if e.next.Skip == int64(plain) {
		e.next.Frame, e.next.Skip = number+1, 0
	}
}

func (p *pipeline) openPack() error {
	name := repo.PackName(p.label, p.opened+1)
	stage, err := p.repo.Engine().Stage(p.ctx, repo.OwnerJob)
	if err != nil {
		return err
	}
	p.pack = &packWriter{stage: stage}
	if p.pack.upload, err = stage.Create(p.ctx, name); err != nil {
		return err
	}
	p.buffer.Reset(p.pack.upload)
	if p.pack.writer, err = p.repo.NewContainer(p.buffer, name, container.Pack, p.codec); err != nil {
		return err
	}
	p.opened++
	p.known.begin(name)
	return nil
}

// closePack ends the current pack, if there is one. It is made visible while the next is
// written: should the backup be interrupted, the next one finds what is in it.
func (p *pipeline) closePack() error {
	if p.pack == nil {
		return nil
	}
	err := errors.Join(p.pack.writer.Finish(), p.buffer.Flush())
	p.stored += p.pack.writer.Len()
	if err := errors.Join(err, p.pack.upload.Close()); err != nil {
		return fmt.Errorf("write %s: %w", repo.PackName(p.label, p.opened), err)
	}
	stage := p.pack.stage
	p.pack = nil
	p.commits.Go(func() error {
		err := stage.Commit(p.ctx)
		if err != nil {
			p.cancel(err)
		}
		return err
	})
	return nil
}
