package retention

import (
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestTheTrashIsEmptiedWhenItsTimeHasCome(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
	list := days(time.UTC, now.AddDate(0, 0, -10), now)
	old := list[:3]
	c := Catalogue{Backups: list[3:], Segments: segments(1, list[0].Start, position(now)), Trash: []Trashed{
		{Backup: old[0], DeletedAt: now.Add(-49 * time.Hour)},
		{Backup: old[1], DeletedAt: now.Add(-47 * time.Hour)},
		{Backup: old[2]}, // its mark cannot be read
	}}
	p := Policy{Days: 20, Delay: 48 * time.Hour}
	plan := Decide(c, p, now)
	if got := plan.Purge(); len(got) != 1 || got[0] != old[0].Label || !plan.Trash[1].Until.Equal(now.Add(time.Hour)) || !plan.Trash[2].Until.IsZero() {
		t.Errorf("%+v", plan.Trash)
	}
	if len(plan.WAL) == 0 || plan.WAL[len(plan.WAL)-1].To > old[1].Start {
		t.Errorf("%d segments go", len(plan.WAL))
	}
	if plan := Decide(c, Policy{Days: 20}, now); len(plan.Purge()) != 2 {
		t.Errorf("without a delay %v goes", plan.Purge())
	}
	c.Trash[1].DeletedAt = now.Add(time.Hour)
	if plan := Decide(c, Policy{Days: 20}, now); len(plan.Purge()) != 1 {
		t.Errorf("what was deleted in the future goes: %v", plan.Purge())
	}
	for name, wrong := range map[string]time.Time{"1970": time.Unix(0, 0), "forward": now.AddDate(10, 0, 0), "back": now.AddDate(-1, 0, 0)} {
		if got := Decide(c, p, wrong); len(got.Purge()) > 0 || len(got.WAL) > 0 {
			t.Errorf("by a clock that jumped (%s) %v goes, and %d segments", name, got.Purge(), len(got.WAL))
		}
	}
	if got := Decide(c, p, now.AddDate(10, 0, 0)); len(got.Refused) == 0 || !strings.Contains(got.Refused[0], "clock") {
		t.Errorf("nobody is told: %v", got.Refused)
	}
	c.Trash[1].Known = false
	if got := Decide(c, p, now); len(got.Purge()) > 0 || len(got.WAL) > 0 || len(got.Refused) == 0 {
		t.Errorf("beside one in the trash that cannot be read %v goes, and %d segments", got.Purge(), len(got.WAL))
	}
}

// TestWhatIsInTheTrashCanBeBroughtBack deletes in random pasts, brings everything back,
// and finds it as restorable as before.
func TestWhatIsInTheTrashCanBeBroughtBack(t *testing.T) {
	t.Parallel()
	trashed, moments := 0, 0
	for seed := range uint64(150) {
		r := rand.New(rand.NewPCG(seed, 11))
		w := newWorld(r)
		if len(w.Backups) == 0 {
			continue
		}
		p := Policy{Days: 1 + r.IntN(5), Months: r.IntN(2), Window: time.Duration(r.IntN(5*24)) * time.Hour, Delay: 24 * time.Hour}
		before := ranges(w.Segments)
		plan := Decide(w.Catalogue, p, w.now)
		after := w.left(plan)
		for _, b := range w.Backups {
			if slices.Contains(plan.Delete(), b.Label) {
				after.Trash = append(after.Trash, Trashed{b, w.now})
			}
		}
		trashed += len(after.Trash)
		again := Decide(after.Catalogue, p, w.now.Add(23*time.Hour)) // the clock of these worlds allows that
		if len(again.Purge()) > 0 {
			t.Fatalf("seed %d: %v goes before its time", seed, again.Purge())
		}
		stored := ranges(without(after.Segments, again.WAL))
		for _, b := range after.Trash {
			for _, moment := range []time.Time{b.Stopped, w.now} {
				if !b.Valid || !w.restorable(moment, []Backup{b.Backup}, before) {
					continue
				}
				moments++
				if !w.restorable(moment, []Backup{b.Backup}, stored) {
					t.Fatalf("seed %d, %+v: %s is lost of %s", seed, p, moment, b.Label)
				}
			}
		}
	}
	t.Logf("%d backups in the trash, %d moments", trashed, moments)
	if trashed < 300 || moments < 300 {
		t.Error("too little was tried")
	}
}
