package container

import "github.com/pierrec/lz4/v4"

// DecompressLZ4Block decodes a raw LZ4 block, which has no frame around it, into dst and
// returns its plain length. before is what was decoded before it, to which it may refer.
func DecompressLZ4Block(dst, block, before []byte) (int, error) {
	return lz4.UncompressBlockWithDict(block, dst, before)
}
