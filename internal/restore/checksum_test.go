package restore

import (
	"bytes"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"testing"
)

func TestChecksumOfPiecesInAnyOrder(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	castagnoli := crc32.MakeTable(crc32.Castagnoli)
	for range 300 {
		file := make([]byte, r.IntN(3000))
		var c checksum
		for at := r.IntN(200); at < len(file); at += r.IntN(300) {
			piece := file[at:min(at+r.IntN(200)+1, len(file))]
			for i := range piece {
				piece[i] = byte(r.Uint32())
			}
			c.add(int64(at), int64(len(piece)), crc32.Checksum(piece, castagnoli))
			at += len(piece)
		}
		r.Shuffle(len(c.pieces), func(i, j int) { c.pieces[i], c.pieces[j] = c.pieces[j], c.pieces[i] })
		sum := crc32.Checksum(file, castagnoli)
		want := fmt.Sprintf("%08x", bytes.Join([][]byte{{byte(sum)}, {byte(sum >> 8)}, {byte(sum >> 16)}, {byte(sum >> 24)}}, nil))
		if got := c.of(int64(len(file))); got != want {
			t.Fatalf("%d bytes in %d pieces: %s, want %s", len(file), len(c.pieces), got, want)
		}
	}
}
