package sha256s

import (
	"crypto/sha256"
	"encoding/binary"

	"golang.org/x/sys/cpu"
)

//go:noescape
func blocksAVX512(state *[8][Batch]uint32, messages *[Batch]*byte, n int, k *[64]uint32)

// worthwhile is the least number of messages which are faster together, although empty
// lanes take as long as full ones.
const worthwhile = 9

const blockSize = sha256.BlockSize

// together returns the sums of at most [Batch] messages of one size, if it can and that pays.
func together(messages [][]byte, size int) (sums [Batch]Sum, ok bool) {
	if !cpu.X86.HasAVX512F || !cpu.X86.HasAVX512BW || len(messages) < worthwhile {
		return sums, false
	}
	var at [Batch]*byte
	var state [8][Batch]uint32
	for i := range state {
		for lane := range state[i] {
			state[i][lane] = initial[i]
		}
	}
	if whole := size / blockSize; whole > 0 {
		for lane := range at {
			at[lane] = &messages[min(lane, len(messages)-1)][0]
		}
		blocksAVX512(&state, &at, whole, &constants)
	}
	// What is left of each message, a one, zeros, and the length in bits.
	var tails [Batch][2 * blockSize]byte
	rest := size % blockSize
	blocks := 1
	if rest+1+8 > blockSize {
		blocks = 2
	}
	for lane := range tails {
		tail := tails[lane][:blocks*blockSize]
		if lane < len(messages) {
			copy(tail, messages[lane][size-rest:])
		}
		tail[rest] = 0x80
		binary.BigEndian.PutUint64(tail[len(tail)-8:], uint64(size)*8)
		at[lane] = &tail[0]
	}
	blocksAVX512(&state, &at, blocks, &constants)
	for lane := range messages {
		for i := range state {
			binary.BigEndian.PutUint32(sums[lane][4*i:], state[i][lane])
		}
	}
	return sums, true
}

// FIPS 180-4, sections 5.3.3 and 4.2.2.
var (
	initial   = [8]uint32{0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19}
	constants = [64]uint32{
		0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
		0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
		0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
		0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
		0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
		0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
		0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
		0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
	}
)
