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

	mu      sync.Mutex
	Checked int64     // pages whose checksum was computed
	Bad     int64     // pages whose checksum is wrong
	Found   []BadPage // the first of them
}

// foundLimit bounds the list of bad pages.
const foundLimit = 100

// A BadPage is a page that does not have the checksum written in it.
type BadPage struct {
	Path  string
	Block int64 // of the relation's fork
}

func (b BadPage) String() string { return fmt.Sprintf("block %d of %s", b.Block, b.Path) }

// Check looks at the pages in p, which were read from a file at offset. Files of
// other kinds pass. A page that seems bad is read again: it may have been read
// while it was written, and then WAL has it whole.
func (p *Pages) Check(ctx context.Context, tree Tree, name string, offset int64, b []byte) error {
	number, ok := firstBlock(name, p.SegmentOf)
	if !ok {
		return nil
	}
	size := p.BlockSize
	if offset%int64(size) != 0 {
		return fmt.Errorf("bytes from offset %d begin no page", offset)
	}
	checked := int64(0)
	for i := 0; i+size <= len(b); i += size {
		page := b[i : i+size]
		if isNew(page) || pageLSN(page) >= p.Start {
			continue
		}
		checked++
		block := offset/int64(size) + int64(i/size)
		if checksum(page, uint32(number+block)) == storedChecksum(page) {
			continue
		}
		bad, err := p.stillBad(ctx, tree, name, block, number+block)
		if err != nil {
			return err
		}
		if bad {
			p.report(BadPage{Path: name, Block: number + block})
		}
	}
	p.mu.Lock()
	p.Checked += checked
	p.mu.Unlock()
	return nil
}

// firstBlock returns the number of the first block in a relation's file.
func firstBlock(name string, segmentOf int64) (int64, bool) {
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
	return !isNew(page) && pageLSN(page) < p.Start && checksum(page, uint32(number)) != storedChecksum(page), nil
}

func (p *Pages) report(b BadPage) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.Bad++
	if len(p.Found) < foundLimit {
		p.Found = append(p.Found, b)
	}
}
