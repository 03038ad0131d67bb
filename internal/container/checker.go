package container

import (
	"context"

	"golang.org/x/sync/errgroup"

	"github.com/pgmoneta/pgmoneta-go/internal/sha256s"
)

// A Checker reads frames only to see whether they are whole, by their SHA-256. It keeps a
// number of processors busy, however many containers are given to it at once.
type Checker struct{ idle chan *checking }

// checking is what one processor needs.
type checking struct {
	Scratch
	frames []int    // those that were decoded
	whole  [][]byte // their plain bytes
	sums   []sha256s.Sum
}

// checkBytes is how many plain bytes are hashed at once, about.
const checkBytes = 2 << 20

// checkRange is how many frames a goroutine takes.
const checkRange = 8 * sha256s.Batch

// NewChecker returns a checker. Close it when nothing is checked any more.
func NewChecker(workers int) *Checker {
	k := &Checker{idle: make(chan *checking, workers)}
	for range workers {
		k.idle <- &checking{}
	}
	return k
}

// Close releases the decoders.
func (k *Checker) Close() {
	for range cap(k.idle) {
		c := <-k.idle
		c.Scratch.Close()
	}
}

// Check reads all frames of r, those left out that were dropped, and tells what it found
// of each: nil, or what is wrong with it. It does so from several goroutines, in any
// order. The error is that of ctx.
func (k *Checker) Check(ctx context.Context, r *Reader, found func(frame int, err error)) error {
	var g errgroup.Group
	for from := 0; from < r.Frames() && ctx.Err() == nil; from += checkRange {
		select {
		case <-ctx.Done():
		case c := <-k.idle:
			g.Go(func() error {
				defer func() { k.idle <- c }()
				to := min(from+checkRange, r.Frames())
				for at := from; at < to && ctx.Err() == nil; {
					at = c.check(r, at, to, found)
				}
				return nil
			})
		}
	}
	_ = g.Wait() // nothing fails
	return context.Cause(ctx)
}

// check reads some of the frames from..to-1, and returns the first that it did not.
func (c *checking) check(r *Reader, from, to int, found func(frame int, err error)) int {
	c.frames, c.whole = c.frames[:0], c.whole[:0]
	if c.Scratch.plain == nil {
		c.Scratch.plain = make([]byte, 0, checkBytes)
	}
	out := c.Scratch.plain[:0]
	for ; from < to && len(c.frames) < sha256s.Batch && (len(out) == 0 || len(out)+int(r.frames[from].Plain) <= checkBytes); from++ {
		f := r.frames[from]
		if f.Dropped() {
			continue
		}
		encoded, err := r.readStored(from, &c.Scratch)
		if err != nil {
			found(from, err)
			continue
		}
		plain, err := c.dec.decodeWhole(out, r.header.Codec, f, encoded)
		if err != nil {
			found(from, &DamagedError{Object: r.name, Frame: from, Err: err})
			continue
		}
		c.frames, c.whole, out = append(c.frames, from), append(c.whole, plain[len(out):]), plain
	}
	c.sums = sha256s.Sums(c.sums[:0], c.whole)
	for n, i := range c.frames {
		if c.sums[n] != r.frames[i].Sum {
			found(i, &DamagedError{Object: r.name, Frame: i, Err: errSum})
			continue
		}
		found(i, nil)
	}
	return from
}
