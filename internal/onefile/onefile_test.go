package onefile

import (
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

// double writes what it reads twice.
func double(in *source, out io.Writer) error {
	b, err := io.ReadAll(in)
	if err == nil {
		_, err = out.Write(slices.Concat(b, b))
	}
	return err
}

// Whatever fails, the source is whole and nothing else is left; only once the result has its name may both be there.
func TestFailedConversionLeavesTheSource(t *testing.T) {
	t.Parallel()
	for n := 1; ; n++ {
		dir := t.TempDir()
		src, dest := filepath.Join(dir, "file"), filepath.Join(dir, "file.x")
		if err := os.WriteFile(src, []byte("content"), 0o600); err != nil {
			t.Fatal(err)
		}
		failed := ""
		fsys, err := durable.NewFault(dir, func(op durable.Op) error {
			if op.N != n {
				return nil
			}
			failed = op.Kind
			return syscall.ENOSPC
		})
		if err != nil {
			t.Fatal(err)
		}
		err = convert(context.Background(), fsys, src, dest, double)
		if failed == "" {
			if err != nil || n < 6 {
				t.Errorf("with %d operations: %v", n-1, err)
			}
			return
		}
		left := names(t, dir)
		published := failed == "remove" || failed == "syncdir" // of the source, and after either rename or removal
		if !errors.Is(err, syscall.ENOSPC) || !published && !slices.Equal(left, []string{"file"}) {
			t.Errorf("%s fails: %v, left %v", failed, err, left)
		}
		if published {
			same(t, dest, "contentcontent")
		}
		if slices.Contains(left, "file") {
			same(t, src, "content")
		}
	}
}

func TestPowerCutWhileConverting(t *testing.T) {
	t.Parallel()
	for n := 1; ; n++ {
		dir, after := t.TempDir(), t.TempDir()
		src, dest := filepath.Join(dir, "file"), filepath.Join(dir, "file.x")
		if err := os.WriteFile(src, []byte("content"), 0o600); err != nil {
			t.Fatal(err)
		}
		fsys, err := durable.NewPowerCut(dir, n)
		if err != nil {
			t.Fatal(err)
		}
		done := convert(context.Background(), fsys, src, dest, double) == nil
		fsys.Cut()
		if err := fsys.Image(after); err != nil {
			t.Fatal(err)
		}
		left := names(t, after)
		if slices.Contains(left, "file") {
			same(t, filepath.Join(after, "file"), "content")
		}
		if slices.Contains(left, "file.x") {
			same(t, filepath.Join(after, "file.x"), "contentcontent")
		} else if !slices.Contains(left, "file") {
			t.Errorf("cut before operation %d: left %v", n, left)
		}
		if done {
			break
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

func same(t *testing.T, path, want string) {
	t.Helper()
	if got, err := os.ReadFile(path); err != nil || string(got) != want {
		t.Errorf("%s: %q, %v", path, got, err)
	}
}
