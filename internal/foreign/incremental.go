package foreign

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strconv"

	"github.com/pgmoneta/pgmoneta-go/internal/pg"
)

// Layout of a file INCREMENTAL.<name>, in the byte order of the server:
//
//	 0   4  magic
//	 4   4  number of blocks n
//	 8   4  truncation block length: blocks from there on are not taken from older backups
//	12  4n  block numbers in this file, ascending
//	        if n > 0: zeros up to the next multiple of the block size
//	        n blocks
//
// See src/backend/backup/basebackup_incremental.c and src/bin/pg_combinebackup/reconstruct.c.
//
// For PostgreSQL 14 to 16 C pgmoneta writes such files itself, and counts the header by
// items when it pads: their blocks begin at 12 + 4n + 8192 - (3 + n) mod 8192.
const (
	incrementalMagic  = 0xd3ae1f0d
	incrementalPrefix = "INCREMENTAL."
	incrementalHead   = 12

	blockSize = 8192

	// maxBlocks is how many blocks a file of a relation has at most: 1 GiB of them.
	maxBlocks = 1 << 30 / blockSize
)

// blockList is the header of an incremental file.
type blockList struct {
	truncated uint32
	numbers   []uint32
}

func parseBlockList(in io.Reader) (blockList, error) {
	var head [incrementalHead]byte
	if _, err := io.ReadFull(in, head[:]); err != nil {
		return blockList{}, damaged(err)
	}
	le := binary.LittleEndian
	if magic := le.Uint32(head[:]); magic != incrementalMagic {
		return blockList{}, fmt.Errorf("%w: magic %#08x is not that of an incremental file", ErrDamaged, magic)
	}
	n, l := le.Uint32(head[4:]), blockList{truncated: le.Uint32(head[8:])}
	if n > maxBlocks || l.truncated > maxBlocks {
		return blockList{}, fmt.Errorf("%w: %d blocks of a file of %d, at most %d are possible", ErrDamaged, n, l.truncated, maxBlocks)
	}
	raw := make([]byte, 4*n)
	if _, err := io.ReadFull(in, raw); err != nil {
		return blockList{}, damaged(err)
	}
	l.numbers = make([]uint32, n)
	for i := range l.numbers {
		l.numbers[i] = le.Uint32(raw[4*i:])
		if l.numbers[i] >= maxBlocks || i > 0 && l.numbers[i] <= l.numbers[i-1] {
			return blockList{}, fmt.Errorf("%w: block numbers do not ascend below %d", ErrDamaged, maxBlocks)
		}
	}
	return l, nil
}

// blocks returns how many blocks the whole file has.
func (l blockList) blocks() uint32 {
	if n := len(l.numbers); n > 0 {
		return max(l.truncated, l.numbers[n-1]+1)
	}
	return l.truncated
}

// padding returns how many bytes lie between the numbers and the first block of a
// file of size bytes.
func (l blockList) padding(size int64, major int) (int64, error) {
	n := int64(len(l.numbers))
	head := incrementalHead + 4*n
	begin := size - n*blockSize
	right := (head + blockSize - 1) / blockSize * blockSize
	if n == 0 {
		right = head
	}
	shifted := head + blockSize - (3+n)%blockSize
	if begin == right || begin == shifted && n > 0 && major < 17 {
		return begin - head, nil
	}
	return 0, fmt.Errorf("%w: an incremental file of %d blocks does not have %d bytes", ErrDamaged, n, size)
}

// A layer is a file of one backup in a chain: incremental, or whole.
type layer struct {
	in     *bufio.Reader
	close  func() error
	whole  bool
	list   blockList // of an incremental one
	passed int       // blocks of list that were read or skipped
}

// newLayer begins to read a file of size plain bytes.
func newLayer(in io.ReadCloser, whole bool, size int64, major int) (*layer, error) {
	l := &layer{in: bufio.NewReaderSize(in, 64<<10), close: in.Close, whole: whole}
	if whole {
		return l, nil
	}
	var err error
	if l.list, err = parseBlockList(l.in); err != nil {
		return l, err
	}
	padding, err := l.list.padding(size, major)
	if err == nil {
		_, err = io.CopyN(io.Discard, l.in, padding)
	}
	return l, err
}

