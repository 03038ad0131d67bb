package datadir

import (
	"context"
	"errors"
	"io"
	"io/fs"
)

// A Reader reads a regular file from first to last byte of its listed size.
type Reader struct {
	handle Handle
	file   File
	at     int64
	ahead  int64 // up to where bytes were asked for
}

// Open opens a file that [Walk] yielded.
func Open(ctx context.Context, tree Tree, f File) (*Reader, error) {
	h, err := tree.Open(ctx, f.Path)
	if err != nil {
		return nil, err
	}
	r := &Reader{handle: h, file: f}
	r.want()
	return r, nil
}

// window is how far ahead of the reader bytes are asked for.
const window = 8 << 20

func (r *Reader) want() {
	if r.ahead >= r.file.Size || r.ahead-r.at > window/2 {
		return
	}
	n := min(window, r.file.Size-r.ahead)
	r.handle.Want(r.ahead, n)
	r.ahead += n
}

// Read implements [io.Reader].
func (r *Reader) Read(p []byte) (int, error) {
	if r.at >= r.file.Size {
		return 0, io.EOF
	}
	p = p[:min(int64(len(p)), r.file.Size-r.at)]
	n, err := r.handle.ReadAt(p, r.at)
	cut := errors.Is(err, io.EOF) || errors.Is(err, fs.ErrNotExist) && r.at > 0
	if err != nil && !cut {
		return 0, err
	}
	clear(p[n:]) // the file was cut off or removed since it was listed
	r.at += int64(len(p))
	r.want()
	return len(p), nil
}

// Close closes the file.
func (r *Reader) Close() error { return r.handle.Close() }
