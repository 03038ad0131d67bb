package container

import (
	"crypto/aes"
	"crypto/cipher"
)

// A Print is a hash by which equal plain bytes are found, seven times as fast to
// compute as the SHA-256 that proves them.
//
// It is GHASH, a universal hash: without the key nobody can make two pieces of data
// with the same print, and two pieces of 1 MiB that nobody made for the purpose
// have it with a probability of 2^-111 (NIST SP 800-38D; Carter and Wegman 1979).
type Print [16]byte

// A Printer makes prints with one key. It is safe for concurrent use.
type Printer struct{ aead cipher.AEAD }

// PrintKeySize is the length of a printer's key.
const PrintKeySize = 16

// NewPrinter returns the printer of a key. Prints of other keys cannot be compared.
func NewPrinter(key [PrintKeySize]byte) (*Printer, error) {
	block, err := aes.NewCipher(key[:])
	if err != nil {
		return nil, err
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		return nil, err
	}
	return &Printer{aead: aead}, nil
}

// Print returns the print of data: the tag of an empty message that data is
// associated with. The nonce is always the same, because the tags are not used to
// authenticate: they stay in the repository.
func (p *Printer) Print(data []byte) Print {
	var nonce [12]byte
	return Print(p.aead.Seal(make([]byte, 0, len(Print{})), nonce[:], nil, data))
}
