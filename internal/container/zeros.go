package container

import (
	"bytes"
	"crypto/sha256"
	"sync"
)

// Zeros reports whether b holds nothing but zeros: each byte is the same as the one before.
// It costs next to nothing when b begins with something else.
func Zeros(b []byte) bool {
	return len(b) == 0 || b[0] == 0 && bytes.Equal(b[1:], b[:len(b)-1])
}

// sumOfZeros is the SHA-256 of a whole frame of zeros. A WAL segment that was switched
// early holds little else.
var sumOfZeros = sync.OnceValue(func() [sha256.Size]byte {
	return sha256.Sum256(make([]byte, FrameLimit))
})

// sum returns the SHA-256 of a frame.
func sum(plain []byte) [sha256.Size]byte {
	if len(plain) == FrameLimit && Zeros(plain) {
		return sumOfZeros()
	}
	return sha256.Sum256(plain)
}
