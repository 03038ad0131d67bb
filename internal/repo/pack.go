package repo

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"sort"
	"sync"

	"github.com/pgmoneta/pgmoneta-go/internal/container"
	"github.com/pgmoneta/pgmoneta-go/internal/storage"
)

// PackTarget is the stored length at which a pack is closed and the next begun.
const PackTarget = 64 << 20

// PackName returns the object name of pack n of a backup.
func PackName(l Label, n int) string { return fmt.Sprintf("pack/%s/%d", l, n) }

// A PackSet opens the packs of a manifest as they are needed and keeps the most
// recently used open. It is safe for concurrent use.
type PackSet struct {
	repo  *Repository
	refs  []PackRef
	limit int

	// Printer checks the frames if it is set before the first use; else their
	// SHA-256 does.
	Printer *container.Printer

	mu        sync.Mutex
	clock     int
	open      map[int]*openPack
	compacted map[string]map[string][]string // generations by label, once one was needed
}

type openPack struct {
	object storage.Object
	reader *container.Reader
	used   int
	users  int
}

// PackSet returns the packs of refs; at most limit stay open.
func (r *Repository) PackSet(refs []PackRef, limit int) *PackSet {
	return &PackSet{repo: r, refs: refs, limit: limit, open: map[int]*openPack{}, compacted: map[string]map[string][]string{}}
}

// Use calls use with the reader of row i of the pack table. The reader is valid
// during the call only.
func (p *PackSet) Use(ctx context.Context, i int, use func(*container.Reader) error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	o, err := p.acquire(ctx, i)
	if err != nil {
		return err
	}
	defer p.release(o)
	return use(o.reader)
}

func (p *PackSet) acquire(ctx context.Context, i int) (*openPack, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.clock++
	if o := p.open[i]; o != nil {
		o.used, o.users = p.clock, o.users+1
		return o, nil
	}
	reader, object, err := p.openObject(ctx, p.refs[i].Name)
	if err != nil {
		return nil, err
	}
	reader.UsePrinter(p.Printer)
	p.evict()
	o := &openPack{object: object, reader: reader, used: p.clock, users: 1}
	p.open[i] = o
	return o, nil
}

// openObject opens a pack, of whichever generation there is.
func (p *PackSet) openObject(ctx context.Context, name string) (*container.Reader, storage.Object, error) {
	reader, object, missing := p.repo.OpenContainer(ctx, name, container.Pack)
	if !errors.Is(missing, fs.ErrNotExist) {
		return reader, object, missing
	}
	label := path.Base(path.Dir(name))
	packs, known := p.compacted[label]
	if !known {
		var err error
		if packs, err = p.repo.generations(ctx, label); err != nil {
			return nil, nil, err
		}
		p.compacted[label] = packs
	}
	objects := packs[name]
	if len(objects) == 0 {
		return nil, nil, missing
	}
	return p.repo.OpenContainer(ctx, objects[len(objects)-1], container.Pack)
}

// evict closes idle packs until there is room, the longest unused first.
func (p *PackSet) evict() {
	for len(p.open) >= p.limit {
		oldest := -1
		for i, o := range p.open {
			if o.users == 0 && (oldest < 0 || o.used < p.open[oldest].used) {
				oldest = i
			}
		}
		if oldest < 0 {
			return
		}
		_ = p.open[oldest].object.Close()
		delete(p.open, oldest)
	}
}

func (p *PackSet) release(o *openPack) {
	p.mu.Lock()
	defer p.mu.Unlock()
	o.users--
}

// ReadAt fills p with the bytes of a file from offset. extents are the file's; bytes
// that none covers are zero.
func (p *PackSet) ReadAt(ctx context.Context, extents []Extent, b []byte, offset int64, s *container.Scratch) error {
	clear(b)
	end := offset + int64(len(b))
	first := sort.Search(len(extents), func(i int) bool { return extents[i].Offset+extents[i].Length > offset }) // they ascend
	for _, x := range extents[first:] {
		if x.Offset >= end {
			break
		}
		if err := p.Use(ctx, x.Pack, func(r *container.Reader) error { return readExtent(r, x, b, offset, s) }); err != nil {
			return err
		}
	}
	return nil
}

// readExtent copies what an extent gives of the bytes of b, which begin at offset of the file.
func readExtent(r *container.Reader, x Extent, b []byte, offset int64, s *container.Scratch) error {
	at, frame, skip := x.Offset, x.Frame, x.Skip
	last := min(x.Offset+x.Length, offset+int64(len(b)))
	for ; at < last; frame, skip = frame+1, 0 {
		if frame >= r.Frames() || skip > int64(r.Frame(frame).Plain) {
			return &container.DamagedError{Object: r.Name(), Frame: frame, Err: fmt.Errorf("the manifest refers to byte %d of it, which it does not have", skip)}
		}
		run := min(int64(r.Frame(frame).Plain)-skip, last-at)
		if at+run > offset && run > 0 {
			plain, err := r.ReadFrame(frame, s)
			if err != nil {
				return err
			}
			from := max(offset-at, 0)
			copy(b[at+from-offset:], plain[skip+from:skip+run])
		}
		at += run
	}
	return nil
}

// Close closes all packs. No use may be in progress.
func (p *PackSet) Close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i, o := range p.open {
		_ = o.object.Close()
		delete(p.open, i)
	}
}
