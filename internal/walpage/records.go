package walpage

import (
	"bytes"
	"encoding/binary"
	"time"

	"github.com/pgmoneta/pgmoneta-go/internal/pg"
)

// A Stop is a record that a recovery can be told to end at.
type Stop struct {
	LSN  pg.LSN // of its first byte
	Time time.Time
	// XID is the transaction that ended; 0 for one that had been prepared, and for a
	// restore point.
	XID  uint32
	Name string // of the restore point, empty for the end of a transaction
}

// Header of a record, as XLogRecord on a little-endian machine:
//
//	 0  4  xl_tot_len, bytes with this header
//	 4  4  xl_xid
//	 8  8  xl_prev
//	16  1  xl_info, of which the upper half belongs to the resource manager
//	17  1  xl_rmid
//	18  2  padding
//	20  4  xl_crc
//
// Then, of the records that are wanted here, which refer to no blocks: an origin (0xFD and
// 2 bytes), a transaction (0xFC and 4 bytes), and the length of the data that follows (0xFF and
// 1 byte, or 0xFE and 4 bytes). A record begins at a multiple of 8.
//
// See src/include/access/xlogrecord.h and xact.h.
const (
	recordHeader = 24

	transactions = 1 // RM_XACT_ID
	xlog         = 0 // RM_XLOG_ID

	commit, abort, commitPrepared, abortPrepared = 0x00, 0x20, 0x30, 0x40
	opMask                                       = 0x70
	restorePoint                                 = 0x70
	switched                                     = 0x40

	idLong, idShort, idOrigin, idTransaction = 0xFE, 0xFF, 0xFD, 0xFC
)

// stopBytes is how much of a record is looked at.
const stopBytes = 160

// Stops calls each for every record of a segment that a recovery can end at. next is the
// beginning of the segment that follows, for a record that goes on there; it may
// be empty. read is false when not all of the segment could be read: then there may be
// more. The bytes are trusted as far as nothing here fails on others.
func Stops(segment, next []byte, each func(Stop)) (read bool) {
	first, err := Parse(segment)
	if err != nil || !first.Long() {
		return false
	}
	r := &recordReader{block: int(first.BlockSize), begin: first.Address, pages: [][]byte{segment, next}, own: len(segment)}
	if !r.page(0) {
		return false
	}
	for r.at < r.own {
		b := r.peek()
		if len(b) < recordHeader {
			return false
		}
		total := binary.LittleEndian.Uint32(b)
		if total == 0 {
			return true // nothing was written after this
		}
		if total < recordHeader || uint32(len(b)) < min(total, stopBytes) {
			return false
		}
		if s, ok := stop(b); ok {
			s.LSN = first.Address + pg.LSN(r.at)
			each(s)
		}
		if b[17] == xlog && b[16]&^0x0F == switched {
			return true
		}
		if !r.skip(int(total)) {
			return false
		}
	}
	return true
}

// stop reads the beginning of a record.
func stop(b []byte) (Stop, bool) {
	op := b[16] & opMask
	point := b[17] == xlog && b[16]&^0x0F == restorePoint
	if !point && (b[17] != transactions || op != commit && op != abort && op != commitPrepared && op != abortPrepared) {
		return Stop{}, false
	}
	data := mainData(b[recordHeader:min(len(b), int(binary.LittleEndian.Uint32(b)))])
	if len(data) < 8 {
		return Stop{}, false
	}
	s := Stop{Time: timestamp(int64(binary.LittleEndian.Uint64(data)))}
	switch {
	case point:
		name, _, _ := bytes.Cut(data[8:min(len(data), 8+64)], []byte{0})
		s.Name = string(name)
	case op == commit || op == abort:
		s.XID = binary.LittleEndian.Uint32(b[4:])
	}
	return s, true
}

// mainData returns what follows the headers inside a record.
func mainData(b []byte) []byte {
	for len(b) > 5 {
		switch b[0] {
		case idOrigin:
			b = b[3:]
		case idTransaction:
			b = b[5:]
		case idShort:
			return b[2:]
		case idLong:
			return b[5:]
		default:
			return nil
		}
	}
	return nil
}

// timestamp converts microseconds since 2000.
func timestamp(us int64) time.Time {
	return time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC).Add(time.Duration(us/1e6) * time.Second).Add(time.Duration(us%1e6) * time.Microsecond)
}

// A recordReader walks over the records of a segment and into the next one.
type recordReader struct {
	block int
	begin pg.LSN
	pages [][]byte // the segment, and the beginning of the next
	own   int      // bytes of the segment
	at    int      // where a record begins
	buf   [stopBytes]byte
}

// header returns the header of the page at an offset, which must be its own.
func (r *recordReader) header(offset int) (Header, bool) {
	b := r.bytes(offset)
	h, err := Parse(b)
	return h, err == nil && h.Address == r.begin+pg.LSN(offset)
}

// bytes returns what there is from an offset to the end of its part.
func (r *recordReader) bytes(offset int) []byte {
	part := r.pages[0]
	if offset >= r.own {
		part, offset = r.pages[1], offset-r.own
	}
	if offset >= len(part) {
		return nil
	}
	return part[offset:]
}

// page goes to the first record that begins on the page at an offset, or on a later one.
func (r *recordReader) page(offset int) bool {
	h, ok := r.header(offset)
	if !ok {
		return false
	}
	r.at = offset + headerSize(h)
	if h.Remaining == 0 {
		return true
	}
	return r.skip(int(h.Remaining))
}

func headerSize(h Header) int {
	if h.Long() {
		return LongSize
	}
	return ShortSize
}

// peek returns the beginning of the record at r.at.
func (r *recordReader) peek() []byte {
	got, at := 0, r.at
	for got < len(r.buf) {
		b := r.bytes(at)
		n := copy(r.buf[got:], b[:min(len(b), r.block-at%r.block)])
		if n == 0 {
			break
		}
		got, at = got+n, at+n
		if at%r.block == 0 {
			h, ok := r.header(at)
			if !ok {
				break
			}
			at += headerSize(h)
		}
	}
	return r.buf[:got]
}

// skip goes behind n bytes of a record, to where the next one begins. A record that was given up
// ends where a page does not continue it.
func (r *recordReader) skip(n int) bool {
	for {
		left := r.block - r.at%r.block
		if n < left {
			r.at += (n + 7) &^ 7
			if r.at%r.block != 0 {
				return true
			}
			n = 0
		} else {
			r.at, n = r.at+left, n-left
		}
		if r.at >= r.own {
			return true
		}
		h, ok := r.header(r.at)
		if !ok {
			return r.unused()
		}
		r.at += headerSize(h)
		if n == 0 {
			return true
		}
		if h.Info&FirstIsContinued == 0 {
			return true
		}
	}
}

// unused reports whether the page at r.at was never written, so that WAL ends there.
func (r *recordReader) unused() bool {
	b := r.bytes(r.at)
	for _, c := range b[:min(len(b), recordHeader)] {
		if c != 0 {
			return false
		}
	}
	return true
}
