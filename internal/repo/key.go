package repo

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/pgmoneta/pgmoneta-go/internal/container"
	"github.com/pgmoneta/pgmoneta-go/internal/storage"
	"github.com/pgmoneta/pgmoneta-go/internal/vault"
)

const (
	keyPrefix  = "key"
	keyVersion = 1
	keyLimit   = 4096 // of a key object in bytes
)

// A wrap is the content of the object
//
//	key/<number>/<wrap>
//
// one key of the repository, encrypted with a master key. All wraps of a number
// hold the same key; there are several while the master key is being changed.
//
//	wrapping key   HKDF-SHA-256(master secret, salt, "pgmoneta repository key" 0 <repository id>), 32 bytes
//	wrapped        AES-256-GCM of the key, nonce zero: the salt is random, so each wrapping key is used once
//	data           "pgmoneta key" 0 <repository id> 0, number (4), wrap (4), 1 if plain (1), little endian
type wrap struct {
	Version    int    `json:"key_version"`
	Number     uint32 `json:"number"`
	Wrap       uint32 `json:"wrap"`
	Repository string `json:"repository"`
	// Plain says that objects which are not encrypted may stand beside encrypted
	// ones: there were some when the first key was made, or encryption was
	// switched off later.
	Plain   bool   `json:"plain"`
	Master  string `json:"master"` // fingerprint of the master key
	Salt    []byte `json:"salt"`
	Wrapped []byte `json:"wrapped"`
}

func wrapName(number, wrap uint32) string { return fmt.Sprintf("%s/%d/%d", keyPrefix, number, wrap) }

func (w *wrap) object() string { return wrapName(w.Number, w.Wrap) }

// parseWrapName returns the number and the wrap that an object's name stands for.
func parseWrapName(name string) (number, wrap uint32, ok bool) {
	rest, ok := strings.CutPrefix(name, keyPrefix+"/")
	a, b, cut := strings.Cut(rest, "/")
	n, errN := strconv.ParseUint(a, 10, 24)
	w, errW := strconv.ParseUint(b, 10, 31)
	number, wrap = uint32(n), uint32(w)
	return number, wrap, ok && cut && errors.Join(errN, errW) == nil && n > 0 && w > 0 && wrapName(number, wrap) == name
}

// parseWrap reads the content of the key object of that name.
func parseWrap(name string, content []byte) (*wrap, error) {
	number, n, ok := parseWrapName(name)
	if !ok {
		return nil, fmt.Errorf("%q is no name of a key", name)
	}
	w := new(wrap)
	if err := json.Unmarshal(content, w); err != nil {
		return nil, &container.DamagedError{Object: name, Frame: -1, Err: err}
	}
	var err error
	switch {
	case w.Version != keyVersion:
		err = fmt.Errorf("key version %d; this program reads version %d", w.Version, keyVersion)
	case w.Number != number || w.Wrap != n:
		err = fmt.Errorf("holds key %d, wrap %d", w.Number, w.Wrap)
	case len(w.Salt) != wrapSalt || len(w.Wrapped) != container.KeySize+wrapTag:
		err = errors.New("lengths are wrong")
	}
	if err != nil {
		return nil, &container.DamagedError{Object: name, Frame: -1, Err: err}
	}
	return w, nil
}

const (
	wrapSalt = 32
	wrapTag  = 16
)

func (w *wrap) data() []byte {
	b := append([]byte("pgmoneta key\x00"), w.Repository...)
	b = append(b, 0)
	b = binary.LittleEndian.AppendUint32(b, w.Number)
	b = binary.LittleEndian.AppendUint32(b, w.Wrap)
	if w.Plain {
		return append(b, 1)
	}
	return append(b, 0)
}

func (w *wrap) aead(master *vault.MasterKey) (cipher.AEAD, error) {
	key, err := master.Derive("pgmoneta repository key\x00"+w.Repository, w.Salt, 32)
	if err != nil {
		return nil, err
	}
	defer clear(key)
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}

// seal sets everything that belongs to key and master.
func (w *wrap) seal(key container.Key, master *vault.MasterKey) error {
	w.Version, w.Repository, w.Number = keyVersion, key.Repository, key.Number
	var err error
	if w.Master, err = master.Fingerprint(); err != nil {
		return err
	}
	w.Salt = make([]byte, wrapSalt)
	if _, err := rand.Read(w.Salt); err != nil {
		return err
	}
	aead, err := w.aead(master)
	if err != nil {
		return err
	}
	secret := key.Secret()
	defer clear(secret[:])
	w.Wrapped = aead.Seal(nil, make([]byte, aead.NonceSize()), secret[:], w.data())
	return nil
}

// open returns the key, with a master key whose fingerprint is that of the wrap.
func (w *wrap) open(repository string, master *vault.MasterKey) (container.Key, error) {
	if w.Repository != repository {
		return container.Key{}, w.damaged(fmt.Errorf("is a key of repository %s, this one is %s", w.Repository, repository))
	}
	aead, err := w.aead(master)
	if err != nil {
		return container.Key{}, err
	}
	plain, err := aead.Open(nil, make([]byte, aead.NonceSize()), w.Wrapped, w.data())
	if err != nil {
		return container.Key{}, w.damaged(container.ErrForged)
	}
	defer clear(plain)
	return container.NewKey(repository, w.Number, [container.KeySize]byte(plain))
}

func (w *wrap) damaged(err error) error {
	return &container.DamagedError{Object: w.object(), Frame: -1, Err: err}
}

// put writes the wrap as a new object. It is [fs.ErrExist] when its name is taken.
func (w *wrap) put(ctx context.Context, e storage.Engine, owner string) error {
	content, err := json.Marshal(w)
	if err != nil {
		return err
	}
	return storage.Put(ctx, e, owner, w.object(), append(content, '\n'))
}

// A MissingKeyError reports a key that the repository does not have.
type MissingKeyError struct {
	Dir    string // of the repository
	Number uint32
}

func (e *MissingKeyError) Error() string {
	return fmt.Sprintf("%s/%s/%d is missing: bring it back from a copy of the repository; without it what it encrypts is lost", e.Dir, keyPrefix, e.Number)
}

// A WrongMasterError reports a master key that is not the one that a key of a
// repository is wrapped with.
type WrongMasterError struct {
	Object string // such as key/1/1
	Want   string // fingerprint of the master key it is wrapped with
	Have   string // fingerprint of the master key at hand
}

func (e *WrongMasterError) Error() string {
	return fmt.Sprintf("%s is wrapped with the master key with fingerprint %s, the one at hand is %s: use the master.key it was made with", e.Object, e.Want, e.Have)
}

// A NoMasterError reports that there is no master key to open a repository's keys
// with. It does not unwrap to its cause: a key file that does not exist must
// not look like an object that does not.
type NoMasterError struct{ Err error }

func (e *NoMasterError) Error() string { return fmt.Sprintf("the master key is needed: %v", e.Err) }

// ErrPlain is wrapped by the [*container.DamagedError] of an object that is not
// encrypted in a repository that holds encrypted ones only.
var ErrPlain = errors.New("it is not encrypted, and this repository holds encrypted objects only: somebody put it there")
