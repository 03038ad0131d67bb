package container

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// A journal keeps a file that grows, sealed: it is a row of parts, each a header
// (kind [Journal]) and records. A record holds bytes of the file:
//
//	 0  4  n, number of plain bytes, 1 to 1 MiB
//	 4  4  number of the record in its part, from 0
//	 8  8  offset of the bytes in the file
//	16  4  size the file will have
//	20  4  zero
//	24     n+16 bytes, an AES-GCM message
//
// Its associated data are those of a frame, then the 24 bytes, then the record's
// position in the journal (8); its nonce is of domain 2. The first part begins
// at position 0, each record where the one before ends, and the bytes of a part follow
// each other. A part may begin at an offset that was reached before: then what
// earlier parts have from there on does not count any more.
//
// The journal ends at the first thing that is not such a record. So one that was
// cut off after any record, by a crash or by somebody, is a shorter journal, not a damaged one.
const (
	recordSize    = 24
	journalDomain = 2
)

func (s *sealer) recordData(header []byte, at int64) []byte {
	b := append(make([]byte, 0, len(s.bound)+recordSize+8), s.bound...)
	b = append(b, header...)
	return binary.LittleEndian.AppendUint64(b, uint64(at))
}

// A JournalWriter appends one part to a journal. It is used by one goroutine.
type JournalWriter struct {
	w      io.WriterAt
	at     int64 // position of what is written next
	size   uint32
	seal   *sealer
	number uint32
	buf    []byte // header of the part, until the first record is written with it
}

// NewJournalWriter begins a part at position at: 0, or the [JournalReader.Next] of
// what is there. size is what the file will have, object its name.
func NewJournalWriter(w io.WriterAt, at int64, size uint32, object string, c Cipher, key Key) (*JournalWriter, error) {
	if c == Plain || !c.valid() || key.secret == nil {
		return nil, errors.New("a journal needs a cipher and a key")
	}
	h := Header{Kind: Journal, Cipher: c, Key: key.Number}
	if _, err := rand.Read(h.salt[:]); err != nil {
		return nil, err
	}
	header := h.append(nil)
	seal, err := key.sealer(header, object)
	return &JournalWriter{w: w, at: at, size: size, seal: seal, buf: header}, err
}

// Next returns the position behind the last record.
func (j *JournalWriter) Next() int64 { return j.at }

// Grows returns how much a record of n bytes, which need not be one, adds to the journal at most.
func Grows(n int) int64 { return int64(n) + int64(n/FrameLimit+1)*(recordSize+tagSize) + headerSize }

// Write appends plain, which lies at offset of the file, with one call of WriteAt
// for each MiB.
func (j *JournalWriter) Write(plain []byte, offset int64) error {
	for len(plain) > 0 {
		n := min(len(plain), FrameLimit)
		if err := j.record(plain[:n], offset); err != nil {
			return err
		}
		plain, offset = plain[n:], offset+int64(n)
	}
	return nil
}

func (j *JournalWriter) record(plain []byte, offset int64) error {
	if j.number == 1<<32-1 {
		return errors.New("too many records in one part of a journal")
	}
	before := len(j.buf) // 0 but for the first record
	var h [recordSize]byte
	le := binary.LittleEndian
	le.PutUint32(h[0:], uint32(len(plain)))
	le.PutUint32(h[4:], j.number)
	le.PutUint64(h[8:], uint64(offset))
	le.PutUint32(h[16:], j.size)
	j.buf = append(j.buf, h[:]...)
	j.buf = j.seal.aead.Seal(j.buf, nonce(journalDomain, uint64(j.number)), plain, j.seal.recordData(h[:], j.at+int64(before)))
	if _, err := j.w.WriteAt(j.buf, j.at); err != nil {
		return err
	}
	j.at += int64(len(j.buf))
	j.number++
	j.buf = j.buf[:0]
	return nil
}

// A JournalReader reads what a journal holds from its beginning. It is used by one goroutine.
type JournalReader struct {
	name  string
	r     io.ReaderAt
	parts []journalPart
	next  int64
	size  uint32
	end   int64

	// where reading is
	part   int
	at     int64
	number uint32
	offset int64 // of the next byte to return
	buf    []byte
	rest   []byte // of the record, in buf
}

type journalPart struct {
	seal  *sealer
	at    int64 // position of the first record
	start int64 // offset of its first byte
	limit int64 // from here on a later part counts
}

