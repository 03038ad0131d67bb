package repo

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"slices"

	"github.com/pgmoneta/pgmoneta-go/internal/container"
)

// A RowIndex finds files of a manifest by path. It takes 16 bytes per file and a
// few frames. Close it before its manifest; it is used by one goroutine at a time.
//
// Looking files up in about the order of the manifest is fast, any other order costs
// the decoding of a frame each time.
type RowIndex struct {
	m      *Manifest
	seed   maphash.Seed
	rows   []rowPlace // by hash
	starts []int64    // where each frame begins in the plain bytes
	s      container.Scratch
	frames [rowFrames]rowFrame
	clock  int
}

type rowPlace struct {
	hash uint64 // of the path
	at   int64  // in the plain bytes
}

// rowFrames is how many frames are kept: those of the directories in use.
const rowFrames = 8

type rowFrame struct {
	number int // -1 for none
	used   int
	plain  []byte
}

// Index returns an index of the manifest's files.
func (m *Manifest) Index(ctx context.Context) (*RowIndex, error) {
	x := &RowIndex{m: m, seed: maphash.MakeSeed()}
	at := int64(0)
	for i := range m.Summary.PackFrame {
		x.starts = append(x.starts, at)
		at += int64(m.reader.Frame(i).Plain)
	}
	for i := range x.frames {
		x.frames[i].number = -1
	}
	if err := x.scan(ctx); err != nil {
		x.Close()
		if ctx.Err() != nil {
			return nil, err
		}
		return nil, m.damaged(err)
	}
	slices.SortFunc(x.rows, func(a, b rowPlace) int { return cmp.Compare(a.hash, b.hash) })
	return x, nil
}

// Close frees what the index holds.
func (x *RowIndex) Close() { x.s.Close() }

func (x *RowIndex) scan(ctx context.Context) error {
	in := &frameReader{r: x.m.reader, s: &x.s, end: x.m.Summary.PackFrame}
	scan := bufio.NewScanner(in)
	scan.Buffer(make([]byte, 0, 64<<10), lineLimit)
	for at := int64(0); scan.Scan(); at += int64(len(scan.Bytes())) + 1 {
		path, err := rowPath(scan.Bytes())
		if err := errors.Join(err, context.Cause(ctx)); err != nil {
			return err
		}
		x.rows = append(x.rows, rowPlace{hash: maphash.Bytes(x.seed, path), at: at})
	}
	return scan.Err()
}

// rowPath returns the path of a row. Our writer puts it first, so that nothing else
// needs to be understood.
func rowPath(line []byte) ([]byte, error) {
	const begin = `{"p":"`
	if rest, ok := bytes.CutPrefix(line, []byte(begin)); ok {
		if end := bytes.IndexAny(rest, `"\`); end >= 0 && rest[end] == '"' {
			return rest[:end], nil
		}
	}
	var row struct {
		Path string `json:"p"`
	}
	err := json.Unmarshal(line, &row)
	return []byte(row.Path), err
}

// Find returns the row of a path.
func (x *RowIndex) Find(path string) (File, bool, error) {
	hash := maphash.String(x.seed, path)
	i, _ := slices.BinarySearchFunc(x.rows, hash, func(r rowPlace, h uint64) int { return cmp.Compare(r.hash, h) })
	for ; i < len(x.rows) && x.rows[i].hash == hash; i++ {
		f, err := x.read(x.rows[i].at)
		if err != nil {
			return File{}, false, x.m.damaged(err)
		}
		if f.Path == path {
			return f, true, nil
		}
	}
	return File{}, false, nil
}

func (x *RowIndex) read(at int64) (File, error) {
	var f File
	line, err := x.line(at)
	if err == nil {
		err = json.Unmarshal(line, &f)
	}
	if err == nil {
		err = x.m.check(f)
	}
	return f, err
}

// line returns the line that begins at a place of the plain bytes. It may go on
// over any number of frames.
func (x *RowIndex) line(at int64) ([]byte, error) {
	frame, found := slices.BinarySearch(x.starts, at)
	if !found {
		frame--
	}
	var line []byte
	for ; frame < len(x.starts); frame++ {
		plain, err := x.frame(frame)
		if err != nil {
			return nil, err
		}
		rest := plain[at-x.starts[frame]:]
		if end := bytes.IndexByte(rest, '\n'); end >= 0 {
			return append(line, rest[:end]...), nil
		}
		if line = append(line, rest...); len(line) > lineLimit {
			return nil, errors.New("a row is too long")
		}
		at = x.starts[frame] + int64(len(plain))
	}
	return line, io.ErrUnexpectedEOF
}

// frame returns the plain bytes of a frame, which are valid until the next call.
func (x *RowIndex) frame(number int) ([]byte, error) {
	x.clock++
	oldest := &x.frames[0]
	for i := range x.frames {
		f := &x.frames[i]
		if f.number == number {
			f.used = x.clock
			return f.plain, nil
		}
		if f.used < oldest.used {
			oldest = f
		}
	}
	plain, err := x.m.reader.ReadFrame(number, &x.s)
	if err != nil {
		return nil, fmt.Errorf("rows: %w", err)
	}
	oldest.number, oldest.used, oldest.plain = number, x.clock, append(oldest.plain[:0], plain...)
	return oldest.plain, nil
}
