package walpage

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/pgmoneta/pgmoneta-go/internal/pg"
)

const (
	mib    = 1 << 20
	block  = 8 << 10
	system = 7710649025785056541
)

func want() Want { return Want{System: system, Timeline: 2, Start: 5 * mib, Size: mib} }

// segment returns segment 5 of timeline 2, which begins with pages of timeline 1;
// only the first pages are in use.
func segment(used int) []byte {
	b := make([]byte, 0, mib)
	for i := range used {
		h := Header{Magic: 0xD116, Timeline: 2, Address: pg.LSN(5*mib + i*block)}
		if i < 3 {
			h.Timeline = 1
		}
		if i == 0 {
			h.Info, h.System, h.SegmentSize, h.BlockSize = LongHeader, system, mib, block
		}
		if i%4 == 1 {
			h.Info |= FirstIsContinued
			h.Remaining = 100
		}
		b = h.Append(b)
		for len(b) < (i+1)*block {
			b = append(b, byte(i+1))
		}
	}
	return b[:mib]
}

func TestCheckSegmentAcceptsWhatServersWrite(t *testing.T) {
	for name, used := range map[string]int{"full": mib / block, "ended by a switch": 7, "ended on its first page": 1} {
		if err := CheckSegment(bytes.NewReader(segment(used)), want()); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	w := want()
	w.System = 0
	if err := CheckSegment(iotest.OneByteReader(bytes.NewReader(segment(9))), w); err != nil {
		t.Errorf("any cluster: %v", err)
	}
}

func TestCheckSegmentOfOtherBlockSizes(t *testing.T) {
	for _, size := range []int{minBlock, maxBlock} {
		b := make([]byte, 0, mib)
		for at := 0; at < mib/2; at += size {
			h := Header{Magic: 0xD118, Timeline: 2, Address: pg.LSN(5*mib + at)}
			if at == 0 {
				h.Info, h.System, h.SegmentSize, h.BlockSize = LongHeader, system, mib, uint32(size)
			}
			b = append(h.Append(b), make([]byte, size)...)[:at+size]
		}
		if err := CheckSegment(bytes.NewReader(b[:mib]), want()); err != nil {
			t.Errorf("block size %d: %v", size, err)
		}
	}
}

func TestCheckSegmentNamesThePage(t *testing.T) {
	le := binary.LittleEndian
	tests := []struct {
		name   string
		page   int
		damage func(page []byte)
		want   string
	}{
		{"no page at all", 0, func(p []byte) { clear(p) }, "empty"},
		{"no WAL", 0, func(p []byte) { copy(p, "PK\x03\x04") }, "magic 0x4b50"},
		{"another cluster", 0, func(p []byte) { le.PutUint64(p[24:], 4711) }, "system identifier 4711, want 7710649025785056541"},
		{"another segment size", 0, func(p []byte) { le.PutUint32(p[32:], 16*mib) }, "16777216"},
		{"impossible segment size", 0, func(p []byte) { le.PutUint32(p[32:], 3) }, "segment size 3"},
		{"impossible block size", 0, func(p []byte) { le.PutUint32(p[36:], 7000) }, "block size 7000"},
		{"short header in front", 0, func(p []byte) { p[2] = 0 }, "long header"},
		{"another segment", 0, func(p []byte) { le.PutUint64(p[8:], 6*mib) }, "it is the page of 0/600000, want 0/500000"},
		{"a later timeline", 0, func(p []byte) { le.PutUint32(p[4:], 3) }, "timeline 3, want 2"},
		{"no timeline", 4, func(p []byte) { le.PutUint32(p[4:], 0) }, "timeline 0"},
		{"back to the former timeline", 4, func(p []byte) { le.PutUint32(p[4:], 1) }, "timeline 1, the page before of timeline 2"},
		{"another page", 4, func(p []byte) { le.PutUint64(p[8:], 5*mib+5*block) }, "0/50A000, want 0/508000"},
		{"another version", 4, func(p []byte) { le.PutUint16(p, 0xD113) }, "magic 0xd113"},
		{"unknown flag", 4, func(p []byte) { p[2] |= 0x10 }, "flags 0x0010"},
		{"long header within", 4, func(p []byte) {
			copy(p, Header{Magic: 0xD116, Info: LongHeader, Timeline: 2, Address: 5*mib + 4*block, System: system, SegmentSize: mib, BlockSize: block}.Append(nil))
		}, "long header"},
		{"nothing remains", 5, func(p []byte) { le.PutUint32(p[16:], 0) }, "nothing remains"},
		{"something remains", 4, func(p []byte) { le.PutUint32(p[16:], 9) }, "9 bytes remain"},
		{"header torn off", 4, func(p []byte) { clear(p[:ShortSize]) }, "magic 0x0000"},
		{"recycled tail", 9, func(p []byte) { copy(p, segment(1)) }, "empty page"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b := segment(8)
			tt.damage(b[tt.page*block:][:block])
			err := CheckSegment(bytes.NewReader(b), want())
			var page *PageError
			if !errors.As(err, &page) || page.Page != int64(tt.page) || page.Offset != int64(tt.page*block) ||
				page.LSN != pg.LSN(5*mib+tt.page*block) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("CheckSegment = %v; want page %d and %q", err, tt.page, tt.want)
			}
		})
	}
}

