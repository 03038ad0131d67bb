package walfile

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// A target is a file on its way to PostgreSQL. It is written beside its final
// name and renamed when it is whole, so that the final name never shows a part.
type target struct {
	*os.File
	final string
}

// maxTargets is how many processes may write to one target at once.
const maxTargets = 64

// createTarget makes the file beside final. Its name is taken from a fixed list
// and guarded by a flock: what a killed process left is found and used again by
// the next one, without reading the directory and without guessing by age.
func createTarget(final string) (*target, error) {
	for i := range maxTargets {
		f, err := os.OpenFile(fmt.Sprintf("%s.pgmoneta%d", final, i), os.O_RDWR|os.O_CREATE, 0o600)
		if err != nil {
			return nil, err
		}
		free, err := claim(f)
		if err == nil && free {
			err = empty(f)
		}
		if err != nil {
			_ = f.Close()
			return nil, err
		}
		if free {
			return &target{File: f, final: final}, nil
		}
		_ = f.Close()
	}
	return nil, fmt.Errorf("%d processes write to %s at once", maxTargets, final)
}

// empty removes the content of a file, if it has any: after a truncation to
// nothing, even of nothing, ext4 writes the file out when it is closed
// (auto_da_alloc), which takes as long as all the rest.
func empty(f *os.File) error {
	info, err := f.Stat()
	if err != nil || info.Size() == 0 {
		return err
	}
	return f.Truncate(0)
}

// claim locks f and reports whether it is ours now: nobody else has the lock,
// and its name has not gone to another file in between.
func claim(f *os.File) (bool, error) {
	raw, err := f.SyscallConn()
	if err != nil {
		return false, err
	}
	var lockErr error
	err = raw.Control(func(fd uintptr) { lockErr = unix.Flock(int(fd), unix.LOCK_EX|unix.LOCK_NB) })
	if errors.Is(lockErr, unix.EWOULDBLOCK) {
		return false, err
	}
	if err := errors.Join(err, lockErr); err != nil {
		return false, err
	}
	mine, err := f.Stat()
	if err != nil {
		return false, err
	}
	named, err := os.Stat(f.Name())
	return err == nil && os.SameFile(mine, named), nil
}

// publish gives the file its final name. The lock ends with the descriptor, so
// that the rename comes first.
func (t *target) publish() error {
	if err := os.Rename(t.Name(), t.final); err != nil {
		t.discard()
		return err
	}
	// The file system may report a failed write only now. The name must not stay then.
	if err := t.Close(); err != nil {
		_ = os.Remove(t.final)
		return err
	}
	return nil
}

// discard removes the file. It is called instead of publish.
func (t *target) discard() {
	_ = os.Remove(t.Name())
	_ = t.Close()
}
