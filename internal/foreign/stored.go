package foreign

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/pgmoneta/pgmoneta-go/internal/container"
	"github.com/pgmoneta/pgmoneta-go/internal/vault"
)

// A stored file is one of the repository, with links followed.
type stored struct {
	name   string
	info   fs.FileInfo
	codec  container.Codec
	sealed bool
	sizes  []vault.KeySize // of the key if it is sealed, the most likely first
}

// find looks for the stored file of a plain name. The suffixes of the backup come first, others
// after them, because a rollup may have met other settings. It is [fs.ErrNotExist] if there is none.
func (r *Repository) find(plain string, expected container.Codec, sealed bool, sizes []vault.KeySize) (*stored, error) {
	try := func(c container.Codec, sealed bool) (*stored, error) {
		name := plain + suffix(c)
		if sealed {
			name += sealedSuffix
		}
		name, info, err := r.locate(name)
		if err != nil {
			return nil, err
		}
		if !info.Mode().IsRegular() {
			return nil, &FileError{name, errNotRegular}
		}
		return &stored{name, info, c, sealed, sizes}, nil
	}
	s, err := try(expected, sealed)
	if !errors.Is(err, fs.ErrNotExist) {
		return s, err
	}
	for c := container.None; c <= container.Bzip2; c++ {
		for _, also := range []bool{false, true} {
			if s, other := try(c, also); !errors.Is(other, fs.ErrNotExist) {
				return s, other
			}
		}
	}
	return nil, err
}

// open opens the plain bytes of a stored file. Errors are [*FileError].
func (r *Repository) open(ctx context.Context, s *stored) (io.ReadCloser, error) {
	f, err := r.root.Open(s.name)
	if err != nil {
		return nil, &FileError{s.name, err}
	}
	p := &plainReader{ctx: ctx, name: s.name, file: f}
	in := io.Reader(f)
	if s.sealed {
		in, err = r.unseal(ctx, f, s)
	}
	if err == nil {
		p.in, err = decompress(s.codec, in)
	}
	if err != nil {
		_ = f.Close()
		return nil, &FileError{s.name, err}
	}
	return p, nil
}

type plainReader struct {
	ctx  context.Context // io.Reader has none
	name string
	file *os.File
	in   io.ReadCloser
}

func (p *plainReader) Read(b []byte) (int, error) {
	if p.ctx.Err() != nil {
		return 0, context.Cause(p.ctx)
	}
	n, err := p.in.Read(b)
	if err != nil && !errors.Is(err, io.EOF) {
		err = &FileError{p.name, err}
	}
	return n, err
}

func (p *plainReader) Close() error { return errors.Join(p.in.Close(), p.file.Close()) }

func (r *Repository) unseal(ctx context.Context, f *os.File, s *stored) (io.Reader, error) {
	master, err := r.master()
	if err != nil {
		return nil, err
	}
	return unseal(ctx, f, s.info.Size(), master, s.sizes)
}

// Unseal returns a reader of the plain bytes of a file of that size that C pgmoneta
// encrypted. What it returns is provisional until it ends with [io.EOF].
func Unseal(ctx context.Context, f io.ReadSeeker, size int64, master *vault.MasterKey) (io.Reader, error) {
	return unseal(ctx, f, size, master, keySizes(0))
}

// unseal returns a reader of what was sealed. A file does not say how long its key is: if it is
// not known, or while the master key is being changed, the file is read twice.
func unseal(ctx context.Context, f io.ReadSeeker, size int64, master *vault.MasterKey, sizes []vault.KeySize) (io.Reader, error) {
	head := make([]byte, headSize)
	if _, err := io.ReadFull(f, head); err != nil {
		return nil, damaged(err)
	}
	var keys [][]byte
	for _, bytes := range sizes {
		for _, m := range master.Valid() {
			key, err := m.ObjectKey(head[:vault.SaltSize], bytes)
			if err != nil {
				return nil, err
			}
			keys = append(keys, key)
		}
	}
	read := func(key []byte) (io.Reader, error) {
		if _, err := f.Seek(headSize, io.SeekStart); err != nil {
			return nil, err
		}
		return newGCMReader(f, size, key, head[vault.SaltSize:])
	}
	for i, key := range keys {
		in, err := read(key)
		if err != nil || i == len(keys)-1 {
			return in, err
		}
		if _, err = io.Copy(io.Discard, &interruptible{ctx, in}); err == nil {
			return read(key)
		}
		if !errors.Is(err, vault.ErrSealed) {
			return nil, err
		}
	}
	return nil, fmt.Errorf("%w: no key to open it with", vault.ErrSealed)
}

// interruptible ends with the context.
type interruptible struct {
	ctx context.Context // io.Reader has none
	in  io.Reader
}

func (r *interruptible) Read(b []byte) (int, error) {
	if r.ctx.Err() != nil {
		return 0, context.Cause(r.ctx)
	}
	return r.in.Read(b)
}

// keySizes returns the sizes of keys to try: that of an ENCRYPTION code first, and the others only if
// the code says that nothing was encrypted.
func keySizes(encryption int) []vault.KeySize {
	switch encryption {
	case 1:
		return []vault.KeySize{vault.AES256}
	case 2:
		return []vault.KeySize{vault.AES192}
	case 3:
		return []vault.KeySize{vault.AES128}
	}
	return []vault.KeySize{vault.AES256, vault.AES192, vault.AES128}
}
