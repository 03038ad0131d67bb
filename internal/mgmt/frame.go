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
//	0      1    compression code of the body: 0 none
//	1      1    encryption code of the body: 0 none
//	2      4    length of the body in bytes, big-endian
const headerSize = 6

// MaxRequest is the longest body a server accepts in bytes. Requests are a few hundred bytes.
const MaxRequest = 16 << 20

// maxResponse is the longest body a client accepts. A verification that lists all of five million files
// needs about a gigabyte; the length is 32 bits wide.
const maxResponse = math.MaxUint32

// ErrTooLong reports a body beyond the limit of its reader.
var ErrTooLong = errors.New("frame too long")

// A CodecError reports a frame whose body is compressed or encrypted.
type CodecError struct {
	Compression, Encryption byte
}

func (e *CodecError) Error() string {
	return fmt.Sprintf("frame with compression %d and encryption %d: this version reads plain frames only: "+
		"use compression none and encryption none", e.Compression, e.Encryption)
}

type header struct {
	compression, encryption byte
	length                  uint32
}

func readHeader(r io.Reader) (header, error) {
	var b [headerSize]byte
	if _, err := io.ReadFull(r, b[:]); err != nil {
		return header{}, fmt.Errorf("read frame header: %w", err)
	}
	return header{compression: b[0], encryption: b[1], length: binary.BigEndian.Uint32(b[2:])}, nil
}

// check refuses a frame before its body is read.
func (h header) check(limit uint32) error {
	if h.compression != 0 || h.encryption != 0 {
		return &CodecError{Compression: h.compression, Encryption: h.encryption}
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

// appendFrame appends doc as a plain frame. Header and body leave in one write: readers of
// 0.22 give up after a hundred partial reads.
func appendFrame(dst []byte, doc Document) ([]byte, error) {
	start := len(dst)
	frame, err := doc.Append(append(dst, make([]byte, headerSize)...))
	if err != nil {
		return nil, err
	}
	length := len(frame) - start - headerSize
	if uint64(length) > math.MaxUint32 {
		return nil, fmt.Errorf("%w: %d bytes", ErrTooLong, length)
	}
	binary.BigEndian.PutUint32(frame[start+2:], uint32(length))
	return frame, nil
}
