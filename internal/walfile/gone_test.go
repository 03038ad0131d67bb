package walfile

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/pgmoneta/pgmoneta-go/internal/pg"
)

// removes removes stored segments as the retention does.
func (b *bench) removes(names ...string) {
	b.t.Helper()
	_, err := b.repo.DeleteWAL(b.t.Context(), names, testSegment)
	b.must(err)
}

// history stores a timeline history that leaves timeline 1 in its n-th segment.
func (b *bench) history(tli pg.Timeline, n int) {
	b.t.Helper()
	b.put(pg.HistoryName(tli), "1\t"+(pg.LSN(n)*pg.LSN(testSegment)+100).String()+"\tno recovery target specified\n")
}

// What the archive had, or must have had, is not taken for its end.
func TestGetStopsAtWALThatIsGone(t *testing.T) {
	t.Parallel()
	const end, hole, removed = "end", "hole", "removed"
	tests := []struct {
		name string
		with func(*bench, *Getter)
		ask  string
		want string
	}{
		{"all of a timeline removed", func(b *bench, _ *Getter) {
			b.store(name(2, 4), nil)
			b.removes(name(1, 1), name(1, 2), name(1, 3))
		}, name(1, 2), removed},
		{"before what was removed last", func(b *bench, _ *Getter) {
			b.store(name(2, 4), content(name(2, 4)))
			b.removes(name(1, 1), name(1, 2))
			b.removes(name(1, 3))
		}, name(1, 1), removed},
		{"after what was removed", func(b *bench, _ *Getter) {
			b.store(name(2, 4), content(name(2, 4)))
			b.removes(name(1, 1), name(1, 2), name(1, 3))
		}, name(1, 4), end},
		{"all of everything removed", func(b *bench, _ *Getter) { b.removes(name(1, 1), name(1, 2), name(1, 3)) }, name(1, 3), removed},
		{"a branch that was left, then removed", func(b *bench, _ *Getter) {
			b.history(2, 2)
			b.store(name(2, 2), content(name(2, 2)))
			b.removes(name(1, 3))
		}, name(1, 3), removed},
		{"with a new timeline to come", func(b *bench, _ *Getter) { b.removes(name(1, 1)) }, name(2, 3), end},
		{"a timeline that continues it", func(b *bench, _ *Getter) {
			b.history(2, 8)
			b.store(name(2, 8), content(name(2, 8)))
		}, name(1, 6), hole},
		{"the segment in which it was left", func(b *bench, _ *Getter) {
			b.history(2, 8)
			b.store(name(2, 8), content(name(2, 8)))
		}, name(1, 8), end},
		{"a timeline that left it earlier", func(b *bench, _ *Getter) {
			b.history(2, 2)
			b.store(name(2, 5), content(name(2, 5)))
		}, name(1, 4), end},
		{"a timeline whose history is not there", func(b *bench, _ *Getter) { b.store(name(2, 5), content(name(2, 5))) }, name(1, 4), end},
		{"a timeline of which nothing is there", func(b *bench, _ *Getter) { b.history(2, 8) }, name(1, 6), end},
		{"received segments of a timeline that continues it", func(b *bench, _ *Getter) {
			b.history(3, 8)
			b.receive(name(3, 9), content(name(3, 9)))
		}, name(1, 6), hole},
		{"what C pgmoneta left of a timeline that continues it", func(b *bench, _ *Getter) {
			b.history(2, 8)
			b.must(os.WriteFile(filepath.Join(b.repo.Dir(), "wal", name(2, 8)), content(name(2, 8)), 0o600))
		}, name(1, 6), hole},
		{"an ancestor's segment for a standby", func(b *bench, _ *Getter) {
			b.removes(name(1, 1), name(1, 2), name(1, 3))
			b.must(os.WriteFile(filepath.Join(b.data, "standby.signal"), nil, 0o600))
		}, name(1, 2), end},
		{"end accepted", func(b *bench, g *Getter) {
			b.removes(name(1, 1), name(1, 2), name(1, 3))
			g.EndAtHole = true
		}, name(1, 2), end},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t)
			for n := 1; n <= 3; n++ {
				b.store(name(1, n), content(name(1, n)))
			}
			g := b.getter()
			tt.with(b, g)
			_, err := b.get(g, tt.ask)
			got := end
			switch {
			case errors.As(err, new(*HoleError)):
				got = hole
			case errors.As(err, new(*RemovedError)):
				got = removed
			case !errors.Is(err, ErrNotArchived):
				t.Fatal(err)
			}
			if got != tt.want {
				t.Errorf("%v, want the kind %q", err, tt.want)
			}
		})
	}
}
