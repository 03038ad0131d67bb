package shmem

import (
	"sync"
	"testing"
	"time"
)

func TestDurationsAreCountedByLength(t *testing.T) {
	t.Parallel()
	h := &newSegment(t, Capacity{Servers: 1, Jobs: 1}).ServerSlot(0).Flushes
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for _, d := range []time.Duration{-1, 0, 250 * time.Microsecond, time.Millisecond, time.Millisecond + 1, time.Hour} {
				h.Add(d)
			}
		})
	}
	wg.Wait()
	got := h.Load()
	want := map[time.Duration]uint64{250 * time.Microsecond: 12, time.Millisecond: 4, 2500 * time.Microsecond: 4, 0: 4}
	for i, n := range got.Counts {
		if n != want[got.Bound(i)] {
			t.Errorf("%d durations up to %s, want %d", n, got.Bound(i), want[got.Bound(i)])
		}
	}
	if want := 4 * (250*time.Microsecond + 2*time.Millisecond + 1 + time.Hour); got.Sum != want {
		t.Errorf("sum is %s, want %s", got.Sum, want)
	}
}

func BenchmarkHistogramAdd(b *testing.B) {
	h := &newSegment(b, Capacity{Servers: 1, Jobs: 1}).ServerSlot(0).Flushes
	for b.Loop() {
		h.Add(3 * time.Millisecond)
	}
}
