package supervisor

import (
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/pgmoneta/pgmoneta-go/internal/job"
	"github.com/pgmoneta/pgmoneta-go/internal/metrics"
)

// A tally counts what was done for one server since the start. The zero value is empty.
type tally struct {
	mu       sync.Mutex
	jobs     map[ending]metrics.Job
	requests metrics.Operations
}

// An ending is how jobs of a kind end.
type ending struct {
	kind   job.Kind
	failed bool
}

// jobEnded counts a job.
func (t *tally) jobEnded(kind job.Kind, began time.Time, result job.Result, err error) {
	now := time.Now()
	e := ending{kind, err != nil || result.Failure != nil}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.jobs == nil {
		t.jobs = map[ending]metrics.Job{}
	}
	j := t.jobs[e]
	t.jobs[e] = metrics.Job{Kind: string(kind), Failed: e.failed, Count: j.Count + 1, Last: now, Elapsed: now.Sub(began)}
}

// answered counts a request of a client.
func (t *tally) answered(err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if err != nil {
		t.requests.Failed++
		t.requests.LastFailed = time.Now()
		return
	}
	t.requests.Succeeded++
	t.requests.LastSucceeded = time.Now()
}

// show fills in what was counted.
func (t *tally) show(m *metrics.Server) {
	t.mu.Lock()
	defer t.mu.Unlock()
	m.Operation = t.requests
	m.Jobs = slices.SortedFunc(maps.Values(t.jobs), func(a, b metrics.Job) int {
		if a.Failed != b.Failed {
			return map[bool]int{false: -1, true: 1}[a.Failed]
		}
		return strings.Compare(a.Kind, b.Kind)
	})
}
