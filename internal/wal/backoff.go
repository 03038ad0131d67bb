package wal

import (
	"math/rand/v2"
	"time"
)

// A backoff waits longer each time, from 1 s to a limit, with jitter so that many
// servers do not come back at the same moment.
type backoff struct{ next, most time.Duration }

func newBackoff(most time.Duration) *backoff { return &backoff{next: time.Second, most: most} }

// delay returns the next delay.
func (b *backoff) delay() time.Duration {
	d := b.next
	b.next = min(2*b.next, b.most)
	return d/2 + rand.N(d/2)
}
