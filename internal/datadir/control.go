package datadir

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"time"

	"github.com/pgmoneta/pgmoneta-go/internal/pg"
)

// A Control is what a backup needs of global/pg_control.
type Control struct {
	System     uint64 // system identifier
	Checkpoint pg.LSN // last checkpoint record
	Content    []byte // the whole file
}

// controlLimit bounds the file, which has 8 KiB.
const controlLimit = 64 << 10

// ErrTornControl reports a pg_control whose checksum stays wrong.
var ErrTornControl = errors.New("its checksum is wrong: the file is damaged, or not of this machine's byte order")

// ReadControl reads global/pg_control of a running server, which may be writing it.
func ReadControl(ctx context.Context, tree Tree) (Control, error) {
	const attempts = 10
	for i := 1; ; i++ {
		c, err := readControl(ctx, tree)
		if err == nil {
			return c, nil
		}
		if !errors.Is(err, ErrTornControl) || i == attempts {
			return Control{}, fmt.Errorf("%s: %w", ControlFile, err)
		}
		select {
		case <-ctx.Done():
			return Control{}, context.Cause(ctx)
		case <-time.After(100 * time.Millisecond):
		}
	}
}

func readControl(ctx context.Context, tree Tree) (Control, error) {
	h, err := tree.Open(ctx, ControlFile)
	if err != nil {
		return Control{}, err
	}
	defer func() { _ = h.Close() }()
	b, err := io.ReadAll(io.NewSectionReader(h, 0, controlLimit))
	if err != nil {
		return Control{}, err
	}
	return ParseControl(b)
}

// ParseControl decodes the content of global/pg_control. The system identifier
// and the checkpoint are at the same place in all versions; the checksum follows
// the last field, whose place is not, so that it is looked for.
// See src/include/catalog/pg_control.h.
func ParseControl(b []byte) (Control, error) {
	const (
		systemAt     = 0
		checkpointAt = 32
		shortest     = 128
		longest      = 512 // pg_control is written as one sector
	)
	for end := shortest; end <= longest-4 && end+4 <= len(b); end += 4 {
		if crc32.Checksum(b[:end], castagnoli) == binary.NativeEndian.Uint32(b[end:]) {
			return Control{
				System:     binary.NativeEndian.Uint64(b[systemAt:]),
				Checkpoint: pg.LSN(binary.NativeEndian.Uint64(b[checkpointAt:])),
				Content:    b,
			}, nil
		}
	}
	return Control{}, ErrTornControl
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)
