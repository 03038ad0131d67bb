package sha256s

import "crypto/sha256"

// A Sum is a SHA-256.
type Sum = [sha256.Size]byte

// Batch is how many messages are hashed side by side at most.
const Batch = 16

// Sums appends the sum of each message to dst and returns it. It is safe for concurrent use.
//
// Of each [Batch] of messages those of the largest length are hashed side by side.
func Sums(dst []Sum, messages [][]byte) []Sum {
	for len(messages) > 0 {
		n := min(Batch, len(messages))
		dst = appendSums(dst, messages[:n])
		messages = messages[n:]
	}
	return dst
}

func appendSums(dst []Sum, messages [][]byte) []Sum {
	size := 0
	for _, m := range messages {
		size = max(size, len(m))
	}
	var abreast [Batch][]byte
	n := 0
	for _, m := range messages {
		if len(m) == size {
			abreast[n] = m
			n++
		}
	}
	sums, hashed := together(abreast[:n], size)
	n = 0
	for _, m := range messages {
		if hashed && len(m) == size {
			dst = append(dst, sums[n])
			n++
		} else {
			dst = append(dst, sha256.Sum256(m))
		}
	}
	return dst
}
