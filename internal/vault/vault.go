// Package vault keeps secrets: the master key, the users and admins files, password files, and the one sealed object format of
// C pgmoneta that all of them, its backups and its management protocol share.
//
// # Terms
//
// The passphrase and the master salt stand in the file master.key. The master secret is derived from both, once, by PBKDF2 with 600000
// rounds. An object is a sealed text: salt (16 bytes), nonce (12), ciphertext, tag (16); its key is derived from the master secret and its salt.
//
//	M   = PBKDF2-HMAC-SHA256(passphrase, master salt, 600000 rounds, 64 bytes)
//	key = PBKDF2-HMAC-SHA256(M, salt of the object, 1 round, 32, 24 or 16 bytes)
//
// # Guarantees
//
// Files written here are complete or absent, readable by their owner only, and on stable storage when the function returns.
// A file with wrong permissions is refused where C pgmoneta refuses it. Errors name file and line and never contain a secret; neither
// does a printed [Secret] or [MasterKey].
//
// # Not guaranteed
//
// An object is not bound to its place: one can be swapped for another of the same master key. The container format of our own
// repositories does that better; this one exists for compatibility.
package vault

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"sync"
	"unicode/utf8"
)

// Sizes of the object format in bytes.
const (
	SaltSize  = 16
	nonceSize = 12
	tagSize   = 16

	// Overhead is what sealing adds to a text.
	Overhead = SaltSize + nonceSize + tagSize
)

const (
	masterRounds = 600000
	masterSize   = 64
)

// maxObject is the largest text of one AES-GCM message in bytes: 64 GiB - 32.
const maxObject = 1<<36 - 32

// A KeySize is the size of an AES key in bytes.
type KeySize int

// Key sizes.
const (
	AES256 KeySize = 32
	AES192 KeySize = 24
	AES128 KeySize = 16
)

// ErrSealed reports an object that cannot be opened: damaged, sealed with another master key or with another key size.
var ErrSealed = errors.New("cannot decrypt: damaged, or encrypted with another master key or key size")

// A MasterKey derives the keys of objects. Its methods may be called from any goroutine; the first use takes a tenth
// of a second for the derivation, the others do not.
//
// While the master key is being changed a second one is valid too; see [LoadMasterKey]. Texts sealed with either can be opened, and what is sealed
// is sealed with the first.
type MasterKey struct {
	derive func() ([]byte, error) // the master secret
	second *MasterKey             // nil but during a change
}

// NewMasterKey returns the master key of a passphrase and a master salt of 16 bytes.
func NewMasterKey(passphrase Secret, salt []byte) (*MasterKey, error) {
	if len(salt) != SaltSize {
		return nil, fmt.Errorf("master salt has %d bytes, want %d", len(salt), SaltSize)
	}
	if passphrase.IsZero() {
		return nil, errors.New("master key is empty")
	}
	salt = append([]byte(nil), salt...)
	return &MasterKey{derive: sync.OnceValues(func() ([]byte, error) {
		return pbkdf2.Key(sha256.New, passphrase.Reveal(), salt, masterRounds, masterSize)
	})}, nil
}

// A MasterWire carries a master key to a worker over the control socket. It holds the master secret, not the passphrase.
type MasterWire struct {
	Derived SecretWire
	Second  SecretWire // of the key that is valid too; empty for none
}

// Wire returns the form in which the key may travel over the control socket, with the derivation done.
func (m *MasterKey) Wire() (MasterWire, error) {
	var w MasterWire
	var err error
	if w.Derived, err = m.sent(); err == nil && m.second != nil {
		w.Second, err = m.second.sent()
	}
	return w, err
}

func (m *MasterKey) sent() (SecretWire, error) {
	secret, err := m.derive()
	if err != nil {
		return SecretWire{}, fmt.Errorf("derive master secret: %w", err)
	}
	return NewSecretWire(base64.StdEncoding.EncodeToString(secret)), nil
}

// IsZero reports whether no key was sent.
func (w MasterWire) IsZero() bool { return w.Derived.IsZero() }

// Key returns the master key that was sent.
func (w MasterWire) Key() (*MasterKey, error) {
	key, err := received(w.Derived)
	if err == nil && !w.Second.IsZero() {
		key.second, err = received(w.Second)
	}
	return key, err
}

func received(w SecretWire) (*MasterKey, error) {
	secret, err := base64.StdEncoding.DecodeString(w.Reveal())
	if err != nil || len(secret) != masterSize {
		return nil, errors.New("master key in a message is not complete")
	}
	return &MasterKey{derive: func() ([]byte, error) { return secret, nil }}, nil
}