// has reports whether the layer's next block is that of the file's block n.
func (l *layer) has(n uint32) bool {
	return l.whole || l.passed < len(l.list.numbers) && l.list.numbers[l.passed] == n
}

// take reads the next block into p, or skips it when p is nil. A whole file may end in, or
// before, the block: what it lacks is zero.
func (l *layer) take(p []byte) error {
	if p == nil {
		n, err := l.in.Discard(blockSize)
		l.passed++
		if l.whole && errors.Is(err, io.EOF) && n < blockSize {
			return nil
		}
		return cutOff(err)
	}
	l.passed++
	n, err := io.ReadFull(l.in, p)
	if l.whole && (errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)) {
		clear(p[n:])
		return nil
	}
	return cutOff(err)
}

func cutOff(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return damaged(err)
	}
	return err
}

// A combiner puts a file together from its layers, newest first. All are read from begin to
// end side by side, so that it needs a block and some buffers.
type combiner struct {
	layers []*layer
	blocks uint32
	next   uint32
	block  [blockSize]byte
	ready  []byte
	end    error // what every Read returns from now on
}

// newCombiner takes the layers over. The first is incremental, at most the last is whole.
func newCombiner(layers []*layer) *combiner {
	return &combiner{layers: layers, blocks: layers[0].list.blocks()}
}

// Read implements [io.Reader].
func (c *combiner) Read(p []byte) (int, error) {
	if len(c.ready) == 0 && c.end == nil {
		c.end = c.fill()
	}
	if c.end != nil {
		return 0, c.end
	}
	n := copy(p, c.ready)
	c.ready = c.ready[n:]
	return n, nil
}

func (c *combiner) fill() error {
	if c.next == c.blocks {
		return c.finish()
	}
	found := false
	for i, l := range c.layers {
		if !l.has(c.next) {
			continue
		}
		// Blocks that were cut off in between count only if the newest file has them.
		use := !found && (i == 0 || c.next < c.layers[0].list.truncated)
		into := c.block[:]
		if !use {
			into = nil
		}
		if err := l.take(into); err != nil {
			return err
		}
		found = found || use
	}
	if !found {
		clear(c.block[:])
	}
	c.next++
	c.ready = c.block[:]
	return nil
}

// finish reads every layer to its end, so that it is checked.
func (c *combiner) finish() error {
	for _, l := range c.layers {
		if _, err := io.Copy(io.Discard, l.in); err != nil {
			return err
		}
	}
	return io.EOF
}

// Close closes the layers.
func (c *combiner) Close() error {
	var err error
	for _, l := range c.layers {
		err = errors.Join(err, l.close())
	}
	return err
}

// Lines that make the backup_label of an incremental backup one.
const (
	fromLSN      = "INCREMENTAL FROM LSN: "
	fromTimeline = "INCREMENTAL FROM TLI: "
)

// labelLimit bounds a backup_label.
const labelLimit = 64 << 10

// parentOf reads from a backup_label where the backup that an incremental one is based on begins.
func parentOf(label []byte) (at pg.LSN, tli pg.Timeline, incremental bool) {
	for line := range bytes.Lines(label) {
		line = bytes.TrimSpace(line)
		if text, ok := bytes.CutPrefix(line, []byte(fromLSN)); ok {
			lsn, err := pg.ParseLSN(string(text))
			at, incremental = lsn, err == nil
		}
		if text, ok := bytes.CutPrefix(line, []byte(fromTimeline)); ok {
			n, err := strconv.ParseUint(string(text), 10, 32)
			if err == nil {
				tli = pg.Timeline(n)
			}
		}
	}
	return at, tli, incremental
}

// wholeLabel returns the backup_label of an incremental backup as that of a full one.
// PostgreSQL refuses to start with the other.
func wholeLabel(label []byte) []byte {
	var out []byte
	for line := range bytes.Lines(label) {
		if !bytes.HasPrefix(line, []byte(fromLSN)) && !bytes.HasPrefix(line, []byte(fromTimeline)) {
			out = append(out, line...)
		}
	}
	return out
}
