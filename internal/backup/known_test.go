package backup

import (
	"crypto/sha256"
	"encoding/binary"
	"os"
	"runtime"
	"testing"
	"time"

	"github.com/pgmoneta/pgmoneta-go/internal/container"
	"github.com/pgmoneta/pgmoneta-go/internal/repo"
)

// The frames of a backup of 10 TB: 10 million of 1 MiB. What they take decides what
// a backup takes, and finding one must not become slower with their number.
func TestTenTerabytesOfFramesFitIntoMemory(t *testing.T) {
	frames := 300_000
	if os.Getenv("PGMONETA_TEST_LONG") != "" {
		frames = 10_000_000
	}
	print := func(n int) container.Print {
		var b [8]byte
		binary.LittleEndian.PutUint64(b[:], uint64(n))
		sum := sha256.Sum256(b[:])
		return container.Print(sum[:16])
	}
	heap := func() int64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	const perPack = 300
	before := heap()
	began := time.Now()
	k := newKnown()
	for n := range frames {
		if n%perPack == 0 {
			k.begin(repo.PackName("20261121120000", n/perPack+1))
		}
		k.add(container.Frame{Plain: 1 << 20, Print: print(n)})
	}
	added := time.Since(began)
	size := heap() - before
	began = time.Now()
	for n := range frames {
		at, found := k.find(print(n))
		pack, number := k.place(at)
		if !found || pack != n/perPack || number != n%perPack {
			t.Fatalf("frame %d: found %t, pack %d, number %d", n, found, pack, number)
		}
	}
	perFrame := float64(size) / float64(frames)
	t.Logf("%d frames: %.1f bytes each, %d MiB in all; added in %v, found in %v", frames, perFrame, size>>20,
		added.Round(time.Millisecond), time.Since(began).Round(time.Millisecond))
	if perFrame > 36 || size > 360<<20 { // 20, 6 to 12 for finding it, and what packs and an unfilled chunk add
		t.Errorf("a frame takes %.1f bytes, all of them %d", perFrame, size)
	}
}
