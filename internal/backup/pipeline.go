package backup

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/pgmoneta/pgmoneta-go/internal/container"
	"github.com/pgmoneta/pgmoneta-go/internal/repo"
	"github.com/pgmoneta/pgmoneta-go/internal/storage"
)

// A pipeline turns files into frames of packs and rows of the manifest, in the
// order in which they are added. One goroutine adds, several encode, one
// writes. The number of frames under way is fixed; when all are, add waits.
type pipeline struct {
	repo   *repo.Repository
	label  repo.Label
	codec  container.Codec
	stage  storage.Stage
	rows   *repo.ManifestWriter
	free   chan *frame // owned by the receiver of a frame until it is put back
	encode chan *frame
	write  chan *frame // same frames, in order

	wg     sync.WaitGroup
	cancel context.CancelCauseFunc
	ctx    context.Context // of all goroutines of the pipeline

	current *frame // being filled; used by the adding goroutine only

	// used by the writing goroutine only, until it has ended
	pack   *packWriter
	packs  []repo.PackRef
	stored int64
}

// A frame travels from the adding goroutine to an encoder to the writer and back.
type frame struct {
	plain  []byte
	stored []byte
	index  container.Frame
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
}

type packWriter struct {
	upload storage.Upload
	writer *container.Writer
}

// newPipeline starts workers encoders and the writer.
func newPipeline(ctx context.Context, r *repo.Repository, label repo.Label, codec container.Codec, level, workers int, stage storage.Stage, rows *repo.ManifestWriter) (*pipeline, error) {
	frames := 2*workers + 2
	p := &pipeline{repo: r, label: label, codec: codec, stage: stage, rows: rows,
		free: make(chan *frame, frames), encode: make(chan *frame, frames), write: make(chan *frame, frames)}
	p.ctx, p.cancel = context.WithCancelCause(ctx)
	for range frames {
		p.free <- &frame{plain: make([]byte, 0, container.FrameLimit), done: make(chan struct{}, 1)}
	}
	for range workers {
		enc, err := container.NewEncoder(codec, level)
		if err != nil {
			p.abort(err)
			return nil, err
		}
		p.wg.Go(func() { p.encodeAll(enc) })
	}
	p.wg.Go(p.writeAll)
	return p, nil
}

// reserve returns the part of the current frame that is free. It begins a new
// frame when the current one is full, or fresh is asked for and it is not empty.
func (p *pipeline) reserve(fresh bool) ([]byte, error) {
	if c := p.current; c != nil && (len(c.plain) == cap(c.plain) || fresh && len(c.plain) > 0) {
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
}

// end completes a file: its row is written after the frame that holds its last byte.
func (p *pipeline) end(e *entry) error {
	if _, err := p.reserve(false); err != nil {
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
	if err := context.Cause(p.ctx); err != nil {
		return nil, 0, err
	}
	p.cancel(nil)
	return p.packs, p.stored, nil
}

// abort stops all goroutines and waits for them.
func (p *pipeline) abort(err error) {
	p.cancel(err)
	p.wg.Wait()
}

func (p *pipeline) encodeAll(enc *container.Encoder) {
	for {
		select {
		case <-p.ctx.Done():
			return
		case f, ok := <-p.encode:
			if !ok {
				return
			}
			var err error
			if len(f.plain) > 0 {
				f.stored, f.index, err = enc.Append(f.stored[:0], f.plain)
			}
			if err != nil {
				p.cancel(err)
				return
			}
			f.done <- struct{}{}
		}
	}
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
			f.plain, f.pieces, f.ended = f.plain[:0], f.pieces[:0], f.ended[:0]
			p.free <- f
		}
	}
}

func (p *pipeline) writeFrame(f *frame) error {
	if len(f.plain) > 0 {
		if err := p.store(f); err != nil {
			return err
		}
	}
	for _, e := range f.ended {
		if err := p.rows.Add(e.file); err != nil {
			return err
		}
	}
	return nil
}

func (p *pipeline) store(f *frame) error {
	if p.pack == nil {
		if err := p.openPack(); err != nil {
			return err
		}
	}
	number, err := p.pack.writer.WriteFrame(f.stored, f.index)
	if err != nil {
		return err
	}
	pack := len(p.packs) - 1
	for _, pc := range f.pieces {
		pc.of.add(pc, pack, number, len(f.plain))
		p.packs[pack].Live += int64(pc.length)
	}
	if p.pack.writer.Len() >= repo.PackTarget {
		return p.closePack()
	}
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
	name := repo.PackName(p.label, len(p.packs)+1)
	up, err := p.stage.Create(p.ctx, name)
	if err != nil {
		return err
	}
	w, err := p.repo.NewContainer(up, name, container.Pack, p.codec)
	if err != nil {
		return err
	}
	p.pack = &packWriter{upload: up, writer: w}
	p.packs = append(p.packs, repo.PackRef{Name: name})
	return nil
}

func (p *pipeline) closePack() error {
	if p.pack == nil {
		return nil
	}
	err := p.pack.writer.Finish()
	p.stored += p.pack.writer.Len()
	if err := errors.Join(err, p.pack.upload.Close()); err != nil {
		return fmt.Errorf("write %s: %w", p.packs[len(p.packs)-1].Name, err)
	}
	p.pack = nil
	return nil
}
