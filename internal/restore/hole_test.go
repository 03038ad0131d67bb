package restore

import (
	"context"
	"errors"
	"testing"

	"github.com/pgmoneta/pgmoneta-go/internal/pg"
	"github.com/pgmoneta/pgmoneta-go/internal/repo"
)

// lost records a hole on a timeline.
func (f *fixture) lost(tli pg.Timeline, from, to pg.LSN) {
	f.t.Helper()
	f.must(f.RecordHole(context.Background(), repo.Hole{Timeline: tli, From: from, To: to, Cause: repo.CauseDamaged}))
}

// All segments are there; the record alone says that some are not what they seem.
func TestPlanRefusesRecordedHole(t *testing.T) {
	type lost struct {
		tli      pg.Timeline
		from, to pg.LSN
	}
	tests := []struct {
		name, backup, position string
		lost                   []lost
		want                   HoleError // zero: the plan works
	}{
		{"before the target", second, "latest,timeline=1", []lost{{1, 10 * mib, 11 * mib}},
			HoleError{Timeline: 1, From: 10 * mib, To: 11 * mib, Nearest: "lsn=0/900000"}},
		{"a neighbour is recorded on its own", second, "latest,timeline=1", []lost{{1, 10 * mib, 11 * mib}, {1, 11 * mib, 12 * mib}},
			HoleError{Timeline: 1, From: 10 * mib, To: 12 * mib, Nearest: "lsn=0/900000"}},
		{"inside a segment", second, "latest,timeline=1", []lost{{1, 10*mib + 800, 11 * mib}},
			HoleError{Timeline: 1, From: 10*mib + 800, To: 11 * mib, Nearest: "lsn=0/A00000"}},
		{"the last segment", second, "latest,timeline=1", []lost{{1, 12 * mib, 13 * mib}},
			HoleError{Timeline: 1, From: 12 * mib, To: 13 * mib, Nearest: "lsn=0/B00000"}},
		{"behind all that has arrived", third, "latest", []lost{{2, 14*mib + mib/2, 20 * mib}},
			HoleError{Timeline: 2, From: 14*mib + mib/2, To: 20 * mib, Nearest: "lsn=0/E00000"}},
		{"a little behind all that has arrived", third, "latest", []lost{{2, 14*mib + mib/2 + 24, 20 * mib}},
			HoleError{Timeline: 2, From: 14*mib + mib/2, To: 20 * mib, Nearest: "lsn=0/E00000"}},
		{"in the next segment, from which nothing has arrived", third, "latest", []lost{{2, 15 * mib, 20 * mib}},
			HoleError{Timeline: 2, From: 14*mib + mib/2, To: 20 * mib, Nearest: "lsn=0/E00000"}},
		{"far behind what the former primary wrote", second, "latest", []lost{{1, 15 * mib, 20 * mib}}, HoleError{}},
		{"between the backup and an LSN", second, "lsn=0/A80000,timeline=1", []lost{{1, 10 * mib, 11 * mib}},
			HoleError{Timeline: 1, From: 10 * mib, To: 11 * mib, Nearest: "lsn=0/900000"}},
		{"after an LSN", second, "lsn=0/980000,timeline=1", []lost{{1, 10 * mib, 11 * mib}}, HoleError{}},
		{"before the backup", second, "latest,timeline=1", []lost{{1, 4 * mib, 6 * mib}}, HoleError{}},
		{"inside the backup", second, "immediate", []lost{{1, 7 * mib, 8 * mib}}, HoleError{Timeline: 1, From: 7 * mib, To: 8 * mib, After: Point{third, "immediate"}}},
		{"at its first byte", second, "immediate", []lost{{1, 6 * mib, 7 * mib}}, HoleError{Timeline: 1, From: 6*mib + 40, To: 7 * mib, After: Point{third, "immediate"}}},
		{"on a branch that is not followed", second, "latest", []lost{{1, 10 * mib, 12 * mib}, {3, 10 * mib, 12 * mib}}, HoleError{}},
		{"before the switch, which the new timeline repeats", second, "latest", []lost{{1, 9 * mib, 10 * mib}}, HoleError{}},
		{"the segment with the switch", second, "latest", []lost{{2, 9 * mib, 10 * mib}},
			HoleError{Timeline: 2, From: 9*mib + mib/2, To: 10 * mib, Nearest: "lsn=0/900000", After: Point{third, "immediate"}}},
		{"both copies of the switch", second, "latest", []lost{{1, 9 * mib, 10 * mib}, {2, 9 * mib, 10 * mib}},
			HoleError{Timeline: 1, From: 9 * mib, To: 10 * mib, Nearest: "lsn=0/800000", After: Point{third, "immediate"}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f := branched(t)
			for _, l := range tt.lost {
				f.lost(l.tli, l.from, l.to)
			}
			_, err := f.plan(tt.backup, tt.position)
			if tt.want == (HoleError{}) {
				if err != nil {
					t.Error(err)
				}
				return
			}
			tt.want.Server, tt.want.Label = "primary", repo.Label(tt.backup)
			var hole *HoleError
			if !errors.As(err, &hole) || *hole != tt.want {
				t.Fatalf("restore to %q: %v; want %+v", tt.position, err, tt.want)
			}
			if hole.Nearest == "" {
				return
			}
			position := hole.Nearest
			if hole.Timeline == 1 {
				position += ",timeline=1"
			}
			if _, err := f.plan(tt.backup, position); err != nil {
				t.Errorf("the nearest position %q: %v", position, err)
			}
		})
	}
}
