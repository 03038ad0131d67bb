package sha256s

import (
	"crypto/sha256"
	"fmt"
	"math/rand/v2"
	"testing"
)

// messages makes n messages of a size, not aligned, whose bytes differ.
func messages(random *rand.ChaCha8, n, size int) [][]byte {
	list := make([][]byte, n)
	for i := range list {
		b := make([]byte, i%7+size)
		_, _ = random.Read(b) // never fails
		list[i] = b[i%7:]
	}
	return list
}

func same(t *testing.T, list [][]byte) {
	t.Helper()
	sums := Sums(nil, list)
	if len(sums) != len(list) {
		t.Fatalf("%d sums of %d messages", len(sums), len(list))
	}
	for i, m := range list {
		if sums[i] != sha256.Sum256(m) {
			t.Errorf("message %d of %d, %d bytes: another sum", i, len(list), len(m))
		}
	}
}

func TestSums(t *testing.T) {
	random := rand.NewChaCha8([32]byte{1})
	for size := range 3*64 + 1 {
		for _, n := range []int{0, 1, 8, 9, 10, 15, 16, 17, 32, 45} {
			same(t, messages(random, n, size))
		}
	}
	same(t, messages(random, 16, 128<<10))
	same(t, messages(random, 30, 1<<20+13))
	mixed := append(messages(random, 12, 8192), messages(random, 20, 100)...)
	rand.New(random).Shuffle(len(mixed), func(i, k int) { mixed[i], mixed[k] = mixed[k], mixed[i] })
	same(t, mixed)
}

func FuzzSums(f *testing.F) {
	f.Add(uint64(0), uint8(16), uint16(64))
	f.Fuzz(func(t *testing.T, seed uint64, n uint8, size uint16) {
		same(t, messages(rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8)}), int(n)%40, int(size)))
	})
}

// BenchmarkSums compares both ways for frames of 128 KiB.
func BenchmarkSums(b *testing.B) {
	const size = 128 << 10
	list := messages(rand.NewChaCha8([32]byte{}), Batch, size)
	for _, n := range []int{1, 8, 9, Batch} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			b.SetBytes(int64(n) * size)
			var sums []Sum
			for b.Loop() {
				sums = Sums(sums[:0], list[:n])
			}
		})
	}
}
