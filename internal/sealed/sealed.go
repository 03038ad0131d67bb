// Package sealed encrypts single files, or streams, that leave the repository: they need
// the master key and nothing else to be read.
//
// # Terms
//
// A sealed file is a container (see package container) of kind File: frames of at most
// 1 MiB, each an AES-GCM message of its own, and a sealed index. Its key is derived from
// the master key, and in place of the number of a repository key it has a number that
// tells which master key it was sealed with.
//
// # Guarantees
//
// Nothing that [Reader] returns is other than what was written: a frame is authenticated
// before its bytes are. A file that was cut, extended, changed or put together from
// others is a [*container.DamagedError], one that was sealed with another master key a
// [*KeyError].
//
// Both directions run in memory that does not depend on the size, but for 56 bytes per MiB.
//
// # Not guaranteed
//
// The name of a file is not sealed, nor is its size: two files sealed with one master key
// can be exchanged as wholes.
package sealed

import (
	"encoding/binary"
	"errors"
	"io"

	"github.com/pgmoneta/pgmoneta-go/internal/container"
	"github.com/pgmoneta/pgmoneta-go/internal/vault"
)

// Suffix is that of the names of sealed files. C pgmoneta gives it to its own.
const Suffix = ".aes"

// bound is what stands in the place of repository and object in a sealed file.
const bound = "file"

// A KeyError reports a file that was sealed with another master key.
type KeyError struct {
	Name string // of the file
}

func (e *KeyError) Error() string {
	return e.Name + " is encrypted with another master key: use the master.key that was in place when it was made"
}

// key returns the key of sealed files and its number.
//
//	secret  HKDF-SHA-256(master secret, no salt, "pgmoneta file"), 32 bytes
//	number  HKDF-SHA-256(master secret, no salt, "pgmoneta file number"), 3 bytes, little-endian; 1 instead of 0
func key(master *vault.MasterKey) (container.Key, error) {
	number, err := master.Derive("pgmoneta file number", nil, 3)
	if err != nil {
		return container.Key{}, err
	}
	secret, err := master.Derive("pgmoneta file", nil, container.KeySize)
	if err != nil {
		return container.Key{}, err
	}
	defer clear(secret)
	n := binary.LittleEndian.Uint32(append(number, 0))
	return container.NewKey(bound, max(n, 1), [container.KeySize]byte(secret))
}

// A Writer seals a stream.
type Writer struct{ *container.StreamWriter }

// NewWriter begins a sealed file on out. Call [Writer.Close], or it is one that was cut.
func NewWriter(out io.Writer, master *vault.MasterKey, cipher container.Cipher) (*Writer, error) {
	k, err := key(master)
	if err != nil {
		return nil, err
	}
	w, err := container.NewSealedWriter(out, container.Header{Kind: container.File, Codec: container.None, Cipher: cipher}, bound, k)
	if err != nil {
		return nil, err
	}
	s, err := w.Stream(0)
	return &Writer{s}, err
}

// Close ends the file. What lies below stays open.
func (w *Writer) Close() error { return w.Finish() }

// Is reports whether a file that begins with head, of 64 bytes or more, is a sealed file of this format.
func Is(head []byte) bool { return container.Begins(head) }

// A Reader reads the plain bytes of a sealed file. Close it.
type Reader struct {
	name   string
	stream *container.Stream
}

// Open opens the sealed file of that size. While the master key is being changed both are tried.
func Open(name string, in io.ReaderAt, size int64, master *vault.MasterKey) (*Reader, error) {
	r := &Reader{name: name}
	c, err := container.Open(bound, in, size, container.File, func(number uint32) (container.Key, error) {
		for _, m := range master.Valid() {
			if k, err := key(m); err != nil || k.Number == number {
				return k, err
			}
		}
		return container.Key{}, &KeyError{Name: name}
	})
	var other *KeyError
	switch {
	case errors.As(err, &other):
		return nil, other
	case err != nil:
		return nil, r.named(err)
	case c.Header().Cipher == container.Plain:
		return nil, &container.DamagedError{Object: name, Frame: -1, Err: errors.New("it is not encrypted")}
	}
	r.stream = c.Stream()
	return r, nil
}

// named puts the name of the file into an error.
func (r *Reader) named(err error) error {
	var damaged *container.DamagedError
	if !errors.As(err, &damaged) {
		return err
	}
	return &container.DamagedError{Object: r.name, Frame: damaged.Frame, Err: damaged.Err}
}

// Read implements [io.Reader]. Every byte returned was authenticated.
func (r *Reader) Read(p []byte) (int, error) {
	n, err := r.stream.Read(p)
	return n, r.named(err)
}

// Close releases the reader's buffers.
func (r *Reader) Close() error { return r.stream.Close() }
