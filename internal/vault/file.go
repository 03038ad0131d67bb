package vault

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// readBounded reads a file of at most limit bytes.
func readBounded(path string, limit int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(data)) > limit {
		return nil, fmt.Errorf("%s is larger than %d bytes", path, limit)
	}
	return data, nil
}

// Ways to treat a file that exists.
const (
	replaceExisting = false
	refuseExisting  = true
)

// writeFile writes a file of mode 0600 so that it is complete or absent after a crash, and durable on return.
func writeFile(path string, content []byte, exclusive bool) (err error) {
	directory := filepath.Dir(path)
	// CreateTemp makes files of mode 0600.
	f, err := os.CreateTemp(directory, "."+filepath.Base(path)+".*.tmp")
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	temporary := f.Name()
	defer func() {
		if err != nil {
			_ = f.Close()
			_ = os.Remove(temporary)
		}
	}()
	if _, err := f.Write(content); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	if err := f.Sync(); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	if err := f.Close(); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	if err := publish(temporary, path, exclusive); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return syncDir(directory)
}

// publish gives a finished file its name.
func publish(temporary, path string, exclusive bool) error {
	if !exclusive {
		return os.Rename(temporary, path)
	}
	// A link, unlike a rename, never replaces what somebody else put there in the meantime.
	if err := os.Link(temporary, path); err != nil {
		return err
	}
	return os.Remove(temporary)
}

// syncDir makes the names in a directory durable.
func syncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("sync directory: %w", err)
	}
	defer func() { _ = d.Close() }()
	if err := d.Sync(); err != nil {
		return fmt.Errorf("sync directory %s: %w", path, err)
	}
	return nil
}

// resolve follows a symbolic link, so that a replaced file is the one the link points to.
func resolve(path string) (string, error) {
	target, err := filepath.EvalSymlinks(path)
	if errors.Is(err, fs.ErrNotExist) {
		return path, nil
	}
	return target, err
}