// Valid returns the key alone and, while the master key is being changed, the one that is valid too after it.
func (m *MasterKey) Valid() []*MasterKey {
	first := &MasterKey{derive: m.derive}
	if m.second == nil {
		return []*MasterKey{first}
	}
	return []*MasterKey{first, m.second}
}

// Fingerprint returns 16 hexadecimal digits that tell master keys apart and nothing else about them.
func (m *MasterKey) Fingerprint() (string, error) {
	key, err := m.Derive("pgmoneta master key fingerprint", nil, 8)
	return hex.EncodeToString(key), err
}

// Derive returns a key of size bytes for another format than that of this package: HKDF-SHA-256 of the master secret.
func (m *MasterKey) Derive(info string, salt []byte, size int) ([]byte, error) {
	secret, err := m.derive()
	if err != nil {
		return nil, fmt.Errorf("derive master secret: %w", err)
	}
	return hkdf.Key(sha256.New, secret, salt, info, size)
}

// MasterSecret returns the 64 bytes M, for deriving keys of other formats. The caller must not change or show them.
func (m *MasterKey) MasterSecret() ([]byte, error) { return m.derive() }

// ObjectKey returns the key of the object with this salt.
func (m *MasterKey) ObjectKey(salt []byte, size KeySize) ([]byte, error) {
	if size != AES256 && size != AES192 && size != AES128 {
		return nil, fmt.Errorf("key size %d is not one of AES", int(size))
	}
	if len(salt) != SaltSize {
		return nil, fmt.Errorf("salt of an object has %d bytes, want %d", len(salt), SaltSize)
	}
	secret, err := m.derive()
	if err != nil {
		return nil, fmt.Errorf("derive master secret: %w", err)
	}
	return pbkdf2.Key(sha256.New, string(secret), salt, 1, int(size))
}

// Format hides the key from every printing verb.
func (m *MasterKey) Format(f fmt.State, verb rune) { Secret{}.Format(f, verb) }

// Seal returns text as an object, with a salt and a nonce of its own.
func (m *MasterKey) Seal(text []byte, size KeySize) ([]byte, error) {
	if int64(len(text)) > maxObject {
		return nil, fmt.Errorf("text of %d bytes is too large for one object", len(text))
	}
	head := make([]byte, SaltSize+nonceSize, Overhead+len(text))
	if _, err := rand.Read(head); err != nil {
		return nil, fmt.Errorf("read random bytes: %w", err)
	}
	aead, err := m.aead(head[:SaltSize], size)
	if err != nil {
		return nil, err
	}
	return aead.Seal(head, head[SaltSize:], text, nil), nil
}

// Open returns the text of an object. The error is [ErrSealed] when the object is not what was sealed.
func (m *MasterKey) Open(object []byte, size KeySize) ([]byte, error) {
	if len(object) < Overhead {
		return nil, fmt.Errorf("%w (only %d bytes)", ErrSealed, len(object))
	}
	text, err := m.open(object, size)
	if errors.Is(err, ErrSealed) && m.second != nil {
		return m.second.open(object, size)
	}
	return text, err
}

func (m *MasterKey) open(object []byte, size KeySize) ([]byte, error) {
	aead, err := m.aead(object[:SaltSize], size)
	if err != nil {
		return nil, err
	}
	text, err := aead.Open(nil, object[SaltSize:SaltSize+nonceSize], object[SaltSize+nonceSize:], nil)
	if err != nil {
		return nil, ErrSealed
	}
	return text, nil
}

func (m *MasterKey) aead(salt []byte, size KeySize) (cipher.AEAD, error) {
	key, err := m.ObjectKey(salt, size)
	if err != nil {
		return nil, err
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}

// sealPassword returns a password in the form of the users file.
func (m *MasterKey) sealPassword(password Secret) (string, error) {
	object, err := m.Seal([]byte(password.Reveal()), AES256)
	if err != nil {
		return "", err
	}
	return base64.StdEncoding.EncodeToString(object), nil
}

// openPassword is the inverse of sealPassword.
func (m *MasterKey) openPassword(text string) (Secret, error) {
	object, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		return Secret{}, errors.New("the password is not base64")
	}
	password, err := m.Open(object, AES256)
	if err != nil {
		return Secret{}, err
	}
	if len(password) > MaxPassword || !utf8.Valid(password) {
		return Secret{}, fmt.Errorf("the password is not valid UTF-8 of at most %d bytes", MaxPassword)
	}
	return NewSecret(string(password)), nil
}
