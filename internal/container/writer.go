package container

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
)

// A Writer writes one container from frames that were already encoded, so that
// any number of goroutines can encode for it. It is used by one goroutine at a time.
type Writer struct {
	w      io.Writer
	header Header
	seal   *sealer // nil without a cipher
	sealed []byte  // buffer of the frame being sealed
	frames []Frame
	at     uint64 // length written
	plain  uint64
}

// NewWriter writes the header to w. It refuses a header with a cipher, because
// without a key the frames would be plain.
func NewWriter(w io.Writer, h Header) (*Writer, error) {
	if h.Cipher != Plain || h.Key != 0 {
		return nil, errors.New("a container with a cipher needs a key")
	}
	return newWriter(w, h, nil)
}

// NewSealedWriter writes the header to w and seals every frame and the index
// with a key of its own, which it derives from key. h has the cipher. The
// container can be read under the name object only.
func NewSealedWriter(w io.Writer, h Header, object string, key Key) (*Writer, error) {
	if h.Cipher == Plain || !h.Cipher.valid() || key.secret == nil {
		return nil, errors.New("a sealed container needs a cipher and a key")
	}
	h.Key = key.Number
	if _, err := rand.Read(h.salt[:]); err != nil {
		return nil, err
	}
	seal, err := key.sealer(h.append(nil), object)
	if err != nil {
		return nil, err
	}
	return newWriter(w, h, seal)
}

func newWriter(w io.Writer, h Header, seal *sealer) (*Writer, error) {
	b := h.append(nil)
	if _, err := w.Write(b); err != nil {
		return nil, err
	}
	return &Writer{w: w, header: h, seal: seal, at: uint64(len(b))}, nil
}

// WriteFrame appends one encoded frame and returns its number, from 0.
func (w *Writer) WriteFrame(stored []byte, f Frame) (int, error) {
	if w.seal != nil {
		w.sealed = w.seal.sealFrame(w.sealed[:0], stored, len(w.frames))
		stored, f.Stored = w.sealed, uint32(len(w.sealed))
	}
	if _, err := w.w.Write(stored); err != nil {
		return 0, err
	}
	w.at += uint64(len(stored))
	w.plain += uint64(f.Plain)
	w.frames = append(w.frames, f)
	return len(w.frames) - 1, nil
}

// DropFrame appends the entry of a frame whose bytes nobody needs any more.
func (w *Writer) DropFrame(f Frame) {
	f.Stored, f.Print = 0, Print{}
	w.plain += uint64(f.Plain)
	w.frames = append(w.frames, f)
}

// Len returns the bytes written so far, without the index.
func (w *Writer) Len() int64 { return int64(w.at) }

// Plain returns the plain bytes in the frames so far.
func (w *Writer) Plain() int64 { return int64(w.plain) }

// Frames returns how many frames were written.
func (w *Writer) Frames() int { return len(w.frames) }

// Finish writes index and trailer. The container is complete afterwards; the
// caller closes what lies below.
func (w *Writer) Finish() error {
	entries := make([]byte, 0, len(w.frames)*entrySize)
	for _, f := range w.frames {
		entries = f.append(entries)
	}
	length := len(entries) + w.header.overhead() + trailerSize
	b := make([]byte, 0, 8+length)
	b = binary.LittleEndian.AppendUint32(b, indexMagic)
	b = binary.LittleEndian.AppendUint32(b, uint32(length))
	if w.seal != nil {
		b = w.seal.sealIndex(b, entries, uint64(len(w.frames)), w.at)
	} else {
		b = append(b, entries...)
	}
	t := trailer{index: w.at, plain: w.plain, frames: uint32(len(w.frames)), sum: crc32.Checksum(b[8:], castagnoli)}
	b = t.append(b)
	n, err := w.w.Write(b)
	w.at += uint64(n)
	return err
}

// A StreamWriter cuts a stream of plain bytes into frames of a container.
type StreamWriter struct {
	w      *Writer
	enc    *Encoder
	plain  []byte
	stored []byte
}

// NewStreamWriter writes the header to w and encodes what is written to the
// result with the given codec and level.
func NewStreamWriter(w io.Writer, h Header, level int) (*StreamWriter, error) {
	cw, err := NewWriter(w, h)
	if err != nil {
		return nil, err
	}
	return cw.Stream(level)
}

// Stream returns a writer that cuts what is written to it into frames of w.
func (w *Writer) Stream(level int) (*StreamWriter, error) {
	enc, err := NewEncoder(w.header.Codec, level)
	if err != nil {
		return nil, err
	}
	return &StreamWriter{w: w, enc: enc, plain: make([]byte, 0, FrameLimit)}, nil
}

// Write implements [io.Writer].
func (s *StreamWriter) Write(p []byte) (int, error) {
	written := 0
	for len(p) > 0 {
		n := min(len(p), FrameLimit-len(s.plain))
		s.plain = append(s.plain, p[:n]...)
		p, written = p[n:], written+n
		if len(s.plain) == FrameLimit {
			if err := s.EndFrame(); err != nil {
				return written, err
			}
		}
	}
	return written, nil
}

// EndFrame ends the current frame, so that what follows begins a new one. It
// does nothing when the current frame is empty.
func (s *StreamWriter) EndFrame() error {
	if len(s.plain) == 0 {
		return nil
	}
	var f Frame
	var err error
	if s.stored, f, err = s.enc.Append(s.stored[:0], s.plain); err != nil {
		return err
	}
	s.plain = s.plain[:0]
	_, err = s.w.WriteFrame(s.stored, f)
	return err
}

// Frames returns how many frames were written.
func (s *StreamWriter) Frames() int { return s.w.Frames() }

// Len returns the stored bytes written so far.
func (s *StreamWriter) Len() int64 { return s.w.Len() }

// Finish ends the last frame and writes index and trailer.
func (s *StreamWriter) Finish() error {
	if err := s.EndFrame(); err != nil {
		return err
	}
	return s.w.Finish()
}
