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

	"github.com/pgmoneta/pgmoneta-go/internal/pg"
)

// A Pages says how the pages of relations are checked. It is used by one
// goroutine at a time.
type Pages struct {
	BlockSize int    // bytes; 8192 unless PostgreSQL was built otherwise
	Start     pg.LSN // of the backup: WAL repairs pages changed since
	SegmentOf int64  // blocks of a relation in one file, 131072 unless built otherwise

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

// A Reader reads a regular file from first to last byte of its listed size.
type Reader struct {
	handle Handle
	file   File
	at     int64
	ahead  int64  // up to where bytes were asked for
	pages  *Pages // nil when they are not checked
	first  int64  // block at the begin of the file
}

// Open opens a file that [Walk] yielded. With pages, those of relations are
// checked while they are read.
func Open(ctx context.Context, tree Tree, f File, pages *Pages) (*Reader, error) {
	h, err := tree.Open(ctx, f.Path)
	if err != nil {
		return nil, err
	}
	r := &Reader{handle: h, file: f}
	name := path.Base(f.Path)
	dir := path.Dir(f.Path)
	if _, _, ok := relation(name); ok && pages != nil && (relations(dir) || dir == "global") {
		r.pages = pages
		if _, segment, more := strings.Cut(name, "."); more {
			n, _ := strconv.ParseInt(segment, 10, 64)
			r.first = n * pages.SegmentOf
		}
	}
	r.want()
	return r, nil
}

// window is how far ahead of the reader bytes are asked for.
const window = 8 << 20

func (r *Reader) want() {
	if r.ahead >= r.file.Size || r.ahead-r.at > window/2 {
		return
	}
	n := min(window, r.file.Size-r.ahead)
	r.handle.Want(r.ahead, n)
	r.ahead += n
}

// Read implements [io.Reader]. Pages are checked in reads that begin with one.
func (r *Reader) Read(p []byte) (int, error) {
	if r.at >= r.file.Size {
		return 0, io.EOF
	}
	p = p[:min(int64(len(p)), r.file.Size-r.at)]
	n, err := r.handle.ReadAt(p, r.at)
	cut := errors.Is(err, io.EOF) || errors.Is(err, fs.ErrNotExist) && r.at > 0
	if err != nil && !cut {
		return 0, err
	}
	clear(p[n:]) // the file was cut off or removed since it was listed
	if r.pages != nil {
		if err := r.check(p); err != nil {
			return 0, err
		}
	}
	r.at += int64(len(p))
	r.want()
	return len(p), nil
}

// check looks at the pages in p. A page may have been read while it was written:
// such a one is read again.
func (r *Reader) check(p []byte) error {
	size := r.pages.BlockSize
	if r.at%int64(size) != 0 {
		return fmt.Errorf("read of %s from offset %d, which begins no page", r.file.Path, r.at)
	}
	for i := 0; i+size <= len(p); i += size {
		page := p[i : i+size]
		block := (r.at + int64(i)) / int64(size)
		if r.good(page, block) {
			continue
		}
		n, err := r.handle.ReadAt(page, r.at+int64(i))
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		clear(page[n:])
		if !r.good(page, block) {
			r.pages.report(BadPage{Path: r.file.Path, Block: r.first + block})
		}
	}
	return nil
}

func (r *Reader) good(page []byte, block int64) bool {
	if isNew(page) || pageLSN(page) >= r.pages.Start {
		return true
	}
	r.pages.Checked++
	return checksum(page, uint32(r.first+block)) == storedChecksum(page)
}

func (p *Pages) report(b BadPage) {
	p.Bad++
	if len(p.Found) < foundLimit {
		p.Found = append(p.Found, b)
	}
}

// Close closes the file.
func (r *Reader) Close() error { return r.handle.Close() }
