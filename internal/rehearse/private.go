package rehearse

import (
	"crypto/rand"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

const (
	// privatePrefix begins the names of our private directories.
	privatePrefix = "pgmoneta-rehearsal-"
	// privateLink is the symbolic link in the scratch directory that leads to the private one.
	privateLink = "private"
)

// makePrivate makes the private directory of a rehearsal, which is not in the scratch
// directory: the path of a Unix socket is short, that of the scratch directory need not
// be. The link is there before the directory is, for whoever clears up after a kill.
func makePrivate(scratch string) (string, error) {
	dir := filepath.Join(os.TempDir(), privatePrefix+rand.Text())
	if err := os.Symlink(dir, filepath.Join(scratch, privateLink)); err != nil {
		return "", err
	}
	return dir, os.Mkdir(dir, 0o700)
}

// removePrivate removes the private directory that a rehearsal in this scratch directory
// left, if there is one.
func removePrivate(scratch string) error {
	dir, err := os.Readlink(filepath.Join(scratch, privateLink))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case !filepath.IsAbs(dir) || !strings.HasPrefix(filepath.Base(dir), privatePrefix):
		return nil // not of our making
	}
	return os.RemoveAll(dir)
}
