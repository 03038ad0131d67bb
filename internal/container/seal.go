package container

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// A Cipher is how frames and index of a container are sealed. All of them are
// AES-GCM and differ in the size of the key.
type Cipher uint8

// Ciphers.
const (
	Plain  Cipher = 0 // not sealed
	AES128 Cipher = 1
	AES192 Cipher = 2
	AES256 Cipher = 3
)

func (c Cipher) valid() bool { return c <= AES256 }

// keySize returns the size of the key in bytes.
func (c Cipher) keySize() int { return [...]int{0, 16, 24, 32}[c] }

func (c Cipher) String() string {
	if !c.valid() {
		return fmt.Sprintf("cipher %d", uint8(c))
	}
	return [...]string{"none", "aes-128-gcm", "aes-192-gcm", "aes-256-gcm"}[c]
}

// ParseCipher returns the cipher of a name that [Cipher.String] gives.
func ParseCipher(name string) (Cipher, error) {
	for c := Plain; c.valid(); c++ {
		if c.String() == name {
			return c, nil
		}
	}
	return Plain, fmt.Errorf("cipher %q is not known", name)
}

const (
	// KeySize is the size of a repository key in bytes.
	KeySize = 32
	// MaxKey is the largest number of a repository key: the header has 24 bits for it.
	MaxKey = 1<<24 - 1

	saltSize = 32
	tagSize  = 16 // of AES-GCM
)

// A Key is a key of a repository. It encrypts nothing itself: each object has a
// key of its own, derived from this one, a salt and the object's name. It
// prints as "***".
type Key struct {
	Repository string // id of the repository
	Number     uint32 // 1 to MaxKey
	// A pointer, because fmt never follows one that is nested.
	secret *[KeySize]byte
}

// NewKey returns the key of that number of a repository.
func NewKey(repository string, number uint32, secret [KeySize]byte) (Key, error) {
	if number == 0 || number > MaxKey {
		return Key{}, fmt.Errorf("number %d of a repository key: want 1 to %d", number, MaxKey)
	}
	return Key{Repository: repository, Number: number, secret: &secret}, nil
}

// Secret returns the key itself, for wrapping it. The caller must not show it,
// and clears its copy.
func (k Key) Secret() [KeySize]byte { return *k.secret }

// Format hides the key from every printing verb.
func (k Key) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, "***") }

// Keys returns the repository key of a number. Its error says why there is none.
// It is safe for concurrent use.
type Keys func(number uint32) (Key, error)

// A KeyError reports a sealed object whose key is not at hand. The object itself
// may be good: this is about the keys, not about damage.
type KeyError struct {
	Object string // name of the object
	Number uint32 // of the repository key
	Err    error
}

func (e *KeyError) Error() string {
	return fmt.Sprintf("%s is encrypted with repository key %d: %v", e.Object, e.Number, e.Err)
}

func (e *KeyError) Unwrap() error { return e.Err }

// ErrNoKeys is why sealed objects cannot be read by who was given no keys.
var ErrNoKeys = errors.New("there are no keys to read it with")

// ErrForged is wrapped by the [*DamagedError] of a sealed object whose bytes are
// not what was stored under its name: changed, moved here from another name or
// repository, exchanged, or sealed with another key.
var ErrForged = errors.New("authentication failed: the bytes were changed, or belong to another object")

// A sealer seals and opens the messages of one container. It is safe for concurrent use.
//
// The key is used for this container only, because the salt is random. So a
// nonce is a counter: the number of the frame, and for the index one of a domain
// of its own.
//
//	key    HKDF-SHA-256(repository key, salt of the header, info), 16, 24 or 32 bytes
//	info   "pgmoneta" 0 <repository id> 0 <object name> 0 <cipher, one byte>
//	nonce  domain (4, 0 = frame, 1 = index), number of the frame (8, big endian; 0 for the index)
//	data   header (64), length of the name (4), name, then
//	       for a frame its number (8), for the index the number of frames (8) and its position (8)
type sealer struct {
	aead  cipher.AEAD
	bound []byte // header and name
}

func (k Key) sealer(header []byte, object string) (*sealer, error) {
	c := Cipher(header[20])
	info := "pgmoneta\x00" + k.Repository + "\x00" + object + "\x00" + string([]byte{byte(c)})
	key, err := hkdf.Key(sha256.New, k.secret[:], header[32:headerSize], info, c.keySize())
	if err != nil {
		return nil, err
	}
	defer clear(key)
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		return nil, err
	}
	s := &sealer{aead: aead, bound: append([]byte(nil), header[:headerSize]...)}
	s.bound = binary.LittleEndian.AppendUint32(s.bound, uint32(len(object)))
	s.bound = append(s.bound, object...)
	return s, nil
}

const (
	frameDomain = 0
	indexDomain = 1
)

func nonce(domain uint32, number uint64) []byte {
	b := binary.BigEndian.AppendUint32(make([]byte, 0, 12), domain)
	return binary.BigEndian.AppendUint64(b, number)
}

// data returns the associated data of a message.
func (s *sealer) data(numbers ...uint64) []byte {
	b := append(make([]byte, 0, len(s.bound)+16), s.bound...)
	for _, n := range numbers {
		b = binary.LittleEndian.AppendUint64(b, n)
	}
	return b
}

func (s *sealer) sealFrame(dst, stored []byte, number int) []byte {
	n := uint64(number)
	return s.aead.Seal(dst, nonce(frameDomain, n), stored, s.data(n))
}

// openFrame opens a frame in place.
func (s *sealer) openFrame(sealed []byte, number int) ([]byte, error) {
	n := uint64(number)
	return forged(s.aead.Open(sealed[:0], nonce(frameDomain, n), sealed, s.data(n)))
}

func (s *sealer) sealIndex(dst, entries []byte, frames, at uint64) []byte {
	return s.aead.Seal(dst, nonce(indexDomain, 0), entries, s.data(frames, at))
}

// openIndex opens the entries of the index in place.
func (s *sealer) openIndex(sealed []byte, frames, at uint64) ([]byte, error) {
	return forged(s.aead.Open(sealed[:0], nonce(indexDomain, 0), sealed, s.data(frames, at)))
}

func forged(b []byte, err error) ([]byte, error) {
	if err != nil {
		return nil, ErrForged
	}
	return b, nil
}
