// Package storagetest is the suite every storage engine must pass.
package storagetest

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"sync"
	"testing"

	"github.com/pgmoneta/pgmoneta-go/internal/storage"
)

// Run checks the contract of [storage.Engine] on engines that newEngine makes,
// each empty.
func Run(t *testing.T, newEngine func(t *testing.T) storage.Engine) {
	ctx := context.Background()
	put := func(t *testing.T, e storage.Engine, name, content string) {
		t.Helper()
		if err := storage.Put(ctx, e, "job", name, []byte(content)); err != nil {
			t.Fatalf("put %s: %v", name, err)
		}
	}

	t.Run("an object reads back at random", func(t *testing.T) {
		e := newEngine(t)
		put(t, e, "pack/1/1", "0123456789")
		o, err := e.Open(ctx, "pack/1/1")
		if err != nil {
			t.Fatal(err)
		}
		defer o.Close()
		b := make([]byte, 4)
		if _, err := o.ReadAt(b, 3); err != nil || string(b) != "3456" || o.Size() != 10 {
			t.Errorf("ReadAt(3) = %q, %v; size %d", b, err, o.Size())
		}
	})

	t.Run("nothing is replaced", func(t *testing.T) {
		e := newEngine(t)
		put(t, e, "format", "first")
		if err := storage.Put(ctx, e, "job", "format", []byte("second")); !errors.Is(err, fs.ErrExist) {
			t.Errorf("second put: %v, want ErrExist", err)
		}
		if b, err := storage.ReadAll(ctx, e, "format", 100); err != nil || string(b) != "first" {
			t.Errorf("content is %q, %v", b, err)
		}
	})

	t.Run("a stage shows nothing before its commit and nothing after an abort", func(t *testing.T) {
		e := newEngine(t)
		for _, commit := range []bool{false, true} {
			s, err := e.Stage(ctx, "job")
			if err != nil {
				t.Fatal(err)
			}
			for i := range 3 {
				u, err := s.Create(ctx, fmt.Sprintf("pack/7/%d", i))
				if err != nil {
					t.Fatal(err)
				}
				if _, err := u.Write([]byte("x")); err != nil {
					t.Fatal(err)
				}
				if err := u.Close(); err != nil {
					t.Fatal(err)
				}
			}
			if list, err := e.List(ctx, ""); err != nil || len(list) != 0 {
				t.Errorf("before the commit: %v, %v", list, err)
			}
			if commit {
				if err := s.Commit(ctx); err != nil {
					t.Fatal(err)
				}
			}
			if err := s.Abort(); err != nil {
				t.Fatal(err)
			}
			list, err := e.List(ctx, "")
			if err != nil || (len(list) == 3) != commit {
				t.Errorf("commit %v: %v, %v", commit, list, err)
			}
		}
	})

	t.Run("an unfinished object makes the commit fail", func(t *testing.T) {
		e := newEngine(t)
		s, err := e.Stage(ctx, "job")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Create(ctx, "format"); err != nil {
			t.Fatal(err)
		}
		if err := s.Commit(ctx); err == nil {
			t.Error("commit succeeded")
		}
		if _, err := e.Open(ctx, "format"); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("open: %v", err)
		}
	})

	t.Run("listing is ascending and by directory", func(t *testing.T) {
		e := newEngine(t)
		for _, n := range []string{"wal/2/b", "wal/1/z", "wal/2/a", "walrus", "backup/1/manifest"} {
			put(t, e, n, n)
		}
		list, err := e.List(ctx, "wal")
		var names []string
		for _, i := range list {
			names = append(names, i.Name)
		}
		if got := strings.Join(names, " "); err != nil || got != "wal/1/z wal/2/a wal/2/b" {
			t.Errorf("List(wal) = %s, %v", got, err)
		}
		if list, err := e.List(ctx, "nothing"); err != nil || len(list) != 0 {
			t.Errorf("List(nothing) = %v, %v", list, err)
		}
	})

	t.Run("delete", func(t *testing.T) {
		e := newEngine(t)
		put(t, e, "pack/1/1", "x")
		for range 2 {
			if err := e.Delete(ctx, "pack/1/1"); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := e.Open(ctx, "pack/1/1"); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("open: %v", err)
		}
		put(t, e, "pack/1/1", "y")
	})

	t.Run("names cannot leave the engine", func(t *testing.T) {
		e := newEngine(t)
		for _, name := range []string{"", ".", "..", "../x", "a/../../x", "/etc/passwd", "a//b", "tmp/job/x", "a\x00b"} {
			if err := storage.Put(ctx, e, "job", name, nil); err == nil {
				t.Errorf("%q was accepted", name)
			}
			if _, err := e.Open(ctx, name); err == nil {
				t.Errorf("%q was opened", name)
			}
		}
	})

	t.Run("sweep removes only its owner's leftovers", func(t *testing.T) {
		e := newEngine(t)
		if _, err := e.Stage(ctx, "job"); err != nil {
			t.Fatal(err)
		}
		s, err := e.Stage(ctx, "wal")
		if err != nil {
			t.Fatal(err)
		}
		u, err := s.Create(ctx, "wal/1/a")
		if err != nil {
			t.Fatal(err)
		}
		if err := e.Sweep(ctx, "job"); err != nil {
			t.Fatal(err)
		}
		if _, err := u.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		if err := u.Close(); err != nil {
			t.Fatal(err)
		}
		if err := s.Commit(ctx); err != nil {
			t.Errorf("the other owner's stage: %v", err)
		}
	})

	t.Run("concurrent use", func(t *testing.T) {
		e := newEngine(t)
		var wg sync.WaitGroup
		var mu sync.Mutex
		won := 0
		for i := range 8 {
			wg.Go(func() {
				if err := storage.Put(ctx, e, "job", fmt.Sprintf("pack/%d/1", i), []byte("x")); err != nil {
					t.Error(err)
				}
				if err := storage.Put(ctx, e, "job", "format", []byte("x")); err == nil {
					mu.Lock()
					won++
					mu.Unlock()
				}
			})
		}
		wg.Wait()
		if won != 1 {
			t.Errorf("%d writers won the same name", won)
		}
	})

	t.Run("a cancelled listing stops", func(t *testing.T) {
		e := newEngine(t)
		put(t, e, "a/b", "x")
		ctx, cancel := context.WithCancel(ctx)
		cancel()
		if _, err := e.List(ctx, ""); !errors.Is(err, context.Canceled) {
			t.Errorf("List: %v", err)
		}
	})
}
