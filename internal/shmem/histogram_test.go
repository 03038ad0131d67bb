package shmem

import (
	"os"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
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

// TestRequestsOfAllProcesses counts through two mappings of one segment.
func TestRequestsOfAllProcesses(t *testing.T) {
	t.Parallel()
	a, err := Create(Capacity{Servers: 1, Jobs: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	fd, err := unix.Dup(int(a.File().Fd()))
	if err != nil {
		t.Fatal(err)
	}
	b, err := Open(os.NewFile(uintptr(fd), "segment"))
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	a.CountRequest(RequestKinds-1, time.Millisecond, false)
	b.CountRequest(RequestKinds-1, time.Minute, true)
	elapsed, failed := a.Requests(RequestKinds - 1)
	if elapsed.Sum != time.Minute+time.Millisecond || elapsed.Counts[2] != 1 || elapsed.Counts[len(elapsed.Counts)-1] != 1 || failed != 1 {
		t.Errorf("%+v, %d failed", elapsed, failed)
	}
	if elapsed, failed := b.Requests(0); elapsed != (Distribution{}) || failed != 0 {
		t.Errorf("another kind has %+v, %d", elapsed, failed)
	}
	if a.ServerSlot(0).Name.String() != "" || a.LogTurn().Load() != 0 {
		t.Error("requests are counted over something else")
	}
}
