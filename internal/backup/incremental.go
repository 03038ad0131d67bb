package backup

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/pgmoneta/pgmoneta-go/internal/container"
	"github.com/pgmoneta/pgmoneta-go/internal/repo"
)

// An incremental file is what PostgreSQL 17 and later send of a relation's file
// when an earlier backup is known:
//
//	 0  4  magic
//	 4  4  number of blocks n
//	 8  4  truncation block length
//	12  4n block numbers, ascending
//	       zeros up to a multiple of the block size, when n is not 0
//	       n blocks
//
// All numbers are in the server's byte order; every platform that is supported
// is little-endian. See src/backend/backup/basebackup_incremental.c.
const (
	incrementalMagic  = 0xd3ae1f0d
	incrementalHeader = 12
	incrementalPrefix = "INCREMENTAL."
	// blockLimit bounds block numbers: 1 TiB in a file of 8 KiB blocks.
	blockLimit = 1 << 27
)

// A blockMap says which blocks of a file are sent.
type blockMap struct {
	truncation uint32   // blocks of the base from here on are gone
	blocks     []uint32 // ascending
	length     int64    // bytes of the header, up to the first block
}

// readBlockMap reads the head of an incremental file of size bytes.
func readBlockMap(in io.Reader, size, blockSize int64) (blockMap, error) {
	var head [incrementalHeader]byte
	if _, err := io.ReadFull(in, head[:]); err != nil {
		return blockMap{}, err
	}
	le := binary.LittleEndian
	n, m := int64(le.Uint32(head[4:])), blockMap{truncation: le.Uint32(head[8:]), length: incrementalHeader}
	switch {
	case le.Uint32(head[:]) != incrementalMagic:
		return blockMap{}, fmt.Errorf("begins with %#x, no incremental file does", le.Uint32(head[:]))
	case m.truncation > blockLimit:
		return blockMap{}, fmt.Errorf("claims a length of %d blocks", m.truncation)
	case n > size/(4+blockSize):
		return blockMap{}, fmt.Errorf("claims %d blocks in %d bytes", n, size)
	}
	if n > 0 {
		m.length = (incrementalHeader + 4*n + blockSize - 1) / blockSize * blockSize
	}
	if m.length+n*blockSize != size {
		return blockMap{}, fmt.Errorf("has %d bytes, want %d for %d blocks", size, m.length+n*blockSize, n)
	}
	rest := make([]byte, m.length-incrementalHeader)
	if _, err := io.ReadFull(in, rest); err != nil {
		return blockMap{}, err
	}
	m.blocks = make([]uint32, n)
	for i := range m.blocks {
		m.blocks[i] = le.Uint32(rest[4*i:])
		if i > 0 && m.blocks[i] <= m.blocks[i-1] || m.blocks[i] >= blockLimit {
			return blockMap{}, fmt.Errorf("block %d after block %d", m.blocks[i], m.blocks[max(i, 1)-1])
		}
	}
	return m, nil
}

// size returns the bytes of the whole file.
func (m *blockMap) size(blockSize int64) int64 {
	n := int64(m.truncation)
	if last := len(m.blocks) - 1; last >= 0 {
		n = max(n, int64(m.blocks[last])+1)
	}
	return n * blockSize
}

// run returns how many of the blocks from i on follow one another.
func (m *blockMap) run(i int) int {
	n := 1
	for i+n < len(m.blocks) && m.blocks[i+n] == m.blocks[i]+uint32(n) {
		n++
	}
	return n
}

// kept calls each with the runs of bytes, ascending, that come from a base of the
// given size.
func (m *blockMap) kept(baseSize, blockSize int64, each func(from, to int64) error) error {
	end := min(int64(m.truncation)*blockSize, baseSize)
	at := int64(0)
	for _, b := range m.blocks {
		from := int64(b) * blockSize
		if from >= end {
			break
		}
		if at < from {
			if err := each(at, from); err != nil {
				return err
			}
		}
		at = from + blockSize
	}
	if at < end {
		return each(at, end)
	}
	return nil
}

// An overlay lays the blocks that were sent over a file of the base.
type overlay struct {
	base      repo.File
	sent      blockMap
	blockSize int64
}

// layOver completes the extents of an entry with those that its file still shares
// with the base.
func (p *pipeline) layOver(e *entry) error {
	c := cutter{known: p.known, rest: e.over.base.Extents}
	var shared []repo.Extent
	err := e.over.sent.kept(e.over.base.Size, e.over.blockSize, func(from, to int64) (err error) {
		shared, err = c.cut(shared, from, to)
		return err
	})
	if err != nil {
		return fmt.Errorf("file %q of the base: %w", e.over.base.Path, err)
	}
	for i := range shared {
		shared[i].Pack = p.rowOf(shared[i].Pack)
		p.table[shared[i].Pack].Live += shared[i].Length
		p.reused += shared[i].Length
	}
	e.file.Extents = append(e.file.Extents, shared...)
	slices.SortFunc(e.file.Extents, func(a, b repo.Extent) int { return int(a.Offset - b.Offset) })
	return nil
}

// A cutter takes runs out of extents, from first to last.
type cutter struct {
	known *known
	rest  []repo.Extent // not modified
	cur   repo.Extent   // what is left of the extent before rest
}

// cut appends the extents of the bytes in [from, to). Packs are numbers in known.
// from must not be less than to of the call before.
func (c *cutter) cut(dst []repo.Extent, from, to int64) ([]repo.Extent, error) {
	for {
		if c.cur.Length == 0 {
			if len(c.rest) == 0 {
				return dst, nil
			}
			c.cur, c.rest = c.rest[0], c.rest[1:]
		}
		if c.cur.Offset >= to {
			return dst, nil
		}
		if err := c.drop(min(max(from-c.cur.Offset, 0), c.cur.Length)); err != nil {
			return dst, err
		}
		if c.cur.Length == 0 {
			continue
		}
		x := c.cur
		x.Length = min(x.Length, to-x.Offset)
		dst = append(dst, x)
		if err := c.drop(x.Length); err != nil {
			return dst, err
		}
	}
}

// drop takes n bytes off the beginning of the current extent.
func (c *cutter) drop(n int64) error {
	x := &c.cur
	x.Offset, x.Length, x.Skip = x.Offset+n, x.Length-n, x.Skip+n
	for x.Length > 0 {
		plain, ok := c.known.plain(x.Pack, x.Frame)
		if !ok {
			return &container.DamagedError{Object: c.known.packs[x.Pack].name, Frame: x.Frame, Err: errors.New("the manifest refers to it, the pack does not have it")}
		}
		if x.Skip < plain {
			return nil
		}
		x.Frame, x.Skip = x.Frame+1, x.Skip-plain
	}
	return nil
}
