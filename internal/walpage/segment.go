package walpage

import (
	"bytes"
	"errors"
	"fmt"
	"io"

	"github.com/pgmoneta/pgmoneta-go/internal/pg"
)

// ErrUnknownVersion is wrapped by the error for pages of a server newer than
// this program: they may well be right.
var ErrUnknownVersion = errors.New("pages of a server version this program does not know")

// A PageError reports a page that is not what belongs at its place.
type PageError struct {
	Page   int64  // number of the page in the segment, from 0
	Offset int64  // of the page in the segment, bytes
	LSN    pg.LSN // of the page's first byte, by its place
	Err    error
}

func (e *PageError) Error() string {
	return fmt.Sprintf("page %d at offset %d (%s): %v", e.Page, e.Offset, e.LSN, e.Err)
}

func (e *PageError) Unwrap() error { return e.Err }

// A LengthError reports a segment that ends early or goes on too long. Sizes are bytes.
type LengthError struct {
	Have int64 // at least Want+1 when there is too much
	Want int64
}

func (e *LengthError) Error() string {
	if e.Have > e.Want {
		return fmt.Sprintf("it has more than %d bytes", e.Want)
	}
	return fmt.Sprintf("it has %d bytes, want %d", e.Have, e.Want)
}

// Want says which segment is expected.
type Want struct {
	System   uint64 // system identifier of the cluster; 0 accepts any
	Timeline pg.Timeline
	Start    pg.LSN // of the segment's first byte
	Size     pg.SegmentSize

	// Bytes is how much of the segment has been written, for one that is being
	// received; 0 means all. Pages that end later are not looked at.
	Bytes int64
}

// CheckSegment reads a WAL segment from r and checks the header of every page.
// A page that is not what was asked for is a [*PageError], a wrong length a
// [*LengthError]; an error of r is returned as it is, wrapped.
//
// A segment that was ended early by a switch has nothing but zeros after the
// last page in use. A segment in which a timeline begins has pages of the former
// timeline in front.
func CheckSegment(r io.Reader, want Want) error {
	if want.Bytes == 0 || want.Bytes > int64(want.Size) {
		want.Bytes = int64(want.Size)
	}
	c := checker{want: want, r: r}
	return c.run()
}

type checker struct {
	want  Want
	r     io.Reader
	page  []byte // what of the present page was read
	block int64  // bytes of a page
	at    int64  // offset of the present page
	read  int64  // bytes read so far

	first Header // of the segment
	last  pg.Timeline
	empty bool // an empty page came before
}

func (c *checker) run() error {
	// The block size stands in the first header, and no block is shorter than this.
	c.page = make([]byte, minBlock, maxBlock)
	if c.want.Bytes < minBlock {
		return nil
	}
	if err := c.fill(c.page); err != nil {
		return err
	}
	if err := c.begin(); err != nil {
		return c.wrong(err)
	}
	c.page = c.page[:c.block]
	if c.want.Bytes < c.block {
		return nil
	}
	if err := c.fill(c.page[minBlock:]); err != nil {
		return err
	}
	for c.at = c.block; c.at+c.block <= c.want.Bytes; c.at += c.block {
		if err := c.fill(c.page); err != nil {
			return err
		}
		if err := c.next(); err != nil {
			return c.wrong(err)
		}
	}
	return c.end()
}

// fill reads the next bytes into b.
func (c *checker) fill(b []byte) error {
	n, err := io.ReadFull(c.r, b)
	c.read += int64(n)
	// The end of r is meant, not damage on the way to it, which may wrap the same.
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		return &LengthError{Have: c.read, Want: c.want.Bytes}
	}
	if err != nil {
		return fmt.Errorf("read page at %s: %w", c.want.Start+pg.LSN(c.at), err)
	}
	return nil
}

// end makes sure that a whole segment ends where it should.
func (c *checker) end() error {
	if c.want.Bytes < int64(c.want.Size) {
		return nil
	}
	n, err := io.ReadFull(c.r, c.page[:1])
	switch {
	case n > 0:
		return &LengthError{Have: c.read + 1, Want: c.want.Bytes}
	case err != io.EOF:
		return fmt.Errorf("read past the last page: %w", err)
	}
	return nil
}

func (c *checker) wrong(err error) error {
	e := &PageError{Offset: c.at, LSN: c.want.Start + pg.LSN(c.at), Err: err}
	if c.at > 0 {
		e.Page = c.at / c.block
	}
	return e
}

// begin checks the first page and learns the size of all.
func (c *checker) begin() error {
	h, err := Parse(c.page)
	switch {
	case allZero(c.page):
		return errors.New("it is empty, a segment's first page never is")
	case h.Major() == 0 && h.later():
		return fmt.Errorf("magic %#04x: %w", h.Magic, ErrUnknownVersion)
	case h.Major() == 0:
		return fmt.Errorf("magic %#04x is not that of a WAL page", h.Magic)
	case err != nil:
		return err
	case !h.Long():
		return errors.New("it lacks the long header of a segment's first page")
	case c.want.System != 0 && h.System != c.want.System:
		return fmt.Errorf("it is of the cluster with system identifier %d, want %d", h.System, c.want.System)
	case h.SegmentSize != uint32(c.want.Size):
		return fmt.Errorf("it is of a segment of %d bytes, want %d", h.SegmentSize, c.want.Size)
	}
	c.first, c.block = h, int64(h.BlockSize)
	return c.place(h)
}

// next checks a page after the first.
func (c *checker) next() error {
	if allZero(c.page) {
		c.empty = true
		return nil
	}
	h, err := Parse(c.page)
	switch {
	case c.empty:
		return errors.New("it is in use after an empty page")
	case h.Magic != c.first.Magic:
		return fmt.Errorf("magic %#04x, the segment's first page has %#04x", h.Magic, c.first.Magic)
	case err != nil:
		return err
	case h.Long():
		return errors.New("it has the long header of a segment's first page")
	}
	return c.place(h)
}

// place checks the position that a page claims.
func (c *checker) place(h Header) error {
	here := c.want.Start + pg.LSN(c.at)
	switch {
	case h.Address != here:
		return fmt.Errorf("it is the page of %s, want %s", h.Address, here)
	case h.Timeline == 0 || h.Timeline > c.want.Timeline:
		return fmt.Errorf("it is of timeline %d, want %d or an ancestor", h.Timeline, c.want.Timeline)
	case h.Timeline < c.last:
		return fmt.Errorf("it is of timeline %d, the page before of timeline %d", h.Timeline, c.last)
	}
	c.last = h.Timeline
	return nil
}

// allZero compares the page with itself, shifted by one byte.
func allZero(page []byte) bool {
	return page[0] == 0 && bytes.Equal(page[1:], page[:len(page)-1])
}
