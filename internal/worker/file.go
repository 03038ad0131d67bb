package worker

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/pgmoneta/pgmoneta-go/internal/job"
	"github.com/pgmoneta/pgmoneta-go/internal/onefile"
)

// convert replaces one file by what it becomes.
func (w *worker) convert(ctx context.Context) (job.Result, error) {
	if err := outside(w.BaseDir, w.Job.Path); err != nil {
		return job.Result{}, err
	}
	path, err := w.converted(ctx, w.Job.Path)
	if err != nil {
		return job.Result{}, err
	}
	return job.Result{Path: path}, nil
}

func (w *worker) converted(ctx context.Context, path string) (string, error) {
	switch w.Kind {
	case job.Compress:
		return onefile.Compress(ctx, path, w.Codec, w.Level)
	case job.Decompress:
		return onefile.Decompress(ctx, path)
	}
	master, err := w.Keys().Master()
	if err != nil {
		return "", err
	}
	if w.Kind == job.Encrypt {
		return onefile.Encrypt(ctx, path, w.Cipher, master)
	}
	return onefile.Decrypt(ctx, path, master)
}

// outside makes sure that a file does not lie below base_dir, whatever links lead there:
// what the repositories hold is never changed.
func outside(base, path string) error {
	dir, err := filepath.EvalSymlinks(filepath.Dir(path))
	if err != nil {
		return err
	}
	root, err := os.Stat(base)
	if err != nil {
		return err
	}
	for {
		info, err := os.Stat(dir)
		if err != nil {
			return err
		}
		if os.SameFile(info, root) {
			return fmt.Errorf("%s lies below base_dir, where nothing is ever changed: make a copy elsewhere, "+
				"of a backup with pgmoneta-cli archive, of WAL with pgmoneta-wal get", path)
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return nil
		}
		dir = parent
	}
}
