package container

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"

	"github.com/dsnet/compress/bzip2"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
)

// A Codec is a compression format.
type Codec uint8

// Codecs. Each frame is one complete zstd frame, gzip member, LZ4 frame or bzip2 stream.
const (
	None  Codec = 0
	Gzip  Codec = 1
	Zstd  Codec = 2
	LZ4   Codec = 3
	Bzip2 Codec = 4
)

func (c Codec) valid() bool { return c <= Bzip2 }

func (c Codec) String() string {
	if !c.valid() {
		return fmt.Sprintf("codec %d", uint8(c))
	}
	return [...]string{"none", "gzip", "zstd", "lz4", "bzip2"}[c]
}

// ParseCodec returns the codec of a name, also of its other name "bz2".
func ParseCodec(name string) (Codec, error) {
	if name == "bz2" {
		return Bzip2, nil
	}
	for c := None; c.valid(); c++ {
		if c.String() == name {
			return c, nil
		}
	}
	return 0, fmt.Errorf("codec %q is not known", name)
}

// An Encoder turns plain bytes into frames. It is used by one goroutine at a time.
type Encoder struct {
	codec Codec
	zstd  *zstd.Encoder
	// resettable writers of the stream codecs
	stream interface {
		io.WriteCloser
	}
	reset func(io.Writer) error
	out   bytes.Buffer
}

// NewEncoder returns an encoder. level is the codec's own scale as the
// configuration gives it (zstd 1 to 22, gzip and bzip2 1 to 9, lz4 1 to 12);
// values outside are clamped. The zstd library has four grades; levels up to 3
// use the fastest, which on relation files compresses as well as the next one
// in two thirds of the time.
func NewEncoder(codec Codec, level int) (*Encoder, error) { return newEncoder(codec, level, false) }

// NewCheckedEncoder is [NewEncoder] for frames that carry a checksum of their own,
// where the codec has one: for a stream without an index.
func NewCheckedEncoder(codec Codec, level int) (*Encoder, error) {
	return newEncoder(codec, level, true)
}

func newEncoder(codec Codec, level int, checked bool) (*Encoder, error) {
	e := &Encoder{codec: codec}
	switch codec {
	case None:
		return e, nil
	case Zstd:
		var err error
		e.zstd, err = zstd.NewWriter(nil,
			zstd.WithEncoderConcurrency(1),
			// Before the level, which would halve the blocks: a frame of 128 KiB is one
			// block then, which is smaller and needs no history.
			zstd.WithWindowSize(FrameLimit),
			zstd.WithEncoderLevel(zstdLevel(level)),
			zstd.WithEncoderCRC(checked)) // the index has a SHA-256 of each frame
		return e, err
	case Gzip:
		w, err := gzip.NewWriterLevel(io.Discard, min(max(level, 1), 9))
		e.stream, e.reset = w, func(out io.Writer) error { w.Reset(out); return nil }
		return e, err
	case LZ4:
		w := lz4.NewWriter(io.Discard)
		err := w.Apply(lz4.CompressionLevelOption(lz4Level(level)), lz4.ConcurrencyOption(1), lz4.ChecksumOption(checked))
		e.stream, e.reset = w, func(out io.Writer) error { w.Reset(out); return nil }
		return e, err
	case Bzip2:
		w, err := bzip2.NewWriter(io.Discard, &bzip2.WriterConfig{Level: min(max(level, 1), 9)})
		e.stream, e.reset = w, func(out io.Writer) error { return w.Reset(out) }
		return e, err
	}
	return nil, fmt.Errorf("compress: %v", codec)
}

func zstdLevel(level int) zstd.EncoderLevel {
	if level <= 3 {
		return zstd.SpeedFastest
	}
	return zstd.EncoderLevelFromZstd(level)
}

// lz4Level maps the documented scale, where 3 and below is the fast mode.
func lz4Level(level int) lz4.CompressionLevel {
	if level <= 3 {
		return lz4.Fast
	}
	return lz4.CompressionLevel(1 << (8 + min(level-3, 9)))
}

// Append encodes plain, which must not be longer than [FrameLimit], behind dst
// and returns the grown slice and the frame's index entry.
func (e *Encoder) Append(dst, plain []byte) ([]byte, Frame, error) {
	return e.AppendSummed(dst, plain, sum(plain))
}

