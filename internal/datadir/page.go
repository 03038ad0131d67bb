package datadir

import "encoding/binary"

// isNew reports whether a page was never initialized: pd_upper is 0.
func isNew(page []byte) bool { return binary.NativeEndian.Uint16(page[14:]) == 0 }

// storedChecksum returns pd_checksum.
func storedChecksum(page []byte) uint16 { return binary.NativeEndian.Uint16(page[8:]) }

const (
	lanes    = 32        // sums that are computed side by side
	rowBytes = 4 * lanes // a word for each sum
	prime    = 16777619
)

// offsets begin the sums.
var offsets = [lanes]uint32{
	0x5B1F36E9, 0xB8525960, 0x02AB50AA, 0x1DE66D2A, 0x79FF467A, 0x9BB9F8A3, 0x217E7CD2, 0x83E13D2C,
	0xF8D4474F, 0xE39EB970, 0x42C6AE16, 0x993216FA, 0x7B093B5D, 0x98DAFF3C, 0xF718902A, 0x0B1C9CDB,
	0xE58F764B, 0x187636BC, 0x5D7B3BB1, 0xE73DE7DE, 0x92BEC979, 0xCCA6C0B2, 0x304A0979, 0x85AA43D4,
	0x783125BB, 0x6CA8EAA2, 0xE407EAC6, 0x4B5CFC3E, 0x9FBF8C76, 0x15CA20BE, 0xF2CA9FD3, 0x959BD756,
}

// checksum returns the checksum that PostgreSQL gives a page of a relation's
// block: FNV-1a over 32-bit words in 32 interleaved sums, with the field itself
// taken as zero. See src/include/storage/checksum_impl.h.
func checksum(page []byte, block uint32) uint16 {
	sums := offsets
	step := func(i int, word uint32) {
		x := sums[i] ^ word
		sums[i] = x*prime ^ x>>17
	}
	for i := range lanes {
		word := binary.NativeEndian.Uint32(page[4*i:])
		if i == 2 { // pd_checksum is its lower half in memory order
			word &^= checksumMask
		}
		step(i, word)
	}
	mix(&sums, page[rowBytes:])
	for range 2 {
		for i := range lanes {
			step(i, 0)
		}
	}
	sum := uint32(0)
	for _, s := range sums {
		sum ^= s
	}
	return uint16((sum^block)%65535 + 1)
}

// mixPortable takes rows of words into the sums. What is behind the last whole row is left out.
func mixPortable(sums *[lanes]uint32, rows []byte) {
	for ; len(rows) >= rowBytes; rows = rows[rowBytes:] {
		row := rows[:rowBytes:rowBytes]
		for i := 0; i < lanes; i += 4 {
			w := row[4*i : 4*i+16 : 4*i+16]
			a, b := sums[i]^binary.NativeEndian.Uint32(w), sums[i+1]^binary.NativeEndian.Uint32(w[4:])
			c, d := sums[i+2]^binary.NativeEndian.Uint32(w[8:]), sums[i+3]^binary.NativeEndian.Uint32(w[12:])
			sums[i], sums[i+1] = a*prime^a>>17, b*prime^b>>17
			sums[i+2], sums[i+3] = c*prime^c>>17, d*prime^d>>17
		}
	}
}

// checksumMask covers pd_checksum in the third word of a page.
var checksumMask = func() uint32 {
	var b [4]byte
	b[0], b[1] = 0xff, 0xff
	return binary.NativeEndian.Uint32(b[:])
}()
