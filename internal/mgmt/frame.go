package mgmt

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
)

// Layout of the header of a frame:
//
//	offset size
//	0      1    [Compression] of the body
//	1      1    [Encryption] of the body
//	2      4    length of the body in bytes, big-endian
const headerSize = 6

// MaxRequest is the longest body a server accepts in bytes. Requests are a few hundred bytes.
const MaxRequest = 16 << 20

// maxResponse is the longest body a client accepts. A verification that lists all of five million files
// needs about a gigabyte; the length is 32 bits wide.
const maxResponse = math.MaxUint32

// ErrTooLong reports a body beyond the limit of its reader.
var ErrTooLong = errors.New("frame too long")

// A CodingError reports codes of a frame that the protocol does not define.
type CodingError struct{ Coding Coding }

func (e *CodingError) Error() string {
	return fmt.Sprintf("frame with compression %d and encryption %d: compressions are 0 to %d, encryptions 0 to %d",
		e.Coding.Compression, e.Coding.Encryption, CompressionBzip2, EncryptionAES128)
}

type header struct {
	coding Coding
	length uint32
}

func readHeader(r io.Reader) (header, error) {
	var b [headerSize]byte
	if _, err := io.ReadFull(r, b[:]); err != nil {
		return header{}, fmt.Errorf("read frame header: %w", err)
	}
	return header{coding: Coding{Compression(b[0]), Encryption(b[1])}, length: binary.BigEndian.Uint32(b[2:])}, nil
}

// check refuses a frame before its body is read.
func (h header) check(limit uint32) error {
	if !h.coding.known() {
		return &CodingError{h.coding}
	}
	if h.length > limit {
		return fmt.Errorf("%w: %d bytes, at most %d", ErrTooLong, h.length, limit)
	}
	return nil
}

// readBody reads the body of h. Memory grows with what arrives, not with what was announced.
func readBody(r io.Reader, h header) ([]byte, error) {
	var body bytes.Buffer
	n, err := io.Copy(&body, io.LimitReader(r, int64(h.length)))
	if err != nil {
		return nil, fmt.Errorf("read frame body: %w", err)
	}
	if n < int64(h.length) {
		return nil, fmt.Errorf("read frame body: %d of %d bytes: %w", n, h.length, io.ErrUnexpectedEOF)
	}
	return body.Bytes(), nil
}

// newFrame returns doc as a frame. Header and body leave in one write: readers of
// 0.22 give up after a hundred partial reads.
func newFrame(doc Document, coding Coding, keys KeySource) ([]byte, error) {
	text, err := doc.Append(make([]byte, headerSize))
	if err != nil {
		return nil, err
	}
	frame := text
	if !coding.plain() {
		body, err := coding.encode(text[headerSize:], keys)
		if err != nil {
			return nil, err
		}
		frame = append(make([]byte, headerSize), body...)
	}
	length := len(frame) - headerSize
	if uint64(length) > math.MaxUint32 {
		return nil, fmt.Errorf("%w: %d bytes", ErrTooLong, length)
	}
	frame[0], frame[1] = byte(coding.Compression), byte(coding.Encryption)
	binary.BigEndian.PutUint32(frame[2:], uint32(length))
	return frame, nil
}
