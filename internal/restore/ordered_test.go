package restore

import (
	"context"
	"errors"
	"slices"
	"sync/atomic"
	"testing"
)

// A worker's decoders are released however the work ends.
func TestOrderedReleasesWhatItsWorkersKeep(t *testing.T) {
	t.Parallel()
	stop := errors.New("stop")
	const items = 100
	for _, where := range []string{"", "produce", "work", "consume", "with"} {
		var made, released atomic.Int32
		with := func(run func(int) error) error {
			n := made.Add(1)
			defer released.Add(1)
			if where == "with" && n == 2 {
				return stop
			}
			return run(int(n))
		}
		var got []int
		err := ordered(t.Context(), 3, with,
			func(_ context.Context, emit func(func(int) (int, error)) error) error {
				for i := range items {
					if where == "produce" && i == items/2 {
						return stop
					}
					err := emit(func(int) (int, error) {
						if where == "work" && i == items/2 {
							return 0, stop
						}
						return i, nil
					})
					if err != nil {
						return err
					}
				}
				return nil
			},
			func(i int) error {
				if where == "consume" && i == items/2 {
					return stop
				}
				got = append(got, i)
				return nil
			})
		if where == "" && (err != nil || len(got) != items) || where != "" && !errors.Is(err, stop) {
			t.Errorf("trouble in %q: %v, %d results", where, err, len(got))
		}
		if !slices.IsSorted(got) {
			t.Errorf("trouble in %q: consumed %v", where, got)
		}
		if made.Load() != released.Load() {
			t.Errorf("trouble in %q: %d made, %d released", where, made.Load(), released.Load())
		}
	}
}
