package restore

import (
	"context"
	"sync"

	"golang.org/x/sync/errgroup"
)

// ordered does many pieces of work on several goroutines and consumes their results
// in the order in which they were emitted. with makes what one worker keeps, runs the worker with it and
// releases it again. At most three results per worker exist at once. The first error ends
// everything.
//
// produce and consume run in a goroutine each.
func ordered[S, T any](ctx context.Context, workers int, with func(run func(S) error) error,
	produce func(ctx context.Context, emit func(work func(S) (T, error)) error) error, consume func(T) error) error {
	type future struct {
		work func(S) (T, error)
		done chan struct{}
		out  T
	}
	g, ctx := errgroup.WithContext(ctx)
	todo, queue := make(chan *future), make(chan *future, 2*workers)
	g.Go(func() error {
		defer close(queue)
		defer close(todo)
		return produce(ctx, func(work func(S) (T, error)) error {
			f := &future{work: work, done: make(chan struct{})}
			for _, c := range []chan *future{queue, todo} {
				select {
				case c <- f:
				case <-ctx.Done():
					return context.Cause(ctx)
				}
			}
			return nil
		})
	})
	for range workers {
		g.Go(func() error {
			return with(func(state S) (err error) {
				for f := range todo {
					if f.out, err = f.work(state); err != nil {
						return err
					}
					close(f.done)
				}
				return nil
			})
		})
	}
	g.Go(func() error {
		for f := range queue {
			select {
			case <-f.done:
			case <-ctx.Done():
				return context.Cause(ctx)
			}
			if err := consume(f.out); err != nil {
				return err
			}
		}
		return nil
	})
	return g.Wait()
}

// A buffers is a stock of byte slices that are used again and again.
type buffers struct{ pool sync.Pool }

func (b *buffers) get() []byte {
	if p, ok := b.pool.Get().(*[]byte); ok {
		return (*p)[:0]
	}
	return nil
}

func (b *buffers) put(p []byte) { b.pool.Put(&p) }