// OpenJournal reads a journal to its end, checking every record. keys is asked for
// the keys; the error is a [*KeyError] when one cannot be had. Something that
// is no journal is an empty one.
func OpenJournal(name string, r io.ReaderAt, keys Keys) (*JournalReader, error) {
	j := &JournalReader{name: name, r: r}
	var part *journalPart
	for at, number := int64(0), uint32(0); ; {
		seal, err := j.header(at, keys)
		if err != nil {
			return nil, err
		}
		if seal != nil {
			at, number = at+headerSize, 0
			part = &journalPart{seal: seal, at: at}
		}
		if part == nil {
			break
		}
		offset, size, n, err := j.record(part.seal, at, number)
		if err != nil {
			return nil, err
		}
		// In a part bytes follow each other; a new part may go back, but leaves no gap.
		if n == 0 || number > 0 && offset != j.end || offset > j.end {
			break
		}
		if number == 0 {
			j.begin(part, offset)
		}
		j.size, j.end = size, offset+int64(n)
		at += recordSize + int64(n) + tagSize
		j.next = at
		number++
	}
	j.Rewind()
	return j, nil
}

// begin adds a part that begins at offset.
func (j *JournalReader) begin(part *journalPart, offset int64) {
	for i := range j.parts {
		j.parts[i].limit = min(j.parts[i].limit, offset)
	}
	part.start, part.limit = offset, 1<<62
	j.parts = append(j.parts, *part)
}

// header returns the keys of the part that begins at a position, nil if none does.
func (j *JournalReader) header(at int64, keys Keys) (*sealer, error) {
	var b [headerSize]byte
	if ok, err := j.readAt(b[:], at); !ok {
		return nil, err
	}
	h, err := parseHeader(b[:])
	if err != nil || h.Kind != Journal || h.Cipher == Plain {
		return nil, nil // it is something else, such as a record
	}
	key, err := keys(h.Key)
	if err != nil {
		return nil, &KeyError{Object: j.name, Number: h.Key, Err: err}
	}
	return key.sealer(b[:], j.name)
}

// record reads the record at a position into buf. n is 0 when there is none.
func (j *JournalReader) record(seal *sealer, at int64, number uint32) (offset int64, size uint32, n int, err error) {
	var h [recordSize]byte
	if ok, err := j.readAt(h[:], at); !ok {
		return 0, 0, 0, err
	}
	le := binary.LittleEndian
	length := le.Uint32(h[0:])
	if length == 0 || length > FrameLimit || le.Uint32(h[4:]) != number || le.Uint64(h[8:]) > 1<<40 {
		return 0, 0, 0, nil
	}
	if j.buf == nil {
		j.buf = make([]byte, FrameLimit+tagSize)
	}
	sealed := j.buf[:length+tagSize]
	if ok, err := j.readAt(sealed, at+recordSize); !ok {
		return 0, 0, 0, err
	}
	plain, err := seal.aead.Open(sealed[:0], nonce(journalDomain, uint64(number)), sealed, seal.recordData(h[:], at))
	if err != nil {
		return 0, 0, 0, nil // here the journal ends
	}
	return int64(le.Uint64(h[8:])), le.Uint32(h[16:]), len(plain), nil
}

// readAt reports whether there are as many bytes as b has. Only a failing disk is an error.
func (j *JournalReader) readAt(b []byte, at int64) (bool, error) {
	n, err := j.r.ReadAt(b, at)
	if n == len(b) {
		return true, nil
	}
	if errors.Is(err, io.EOF) {
		return false, nil
	}
	return false, fmt.Errorf("read %s: %w", j.name, err)
}

// End returns how many bytes of the file there are.
func (j *JournalReader) End() int64 { return j.end }

// Size returns the size that the file will have, 0 when nothing of it is there.
func (j *JournalReader) Size() int64 { return int64(j.size) }

// Next returns the position at which another part can be appended.
func (j *JournalReader) Next() int64 { return j.next }

// Rewind makes the next Read begin at the first byte again.
func (j *JournalReader) Rewind() {
	j.part, j.offset, j.rest = -1, 0, nil
}

// Read implements [io.Reader]. Every byte returned was checked.
func (j *JournalReader) Read(p []byte) (int, error) {
	for len(j.rest) == 0 {
		if j.offset >= j.end {
			return 0, io.EOF
		}
		if err := j.advance(); err != nil {
			return 0, err
		}
	}
	n := copy(p, j.rest)
	j.rest = j.rest[n:]
	j.offset += int64(n)
	return n, nil
}

// advance reads the record that holds the byte at offset.
func (j *JournalReader) advance() error {
	for j.part < 0 || j.offset >= j.parts[j.part].limit {
		j.part++
		if j.part == len(j.parts) {
			return &DamagedError{Object: j.name, Frame: -1, Err: errors.New("changed while it was read")}
		}
		p := j.parts[j.part]
		if p.start >= p.limit {
			continue // nothing of it counts
		}
		j.at, j.number = p.at, 0
		break
	}
	p := j.parts[j.part]
	offset, _, n, err := j.record(p.seal, j.at, j.number)
	if err != nil {
		return err
	}
	if n == 0 || offset != j.offset {
		return &DamagedError{Object: j.name, Frame: -1, Err: errors.New("changed while it was read")}
	}
	j.at += recordSize + int64(n) + tagSize
	j.number++
	j.rest = j.buf[:min(int64(n), p.limit-offset)]
	return nil
}
