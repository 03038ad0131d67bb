package supervisor

import (
	"context"
	"errors"
	"slices"
	"sync"

	"github.com/pgmoneta/pgmoneta-go/internal/job"
)

// maxQueued is how many jobs of one server wait at most: each holds the connection
// of the one who asked for it.
const maxQueued = 16

// errNotWanted is why a job ends that was cancelled before it began.
var errNotWanted = errors.New("cancelled before it began")

// A queue lets one job of a server run at a time, in the order they were asked for.
type queue struct {
	mu      sync.Mutex
	held    bool
	waiting []*entry
}

// acquire waits for the turn of a job; whoever got it calls release. When it is not
// to wait, or too many do, the error is a *busyError.
func (q *queue) acquire(ctx context.Context, v *server, e *entry, wait bool) error {
	q.mu.Lock()
	if !q.held {
		q.held = true
		q.mu.Unlock()
		return nil
	}
	if !wait || len(q.waiting) >= maxQueued {
		q.mu.Unlock()
		return &busyError{server: v.name, kind: v.busyWith()}
	}
	q.waiting = append(q.waiting, e)
	q.mu.Unlock()
	v.log.Info("job waits", "job", string(e.Kind), "id", e.ID)
	select {
	case <-e.turn:
		return nil
	case <-e.unwanted:
		return q.withdraw(e, errNotWanted)
	case <-ctx.Done():
		return q.withdraw(e, context.Cause(ctx))
	}
}

// withdraw takes a job out of the queue. Its turn may have come meanwhile: then it
// is passed on.
func (q *queue) withdraw(e *entry, why error) error {
	q.mu.Lock()
	i := slices.Index(q.waiting, e)
	if i >= 0 {
		q.waiting = slices.Delete(q.waiting, i, i+1)
	}
	q.mu.Unlock()
	if i < 0 {
		q.release()
	}
	return why
}

func (q *queue) release() {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.waiting) == 0 {
		q.held = false
		return
	}
	next := q.waiting[0]
	q.waiting = slices.Delete(q.waiting, 0, 1)
	close(next.turn)
}

// busyWith returns the kind of job that a server is busy with.
func (v *server) busyWith() job.Kind {
	if kind := v.busy.Load(); kind != nil {
		return *kind
	}
	return "job"
}