// AppendSummed is [Encoder.Append] for plain bytes whose SHA-256 is known.
func (e *Encoder) AppendSummed(dst, plain []byte, sum [sha256.Size]byte) ([]byte, Frame, error) {
	if len(plain) > FrameLimit {
		return dst, Frame{}, fmt.Errorf("frame of %d bytes, limit is %d", len(plain), FrameLimit)
	}
	f := Frame{Plain: uint32(len(plain)), Sum: sum}
	before := len(dst)
	switch {
	case e.codec == None:
		dst = append(dst, plain...)
	case e.zstd != nil:
		dst = e.zstd.EncodeAll(plain, dst)
	default:
		e.out.Reset()
		err := e.reset(&e.out)
		if err == nil {
			_, err = e.stream.Write(plain)
		}
		if err := errors.Join(err, e.stream.Close()); err != nil {
			return dst, Frame{}, fmt.Errorf("compress with %s: %w", e.codec, err)
		}
		dst = append(dst, e.out.Bytes()...)
	}
	f.Stored = uint32(len(dst) - before)
	return dst, f, nil
}

// A Decoder turns frames back into plain bytes. It is used by one goroutine at a time.
type Decoder struct {
	zstd *zstd.Decoder
	gzip *gzip.Reader
	lz4  *lz4.Reader
}

// NewDecoder returns a decoder for every codec.
func NewDecoder() *Decoder { return &Decoder{} }

// Decode appends the plain bytes of one stored frame to dst. It checks length
// and SHA-256 against the index entry.
func (d *Decoder) Decode(dst []byte, codec Codec, f Frame, stored []byte) ([]byte, error) {
	return d.decodeChecked(dst, codec, f, stored, nil)
}

// decodeChecked takes the print for the SHA-256 when it agrees. A print that does
// not agree proves nothing: it may have been made with another key.
func (d *Decoder) decodeChecked(dst []byte, codec Codec, f Frame, stored []byte, p *Printer) ([]byte, error) {
	out, err := d.decodeWhole(dst, codec, f, stored)
	if err != nil {
		return dst, err
	}
	plain := out[len(dst):]
	if p != nil && p.Print(plain) == f.Print {
		return out, nil
	}
	if sum(plain) != f.Sum {
		return dst, errSum
	}
	return out, nil
}

var errSum = errors.New("SHA-256 differs from the index")

// decodeWhole appends the plain bytes of a frame to dst, as many as its entry says.
func (d *Decoder) decodeWhole(dst []byte, codec Codec, f Frame, stored []byte) ([]byte, error) {
	out, err := d.decode(dst, codec, f, stored)
	if err != nil {
		return dst, err
	}
	if n := len(out) - len(dst); n != int(f.Plain) {
		return dst, fmt.Errorf("has %d plain bytes, index says %d", n, f.Plain)
	}
	return out, nil
}

func (d *Decoder) decode(dst []byte, codec Codec, f Frame, stored []byte) ([]byte, error) {
	if codec == None {
		return append(dst, stored...), nil
	}
	if codec == Zstd {
		if d.zstd == nil {
			var err error
			d.zstd, err = zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(2*FrameLimit))
			if err != nil {
				return nil, err
			}
		}
		return d.zstd.DecodeAll(stored, dst)
	}
	r, err := d.stream(codec, bytes.NewReader(stored))
	if err != nil {
		return nil, err
	}
	// One byte more than announced shows a frame that is too long.
	out := bytes.NewBuffer(dst)
	_, err = io.Copy(out, io.LimitReader(r, int64(f.Plain)+1))
	return out.Bytes(), err
}

func (d *Decoder) stream(codec Codec, in *bytes.Reader) (io.Reader, error) {
	switch codec {
	case Gzip:
		if d.gzip == nil {
			d.gzip = new(gzip.Reader)
		}
		return d.gzip, d.gzip.Reset(in)
	case LZ4:
		if d.lz4 == nil {
			d.lz4 = lz4.NewReader(nil)
		}
		d.lz4.Reset(in)
		return d.lz4, nil
	case Bzip2:
		return bzip2.NewReader(in, nil)
	}
	return nil, fmt.Errorf("decompress: %v", codec)
}

// Close releases what the decoder holds.
func (d *Decoder) Close() {
	if d.zstd != nil {
		d.zstd.Close()
	}
}
