package mgmt

import (
	"bytes"
	stdbzip2 "compress/bzip2"
	"compress/gzip"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/dsnet/compress/bzip2"
	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"

	"github.com/pgmoneta/pgmoneta-go/internal/vault"
)

// A Compression is the first code of a frame.
type Compression byte

// Compressions.
const (
	CompressionNone  Compression = 0
	CompressionGzip  Compression = 1
	CompressionZstd  Compression = 2
	CompressionLZ4   Compression = 3
	CompressionBzip2 Compression = 4
)

// An Encryption is the second code of a frame: AES-GCM with a key that is derived
// from the master key, which client and daemon share.
type Encryption byte

// Encryptions.
const (
	EncryptionNone   Encryption = 0
	EncryptionAES256 Encryption = 1
	EncryptionAES192 Encryption = 2
	EncryptionAES128 Encryption = 3
)

// A Coding says what the body of a frame went through. The body of a frame with
// both codes zero is the document itself; otherwise the document is compressed,
// then encrypted, then written in base64 on one line.
type Coding struct {
	Compression Compression
	Encryption  Encryption
}

func (c Coding) plain() bool { return c == Coding{} }

func (c Coding) known() bool {
	return c.Compression <= CompressionBzip2 && c.Encryption <= EncryptionAES128
}

// A KeySource returns the master key for the bodies of frames.
type KeySource func() (*vault.MasterKey, error)

func (k KeySource) key() (*vault.MasterKey, error) {
	if k == nil {
		return nil, errors.New("an encrypted frame needs the master key, and there is none here")
	}
	return k()
}

// encode returns the body of a frame that holds text.
func (c Coding) encode(text []byte, keys KeySource) ([]byte, error) {
	if c.plain() {
		return text, nil
	}
	b, err := c.Compression.compress(text)
	if err != nil {
		return nil, err
	}
	if size, ok := c.Encryption.keySize(); ok {
		key, err := keys.key()
		if err != nil {
			return nil, err
		}
		if b, err = key.Seal(b, size); err != nil {
			return nil, err
		}
	}
	return base64.StdEncoding.AppendEncode(nil, b), nil
}

// decode returns what a body holds, of at most limit bytes.
func (c Coding) decode(body []byte, limit int64, keys KeySource) ([]byte, error) {
	if c.plain() {
		return body, nil
	}
	b, err := base64.StdEncoding.AppendDecode(nil, body)
	if err != nil {
		return nil, fmt.Errorf("body of a frame: %w", err)
	}
	if size, ok := c.Encryption.keySize(); ok {
		key, err := keys.key()
		if err != nil {
			return nil, err
		}
		if b, err = key.Open(b, size); err != nil {
			return nil, fmt.Errorf("body of a frame: %w: client and daemon need the same master key", err)
		}
	}
	text, err := c.Compression.decompress(b, limit)
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return nil, fmt.Errorf("body of a frame: %w", err)
	}
	return text, nil
}

func (e Encryption) keySize() (vault.KeySize, bool) {
	switch e {
	case EncryptionAES256:
		return vault.AES256, true
	case EncryptionAES192:
		return vault.AES192, true
	case EncryptionAES128:
		return vault.AES128, true
	}
	return 0, false
}

func (c Compression) compress(text []byte) ([]byte, error) {
	switch c {
	case CompressionGzip:
		return compressWith(text, func(w io.Writer) (io.WriteCloser, error) { return gzip.NewWriterLevel(w, gzip.BestCompression) })
	case CompressionZstd:
		return compressZstd(text)
	case CompressionLZ4:
		return compressLZ4(text)
	case CompressionBzip2:
		return compressWith(text, func(w io.Writer) (io.WriteCloser, error) { return bzip2.NewWriter(w, &bzip2.WriterConfig{Level: 9}) })
	}
	return text, nil
}

func compressWith(text []byte, open func(io.Writer) (io.WriteCloser, error)) ([]byte, error) {
	var b bytes.Buffer
	w, err := open(&b)
	if err != nil {
		return nil, err
	}
	if _, err := w.Write(text); err != nil {
		return nil, err
	}
	err = w.Close()
	return b.Bytes(), err
}

// compressZstd writes a frame that holds its content's size, without which clients
// of 0.22 refuse it.
func compressZstd(text []byte) ([]byte, error) {
	w, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1), zstd.WithSingleSegment(true))
	if err != nil {
		return nil, err
	}
	defer func() { _ = w.Close() }()
	return w.EncodeAll(text, nil), nil
}

// compressLZ4 writes the length of the text, 4 bytes big-endian, and one block.
func compressLZ4(text []byte) ([]byte, error) {
	b := make([]byte, 4+lz4.CompressBlockBound(len(text)))
	binary.BigEndian.PutUint32(b, uint32(len(text)))
	n, err := lz4.CompressBlock(text, b[4:], nil)
	if err == nil && n == 0 {
		err = errors.New("lz4: the text does not fit its bound")
	}
	return b[:4+n], err
}

func (c Compression) decompress(b []byte, limit int64) ([]byte, error) {
	switch c {
	case CompressionGzip:
		r, err := gzip.NewReader(bytes.NewReader(b))
		if err != nil {
			return nil, err
		}
		return readAtMost(r, limit)
	case CompressionZstd:
		r, err := zstd.NewReader(bytes.NewReader(b), zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(64<<20))
		if err != nil {
			return nil, err
		}
		defer r.Close()
		return readAtMost(r, limit)
	case CompressionLZ4:
		return decompressLZ4(b, limit)
	case CompressionBzip2:
		return readAtMost(stdbzip2.NewReader(bytes.NewReader(b)), limit)
	}
	return b, nil
}

// readAtMost reads to the end. Memory grows with what comes, not with what was announced.
func readAtMost(r io.Reader, limit int64) ([]byte, error) {
	text, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err == nil && int64(len(text)) > limit {
		err = fmt.Errorf("%w: more than %d bytes", ErrTooLong, limit)
	}
	return text, err
}

// maxLZ4Ratio is more than any LZ4 block comes to.
const maxLZ4Ratio = 256

func decompressLZ4(b []byte, limit int64) ([]byte, error) {
	if len(b) < 4 {
		return nil, io.ErrUnexpectedEOF
	}
	length := int64(binary.BigEndian.Uint32(b))
	if length > limit {
		return nil, fmt.Errorf("%w: %d bytes, at most %d", ErrTooLong, length, limit)
	}
	if length > maxLZ4Ratio*int64(len(b)) {
		return nil, fmt.Errorf("lz4: %d bytes cannot hold %d", len(b), length)
	}
	text := make([]byte, length)
	n, err := lz4.UncompressBlock(b[4:], text)
	if err == nil && int64(n) != length {
		err = fmt.Errorf("lz4: %d bytes instead of %d", n, length)
	}
	return slices.Clip(text[:max(n, 0)]), err
}
