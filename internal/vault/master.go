package vault

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"unicode/utf8"
)

// Limits of a new master key in bytes. C pgmoneta reads the line of the file through a buffer of 128 bytes, so 93 is the most it can read back.
const (
	MinPassphrase = 8
	MaxPassphrase = 93
)

// maxMasterFile bounds what is read from a master key file.
const maxMasterFile = 64 << 10

// MasterKeyPath returns the path of the master key below a home directory.
func MasterKeyPath(home string) string { return filepath.Join(home, ".pgmoneta", "master.key") }

// ErrNoMasterKey reports that there is no master key file yet.
var ErrNoMasterKey = errors.New("no master key: create one with pgmoneta-admin master-key")

// A ModeError reports a file or directory that others than its owner can use.
type ModeError struct {
	Path string
	Mode fs.FileMode
	Want fs.FileMode // permissions that are accepted
}

func (e *ModeError) Error() string {
	return fmt.Sprintf("%s has permissions %#o and is open to others: chmod %#o %s", e.Path, e.Mode.Perm(), e.Want, e.Path)
}

// CheckPassphrase returns what is wrong with a new master key: it is valid UTF-8 of 8 to 93 bytes.
func CheckPassphrase(passphrase Secret) error {
	text := passphrase.Reveal()
	switch {
	case !utf8.ValidString(text):
		return errors.New("the master key must be valid UTF-8")
	case len(text) < MinPassphrase:
		return fmt.Errorf("the master key must have at least %d characters", MinPassphrase)
	case len(text) > MaxPassphrase:
		return fmt.Errorf("the master key must have at most %d bytes", MaxPassphrase)
	}
	return nil
}

// LoadMasterKey reads a master key file. The file must belong to its owner alone and so must its directory. The error wraps [ErrNoMasterKey] when there is no file.
//
// While the master key is being changed (see [BeginChange]) the new one is valid too.
func LoadMasterKey(path string) (*MasterKey, error) {
	key, err := loadMasterKey(path)
	if err != nil {
		return nil, err
	}
	switch next, err := loadMasterKey(path + nextSuffix); {
	case err == nil:
		key.second = next
	case !errors.Is(err, ErrNoMasterKey):
		return nil, err
	}
	return key, nil
}

func loadMasterKey(path string) (*MasterKey, error) {
	err := checkMode(filepath.Dir(path), true)
	if err == nil {
		err = checkMode(path, false)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s: %w", path, ErrNoMasterKey)
	}
	if err != nil {
		return nil, err
	}
	data, err := readBounded(path, maxMasterFile)
	if err != nil {
		return nil, fmt.Errorf("read master key: %w", err)
	}
	key, err := ParseMasterKey(data)
	if err != nil {
		return nil, fmt.Errorf("master key %s: %w", path, err)
	}
	return key, nil
}

// checkMode checks kind and permissions of a file or directory.
func checkMode(path string, directory bool) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	want := fs.FileMode(0o600)
	if directory {
		want = 0o700
	}
	switch {
	case directory && !info.IsDir():
		return fmt.Errorf("%s is not a directory", path)
	case !directory && !info.Mode().IsRegular():
		return fmt.Errorf("%s is not a regular file", path)
	case info.Mode().Perm()&0o077 != 0:
		return &ModeError{path, info.Mode(), want}
	}
	return nil
}

// ParseMasterKey reads the content of a master key file: two lines of base64, the passphrase and the master salt.
func ParseMasterKey(data []byte) (*MasterKey, error) {
	lines := bytes.Split(bytes.TrimRight(data, "\r\n \t"), []byte("\n"))
	if len(bytes.TrimSpace(lines[0])) == 0 {
		return nil, errors.New("the file is empty: remove it and create the key again with pgmoneta-admin master-key")
	}
	if len(lines) != 2 {
		return nil, fmt.Errorf("the file has %d lines, want 2 (key and salt); a key of pgmoneta before 0.20 must be created again", len(lines))
	}
	passphrase, err := base64.StdEncoding.DecodeString(string(bytes.TrimSpace(lines[0])))
	if err != nil {
		return nil, errors.New("line 1 is not base64")
	}
	salt, err := base64.StdEncoding.DecodeString(string(bytes.TrimSpace(lines[1])))
	if err != nil {
		return nil, errors.New("line 2 is not base64")
	}
	return NewMasterKey(NewSecret(string(passphrase)), salt)
}

// CreateMasterKey writes a new master key file with a random salt. It makes the directory if that is missing. A file that exists is refused
// and stays; nothing is left behind when writing fails.
func CreateMasterKey(path string, passphrase Secret) error {
	if err := CheckPassphrase(passphrase); err != nil {
		return err
	}
	if err := MasterKeyFree(path); err != nil {
		return err
	}
	salt := make([]byte, SaltSize)
	if _, err := rand.Read(salt); err != nil {
		return fmt.Errorf("read random bytes: %w", err)
	}
	encode := base64.StdEncoding.EncodeToString
	content := encode([]byte(passphrase.Reveal())) + "\n" + encode(salt) + "\n"
	return writeFile(path, []byte(content), refuseExisting)
}

// MasterKeyFree checks that a master key can be created: the directory is private, or is made so, and there is no file yet.
func MasterKeyFree(path string) error {
	directory := filepath.Dir(path)
	if err := os.Mkdir(directory, 0o700); err == nil {
		if err := syncDir(filepath.Dir(directory)); err != nil {
			return err
		}
	} else if !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("create directory of the master key: %w", err)
	}
	if err := checkMode(directory, true); err != nil {
		return err
	}
	if _, err := os.Lstat(path); err == nil {
		return &fs.PathError{Op: "create master key", Path: path, Err: fs.ErrExist}
	}
	return nil
}
