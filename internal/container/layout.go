package container

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"hash/crc32"
)

// FrameLimit is the largest number of plain bytes in a frame: 128 pages of 8 KiB.
const FrameLimit = 1 << 20

// Version is the format this package writes and the only one it reads.
const Version = 1

// Header, a skippable frame:
//
//	 0  4  0x184D2A50, magic of a skippable frame
//	 4  4  56, length of what follows
//	 8  8  "pgmoneta"
//	16  2  format version
//	18  1  kind
//	19  1  codec
//	20  1  cipher, 0 = none
//	21  3  number of the repository key, zero without a cipher
//	24  4  frame limit, bytes
//	28  4  CRC-32C of bytes 0 to 27 and 32 to 63
//	32 32  salt of the object's key, zero without a cipher
const (
	headerSize     = 64
	headerMagic    = "pgmoneta"
	skippableMagic = 0x184D2A50
)

// Index, a skippable frame that ends the file:
//
//	 0  4  0x184D2A51, magic of a skippable frame
//	 4  4  56 n + 40, length of what follows; 16 more with a cipher
//	 8     n entries of 56 bytes: plain length (4), stored length (4), SHA-256 of the plain bytes (32),
//	       their print (16), which is zero but in packs;
//	       with a cipher they are one AES-GCM message, which ends in a tag of 16 bytes
//	       trailer:
//	 0  8  position of the index frame in the file
//	 8  8  sum of the plain lengths
//	16  4  n, number of frames
//	20  4  CRC-32C of the entries as they are stored
//	24  4  format version
//	28  4  CRC-32C of bytes 0 to 27 of the trailer
//	32  8  "atenomgp"
const (
	indexMagic   = 0x184D2A51
	entrySize    = 56
	trailerSize  = 40
	trailerMagic = "atenomgp"
)

// storedLimit bounds the stored length of a frame. No codec here expands a
// frame by more than a few bytes per block.
const storedLimit = FrameLimit + FrameLimit/16 + 4096

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// A Kind tells what an object is, so that one cannot pass for another.
type Kind uint8

// Kinds of objects.
const (
	Pack     Kind = 1 // frames of file data
	Manifest Kind = 2 // description of a backup, or PostgreSQL's own manifest
	Segment  Kind = 3 // one WAL segment
	Record   Kind = 4 // a small object that without a cipher is stored as it is: a timeline history, a hole
	Journal  Kind = 5 // part of a journal, no object: the segment being received
	File     Kind = 6 // a single file that left the repository, no object: see package sealed
)

func (k Kind) String() string {
	switch k {
	case Pack:
		return "pack"
	case Manifest:
		return "manifest"
	case Segment:
		return "WAL segment"
	case Record:
		return "record"
	case Journal:
		return "journal"
	case File:
		return "sealed file"
	}
	return fmt.Sprintf("kind %d", uint8(k))
}

// A Header begins a container.
type Header struct {
	Kind   Kind
	Codec  Codec
	Cipher Cipher
	Key    uint32 // number of the repository key, 0 without a cipher

	salt [saltSize]byte // zero without a cipher
}

func (h Header) append(dst []byte) []byte {
	b := make([]byte, headerSize)
	le := binary.LittleEndian
	le.PutUint32(b[0:], skippableMagic)
	le.PutUint32(b[4:], headerSize-8)
	copy(b[8:], headerMagic)
	le.PutUint16(b[16:], Version)
	b[18], b[19], b[20] = byte(h.Kind), byte(h.Codec), byte(h.Cipher)
	b[21], b[22], b[23] = byte(h.Key), byte(h.Key>>8), byte(h.Key>>16)
	le.PutUint32(b[24:], FrameLimit)
	copy(b[32:], h.salt[:])
	le.PutUint32(b[28:], headerSum(b))
	return append(dst, b...)
}

func headerSum(b []byte) uint32 {
	return crc32.Update(crc32.Checksum(b[:28], castagnoli), castagnoli, b[32:headerSize])
}

// Begins reports whether b begins like a container.
func Begins(b []byte) bool {
	return len(b) >= headerSize && binary.LittleEndian.Uint32(b) == skippableMagic && string(b[8:16]) == headerMagic
}

