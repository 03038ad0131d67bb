package shmem

import "time"

// bounds are the upper bounds of the buckets of a histogram; what is longer than the last is in one more. They fit a
// write to a disk, from a cache with a battery to a disk that is about to fail.
var bounds = [...]time.Duration{
	250 * time.Microsecond, 500 * time.Microsecond,
	time.Millisecond, 2500 * time.Microsecond, 5 * time.Millisecond,
	10 * time.Millisecond, 25 * time.Millisecond, 50 * time.Millisecond,
	100 * time.Millisecond, 250 * time.Millisecond, 500 * time.Millisecond,
	time.Second, 2500 * time.Millisecond, 5 * time.Second, 10 * time.Second,
}

// A Histogram counts durations by length, in shared memory. Adding is two atomic additions and waits for nobody.
type Histogram struct {
	sum     Counter // of all durations, in nanoseconds
	buckets [len(bounds) + 1]Counter
}

// A Distribution is what a histogram held.
type Distribution struct {
	Sum    time.Duration
	Counts [len(bounds) + 1]uint64 // by bucket, each duration in one
}

// Bound returns the upper bound of bucket i of a distribution, 0 for the last, which has none.
func (d *Distribution) Bound(i int) time.Duration {
	if i >= len(bounds) {
		return 0
	}
	return bounds[i]
}

// Add counts a duration.
func (h *Histogram) Add(d time.Duration) {
	i := 0
	for i < len(bounds) && d > bounds[i] {
		i++
	}
	h.buckets[i].Add(1)
	h.sum.Add(uint64(max(d, 0)))
}

// Load returns what was counted.
func (h *Histogram) Load() Distribution {
	d := Distribution{Sum: time.Duration(h.sum.Load())}
	for i := range h.buckets {
		d.Counts[i] = h.buckets[i].Load()
	}
	return d
}

func (h *Histogram) clear() {
	h.sum.Store(0)
	for _, b := range h.buckets {
		b.Store(0)
	}
}

func (c *cursor) histogram() Histogram {
	h := Histogram{sum: c.counter()}
	for i := range h.buckets {
		h.buckets[i] = c.counter()
	}
	return h
}
