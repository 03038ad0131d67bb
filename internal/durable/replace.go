package durable

import (
	"crypto/rand"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// Replace makes content durable under path, with mode 0600, in place of the file
// that may be there: after a crash it is the old one or the new one. It is for
// files that are notes to ourselves or settings, never for objects of a
// repository, which are written once.
func Replace(path string, content []byte) error {
	return ReplaceFile(OS{}, path, 0o600, content)
}

// ReplaceFile is [Replace] through fsys. The file has its mode before it has its
// name. What a crash may leave besides it is called .NAME.RANDOM.tmp.
func ReplaceFile(fsys FS, path string, mode fs.FileMode, content []byte) error {
	temp := filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+"."+rand.Text()+".tmp")
	if err := replaceVia(fsys, temp, path, mode, content); err != nil {
		_ = fsys.Remove(temp)
		return fmt.Errorf("write %s: %w", path, err)
	}
	return fsys.SyncDir(filepath.Dir(path))
}

func replaceVia(fsys FS, temp, path string, mode fs.FileMode, content []byte) error {
	f, err := fsys.Create(temp)
	if err != nil {
		return err
	}
	if err := os.Chmod(temp, mode); err != nil {
		_ = f.Close()
		return err
	}
	if err := writeSync(f, content); err != nil {
		return err
	}
	return fsys.Replace(temp, path)
}
