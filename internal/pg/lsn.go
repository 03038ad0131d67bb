package pg

import (
	"encoding/binary"
	"fmt"
	"strconv"
	"strings"
)

// An LSN is a byte position in write-ahead log. Zero means unknown.
//
// See PostgreSQL documentation, "pg_lsn Type".
type LSN uint64

// ParseLSN reads the form PostgreSQL prints: two hexadecimal numbers of at most
// eight digits separated by a slash, such as 1/A2000000.
func ParseLSN(s string) (LSN, error) {
	hi, lo, ok := strings.Cut(s, "/")
	if !ok || len(hi) > 8 || len(lo) > 8 {
		return 0, fmt.Errorf("LSN %q: want two hexadecimal numbers such as 1/A2000000", s)
	}
	h, errHi := strconv.ParseUint(hi, 16, 32)
	l, errLo := strconv.ParseUint(lo, 16, 32)
	if errHi != nil || errLo != nil {
		return 0, fmt.Errorf("LSN %q: want two hexadecimal numbers such as 1/A2000000", s)
	}
	return LSN(h<<32 | l), nil
}

// String prints the LSN as PostgreSQL does.
func (l LSN) String() string {
	return fmt.Sprintf("%X/%X", uint32(l>>32), uint32(l))
}

// MarshalText implements [encoding.TextMarshaler].
func (l LSN) MarshalText() ([]byte, error) { return []byte(l.String()), nil }

// UnmarshalText implements [encoding.TextUnmarshaler].
func (l *LSN) UnmarshalText(b []byte) error {
	v, err := ParseLSN(string(b))
	if err != nil {
		return err
	}
	*l = v
	return nil
}

// A Timeline is a branch of a server's history, counted from 1. Zero means unknown.
//
// See PostgreSQL documentation, "Continuous Archiving and PITR", "Timelines".
type Timeline uint32

// PageLSN returns the position after the WAL record that last changed a page, which is
// at its beginning: two numbers of 4 bytes in the server's byte order, little-endian on every
// platform that is supported. It is 0 for what is too short to be a page. See
// src/include/storage/bufpage.h.
func PageLSN(page []byte) LSN {
	if len(page) < 8 {
		return 0
	}
	return LSN(binary.LittleEndian.Uint32(page))<<32 | LSN(binary.LittleEndian.Uint32(page[4:]))
}
