package wal

import (
	"context"
	"math/rand/v2"
	"time"
)

// A backoff waits longer each time, from 1 s to 60 s, with jitter so that many
// servers do not come back at the same moment.
type backoff struct{ next time.Duration }

func newBackoff() *backoff { return &backoff{next: time.Second} }

// delay returns the next delay.
func (b *backoff) delay() time.Duration {
	d := b.next
	b.next = min(2*b.next, time.Minute)
	return d/2 + rand.N(d/2)
}

// wait waits for the next delay or the end of ctx.
func (b *backoff) wait(ctx context.Context) {
	t := time.NewTimer(b.delay())
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}
