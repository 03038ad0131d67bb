package storage_test

import (
	"context"
	"errors"
	"io/fs"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pgmoneta/pgmoneta-go/internal/durable"
	"github.com/pgmoneta/pgmoneta-go/internal/storage"
	"github.com/pgmoneta/pgmoneta-go/internal/storage/storagetest"
)

func newLocal(t *testing.T) storage.Engine { return storage.NewLocal(durable.OS{}, t.TempDir()) }

func TestLimitIsAnEngine(t *testing.T) {
	t.Parallel()
	storagetest.Run(t, func(t *testing.T) storage.Engine { return storage.NewLimit(newLocal(t), 1<<40) })
}

func TestMeterIsAnEngine(t *testing.T) {
	t.Parallel()
	storagetest.Run(t, func(t *testing.T) storage.Engine {
		return storage.NewMeter(newLocal(t), func(storage.Operation, time.Duration, bool) {})
	})
}

func TestMeterCountsWhatIsDoneAndWhatFails(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	var trouble error
	var done, failed [storage.Operations]int
	e := storage.NewMeter(storagetest.NewFault(newLocal(t), func(context.Context, storagetest.Op) error { return trouble }), func(o storage.Operation, _ time.Duration, bad bool) {
		done[o]++
		if bad {
			failed[o]++
		}
	})
	steps := func() {
		_ = storage.Put(ctx, e, "job", "pack/1/1", []byte("content"))
		_, _ = storage.ReadAll(ctx, e, "pack/1/1", 100)
		_, _ = e.Open(ctx, "missing")
		_, _ = e.List(ctx, "pack")
		_, _ = storage.Children(ctx, e, "pack")
		_ = e.Delete(ctx, "pack/1/1")
		_ = e.Sweep(ctx, "job")
	}
	steps()
	if want := [storage.Operations]int{2, 2, 1, 1, 1, 1, 1}; done != want || failed != [storage.Operations]int{} {
		t.Errorf("counted %v, failed %v; want %v and none", done, failed, want)
	}
	trouble = errors.New("the disk is gone")
	steps()
	for o, n := range failed {
		if o := storage.Operation(o); n == 0 && o != storage.OpRead && o != storage.OpCommit { // which are not reached
			t.Errorf("no %s failed", o)
		}
	}
}

func TestFaultWithoutFaultsIsAnEngine(t *testing.T) {
	t.Parallel()
	storagetest.Run(t, func(t *testing.T) storage.Engine {
		return storagetest.NewFault(newLocal(t), func(context.Context, storagetest.Op) error { return nil })
	})
}

// Every other operation fails before it is carried out.
func TestRetryHidesTemporaryErrors(t *testing.T) {
	t.Parallel()
	storagetest.Run(t, func(t *testing.T) storage.Engine {
		var mu sync.Mutex
		failed := map[storagetest.Op]bool{}
		e := storagetest.NewFault(newLocal(t), func(_ context.Context, op storagetest.Op) error {
			op.N = 0
			mu.Lock()
			defer mu.Unlock()
			failed[op] = !failed[op] && !op.After
			if failed[op] {
				return &storage.TemporaryError{Err: errors.New("busy")}
			}
			return nil
		})
		return storage.NewRetry(e, storage.RetryOptions{Attempts: 100, First: 1, Most: 1})
	})
}

func TestRetryGivesUp(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		calls := 0
		var trouble error = &storage.TemporaryError{Err: errors.New("busy")}
		e := storage.NewRetry(storagetest.NewFault(newLocal(t), func(context.Context, storagetest.Op) error {
			calls++
			return trouble
		}), storage.RetryOptions{Attempts: 5, First: time.Second, Most: 3 * time.Second})

		began := time.Now()
		if err := e.Delete(context.Background(), "a"); !errors.Is(err, trouble) || calls != 5 {
			t.Errorf("%v after %d attempts", err, calls)
		}
		// Delays of at most 1, 2, 3 and 3 seconds, and at least half of that.
		if took := time.Since(began); took < 4500*time.Millisecond || took > 9*time.Second {
			t.Errorf("it took %v", took)
		}

		cause := errors.New("told to")
		ctx, cancel := context.WithCancelCause(context.Background())
		time.AfterFunc(100*time.Millisecond, func() { cancel(cause) })
		began = time.Now()
		if _, err := e.Open(ctx, "a"); !errors.Is(err, cause) || time.Since(began) != 100*time.Millisecond {
			t.Errorf("cancelled: %v after %v", err, time.Since(began))
		}

		trouble, calls = errors.New("forbidden"), 0
		if _, err := e.List(context.Background(), ""); !errors.Is(err, trouble) || calls != 1 {
			t.Errorf("for good: %v after %d attempts", err, calls)
		}
	})
}

