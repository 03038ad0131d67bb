//go:build disk

package durable

import (
	"bytes"
	"crypto/rand"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestBarrierTellsOfWhatWasLostBefore loses writes in the background, on a file system whose
// device is full, and lets somebody else be told of it first. It needs root.
func TestBarrierTellsOfWhatWasLostBefore(t *testing.T) {
	run := func(name string, args ...string) string {
		t.Helper()
		out, err := exec.Command(name, args...).CombinedOutput()
		if err != nil {
			t.Fatalf("%s %s: %v (this test needs root and loop devices)\n%s", name, strings.Join(args, " "), err, out)
		}
		return strings.TrimSpace(string(out))
	}
	dir := t.TempDir()
	small, at := filepath.Join(dir, "small"), filepath.Join(dir, "at")
	for _, d := range []string{small, at} {
		if err := os.Mkdir(d, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	run("mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", small)
	t.Cleanup(func() { run("umount", "--lazy", small) })
	image := filepath.Join(small, "image")
	run("truncate", "--size=200M", image)
	run("mkfs.ext4", "-q", image)
	device := run("losetup", "--find", "--show", image)
	t.Cleanup(func() { run("losetup", "--detach", device) })
	run("mount", "-o", "errors=continue", device, at)
	t.Cleanup(func() { run("umount", "--lazy", at) })

	b, err := OpenBarrier(at)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = b.Close() }()
	f, err := os.Create(filepath.Join(at, "big"))
	if err != nil {
		t.Fatal(err)
	}
	content := make([]byte, 1<<20)
	_, _ = rand.Read(content)
	for range 60 {
		if _, err := f.Write(content); err != nil {
			t.Fatal(err)
		}
	}
	StartWriteback(f)
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(20 * time.Second); SyncFS(at) == nil; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("nothing was lost")
		}
	}
	if err := SyncFS(at); err != nil {
		t.Logf("whoever comes later is told too: %v", err)
	}
	if err := b.Sync(); err == nil {
		t.Error("who was there before is not told")
	}
	if f, err = os.Open(f.Name()); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	t.Logf("read at once, all is there: %v", holds(f, content))
	if ForgetPages(f); holds(f, content) {
		t.Error("what is lost is still read")
	}
}

// holds reports whether a file is 60 times the content.
func holds(f *os.File, content []byte) bool {
	have := make([]byte, len(content))
	for i := range 60 {
		if _, err := f.ReadAt(have, int64(i*len(have))); err != nil || !bytes.Equal(have, content) {
			return false
		}
	}
	return true
}
