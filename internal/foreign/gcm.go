package foreign

import (
	"bufio"
	"crypto/aes"
	"crypto/cipher"
	"crypto/subtle"
	"encoding/binary"
	"fmt"
	"io"

	"github.com/pgmoneta/pgmoneta-go/internal/vault"
)

// Layout of a sealed file: one AES-GCM message without associated data.
//
//	 0  16  salt; the key is derived from the master key and this
//	16  12  nonce
//	28   n  ciphertext
//	    16  tag
const (
	nonceSize = 12
	tagSize   = 16
	headSize  = vault.SaltSize + nonceSize

	// gcmChunk is how many bytes are authenticated at once; a power of two.
	gcmChunk = 128 << 10
)

// A gcmReader decrypts one AES-GCM message of any length in bounded memory. It
// returns io.EOF only if the tag is right; what it returned before is provisional.
//
// The standard library seals and opens whole messages only. The decryption of GCM is counter
// mode. Its authentication is a polynomial in H over the blocks, which can be computed piece by
// piece: sealing nothing with a piece as associated data gives the polynomial of that piece.
type gcmReader struct {
	in     *bufio.Reader
	left   int64 // ciphertext bytes not read yet
	stream cipher.Stream
	sum    *ghash
	mask   [tagSize]byte // what the tag is covered with
	chunk  []byte
	ready  []byte // of chunk: decrypted and not returned yet
	end    error  // what every Read returns from now on
}

// newGCMReader reads a sealed file of size bytes, whose head was read from in already.
func newGCMReader(in io.Reader, size int64, key, nonce []byte) (*gcmReader, error) {
	left := size - headSize - tagSize
	if left < 0 {
		return nil, fmt.Errorf("%w: %d bytes are too few for a sealed file", ErrDamaged, size)
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	sum, err := newGHASH(block)
	if err != nil {
		return nil, err
	}
	r := &gcmReader{in: bufio.NewReaderSize(in, 64<<10), left: left, sum: sum, chunk: make([]byte, min(left, gcmChunk))}
	// The first counter block covers the tag, those from 2 on the text.
	counter := binary.BigEndian.AppendUint32(append(make([]byte, 0, aes.BlockSize), nonce...), 1)
	block.Encrypt(r.mask[:], counter)
	binary.BigEndian.PutUint32(counter[nonceSize:], 2)
	r.stream = cipher.NewCTR(block, counter)
	return r, nil
}

// Read implements [io.Reader].
func (r *gcmReader) Read(p []byte) (int, error) {
	if len(r.ready) == 0 && r.end == nil {
		r.end = r.next()
	}
	if r.end != nil {
		return 0, r.end
	}
	n := copy(p, r.ready)
	r.ready = r.ready[n:]
	return n, nil
}

// next decrypts another chunk, or checks the tag at the end.
func (r *gcmReader) next() error {
	if r.left == 0 {
		if err := r.check(); err != nil {
			return err
		}
		return io.EOF
	}
	r.ready = r.chunk[:min(r.left, gcmChunk)]
	if err := r.fill(r.ready); err != nil {
		r.ready = nil
		return err
	}
	r.left -= int64(len(r.ready))
	r.sum.write(r.ready)
	r.stream.XORKeyStream(r.ready, r.ready)
	return nil
}

func (r *gcmReader) fill(p []byte) error {
	_, err := io.ReadFull(r.in, p)
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		return fmt.Errorf("%w: it became shorter while it was read", ErrDamaged)
	}
	return err
}

func (r *gcmReader) check() error {
	var tag [tagSize]byte
	if err := r.fill(tag[:]); err != nil {
		return err
	}
	want := r.sum.tag(r.mask)
	if subtle.ConstantTimeCompare(want[:], tag[:]) != 1 {
		return fmt.Errorf("%w: %w", ErrDamaged, vault.ErrSealed)
	}
	return nil
}

// A ghash authenticates a ciphertext piece by piece.
// See NIST SP 800-38D, sections 6.4 and 7.1.
type ghash struct {
	aead    cipher.AEAD
	cover   element // of the tags of aead under the nonce of zeros
	h       element
	inverse element // of h
	chunk   element // h to the power of the blocks of a full chunk
	state   element // of all pieces so far, without the last multiplication
	length  uint64  // bytes
	tags    []byte
}

func newGHASH(block cipher.Block) (*ghash, error) {
	aead, err := cipher.NewGCM(block)
	if err != nil {
		return nil, err
	}
	var b [aes.BlockSize]byte
	block.Encrypt(b[:], b[:])
	g := &ghash{aead: aead, h: elementOf(b[:])}
	first := [aes.BlockSize]byte{aes.BlockSize - 1: 1}
	block.Encrypt(b[:], first[:])
	g.cover = elementOf(b[:])
	g.inverse = g.h.inverse()
	g.chunk = g.h.power(gcmChunk / aes.BlockSize)
	return g, nil
}

// write adds a piece. Only the last one may have another length than gcmChunk.
func (g *ghash) write(p []byte) {
	g.tags = g.aead.Seal(g.tags[:0], make([]byte, nonceSize), nil, p)
	// Undo what GCM does at the end: cover the sum, multiply by h, add the length.
	piece := elementOf(g.tags).plus(g.cover).times(g.inverse).plus(element{hi: uint64(len(p)) * 8})
	shift := g.chunk
	if len(p) != gcmChunk {
		shift = g.h.power(uint64(len(p)+aes.BlockSize-1) / aes.BlockSize)
	}
	g.state = g.state.times(shift).plus(piece)
	g.length += uint64(len(p))
}

// tag returns the tag of what was written.
func (g *ghash) tag(mask [tagSize]byte) [tagSize]byte {
	sum := g.state.plus(element{lo: g.length * 8}).times(g.h).plus(elementOf(mask[:]))
	var out [tagSize]byte
	binary.BigEndian.PutUint64(out[:8], sum.hi)
	binary.BigEndian.PutUint64(out[8:], sum.lo)
	return out
}

// An element of GF(2^128) as GCM writes it: the highest bit of hi is that of x to the power of 0.
type element struct{ hi, lo uint64 }

func elementOf(b []byte) element {
	return element{binary.BigEndian.Uint64(b), binary.BigEndian.Uint64(b[8:])}
}

func (a element) plus(b element) element { return element{a.hi ^ b.hi, a.lo ^ b.lo} }

func (a element) times(b element) element {
	const one = 1 << 63
	var z element
	for i := range 128 {
		word := a.hi
		if i >= 64 {
			word = a.lo
		}
		if word<<(i&63)&one != 0 {
			z = z.plus(b)
		}
		carry := b.lo & 1
		b = element{b.hi >> 1, b.lo>>1 | b.hi<<63}
		if carry != 0 {
			b.hi ^= 0xE1 << 56 // x^128 = x^7 + x^2 + x + 1
		}
	}
	return z
}

func (a element) power(n uint64) element {
	result := element{hi: 1 << 63}
	for ; n > 0; n >>= 1 {
		if n&1 != 0 {
			result = result.times(a)
		}
		a = a.times(a)
	}
	return result
}

// inverse returns a to the power of 2^128 - 2, which is 1/a.
func (a element) inverse() element {
	result := element{hi: 1 << 63}
	for range 127 {
		a = a.times(a)
		result = result.times(a)
	}
	return result
}
