package container

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
)

// A DamagedError reports an object whose bytes are not what was written.
type DamagedError struct {
	Object string // name of the object
	Frame  int    // number of the frame, -1 for the container itself
	Err    error
}

func (e *DamagedError) Error() string {
	if e.Frame < 0 {
		return fmt.Sprintf("%s is damaged: %v", e.Object, e.Err)
	}
	return fmt.Sprintf("%s is damaged: frame %d: %v", e.Object, e.Frame, e.Err)
}

func (e *DamagedError) Unwrap() error { return e.Err }

// A Reader reads a container at random. Its methods are safe for concurrent use
// if each goroutine brings its own [Decoder].
type Reader struct {
	name    string
	r       io.ReaderAt
	header  Header
	seal    *sealer // nil without a cipher
	frames  []Frame
	offsets []int64 // len(frames)+1
	plain   int64
	printer *Printer
}

// UsePrinter makes the reader check frames by their prints: as sure against damage
// as their SHA-256, and in a seventh of the time. Where a print does not agree, or
// there is none, the SHA-256 decides. It must be called before frames are read; p
// may be nil.
func (c *Reader) UsePrinter(p *Printer) { c.printer = p }

// NewReader reads header, index and trailer of the container of the given size.
// name is used in errors. The container must be of kind want and not sealed.
func NewReader(name string, r io.ReaderAt, size int64, want Kind) (*Reader, error) {
	return Open(name, r, size, want, func(uint32) (Key, error) { return Key{}, ErrNoKeys })
}

// Open is [NewReader] for containers that may be sealed: keys is asked for the key
// of one that is, and name must be the name it was stored under. The error is a
// [*KeyError] when the key cannot be had. Whether a plain container is
// acceptable at this place is for the caller to decide, by [Reader.Header].
func Open(name string, r io.ReaderAt, size int64, want Kind, keys Keys) (*Reader, error) {
	c := &Reader{name: name, r: r}
	err := c.open(size, want, keys)
	var (
		read *readError
		key  *KeyError
	)
	switch {
	case err == nil:
		return c, nil
	case errors.As(err, &read):
		return nil, fmt.Errorf("read %s: %w", name, read.error)
	case errors.As(err, &key):
		return nil, err
	}
	return nil, &DamagedError{Object: name, Frame: -1, Err: err}
}

// readError separates a failing disk from damaged content.
type readError struct{ error }

func (c *Reader) readAt(b []byte, at int64) error {
	n, err := c.r.ReadAt(b, at)
	if n == len(b) {
		return nil
	}
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return &readError{err}
}

func (c *Reader) open(size int64, want Kind, keys Keys) error {
	if size < headerSize+8+trailerSize {
		return fmt.Errorf("only %d bytes long", size)
	}
	var b [headerSize]byte
	if err := c.readAt(b[:], 0); err != nil {
		return err
	}
	var err error
	if c.header, err = parseHeader(b[:]); err != nil {
		return err
	}
	if c.header.Kind != want {
		return fmt.Errorf("is a %s, want a %s", c.header.Kind, want)
	}
	if err := c.unlock(b[:], keys); err != nil {
		return err
	}
	if err := c.readAt(b[:trailerSize], size-trailerSize); err != nil {
		return err
	}
	t, err := parseTrailer(b[:trailerSize])
	if err != nil {
		return err
	}
	return c.readIndex(t, size)
}

// unlock prepares the key of a sealed container.
func (c *Reader) unlock(header []byte, keys Keys) error {
	if c.header.Cipher == Plain {
		return nil
	}
	key, err := keys(c.header.Key)
	if err != nil {
		return &KeyError{Object: c.name, Number: c.header.Key, Err: err}
	}
	c.seal, err = key.sealer(header, c.name)
	return err
}

func (c *Reader) readIndex(t trailer, size int64) error {
	length := int64(t.frames)*entrySize + int64(c.header.overhead()) + trailerSize
	if t.index > uint64(size) || int64(t.index)+8+length != size {
		return errors.New("index position disagrees with the size of the file")
	}
	b := make([]byte, 8+length-trailerSize)
	if err := c.readAt(b, int64(t.index)); err != nil {
		return err
	}
	if binary.LittleEndian.Uint32(b) != indexMagic || int64(binary.LittleEndian.Uint32(b[4:])) != length {
		return errors.New("index frame is missing")
	}
	b = b[8:]
	if crc32.Checksum(b, castagnoli) != t.sum {
		return errors.New("index checksum is wrong")
	}
	if c.seal != nil {
		var err error
		if b, err = c.seal.openIndex(b, uint64(t.frames), t.index); err != nil {
			return fmt.Errorf("index: %w", err)
		}
	}
	c.frames = make([]Frame, t.frames)
	c.offsets = make([]int64, t.frames+1)
	at := int64(headerSize)
	for i := range c.frames {
		f := parseFrame(b[i*entrySize:])
		short := int(f.Stored) < c.header.overhead() && !(f.Dropped() && c.header.Kind == Pack)
		if f.Plain > FrameLimit || f.Stored > storedLimit || short {
			return fmt.Errorf("frame %d claims %d plain and %d stored bytes", i, f.Plain, f.Stored)
		}
		c.frames[i], c.offsets[i] = f, at
		at += int64(f.Stored)
		c.plain += int64(f.Plain)
	}
	c.offsets[t.frames] = at
	if at != int64(t.index) || c.plain != int64(t.plain) {
		return errors.New("lengths in the index do not add up")
	}
	return nil
}

