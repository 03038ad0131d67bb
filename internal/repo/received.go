package repo

import (
	"os"
	"path/filepath"

	"github.com/pgmoneta/pgmoneta-go/internal/pg"
)

// PartialEnd returns the position up to which the partial segment of the given
// name, which begins at start, holds WAL. The file was a full segment of zeros
// before it was filled, and a record never ends in more zeros than its alignment
// adds. A segment that the server ended early, by switching to the next, seems to
// end there too.
func (r *Repository) PartialEnd(name string, start pg.LSN, size pg.SegmentSize) (pg.LSN, error) {
	f, err := os.Open(filepath.Join(r.ReceiveDir(), name+".partial"))
	if err != nil {
		return 0, err
	}
	defer func() { _ = f.Close() }()
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	n, err := lastByte(f, min(info.Size(), int64(size)))
	return start + pg.LSN(n+7)&^7, err
}

// lastByte returns the length of f, at most size, without the zeros at its end.
func lastByte(f *os.File, size int64) (int64, error) {
	block := make([]byte, 64<<10)
	for size > 0 {
		n := min(size, int64(len(block)))
		if _, err := f.ReadAt(block[:n], size-n); err != nil {
			return 0, err
		}
		for i := n - 1; i >= 0; i-- {
			if block[i] != 0 {
				return size - n + i + 1, nil
			}
		}
		size -= n
	}
	return 0, nil
}
