package foreign

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/pgmoneta/pgmoneta-go/internal/container"
)

const sealedSuffix = ".aes"

// suffix returns the suffix of a codec. The numbers of backup.info are those of [container.Codec].
func suffix(c container.Codec) string { return [...]string{"", ".gz", ".zstd", ".lz4", ".bz2"}[c] }

// split takes the suffixes off the name of a stored file.
func split(name string) (plain string, c container.Codec, sealed bool) {
	plain, sealed = strings.CutSuffix(name, sealedSuffix)
	for c := container.Gzip; c <= container.Bzip2; c++ {
		if base, ok := strings.CutSuffix(plain, suffix(c)); ok {
			return base, c, sealed
		}
	}
	return plain, container.None, sealed
}

// Decompress returns a reader of the plain bytes of a file that C pgmoneta compressed. It
// ends with [io.EOF] only when all of the file was read.
func Decompress(c container.Codec, in io.Reader) (io.ReadCloser, error) { return decompress(c, in) }

// decompress returns a reader of the plain bytes of in. It ends with io.EOF only when in
// has been read to its end, and nothing follows the compressed data. Nothing at all stands
// for nothing in every codec.
func decompress(c container.Codec, in io.Reader) (io.ReadCloser, error) {
	if c == container.None {
		return io.NopCloser(in), nil
	}
	buffered := bufio.NewReaderSize(in, 64<<10)
	if _, err := buffered.Peek(1); errors.Is(err, io.EOF) {
		return io.NopCloser(buffered), nil
	}
	d := &decompressor{in: buffered}
	var err error
	if c == container.LZ4 {
		d.out = io.NopCloser(&lz4Reader{in: buffered})
	} else {
		d.out, err = container.Decompress(c, buffered)
	}
	if err != nil {
		return nil, damaged(err)
	}
	return d, nil
}

type decompressor struct {
	in  *bufio.Reader
	out io.ReadCloser
}

func (d *decompressor) Read(p []byte) (int, error) {
	n, err := d.out.Read(p)
	if errors.Is(err, io.EOF) {
		err = d.end()
	} else if err != nil {
		err = damaged(err)
	}
	return n, err
}

// end reads what follows the compressed data, so that a tag behind it is checked.
func (d *decompressor) end() error {
	n, err := io.Copy(io.Discard, d.in)
	if err != nil {
		return err
	}
	if n > 0 {
		return fmt.Errorf("%w: %d bytes follow the compressed data", ErrDamaged, n)
	}
	return io.EOF
}

func (d *decompressor) Close() error { return d.out.Close() }

// damaged makes the error of a decoder wrap ErrDamaged.
func damaged(err error) error {
	if errors.Is(err, ErrDamaged) {
		return err
	}
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return fmt.Errorf("%w: %w", ErrDamaged, err)
}

// Framing of .lz4, which is not the LZ4 frame format: blocks until the end of the file.
//
//	0  4  length of the block, little-endian, 1 to 4128
//	4  n  raw LZ4 block of 0 to 4096 plain bytes, which may refer to the 64 KiB before
const (
	lz4Plain  = 4096
	lz4Stored = lz4Plain + lz4Plain/255 + 16
	lz4Window = 64 << 10
)

// An lz4Reader reads the framing of C pgmoneta.
type lz4Reader struct {
	in     *bufio.Reader
	block  [lz4Stored]byte
	window []byte // plain bytes, the last of them not returned yet
	ready  int    // how many
}

func (r *lz4Reader) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	for r.ready == 0 {
		if err := r.next(); err != nil {
			return 0, err
		}
	}
	n := copy(p, r.window[len(r.window)-r.ready:])
	r.ready -= n
	return n, nil
}

// next decodes a block behind the window.
func (r *lz4Reader) next() error {
	var head [4]byte
	if _, err := io.ReadFull(r.in, head[:]); err != nil {
		return err // io.EOF between blocks is the end
	}
	stored := binary.LittleEndian.Uint32(head[:])
	if stored == 0 || stored > lz4Stored {
		return fmt.Errorf("%w: LZ4 block of %d bytes", ErrDamaged, stored)
	}
	if _, err := io.ReadFull(r.in, r.block[:stored]); err != nil {
		return damaged(err)
	}
	if r.window == nil {
		r.window = make([]byte, 0, 2*lz4Window+lz4Plain)
	}
	if len(r.window) > 2*lz4Window {
		r.window = append(r.window[:0], r.window[len(r.window)-lz4Window:]...)
	}
	at := len(r.window)
	// A block of nothing is a single zero, which the library calls corrupt.
	if stored == 1 && r.block[0] == 0 {
		return nil
	}
	n, err := container.DecompressLZ4Block(r.window[at:at+lz4Plain], r.block[:stored], r.window[max(0, at-lz4Window):])
	if err != nil {
		return damaged(err)
	}
	r.window, r.ready = r.window[:at+n], n
	return nil
}
