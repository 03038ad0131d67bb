package durable

import (
	"os"
	"path/filepath"
	"testing"
)

// TestReplaceLeavesOldOrNewAtEveryCut cuts the power at each operation.
func TestReplaceLeavesOldOrNewAtEveryCut(t *testing.T) {
	t.Parallel()
	for cut := 1; ; cut++ {
		dir, after := t.TempDir(), t.TempDir()
		path := filepath.Join(dir, "file")
		if err := os.WriteFile(path, []byte("old"), 0o640); err != nil {
			t.Fatal(err)
		}
		fsys, err := NewPowerCut(dir, cut)
		if err != nil {
			t.Fatal(err)
		}
		replaceErr := ReplaceFile(fsys, path, 0o640, []byte("the new one"))
		fsys.Cut()
		if err := fsys.Image(after); err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(filepath.Join(after, "file"))
		if want := map[bool]string{true: "the new one", false: "old"}[replaceErr == nil]; err != nil || string(got) != want {
			t.Errorf("cut at operation %d (%v): the file holds %q, %v, want %q", cut, replaceErr, got, err, want)
		}
		if replaceErr == nil {
			if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o640 {
				t.Errorf("mode %v, %v", info.Mode(), err)
			}
			return
		}
	}
}

func TestReplace(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "file")
	for _, want := range []string{"first", "second, which is longer", ""} {
		if err := Replace(path, []byte(want)); err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(path); err != nil || string(got) != want {
			t.Errorf("the file holds %q, %v, want %q", got, err, want)
		}
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if err := os.Mkdir(filepath.Join(dir, "sub"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := Replace(filepath.Join(dir, "sub"), []byte("x")); err == nil {
		t.Error("a directory was replaced")
	}
	if left, _ := os.ReadDir(dir); len(left) != 2 {
		t.Errorf("%d names, want the file and the directory", len(left))
	}
}
