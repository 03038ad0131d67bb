package durable

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

func TestWriteFileIsAllOrNothingAtEveryCut(t *testing.T) {
	const content = "the only copy"
	for cut := 1; ; cut++ {
		root := t.TempDir()
		f, err := NewPowerCut(root, cut)
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(root, "final")
		werr := WriteFile(f, path, filepath.Join(root, "final.tmp"), []byte(content))
		after := t.TempDir()
		if err := f.Image(after); err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(filepath.Join(after, "final"))
		switch {
		case err == nil && string(got) != content:
			t.Fatalf("cut at operation %d left %q under the final name", cut, got)
		case werr == nil && err != nil:
			t.Fatalf("cut at operation %d: WriteFile succeeded, but the file is gone: %v", cut, err)
		}
		if werr == nil {
			return // the cut came after the last operation
		}
	}
}

func TestFaultForgetsWhatWasNotSynced(t *testing.T) {
	root := t.TempDir()
	f, err := NewFault(root, nil)
	if err != nil {
		t.Fatal(err)
	}
	file, err := f.Create(filepath.Join(root, "a"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = file.Close() }()
	for _, step := range []func() error{
		func() error { return file.Allocate(8) },
		func() error { _, err := file.WriteAt([]byte("synced"), 0); return err },
		file.Datasync,
		func() error { return f.SyncDir(root) },
		func() error { _, err := file.WriteAt([]byte("XX"), 0); return err },
		func() error { return os.WriteFile(filepath.Join(root, "unseen"), nil, 0o600) },
	} {
		if err := step(); err != nil {
			t.Fatal(err)
		}
	}
	f.Cut()
	if _, err := file.WriteAt([]byte("late"), 0); !errors.Is(err, ErrPowerCut) {
		t.Errorf("write after the cut: %v", err)
	}
	after := t.TempDir()
	if err := f.Image(after); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(filepath.Join(after, "a"))
	if err != nil || string(got) != "synced\x00\x00" {
		t.Errorf("after the cut: %q, %v", got, err)
	}
}

func TestRenameRefusesToReplace(t *testing.T) {
	dir := t.TempDir()
	a, b := filepath.Join(dir, "a"), filepath.Join(dir, "b")
	for _, p := range []string{a, b} {
		if err := os.WriteFile(p, []byte(p), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := (OS{}).Rename(a, b); !errors.Is(err, fs.ErrExist) {
		t.Errorf("Rename over a file: %v, want ErrExist", err)
	}
	if err := linkRename(a, b); !errors.Is(err, fs.ErrExist) {
		t.Errorf("linkRename over a file: %v, want ErrExist", err)
	}
	if err := linkRename(a, filepath.Join(dir, "c")); err != nil {
		t.Errorf("linkRename: %v", err)
	}
}

func TestInjectedErrorsReachTheCaller(t *testing.T) {
	for _, kind := range []string{"create", "write", "sync", "close", "rename", "syncdir"} {
		root := t.TempDir()
		f, err := NewFault(root, func(op Op) error {
			if op.Kind == kind {
				return syscall.ENOSPC
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		err = WriteFile(f, filepath.Join(root, "x"), filepath.Join(root, "x.tmp"), []byte("y"))
		if !errors.Is(err, syscall.ENOSPC) {
			t.Errorf("%s failed with ENOSPC, WriteFile returned %v", kind, err)
		}
	}
}

func TestLockIsExclusiveAndNamesItsHolder(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	l, err := TryLock(path)
	if err != nil {
		t.Fatal(err)
	}
	_, err = TryLock(path)
	var locked *LockedError
	if !errors.As(err, &locked) || locked.PID != os.Getpid() {
		t.Fatalf("second TryLock: %v", err)
	}
	if held, err := Locked(path); !held || err != nil {
		t.Errorf("Locked of a held lock is %v, %v", held, err)
	}
	if err := l.Release(); err != nil {
		t.Fatal(err)
	}
	for _, free := range []string{path, path + ".missing"} {
		if held, err := Locked(free); held || err != nil {
			t.Errorf("Locked(%s) is %v, %v", free, held, err)
		}
	}
	l, err = TryLock(path)
	if err != nil {
		t.Fatalf("after Release: %v", err)
	}
	_ = l.Release()
}

func TestMkdirAllAndRemoveAll(t *testing.T) {
	root := t.TempDir()
	deep := filepath.Join(root, "a", "b", "c")
	if err := MkdirAll(OS{}, deep); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(deep, "f"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := MkdirAll(OS{}, filepath.Join(deep, "f")); err == nil {
		t.Error("MkdirAll over a file succeeded")
	}
	for range 2 {
		if err := RemoveAll(OS{}, filepath.Join(root, "a")); err != nil {
			t.Fatal(err)
		}
	}
}
