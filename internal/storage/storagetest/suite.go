// Package storagetest is the suite every storage engine must pass.
package storagetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"slices"
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

	t.Run("ranges", func(t *testing.T) { ranges(t, newEngine(t), put) })

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

	t.Run("listing is by the bytes of whole names", func(t *testing.T) {
		e := newEngine(t)
		want := []string{"B/x", "a-b/x", "a.b/x", "a/10", "a/9", "a/b/c", "a/b-c", "a/\u00e9", "a0", "b"}
		for _, i := range rand.Perm(len(want)) {
			put(t, e, want[i], want[i])
		}
		slices.Sort(want)
		list, err := e.List(ctx, "")
		var names []string
		for _, i := range list {
			names = append(names, i.Name)
			if int(i.Size) != len(i.Name) {
				t.Errorf("%s is listed with %d bytes", i.Name, i.Size)
			}
		}
		if err != nil || !slices.Equal(names, want) {
			t.Errorf("List() = %q, %v, want %q", names, err, want)
		}
	})

	t.Run("more objects than fit a page of a remote engine are listed", func(t *testing.T) {
		e := newEngine(t)
		const objects = 1100
		s, err := e.Stage(ctx, "job")
		if err != nil {
			t.Fatal(err)
		}
		for i := range objects {
			u, err := s.Create(ctx, fmt.Sprintf("pack/1/%d", i))
			if err != nil {
				t.Fatal(err)
			}
			if err := u.Close(); err != nil {
				t.Fatal(err)
			}
		}
		if err := s.Commit(ctx); err != nil {
			t.Fatal(err)
		}
		list, err := e.List(ctx, "pack/1")
		ascending := slices.IsSortedFunc(list, func(a, b storage.Info) int { return strings.Compare(a.Name, b.Name) })
		if err != nil || len(list) != objects || !ascending {
			t.Errorf("%d of %d are listed, ascending %v, %v", len(list), objects, ascending, err)
		}
	})

	t.Run("one level of names is listed", func(t *testing.T) {
		e := newEngine(t)
		for _, name := range []string{"pack/2/1", "pack/1/2", "pack/1/1", "pack/10", "backup/1/manifest"} {
			put(t, e, name, "x")
		}
		for prefix, want := range map[string][]string{"pack": {"1", "10", "2"}, "pack/1": {"1", "2"}, "wal": nil} {
			if got, err := storage.Children(ctx, e, prefix); err != nil || !slices.Equal(got, want) {
				t.Errorf("below %s are %v, %v; want %v", prefix, got, err, want)
			}
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
		cause := errors.New("told to")
		ctx, cancel := context.WithCancelCause(ctx)
		cancel(cause)
		if _, err := e.List(ctx, ""); !errors.Is(err, cause) {
			t.Errorf("List: %v", err)
		}
	})

	t.Run("what is cancelled is done or says why not", func(t *testing.T) { cancelled(t, newEngine(t), put) })
}

type putter func(t *testing.T, e storage.Engine, name, content string)

func ranges(t *testing.T, e storage.Engine, put putter) {
	ctx := context.Background()
	content := make([]byte, 3<<20+77)
	random := rand.New(rand.NewPCG(1, 2))
	for i := range content {
		content[i] = byte(random.Uint32())
	}
	put(t, e, "pack/1/1", string(content))
	put(t, e, "pack/1/2", "")
	o, err := e.Open(ctx, "pack/1/1")
	if err != nil {
		t.Fatal(err)
	}
	defer o.Close()
	read := func(at, n int) {
		b := make([]byte, n)
		got, err := o.ReadAt(b, int64(at))
		want := content[min(at, len(content)):min(at+n, len(content))]
		switch {
		case !bytes.Equal(b[:got], want):
			t.Errorf("%d bytes at %d: %d bytes, which are not those that were written", n, at, got)
		case got < n && !errors.Is(err, io.EOF), got == n && err != nil && !errors.Is(err, io.EOF):
			t.Errorf("%d bytes at %d: %d bytes, %v", n, at, got, err)
		}
	}
	size := len(content)
	for _, r := range [][2]int{{0, size}, {0, size + 1}, {size - 1, 1}, {size - 1, 2}, {size, 1}, {size + 10, 10}} {
		read(r[0], r[1])
	}
	var readers sync.WaitGroup
	for i := range 4 {
		readers.Go(func() {
			random := rand.New(rand.NewPCG(uint64(i), 3))
			for range 20 {
				read(random.IntN(size), 1+random.IntN(1<<20))
			}
		})
	}
	readers.Wait()
	empty, err := e.Open(ctx, "pack/1/2")
	if err != nil {
		t.Fatal(err)
	}
	defer empty.Close()
	if n, err := empty.ReadAt(make([]byte, 1), 0); n != 0 || !errors.Is(err, io.EOF) || empty.Size() != 0 {
		t.Errorf("an empty object: %d bytes, %v, size %d", n, err, empty.Size())
	}
}

// cancelled calls everything with a context that has ended.
func cancelled(t *testing.T, e storage.Engine, put putter) {
	put(t, e, "pack/1/1", "kept")
	put(t, e, "pack/1/2", "deleted")
	cause := errors.New("told to")
	ctx, cancel := context.WithCancelCause(context.Background())
	cancel(cause)
	check := func(what string, err error) bool {
		if err != nil && !errors.Is(err, cause) {
			t.Errorf("%s: %v", what, err)
		}
		return err == nil
	}
	o, err := e.Open(ctx, "pack/1/1")
	if check("Open", err) {
		_, err := o.ReadAt(make([]byte, 4), 0)
		check("ReadAt", err)
		_ = o.Close()
	}
	deleted := check("Delete", e.Delete(ctx, "pack/1/2"))
	committed := check("Put", storage.Put(ctx, e, "job", "pack/1/3", []byte("new")))
	check("Sweep", e.Sweep(ctx, "job"))
	for name, there := range map[string]bool{"pack/1/1": true, "pack/1/2": !deleted, "pack/1/3": committed} {
		o, err := e.Open(context.Background(), name)
		if (err == nil) != there {
			t.Errorf("%s is there: %v; expected %v", name, err, there)
		}
		if err == nil {
			_ = o.Close()
		}
	}
}