func TestCheckSegmentWantsAllOfIt(t *testing.T) {
	whole := segment(mib / block)
	for _, n := range []int{0, 100, minBlock, minBlock + 1, block, block + 1, mib - 1, mib + 1} {
		err := CheckSegment(bytes.NewReader(append(bytes.Clone(whole), 0)[:n]), want())
		var length *LengthError
		if !errors.As(err, &length) || length.Have != int64(n) || length.Want != mib {
			t.Errorf("%d bytes: %v", n, err)
		}
	}
}

func TestCheckSegmentPassesErrorsOfTheReaderOn(t *testing.T) {
	// A decoder that meets the end of its input too early has not met that of the segment.
	for _, broken := range []error{errors.New("broken"), fmt.Errorf("damaged: %w", io.ErrUnexpectedEOF), fmt.Errorf("damaged: %w", io.EOF)} {
		for _, n := range []int64{0, 5000, 3 * block, mib} {
			r := io.MultiReader(io.LimitReader(bytes.NewReader(segment(128)), n), iotest.ErrReader(broken))
			err := CheckSegment(r, want())
			var length *LengthError
			if !errors.Is(err, broken) || errors.As(err, &length) {
				t.Errorf("%v after %d bytes: %v", broken, n, err)
			}
		}
	}
}

func TestCheckSegmentThatIsBeingReceived(t *testing.T) {
	b := segment(4)
	for i := 4 * block; i < 5*block; i++ {
		b[i] = 0xFF // arrived while we look
	}
	for _, n := range []int64{1, 900, 1500, block, 2*block + 1, 4 * block, 5*block - 1} {
		w := want()
		w.Bytes = n
		if err := CheckSegment(bytes.NewReader(b), w); err != nil {
			t.Errorf("%d bytes: %v", n, err)
		}
	}
	w := want()
	w.Bytes = 5 * block
	var page *PageError
	if err := CheckSegment(bytes.NewReader(b), w); !errors.As(err, &page) || page.Page != 4 {
		t.Errorf("a page that is none: %v", err)
	}
}

func TestNewerServersAreNotCalledDamaged(t *testing.T) {
	b := segment(2)
	binary.LittleEndian.PutUint16(b, 0xD119)
	if err := CheckSegment(bytes.NewReader(b), want()); !errors.Is(err, ErrUnknownVersion) {
		t.Errorf("magic of the next version: %v", err)
	}
}

func FuzzParse(f *testing.F) {
	for _, n := range []int{1, 2} {
		f.Add(segment(n)[(n-1)*block:][:LongSize])
	}
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := Parse(b)
		if err != nil {
			return
		}
		out := h.Append(nil)
		again, err := Parse(out)
		if err != nil || again != h {
			t.Errorf("%+v comes back as %+v, %v", h, again, err)
		}
	})
}

func FuzzCheckSegment(f *testing.F) {
	f.Add(0, []byte{0x18, 0xD1}, int64(0))
	f.Add(block, []byte{0, 0}, int64(3*block))
	f.Add(2*block+8, []byte{0, 0, 0x50}, int64(mib))
	f.Add(36, []byte{0, 4, 0, 0}, int64(mib))
	f.Add(36, []byte{0, 0, 1, 0}, int64(20000))
	f.Fuzz(func(t *testing.T, at int, b []byte, n int64) {
		image := segment(4)[:16*block]
		if at < 0 || at > len(image) {
			return
		}
		copy(image[at:], b)
		w := want()
		w.Bytes = n
		err := CheckSegment(bytes.NewReader(image), w)
		var page *PageError
		var length *LengthError
		if err != nil && !errors.As(err, &page) && !errors.As(err, &length) {
			t.Errorf("error of another kind: %v", err)
		}
		if page != nil && (page.Offset < 0 || page.Offset >= mib || fmt.Sprint(page) == "") {
			t.Errorf("page %+v", page)
		}
	})
}
