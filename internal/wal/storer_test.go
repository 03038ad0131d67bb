package wal

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/pgmoneta/pgmoneta-go/internal/container"
	"github.com/pgmoneta/pgmoneta-go/internal/durable"
)

// The received file of a stored segment becomes zeros under a name that nobody
// takes for a segment, at whatever operation the power fails.
func TestStoredSegmentLeavesASpareOfZeros(t *testing.T) {
	const name = "000000010000000000000005"
	for cut := 0; ; cut++ {
		r := newRepo(t)
		dir := r.ReceiveDir()
		content := bytes.Repeat([]byte("wal!"), mib/4)
		if err := errors.Join(os.MkdirAll(dir, 0o700), os.WriteFile(filepath.Join(dir, name), content, 0o600)); err != nil {
			t.Fatal(err)
		}
		fsys, err := durable.NewPowerCut(r.Dir(), cut)
		if err != nil {
			t.Fatal(err)
		}
		rc := &Receiver{Repo: r, FS: fsys, Codec: container.None, Monitor: &record{}, Log: slog.New(slog.NewTextHandler(io.Discard, nil))}
		rc.eager.Store(true)
		err = (&storer{r: rc}).store(t.Context(), name)
		if err != nil && !errors.Is(err, durable.ErrPowerCut) {
			t.Fatal(err)
		}
		if cut > fsys.Ops() {
			return // every operation had its turn
		}
		after := t.TempDir()
		if err := fsys.Image(after); err != nil {
			t.Fatal(err)
		}
		if b, err := os.ReadFile(filepath.Join(after, "receive", name)); err == nil && !bytes.Equal(b, content) {
			t.Fatalf("cut %d: the received segment has other content", cut)
		}
		spare, err := os.ReadFile(sparePath(filepath.Join(after, "receive"), mib))
		if err == nil && !bytes.Equal(spare, make([]byte, mib)) {
			t.Fatalf("cut %d: the spare is not all zeros", cut)
		}
		if cut == 0 {
			if _, err := os.Stat(sparePath(dir, mib)); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// Trouble with the spare neither keeps a stored segment nor stops the queue.
func TestTroubleWithTheSpareIsNoTroubleOfTheSegment(t *testing.T) {
	const name = "000000010000000000000005"
	for _, kind := range []string{"rename", "syncdir", "write", "datasync"} {
		r := newRepo(t)
		dir := r.ReceiveDir()
		if err := errors.Join(os.MkdirAll(dir, 0o700), os.WriteFile(filepath.Join(dir, name), make([]byte, mib), 0o600)); err != nil {
			t.Fatal(err)
		}
		fsys, err := durable.NewFault(r.Dir(), func(op durable.Op) error {
			if op.Kind == kind {
				return syscall.EIO
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		rc := &Receiver{Repo: r, FS: fsys, Codec: container.None, Monitor: &record{}, Log: slog.New(slog.NewTextHandler(io.Discard, nil))}
		rc.eager.Store(true)
		if err := (&storer{r: rc}).store(t.Context(), name); err != nil {
			t.Errorf("%s: %v", kind, err)
		}
		if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
			t.Errorf("%s: left %v, %v", kind, left, err)
		}
	}
}

func TestNoSpareIsKeptWhenNobodyWaits(t *testing.T) {
	const name = "000000010000000000000005"
	r := newRepo(t)
	if err := errors.Join(os.MkdirAll(r.ReceiveDir(), 0o700), os.WriteFile(filepath.Join(r.ReceiveDir(), name), make([]byte, mib), 0o600)); err != nil {
		t.Fatal(err)
	}
	rc := &Receiver{Repo: r, FS: durable.OS{}, Codec: container.None, Monitor: &record{}, Log: slog.New(slog.NewTextHandler(io.Discard, nil))}
	if err := (&storer{r: rc}).store(t.Context(), name); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(sparePath(r.ReceiveDir(), mib)); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("a spare was kept: %v", err)
	}
}
