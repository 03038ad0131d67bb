package walpage

import (
	"encoding/binary"
	"testing"
	"time"

	"github.com/pgmoneta/pgmoneta-go/internal/pg"
)

// written lays records out over the pages of a segment at 5 MiB, the first page of which
// begins with rest bytes of a record from before, and returns it with the first
// page of the next one.
func written(rest int, records ...[]byte) (segment, next []byte) {
	var stream []byte
	stream = append(stream, make([]byte, (rest+7)&^7)...)
	for _, r := range records {
		stream = append(stream, r...)
		for len(stream)%8 != 0 {
			stream = append(stream, 0)
		}
	}
	left := rest
	var out []byte
	for page := 0; page*block < mib+block; page++ {
		h := Header{Magic: 0xD116, Timeline: 1, Address: pg.LSN(5*mib + page*block)}
		if page == 0 || page*block == mib {
			h.Info, h.System, h.SegmentSize, h.BlockSize = LongHeader, system, mib, block
		}
		if left > 0 {
			h.Info |= FirstIsContinued
			h.Remaining = uint32(left)
		}
		if len(stream) == 0 {
			out = append(out, make([]byte, block)...)
			continue
		}
		at := len(out)
		out = h.Append(out)
		n := min(len(stream), at+block-len(out))
		left = remains(left, n, stream)
		out = append(out, stream[:n]...)
		stream = stream[n:]
		out = append(out, make([]byte, at+block-len(out))...)
	}
	return out[:mib], out[mib:]
}

// remains returns how much of a record lies behind the first n bytes of a stream
// that begins with left bytes of one.
func remains(left, n int, stream []byte) int {
	at := (left + 7) &^ 7
	if left > n {
		return left - n
	}
	for at < n {
		total := int(binary.LittleEndian.Uint32(stream[at:]))
		if at+total > n {
			return at + total - n
		}
		at += (total + 7) &^ 7
	}
	return 0
}

// record returns a record of one resource manager with main data, as long as total says.
func record(xid uint32, info, rmid byte, data []byte) []byte {
	b := make([]byte, recordHeader)
	b[16], b[17] = info, rmid
	binary.LittleEndian.PutUint32(b[4:], xid)
	if len(data) > 255 {
		b = append(b, idLong)
		b = binary.LittleEndian.AppendUint32(b, uint32(len(data)))
	} else {
		b = append(b, idOrigin, 1, 0, idShort, byte(len(data)))
	}
	b = append(b, data...)
	binary.LittleEndian.PutUint32(b, uint32(len(b)))
	return b
}

func committed(xid uint32, at time.Time) []byte {
	us := at.Sub(time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)).Microseconds()
	return record(xid, commit|0x80, transactions, binary.LittleEndian.AppendUint64(nil, uint64(us)))
}

func TestStopsFindsRecordsAcrossPagesAndSegments(t *testing.T) {
	at := time.Date(2026, 11, 21, 12, 0, 0, 123456000, time.UTC)
	filler := func(n int) []byte { return record(0, 0, 10, make([]byte, n)) }
	point := record(0, restorePoint, xlog, append(make([]byte, 8), "before upgrade\x00\x00"...))
	for shift := 300; shift < 500; shift += 8 { // so that records end up on every boundary
		var records [][]byte
		records = append(records, committed(1000, at))
		size := 0
		for n := uint32(1001); size < mib; n++ {
			f := filler(shift + int(n)%5000)
			records = append(records, f, committed(n, at.Add(time.Second)))
			size += len(f) + 48
		}
		records = append(records, point)
		segment, next := written(20000+shift, records...)
		var got []Stop
		if !Stops(segment, next, func(s Stop) { got = append(got, s) }) {
			t.Fatalf("shift %d: not all was read", shift)
		}
		for i, s := range got {
			if s.XID != uint32(1000+i) || i == 0 && !s.Time.Equal(at) || s.LSN < 5*mib || s.LSN >= 6*mib {
				t.Fatalf("shift %d: stop %d is %+v", shift, i, s)
			}
		}
		if len(got) < 100 {
			t.Fatalf("shift %d: %d stops", shift, len(got))
		}
	}
	segment, _ := written(0, filler(9000), point, record(0, switched, xlog, nil))
	var got []Stop
	if read := Stops(segment, nil, func(s Stop) { got = append(got, s) }); !read || len(got) != 1 || got[0].Name != "before upgrade" {
		t.Errorf("stops %+v, read %v", got, read)
	}
}

func TestStopsSaysWhenItCannotRead(t *testing.T) {
	segment, next := written(0, record(0, 0, 10, make([]byte, 3*block)), committed(3, time.Now()))
	for name, damage := range map[string]func(){
		"no header":    func() { segment[0] = 0xFF; segment[2] = 0xFF },
		"a lost page":  func() { clear(segment[block : 2*block]); segment[block] = 1 },
		"length of 3":  func() { binary.LittleEndian.PutUint32(segment[LongSize:], 3) },
		"other places": func() { segment[block+8]++ },
	} {
		keep := append([]byte(nil), segment...)
		damage()
		if Stops(segment, next, func(Stop) {}) {
			t.Errorf("%s: all was read", name)
		}
		copy(segment, keep)
	}
}

func FuzzStops(f *testing.F) {
	segment, next := written(100, record(0, 0, 10, make([]byte, 9000)), committed(3, time.Now()), record(0, restorePoint, xlog, make([]byte, 72)))
	f.Add(segment[:3*block], next)
	f.Add(segment[:block], []byte{})
	f.Fuzz(func(t *testing.T, segment, next []byte) {
		last := pg.LSN(0)
		Stops(segment, next, func(s Stop) {
			if s.LSN <= last && last != 0 {
				t.Fatalf("stop at %s after %s", s.LSN, last)
			}
			last = s.LSN
		})
	})
}
