package onefile

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/pgmoneta/pgmoneta-go/internal/container"
	"github.com/pgmoneta/pgmoneta-go/internal/durable"
	"github.com/pgmoneta/pgmoneta-go/internal/vault"
)

// What is made of files, and read by whom, is tested in test/compat.

// What is no regular file is refused at once, and stays: a pipe without a writer too.
func TestOnlyRegularFilesAreConverted(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := func(name string) string { return filepath.Join(dir, name) }
	for _, err := range []error{
		os.WriteFile(path("file"), []byte("content"), 0o600), os.Symlink("file", path("link")), os.Symlink("nowhere", path("dangling")),
		os.Mkdir(path("directory"), 0o700), syscall.Mkfifo(path("pipe"), 0o600),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	before := names(t, dir)
	for name, want := range map[string]string{
		path("link"): "no link", path("dangling"): "no link", path("directory"): "not a regular file", path("pipe"): "not a regular file", "/dev/null": "not a regular file",
	} {
		_, err := Compress(context.Background(), name, container.Zstd, 3)
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), name) {
			t.Errorf("compress %s: %v, want %q", name, err, want)
		}
	}
	if after := names(t, dir); !slices.Equal(before, after) {
		t.Errorf("there is %v, was %v", after, before)
	}
}

// Who encrypts the master key with itself has lost it, and everything that it opens.
func TestMasterKeyIsNotEncryptedWithItself(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "keys", "copy of master.key")
	if err := vault.CreateMasterKey(path, vault.NewSecret("the passphrase")); err != nil {
		t.Fatal(err)
	}
	key, err := vault.LoadMasterKey(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Encrypt(t.Context(), path, container.AES256, key); err == nil || !strings.Contains(err.Error(), "master key itself") {
		t.Errorf("with itself: %v", err)
	}
	other, err := vault.NewMasterKey(vault.NewSecret("another"), make([]byte, vault.SaltSize))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Encrypt(t.Context(), path, container.AES256, other); err != nil {
		t.Errorf("with another: %v", err)
	}
}

// double is a conversion whose result is longer than its source.
func double(in *source, out io.Writer) error {
	b, err := io.ReadAll(in)
	if err != nil {
		return err
	}
	_, err = out.Write(append(b, b...))
	return err
}

// TestNothingIsLostWhereverItStops stops a conversion, by power and by a full disk, at
// each operation: the content is there, whole, as source or as result.
func TestNothingIsLostWhereverItStops(t *testing.T) {
	t.Parallel()
	plain := bytes.Repeat([]byte("all work and no play\n"), 100_000) // two writes
	for _, failure := range []error{durable.ErrPowerCut, syscall.ENOSPC} {
		for cut, done := 1, false; !done; cut++ {
			dir, after := t.TempDir(), t.TempDir()
			path := filepath.Join(dir, "dump")
			if err := os.WriteFile(path, plain, 0o640); err != nil {
				t.Fatal(err)
			}
			stopped := ""
			fsys, err := durable.NewFault(dir, func(op durable.Op) error {
				if op.N != cut {
					return nil
				}
				stopped = op.Kind
				return failure
			})
			if err != nil {
				t.Fatal(err)
			}
			err = convert(t.Context(), fsys, path, path+".out", double)
			done = stopped == ""
			if (err == nil) != done {
				t.Fatalf("%v at operation %d, %s: %v", failure, cut, stopped, err)
			}
			fsys.Cut()
			if err := fsys.Image(after); err != nil {
				t.Fatal(err)
			}
			for _, d := range []string{dir, after} {
				source, serr := os.ReadFile(filepath.Join(d, "dump"))
				result, rerr := os.ReadFile(filepath.Join(d, "dump.out"))
				if serr != nil && rerr != nil || serr == nil && !bytes.Equal(source, plain) || rerr == nil && len(result) != 2*len(plain) {
					t.Errorf("%v at operation %d, %s: %d bytes, %v; result %d bytes, %v", failure, cut, stopped, len(source), serr, len(result), rerr)
				}
				if done && serr == nil {
					t.Error("the source is still there")
				}
			}
			if _, err := os.Stat(path + ".out.tmp"); err == nil && failure == syscall.ENOSPC {
				t.Errorf("%v at operation %d, %s leaves what it wrote", failure, cut, stopped)
			}
		}
	}
}

// What somebody still writes must not go with what was written so far.
func TestFileThatChangesMeanwhileStays(t *testing.T) {
	t.Parallel()
	for what, change := range map[string]func(path string) error{
		"appended to": func(path string) error {
			f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
			if err != nil {
				return err
			}
			_, err = f.WriteString("more")
			return errors.Join(err, f.Close())
		},
		"replaced": func(path string) error {
			return errors.Join(os.WriteFile(path+".new", []byte("other"), 0o600), os.Rename(path+".new", path))
		},
	} {
		path := filepath.Join(t.TempDir(), "log")
		if err := os.WriteFile(path, []byte("lines"), 0o600); err != nil {
			t.Fatal(err)
		}
		err := convert(t.Context(), durable.OS{}, path, path+".out", func(in *source, out io.Writer) error {
			return errors.Join(double(in, out), change(path))
		})
		if err == nil || !strings.Contains(err.Error(), "changed") {
			t.Errorf("%s: %v", what, err)
		}
		if left, err := os.ReadDir(filepath.Dir(path)); err != nil || len(left) != 1 {
			t.Errorf("%s: there is %v, %v", what, left, err)
		}
	}
}

func names(t *testing.T, dir string) []string {
	t.Helper()
	names, err := fs.Glob(os.DirFS(dir), "*")
	if err != nil {
		t.Fatal(err)
	}
	return names
}
