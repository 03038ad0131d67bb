package vault

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"path/filepath"
	"sync"
)

// derivedSuffix is that of the file beside a master key file that keeps what was derived from it.
const derivedSuffix = ".derived"

// LoadMasterKeyQuick is [LoadMasterKey] for programs that run for a moment and often, such as an archive_command: the first one to derive the master
// secret, which takes some tenths of a second, keeps it in a file beside the master key, under the same permissions. That gives nothing away: the
// key file holds the passphrase itself. A file that does not belong to the key, or cannot be read or written, only costs time.
func LoadMasterKeyQuick(path string) (*MasterKey, error) {
	key, err := LoadMasterKey(path)
	if err != nil {
		return nil, err
	}
	if data, err := readBounded(path, maxMasterFile); err == nil {
		key.derive = remembered(path+derivedSuffix, data, key.derive)
	}
	return key, nil
}

func remembered(path string, data []byte, derive func() ([]byte, error)) func() ([]byte, error) {
	return sync.OnceValues(func() ([]byte, error) {
		sum := sha256.Sum256(data)
		if secret, ok := readDerived(path, sum[:]); ok {
			return secret, nil
		}
		secret, err := derive()
		if err == nil {
			content := base64.StdEncoding.EncodeToString(append(sum[:], secret...)) + "\n"
			_ = writeFile(path, []byte(content), replaceExisting)
		}
		return secret, err
	})
}

// readDerived returns the master secret of the key file with that hash.
func readDerived(path string, sum []byte) ([]byte, bool) {
	if checkMode(filepath.Dir(path), true) != nil || checkMode(path, false) != nil {
		return nil, false
	}
	text, err := readBounded(path, maxMasterFile)
	if err != nil {
		return nil, false
	}
	b, err := base64.StdEncoding.DecodeString(string(bytes.TrimSpace(text)))
	if err != nil || len(b) != len(sum)+masterSize || !bytes.Equal(b[:len(sum)], sum) {
		return nil, false
	}
	return b[len(sum):], true
}
