package container

import (
	"fmt"
	"io"
	"strings"

	"github.com/dsnet/compress/bzip2"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
)

// maxWindow is the largest window of a foreign zstd file: what "zstd --long" uses.
const maxWindow = 128 << 20

// CutSuffix returns the name of a file that another program compressed, without
// the suffix of its codec: .gz, .zst, .lz4 or .bz2. Without one the codec is [None].
func CutSuffix(name string) (string, Codec) {
	for suffix, codec := range map[string]Codec{".gz": Gzip, ".zst": Zstd, ".lz4": LZ4, ".bz2": Bzip2} {
		if base, ok := strings.CutSuffix(name, suffix); ok {
			return base, codec
		}
	}
	return name, None
}

// Decompress reads a whole file that another program compressed with codec. The
// caller bounds what is read and closes it. A clean end proves nothing: of
// several members some may be missing.
func Decompress(codec Codec, in io.Reader) (io.ReadCloser, error) {
	switch codec {
	case None:
		return io.NopCloser(in), nil
	case Gzip:
		return gzip.NewReader(in)
	case Zstd:
		d, err := zstd.NewReader(in, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(maxWindow))
		if err != nil {
			return nil, err
		}
		return d.IOReadCloser(), nil
	case LZ4:
		return io.NopCloser(lz4.NewReader(in)), nil
	case Bzip2:
		return bzip2.NewReader(in, nil)
	}
	return nil, fmt.Errorf("decompress: %v", codec)
}

// Compress returns a writer that compresses what is written to it into one member of a
// codec, with a checksum where the codec has one: who reads it notices that the end is
// missing. Close it; out stays open.
func Compress(codec Codec, level int, out io.Writer) (io.WriteCloser, error) {
	switch codec {
	case Gzip:
		return gzip.NewWriterLevel(out, min(max(level, 1), 9))
	case Zstd:
		return zstd.NewWriter(out, zstd.WithEncoderLevel(zstdLevel(level)), zstd.WithEncoderCRC(true), zstd.WithZeroFrames(true))
	case LZ4:
		w := lz4.NewWriter(out)
		return w, w.Apply(lz4.CompressionLevelOption(lz4Level(level)), lz4.ChecksumOption(true))
	case Bzip2:
		return bzip2.NewWriter(out, &bzip2.WriterConfig{Level: min(max(level, 1), 9)})
	}
	return nil, fmt.Errorf("compress: %v", codec)
}