// The answer to a commit is lost: before it was carried out or after.
func TestRetryLooksBeforeItCommitsAgain(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name    string
		after   bool   // the commit was carried out
		other   string // what another process writes under the name meanwhile
		blind   bool   // looking fails too
		want    error
		commits int
	}{
		{name: "it was not done", commits: 2},
		{name: "it was done", after: true, commits: 1},
		{name: "somebody else was first", other: "theirs", want: fs.ErrExist, commits: 1},
		{name: "nobody can tell", after: true, blind: true, want: fs.ErrPermission, commits: 1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			ctx := context.Background()
			local := newLocal(t)
			commits := 0
			e := storage.NewRetry(storagetest.NewFault(local, func(_ context.Context, op storagetest.Op) error {
				if op.Kind == "open" && tt.blind {
					return fs.ErrPermission
				}
				if op.Kind != "commit" {
					return nil
				}
				if !op.After {
					commits++
				}
				if commits > 1 || op.After != tt.after {
					return nil
				}
				if tt.other != "" {
					if err := storage.Put(ctx, local, "wal", "a", []byte(tt.other)); err != nil {
						t.Error(err)
					}
				}
				return &storage.TemporaryError{Err: errors.New("connection lost"), Unknown: true}
			}), storage.RetryOptions{First: 1, Most: 1})

			err := storage.Put(ctx, e, "job", "a", []byte("ours"))
			if !errors.Is(err, tt.want) || commits != tt.commits {
				t.Errorf("%v after %d commits, want %v after %d", err, commits, tt.want, tt.commits)
			}
			want := "ours"
			if tt.other != "" {
				want = tt.other
			}
			if b, err := storage.ReadAll(ctx, local, "a", 100); err != nil || string(b) != want {
				t.Errorf("the object holds %q, %v", b, err)
			}
		})
	}
}

// An upload that may have got bytes is not continued.
func TestRetryDoesNotRepeatUnknownWrites(t *testing.T) {
	t.Parallel()
	trouble := &storage.TemporaryError{Err: errors.New("connection lost"), Unknown: true}
	writes := 0
	e := storage.NewRetry(storagetest.NewFault(newLocal(t), func(_ context.Context, op storagetest.Op) error {
		if op.Kind != "write" || op.After {
			return nil
		}
		writes++
		return trouble
	}), storage.RetryOptions{First: 1, Most: 1})
	if err := storage.Put(context.Background(), e, "job", "a", []byte("x")); !errors.Is(err, trouble) || writes != 1 {
		t.Errorf("%v after %d writes", err, writes)
	}
}

func TestLimitHoldsForReadsAndWritesTogether(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx := context.Background()
		e := storage.NewLimit(newLocal(t), 1<<20)
		began := time.Now()
		content := make([]byte, 4<<20)
		var puts sync.WaitGroup
		for _, name := range []string{"a", "b"} {
			puts.Go(func() {
				if err := storage.Put(ctx, e, "job", name, content); err != nil {
					t.Error(err)
				}
			})
		}
		puts.Wait()
		if _, err := storage.ReadAll(ctx, e, "a", 4<<20); err != nil {
			t.Fatal(err)
		}
		// 12 MiB at 1 MiB/s; the last piece is not waited for.
		if took := time.Since(began); took < 11*time.Second || took > 12*time.Second {
			t.Errorf("it took %v", took)
		}

		time.Sleep(time.Hour) // unused rate adds up to a second
		began = time.Now()
		if _, err := storage.ReadAll(ctx, e, "b", 4<<20); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(began); took < 2*time.Second || took > 3*time.Second {
			t.Errorf("after an hour it took %v", took)
		}

		cause := errors.New("told to")
		ctx, cancel := context.WithCancelCause(ctx)
		time.AfterFunc(time.Second, func() { cancel(cause) })
		began = time.Now()
		if _, err := storage.ReadAll(ctx, e, "b", 4<<20); !errors.Is(err, cause) || time.Since(began) != time.Second {
			t.Errorf("cancelled: %v after %v", err, time.Since(began))
		}
	})
}
