package restore

import (
	"hash/crc32"
	"slices"

	"github.com/pgmoneta/pgmoneta-go/internal/manifest"
)

// A checksum is the CRC-32C of a file whose pieces are written in any order. Those of
// the pieces are put together at the end; bytes that no piece covers are zero. It is
// used under its owner's lock.
//
// A CRC is a polynomial modulo another one, so that appending n bytes multiplies it by x
// to the power of 8n before the CRC of the new bytes is added. The bits are
// reflected: the highest stands for x to the power of 0.
type checksum struct {
	pieces []checkedPiece
}

type checkedPiece struct {
	offset, length int64
	sum            uint32
}

// add takes note of bytes at offset.
func (c *checksum) add(offset int64, length int64, sum uint32) {
	c.pieces = append(c.pieces, checkedPiece{offset, length, sum})
}

// of returns the checksum of a file of size bytes, as PostgreSQL spells it.
func (c *checksum) of(size int64) string {
	slices.SortFunc(c.pieces, func(a, b checkedPiece) int { return int(a.offset - b.offset) })
	sum, at := uint32(0), int64(0)
	for _, p := range c.pieces {
		sum = times(powerOfX(8*p.length), appendZeros(sum, p.offset-at)) ^ p.sum
		at = p.offset + p.length
	}
	return manifest.Checksum(appendZeros(sum, size-at))
}

// appendZeros continues a CRC by n bytes of zero. They add nothing, but the register
// that they go through is the complement of the CRC.
func appendZeros(sum uint32, n int64) uint32 {
	if n == 0 {
		return sum
	}
	return ^times(powerOfX(8*n), ^sum)
}

// powerOfX returns x to the power of n.
func powerOfX(n int64) uint32 {
	result, square := uint32(1)<<31, uint32(1)<<30
	for ; n > 0; n >>= 1 {
		if n&1 != 0 {
			result = times(result, square)
		}
		square = times(square, square)
	}
	return result
}

// times multiplies two polynomials.
func times(a, b uint32) uint32 {
	product := uint32(0)
	for bit := uint32(1) << 31; bit != 0; bit >>= 1 {
		if a&bit != 0 {
			product ^= b
		}
		if carry := b & 1; carry != 0 {
			b = b>>1 ^ crc32.Castagnoli
		} else {
			b >>= 1
		}
	}
	return product
}
