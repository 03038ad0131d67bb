package restore

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
)

const (
	// marker is the name of the file that says that a restore is not finished.
	marker  = ".pgmoneta-restore"
	control = "global/pg_control"
)

// inspect refuses directories that hold anything but an interrupted restore,
// and reports whether there is one.
func inspect(p *Plan) (interrupted bool, err error) {
	names, err := entries(p.Directory)
	if err != nil {
		return false, err
	}
	if exists(filepath.Join(p.Directory, marker)) {
		if exists(filepath.Join(p.Directory, control)) {
			return false, &OccupiedError{p.Directory, "it holds a data directory beside the marker of an interrupted restore: look at it, then remove it"}
		}
		return true, nil
	}
	if names > 0 {
		return false, &OccupiedError{p.Directory, "it is not empty: remove it, or choose another directory"}
	}
	for _, ts := range p.Tablespaces {
		if names, err = entries(ts.Directory); err != nil {
			return false, err
		}
		if names > 0 {
			return false, &OccupiedError{ts.Directory, "it is not empty: remove it, or choose another directory"}
		}
	}
	return false, nil
}

// entries counts what is in a directory; one that does not exist is empty.
func entries(dir string) (int, error) {
	info, err := os.Lstat(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	if !info.IsDir() {
		// A link would also break the relative links to tablespaces.
		return 0, &OccupiedError{dir, "it is not a directory: remove it, or choose another directory"}
	}
	list, err := os.ReadDir(dir)
	return len(list), err
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// freeSpace returns the bytes that the target may use, counting those of an
// interrupted restore, which will be removed.
func freeSpace(p *Plan) (int64, error) {
	at := filepath.Dir(p.Directory)
	if exists(p.Directory) {
		at = p.Directory
	}
	var st unix.Statfs_t
	for {
		err := unix.Statfs(at, &st)
		if err == nil {
			break
		}
		if !errors.Is(err, fs.ErrNotExist) || at == filepath.Dir(at) {
			return 0, fmt.Errorf("statfs %s: %w", at, err)
		}
		at = filepath.Dir(at)
	}
	free := int64(min(st.Bavail, 1<<62/uint64(st.Bsize))) * st.Bsize
	if p.Interrupted {
		for _, dir := range p.roots() {
			free += allocated(dir)
		}
	}
	return free, nil
}

// allocated returns the bytes below dir, as far as they can be seen.
func allocated(dir string) int64 {
	var sum int64
	_ = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil {
			return nil
		}
		if info, err := d.Info(); err == nil {
			if st, ok := info.Sys().(*syscall.Stat_t); ok {
				sum += st.Blocks * 512
			}
		}
		return nil
	})
	return sum
}

// roots returns the directories of tablespaces and, last, the target directory.
func (p *Plan) roots() []string {
	var dirs []string
	for _, ts := range p.Tablespaces {
		dirs = append(dirs, ts.Directory)
	}
	return append(dirs, p.Directory)
}