// Name returns the name the reader was opened with.
func (c *Reader) Name() string { return c.name }

// Header returns the container's header.
func (c *Reader) Header() Header { return c.header }

// Frames returns the number of frames.
func (c *Reader) Frames() int { return len(c.frames) }

// Frame returns the index entry of frame i.
func (c *Reader) Frame(i int) Frame { return c.frames[i] }

// Plain returns the sum of the frames' plain lengths.
func (c *Reader) Plain() int64 { return c.plain }

// A Scratch holds the buffers and decoders of one reading goroutine.
type Scratch struct {
	dec    Decoder
	stored []byte
	plain  []byte
}

// Close releases the decoders.
func (s *Scratch) Close() { s.dec.Close() }

// ErrDropped reports a frame that was needed by no backup when its pack was compacted.
var ErrDropped = errors.New("it was dropped when no backup needed it")

// ReadFrame returns the plain bytes of frame i, checked. They lie in s and are
// valid until its next use.
func (c *Reader) ReadFrame(i int, s *Scratch) ([]byte, error) {
	_, plain, err := c.ReadEncoded(i, s)
	return plain, err
}

// ReadEncoded returns frame i as its encoder made it, and its plain bytes, checked. Both
// lie in s and are valid until its next use.
func (c *Reader) ReadEncoded(i int, s *Scratch) (encoded, plain []byte, err error) {
	encoded, err = c.readStored(i, s)
	if err != nil {
		return nil, nil, err
	}
	if s.plain == nil {
		s.plain = make([]byte, 0, FrameLimit+1)
	}
	plain, err = s.dec.decodeChecked(s.plain[:0], c.header.Codec, c.frames[i], encoded, c.printer)
	if err != nil {
		return nil, nil, &DamagedError{Object: c.name, Frame: i, Err: err}
	}
	return encoded, plain, nil
}

// readStored returns the stored bytes of frame i, opened if they were sealed.
func (c *Reader) readStored(i int, s *Scratch) ([]byte, error) {
	if i < 0 || i >= len(c.frames) {
		return nil, &DamagedError{Object: c.name, Frame: i, Err: fmt.Errorf("the object has %d frames", len(c.frames))}
	}
	f := c.frames[i]
	if f.Dropped() {
		return nil, &DamagedError{Object: c.name, Frame: i, Err: ErrDropped}
	}
	if cap(s.stored) < int(f.Stored) {
		s.stored = make([]byte, storedLimit)
	}
	stored := s.stored[:f.Stored]
	if err := c.readAt(stored, c.offsets[i]); err != nil {
		var read *readError
		if errors.As(err, &read) {
			return nil, fmt.Errorf("read %s: %w", c.name, read.error)
		}
		return nil, &DamagedError{Object: c.name, Frame: i, Err: err}
	}
	if c.seal != nil {
		var err error
		if stored, err = c.seal.openFrame(stored, i); err != nil {
			return nil, &DamagedError{Object: c.name, Frame: i, Err: err}
		}
	}
	return stored, nil
}

// Matches reports whether plain is the content of frame i, by its print or its SHA-256.
// Nothing is read.
func (c *Reader) Matches(i int, plain []byte) bool {
	f := c.frames[i]
	if len(plain) != int(f.Plain) {
		return false
	}
	return c.printer != nil && c.printer.Print(plain) == f.Print || sha256.Sum256(plain) == f.Sum
}

// A Stream reads the plain bytes of a container from first to last.
type Stream struct {
	c    *Reader
	s    Scratch
	next int
	rest []byte
}

// Stream returns a new stream over c. Close it.
func (c *Reader) Stream() *Stream { return &Stream{c: c} }

// Read implements [io.Reader]. Every byte returned was checked.
func (s *Stream) Read(p []byte) (int, error) {
	for len(s.rest) == 0 {
		if s.next == len(s.c.frames) {
			return 0, io.EOF
		}
		var err error
		if s.rest, err = s.c.ReadFrame(s.next, &s.s); err != nil {
			return 0, err
		}
		s.next++
	}
	n := copy(p, s.rest)
	s.rest = s.rest[n:]
	return n, nil
}

// WriteTo implements [io.WriterTo] without a copy in between.
func (s *Stream) WriteTo(w io.Writer) (int64, error) {
	var total int64
	for {
		if len(s.rest) > 0 {
			n, err := w.Write(s.rest)
			total += int64(n)
			s.rest = s.rest[n:]
			if err != nil {
				return total, err
			}
		}
		if s.next == len(s.c.frames) {
			return total, nil
		}
		var err error
		if s.rest, err = s.c.ReadFrame(s.next, &s.s); err != nil {
			return total, err
		}
		s.next++
	}
}

// Close releases the stream's buffers.
func (s *Stream) Close() error { s.s.Close(); return nil }
