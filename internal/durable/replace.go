package durable

import (
	"fmt"
	"os"
	"path/filepath"
)

// Replace makes content durable under path, with mode 0600, in place of the file
// that may be there: after a crash it is the old one or the new one. It is for
// files that are notes to ourselves or settings, never for objects of a
// repository, which are written once.
func Replace(path string, content []byte) (err error) {
	// CreateTemp makes files of mode 0600.
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*.tmp")
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	defer func() {
		if err != nil {
			_ = f.Close()
			_ = os.Remove(f.Name())
			err = fmt.Errorf("write %s: %w", path, err)
		}
	}()
	if _, err := f.Write(content); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return err
	}
	return OS{}.SyncDir(filepath.Dir(path))
}
