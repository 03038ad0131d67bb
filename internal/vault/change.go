package vault

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"
)

// nextSuffix is that of the new master key while the master key is being changed.
const nextSuffix = ".next"

// A Change replaces the master key of a file. Everything sealed with the old key is sealed with the new one in between, by whoever owns it:
//
//  1. [BeginChange] puts the new key beside the old one, durably. From now on both are valid for everybody who loads the file.
//  2. The owners add copies sealed with the new key, or replace theirs.
//  3. [Change.Finish] gives the new key the name of the old one, which is kept under a name with its time.
//
// A process that ends in between leaves both keys valid; BeginChange then takes up the change where it was left.
type Change struct {
	path    string
	Old     *MasterKey
	New     *MasterKey
	Resumed bool // the new key was there already
	unlock  func()
}

// BeginChange begins or takes up a change of the master key at path. passphrase is asked for the new key, unless there is one already. Close the change.
func BeginChange(path string, passphrase func() (Secret, error)) (c *Change, err error) {
	unlock, err := lockChange(path)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			unlock()
		}
	}()
	c = &Change{path: path, unlock: unlock}
	if c.Old, err = loadMasterKey(path); err != nil {
		return nil, err
	}
	c.New, err = loadMasterKey(path + nextSuffix)
	if err == nil {
		c.Resumed = true
		return c, nil
	}
	if !errors.Is(err, ErrNoMasterKey) {
		return nil, err
	}
	text, err := passphrase()
	if err != nil {
		return nil, err
	}
	if err := CreateMasterKey(path+nextSuffix, text); err != nil {
		return nil, err
	}
	c.New, err = loadMasterKey(path + nextSuffix)
	return c, err
}

// lockChange keeps other processes from changing the same master key. The lock is not that of the directory, in which users files may lie that are
// edited meanwhile.
func lockChange(path string) (unlock func(), err error) {
	f, err := os.OpenFile(path+".lock", os.O_RDONLY|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock master key: %w", err)
	}
	_ = f.Close()
	return lockDir(path + ".lock")
}

// Either returns a key that opens what either of the two has sealed and seals with the new one.
func (c *Change) Either() *MasterKey { return &MasterKey{derive: c.New.derive, second: c.Old} }

// Finish makes the new key the only one and returns where the old one is kept. now is part of that name.
func (c *Change) Finish(now time.Time) (kept string, err error) {
	kept = c.path + "." + now.UTC().Format("20060102150405")
	if err := os.Link(c.path, kept); err != nil && !errors.Is(err, fs.ErrExist) {
		return "", fmt.Errorf("keep the old master key: %w", err)
	}
	if err := syncDir(filepath.Dir(c.path)); err != nil {
		return "", err
	}
	if err := os.Rename(c.path+nextSuffix, c.path); err != nil {
		return "", fmt.Errorf("replace the master key: %w", err)
	}
	_ = os.Remove(c.path + derivedSuffix) // of the old key: it would be replaced by the next who needs it
	return kept, syncDir(filepath.Dir(c.path))
}

// Close lets others change the master key again.
func (c *Change) Close() { c.unlock() }

// ResealUsers seals every password of a users file once more, with the key that master seals with. Comments and order stay. Nothing is written when an
// entry cannot be opened. The file must exist.
func ResealUsers(path string, master *MasterKey) error {
	if _, err := os.Stat(path); err != nil {
		return fmt.Errorf("read users: %w", err)
	}
	return replaceUsers(path, func(path string, data []byte) ([]string, error) {
		lines := splitLines(data)
		var errs []error
		for i, line := range lines {
			resealed, err := resealLine(line, master)
			if err != nil {
				errs = append(errs, &LineError{path, i + 1, "the entry cannot be sealed again", err})
			}
			lines[i] = resealed
		}
		return lines, errors.Join(errs...)
	})
}

func resealLine(line string, master *MasterKey) (string, error) {
	e, err := parseEntry(line)
	if err != nil || e.user == "" {
		return line, err
	}
	password, err := master.openPassword(e.sealed)
	if err != nil {
		return line, err
	}
	sealed, err := master.sealPassword(password)
	return strings.Replace(line, e.sealed, sealed, 1), err
}

// A KeyFile is a master key file that may change while it is used. It is safe for concurrent use.
type KeyFile struct {
	path string

	mu   sync.Mutex
	seen [2]identity // of the file and of the new key beside it
	key  *MasterKey
}

// identity tells whether a file is still the one that was read. It is zero for none.
type identity struct {
	inode uint64
	size  int64
	time  time.Time
}

// NewKeyFile returns the master key file at path. It is read when the key is asked for.
func NewKeyFile(path string) *KeyFile { return &KeyFile{path: path} }

// Load returns the master key as it is now. Asking again is cheap as long as the file has not changed. The error wraps [ErrNoMasterKey] when there is none.
func (k *KeyFile) Load() (*MasterKey, error) {
	seen := [2]identity{identify(k.path), identify(k.path + nextSuffix)}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.key != nil && seen == k.seen {
		return k.key, nil
	}
	key, err := LoadMasterKey(k.path)
	if err != nil {
		return nil, err
	}
	k.key, k.seen = key, seen
	return key, nil
}

func identify(path string) identity {
	info, err := os.Stat(path)
	if err != nil {
		return identity{}
	}
	id := identity{size: info.Size(), time: info.ModTime()}
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		id.inode = st.Ino
	}
	return id
}
