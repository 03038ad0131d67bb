package backup

import (
	"context"
	"io"
	"time"
)

// A pace limits a rate. It is used by one goroutine.
type pace struct {
	rate int64 // bytes per second, 0 = unlimited
	from time.Time
	done int64
}

func newPace(rate int64) *pace { return &pace{rate: rate, from: time.Now()} }

// credit is how long unused rate can be made up for.
const credit = time.Second

// spend waits until n bytes more are within the rate.
func (p *pace) spend(ctx context.Context, n int) error {
	if p.rate <= 0 {
		return nil
	}
	now := time.Now()
	due := p.from.Add(time.Duration(float64(p.done) / float64(p.rate) * float64(time.Second)))
	if late := now.Sub(due); late > credit {
		p.from = p.from.Add(late - credit)
	}
	p.done += int64(n)
	wait := due.Sub(now)
	if wait <= 0 {
		return nil
	}
	t := time.NewTimer(wait)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// paced reads at a pace.
type paced struct {
	ctx  context.Context // of one file, because io.Reader takes none
	in   io.Reader
	pace *pace
}

func (p paced) Read(b []byte) (int, error) {
	n, err := p.in.Read(b)
	if err != nil {
		return n, err
	}
	return n, p.pace.spend(p.ctx, n)
}
