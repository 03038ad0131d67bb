package pg

import (
	"fmt"
	"strconv"
)

// A SegmentSize is a server's wal_segment_size in bytes: a power of two from
// 1 MiB to 1 GiB.
type SegmentSize uint64

// Limits of wal_segment_size; see PostgreSQL documentation, "WAL Internals".
const (
	MinSegmentSize SegmentSize = 1 << 20
	MaxSegmentSize SegmentSize = 1 << 30
)

// Valid reports whether s is a size PostgreSQL accepts.
func (s SegmentSize) Valid() bool {
	return s >= MinSegmentSize && s <= MaxSegmentSize && s&(s-1) == 0
}

// Start returns the first position of the segment that holds lsn.
func (s SegmentSize) Start(lsn LSN) LSN { return lsn &^ LSN(s-1) }

// Offset returns the distance of lsn from the start of its segment, in bytes.
func (s SegmentSize) Offset(lsn LSN) int64 { return int64(lsn & LSN(s-1)) }

// ParseSegmentSize reads what SHOW wal_segment_size answers, such as 16MB or 1GB.
func ParseSegmentSize(text string) (SegmentSize, error) {
	i := 0
	for i < len(text) && text[i] >= '0' && text[i] <= '9' {
		i++
	}
	n, err := strconv.ParseUint(text[:i], 10, 32)
	unit := map[string]uint64{"": 1, "B": 1, "kB": 1 << 10, "MB": 1 << 20, "GB": 1 << 30}[text[i:]]
	s := SegmentSize(n * unit)
	if err != nil || !s.Valid() {
		return 0, fmt.Errorf("wal_segment_size %q: want a power of two from 1MB to 1GB", text)
	}
	return s, nil
}

// SegmentName returns the name of the WAL segment that holds lsn: 24 upper-case
// hexadecimal digits, 8 for the timeline and 16 for the segment number split at
// 4 GiB. size must be valid; any other size panics, because it must have been
// refused when it was read.
//
// An lsn that is exactly a segment boundary belongs to the segment that begins there.
//
// See PostgreSQL documentation, "WAL Internals".
func SegmentName(tli Timeline, lsn LSN, size SegmentSize) string {
	if !size.Valid() {
		panic(fmt.Sprintf("pg: segment size %d", size))
	}
	low := uint64(lsn) & 0xFFFFFFFF / uint64(size)
	return fmt.Sprintf("%08X%08X%08X", uint32(tli), uint32(lsn>>32), uint32(low))
}

// ParseSegmentName takes a segment name apart: its timeline and its first
// position. A segment number beyond what size allows is an error.
func ParseSegmentName(name string, size SegmentSize) (Timeline, LSN, error) {
	if len(name) != 24 || !isUpperHex(name) {
		return 0, 0, fmt.Errorf("WAL segment name %q: want 24 upper-case hexadecimal digits", name)
	}
	tli, _ := strconv.ParseUint(name[:8], 16, 32)
	hi, _ := strconv.ParseUint(name[8:16], 16, 32)
	low, _ := strconv.ParseUint(name[16:], 16, 32)
	if tli == 0 || low >= (1<<32)/uint64(size) {
		return 0, 0, fmt.Errorf("WAL segment name %q: impossible with segments of %d bytes", name, size)
	}
	return Timeline(tli), LSN(hi<<32 | low*uint64(size)), nil
}

// IsSegmentName reports whether name has the form of a finished WAL segment.
func IsSegmentName(name string) bool { return len(name) == 24 && isUpperHex(name) }

func isUpperHex(s string) bool {
	for i := range len(s) {
		c := s[i]
		if (c < '0' || c > '9') && (c < 'A' || c > 'F') {
			return false
		}
	}
	return true
}
