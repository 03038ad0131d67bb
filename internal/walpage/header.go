package walpage

import (
	"encoding/binary"
	"fmt"

	"github.com/pgmoneta/pgmoneta-go/internal/pg"
)

// Header of every page, as XLogPageHeaderData on a little-endian machine:
//
//	 0  2  xlp_magic, by major version of the server
//	 2  2  xlp_info, flags
//	 4  4  xlp_tli, timeline on which the page was begun
//	 8  8  xlp_pageaddr, LSN of the page's first byte
//	16  4  xlp_rem_len, bytes of a record that began on an earlier page
//	20  4  padding
//
// The first page of a segment goes on, as XLogLongPageHeaderData:
//
//	24  8  xlp_sysid, system identifier of the cluster
//	32  4  xlp_seg_size, bytes
//	36  4  xlp_xlog_blcksz, bytes
//
// See src/include/access/xlog_internal.h.
const (
	ShortSize = 24
	LongSize  = 40
)

// Flags of xlp_info.
const (
	FirstIsContinued   uint16 = 0x0001 // the page begins with the rest of a record
	LongHeader         uint16 = 0x0002
	BackupRemovable    uint16 = 0x0004 // full-page images may be left out by compressing archivers
	FirstIsOverwritten uint16 = 0x0008 // the record that should go on here was given up

	allFlags = FirstIsContinued | LongHeader | BackupRemovable | FirstIsOverwritten
)

// Limits of the block size that PostgreSQL can be built with; 8 KiB unless
// somebody chose otherwise.
const (
	minBlock = 1 << 10
	maxBlock = 64 << 10
)

// A Header is the header of one page.
type Header struct {
	Magic     uint16
	Info      uint16
	Timeline  pg.Timeline
	Address   pg.LSN
	Remaining uint32 // bytes of a record that began on an earlier page

	// Of the first page of a segment, that is when Info has [LongHeader].
	System      uint64
	SegmentSize uint32
	BlockSize   uint32
}

// Long reports whether the header is that of a segment's first page.
func (h Header) Long() bool { return h.Info&LongHeader != 0 }

// Major returns the major version whose servers write this magic, 0 if none of
// those known does.
func (h Header) Major() int {
	switch h.Magic {
	case 0xD10D:
		return 14
	case 0xD110:
		return 15
	case 0xD113:
		return 16
	case 0xD116:
		return 17
	case 0xD118:
		return 18
	}
	return 0
}

// newest is the largest magic known here. Magics ascend, and all of them have
// begun with 0xD1 since PostgreSQL 14.
const newest = 0xD118

// later reports a magic that a server newer than this program may write.
func (h Header) later() bool { return h.Magic > newest && h.Magic>>8 == newest>>8 }

// Parse reads the header at the beginning of a page. It checks what a header can
// tell about itself: known flags, a length of the continued record exactly where
// one is announced, and in a long header possible sizes. It does not check the
// magic; see [Header.Major].
func Parse(page []byte) (Header, error) {
	if len(page) < ShortSize {
		return Header{}, fmt.Errorf("a page header has %d bytes, there are %d", ShortSize, len(page))
	}
	le := binary.LittleEndian
	h := Header{
		Magic: le.Uint16(page), Info: le.Uint16(page[2:]), Timeline: pg.Timeline(le.Uint32(page[4:])),
		Address: pg.LSN(le.Uint64(page[8:])), Remaining: le.Uint32(page[16:]),
	}
	switch {
	case h.Info&^allFlags != 0:
		return h, fmt.Errorf("flags %#04x are not known", h.Info&^allFlags)
	case h.Info&FirstIsContinued != 0 && h.Remaining == 0:
		return h, fmt.Errorf("it continues a record of which nothing remains")
	case h.Info&FirstIsContinued == 0 && h.Remaining != 0:
		return h, fmt.Errorf("%d bytes remain of a record that it does not continue", h.Remaining)
	case !h.Long():
		return h, nil
	case len(page) < LongSize:
		return h, fmt.Errorf("a long page header has %d bytes, there are %d", LongSize, len(page))
	}
	h.System, h.SegmentSize, h.BlockSize = le.Uint64(page[24:]), le.Uint32(page[32:]), le.Uint32(page[36:])
	return h, h.checkSizes()
}

func (h Header) checkSizes() error {
	if !pg.SegmentSize(h.SegmentSize).Valid() {
		return fmt.Errorf("segment size %d is impossible", h.SegmentSize)
	}
	if h.BlockSize < minBlock || h.BlockSize > maxBlock || h.BlockSize&(h.BlockSize-1) != 0 {
		return fmt.Errorf("block size %d is impossible", h.BlockSize)
	}
	return nil
}

// Append appends the header as it stands at the beginning of a page, long when
// Info has [LongHeader].
func (h Header) Append(dst []byte) []byte {
	le := binary.LittleEndian
	dst = le.AppendUint16(dst, h.Magic)
	dst = le.AppendUint16(dst, h.Info)
	dst = le.AppendUint32(dst, uint32(h.Timeline))
	dst = le.AppendUint64(dst, uint64(h.Address))
	dst = le.AppendUint32(dst, h.Remaining)
	dst = le.AppendUint32(dst, 0)
	if !h.Long() {
		return dst
	}
	dst = le.AppendUint64(dst, h.System)
	dst = le.AppendUint32(dst, h.SegmentSize)
	return le.AppendUint32(dst, h.BlockSize)
}
