package datadir

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"strconv"
	"strings"
	"sync"

	"github.com/pgmoneta/pgmoneta-go/internal/pg"
)

// A Pages checks the pages of relations. Set the fields, then call
// [Pages.Check] from any number of goroutines; read the results when they are done.
type Pages struct {
	BlockSize int    // bytes; 8192 unless PostgreSQL was built otherwise
	Start     pg.LSN // of the backup: WAL repairs pages changed since
	SegmentOf int64  // blocks of a relation in one file, 131072 unless built otherwise

	mu       sync.Mutex
	Checked  int64    // pages whose checksum was computed
	Bad      BadPages // whose checksum is wrong, read twice
	Doubtful BadPages // whose checksum was wrong and which could not be read again
}

// BadPages counts pages and names the first of them.
type BadPages struct {
	Count int64
	Found []BadPage
}

// foundLimit bounds the list of bad pages.
const foundLimit = 100

// A BadPage is a page that does not have the checksum written in it.
type BadPage struct {
	Path  string
	Block int64 // of the relation's fork
}

func (b BadPage) String() string { return fmt.Sprintf("block %d of %s", b.Block, b.Path) }

// ErrUnreadable reports that a tree cannot read again what was read by other means.
var ErrUnreadable = errors.New("cannot be read again")

// Check looks at the pages in b, which were read from a file at offset. Files of
// other kinds pass. A page that seems bad is read again from tree: it may have been
// read while it was written, and then WAL has it whole. Where tree says
// [ErrUnreadable] the page is doubtful.
//
// It reports whether every page has its checksum. Pages that WAL will repair may not,
// and are not reported as bad.
func (p *Pages) Check(ctx context.Context, tree Tree, name string, offset int64, b []byte) (sound bool, err error) {
	number, ok := FirstBlock(name, p.SegmentOf)
	if !ok {
		return true, nil
	}
	size := p.BlockSize
	if offset%int64(size) != 0 {
		return false, fmt.Errorf("bytes from offset %d begin no page", offset)
	}
	checked := int64(0)
	sound = true
	for i := 0; i+size <= len(b); i += size {
		page := b[i : i+size]
		if isNew(page) {
			continue
		}
		checked++
		block := offset/int64(size) + int64(i/size)
		if checksum(page, uint32(number+block)) == storedChecksum(page) {
			continue
		}
		sound = false
		if pg.PageLSN(page) >= p.Start {
			continue
		}
		if err := p.suspect(ctx, tree, name, block, number+block); err != nil {
			return false, err
		}
	}
	p.mu.Lock()
	p.Checked += checked
	p.mu.Unlock()
	return sound, nil
}

// suspect reports a page unless it is sound when it is read again.
func (p *Pages) suspect(ctx context.Context, tree Tree, name string, block, number int64) error {
	bad, err := p.stillBad(ctx, tree, name, block, number)
	report := &p.Bad
	if errors.Is(err, ErrUnreadable) {
		report, bad, err = &p.Doubtful, true, nil
	}
	if err != nil || !bad {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	report.Add(BadPage{Path: name, Block: number})
	return nil
}

// Add counts a page.
func (b *BadPages) Add(page BadPage) {
	b.Count++
	if len(b.Found) < foundLimit {
		b.Found = append(b.Found, page)
	}
}

// FirstBlock returns the number of the first block in a relation's file of segmentOf
// blocks, and whether name is one.
func FirstBlock(name string, segmentOf int64) (int64, bool) {
	dir, base := path.Split(name)
	dir = path.Clean(dir)
	if _, _, ok := relation(base); !ok || !relations(dir) && dir != "global" {
		return 0, false
	}
	_, segment, _ := strings.Cut(base, ".")
	n, _ := strconv.ParseInt(segment, 10, 64)
	return n * segmentOf, true
}

func (p *Pages) stillBad(ctx context.Context, tree Tree, name string, block, number int64) (bool, error) {
	h, err := tree.Open(ctx, name)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil // dropped meanwhile, and WAL says so
	}
	if err != nil {
		return false, err
	}
	defer func() { _ = h.Close() }()
	page := make([]byte, p.BlockSize)
	n, err := h.ReadAt(page, block*int64(p.BlockSize))
	switch {
	case n < len(page) && (errors.Is(err, io.EOF) || errors.Is(err, fs.ErrNotExist)):
		return false, nil // cut off meanwhile
	case n < len(page):
		return false, err
	}
	return !isNew(page) && pg.PageLSN(page) < p.Start && checksum(page, uint32(number)) != storedChecksum(page), nil
}