func parseHeader(b []byte) (Header, error) {
	le := binary.LittleEndian
	switch {
	case !Begins(b):
		return Header{}, fmt.Errorf("not a pgmoneta container")
	case le.Uint32(b[28:]) != headerSum(b):
		return Header{}, fmt.Errorf("header checksum is wrong")
	case le.Uint16(b[16:]) != Version:
		return Header{}, fmt.Errorf("format version %d; this program reads version %d", le.Uint16(b[16:]), Version)
	case !Cipher(b[20]).valid():
		return Header{}, fmt.Errorf("cipher %d is not known to this version", b[20])
	case le.Uint32(b[24:]) != FrameLimit:
		return Header{}, fmt.Errorf("frame limit %d; this program reads %d", le.Uint32(b[24:]), FrameLimit)
	}
	h := Header{Kind: Kind(b[18]), Codec: Codec(b[19]), Cipher: Cipher(b[20]), Key: uint32(b[21]) | uint32(b[22])<<8 | uint32(b[23])<<16}
	copy(h.salt[:], b[32:])
	if !h.Codec.valid() {
		return Header{}, fmt.Errorf("codec %d is not known to this version", b[19])
	}
	if sealed := h.Cipher != Plain; sealed != (h.Key != 0) || !sealed && h.salt != [saltSize]byte{} {
		return Header{}, fmt.Errorf("cipher %s with repository key %d", h.Cipher, h.Key)
	}
	return h, nil
}

// overhead is what sealing adds to a message.
func (h Header) overhead() int {
	if h.Cipher == Plain {
		return 0
	}
	return tagSize
}

// A Frame is an entry of the index.
type Frame struct {
	Plain  uint32            // length of the plain bytes
	Stored uint32            // length in the file
	Sum    [sha256.Size]byte // SHA-256 of the plain bytes
	Print  Print             // by which an equal frame is found; zero for none
}

// Dropped reports whether the bytes of the frame are not in the container any more. Its
// entry stays, so that the numbers of the frames after it stay.
func (f Frame) Dropped() bool { return f.Stored == 0 && f.Plain > 0 }

func (f Frame) append(dst []byte) []byte {
	dst = binary.LittleEndian.AppendUint32(dst, f.Plain)
	dst = binary.LittleEndian.AppendUint32(dst, f.Stored)
	dst = append(dst, f.Sum[:]...)
	return append(dst, f.Print[:]...)
}

func parseFrame(b []byte) Frame {
	f := Frame{Plain: binary.LittleEndian.Uint32(b), Stored: binary.LittleEndian.Uint32(b[4:])}
	copy(f.Sum[:], b[8:])
	copy(f.Print[:], b[8+sha256.Size:])
	return f
}

type trailer struct {
	index  uint64
	plain  uint64
	frames uint32
	sum    uint32 // of the entries
}

func (t trailer) append(dst []byte) []byte {
	b := make([]byte, trailerSize)
	le := binary.LittleEndian
	le.PutUint64(b[0:], t.index)
	le.PutUint64(b[8:], t.plain)
	le.PutUint32(b[16:], t.frames)
	le.PutUint32(b[20:], t.sum)
	le.PutUint32(b[24:], Version)
	le.PutUint32(b[28:], crc32.Checksum(b[:28], castagnoli))
	copy(b[32:], trailerMagic)
	return append(dst, b...)
}

func parseTrailer(b []byte) (trailer, error) {
	le := binary.LittleEndian
	switch {
	case string(b[32:40]) != trailerMagic:
		return trailer{}, fmt.Errorf("the end is missing: the file was cut off or overwritten")
	case le.Uint32(b[28:]) != crc32.Checksum(b[:28], castagnoli):
		return trailer{}, fmt.Errorf("trailer checksum is wrong")
	case le.Uint32(b[24:]) != Version:
		return trailer{}, fmt.Errorf("trailer of format version %d", le.Uint32(b[24:]))
	}
	return trailer{index: le.Uint64(b), plain: le.Uint64(b[8:]), frames: le.Uint32(b[16:]), sum: le.Uint32(b[20:])}, nil
}
