package retention

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pgmoneta/pgmoneta-go/internal/pg"
	"github.com/pgmoneta/pgmoneta-go/internal/repo"
)

const segmentSize = 16 << 20

// at makes a backup that began at a time and took ten minutes, with its WAL at a
// position that grows with time.
func at(t time.Time) Backup {
	start := position(t)
	return Backup{Label: repo.NewLabel(t, ""), Known: true, Valid: true, At: t, Stopped: t.Add(10 * time.Minute),
		Start: start + 40, End: position(t.Add(10*time.Minute)) + 300, StartTLI: 1, EndTLI: 1}
}

// position is where WAL is at a time: a segment every twelve minutes.
func position(t time.Time) pg.LSN {
	return pg.LSN(t.Unix()-time.Date(1969, 1, 1, 0, 0, 0, 0, time.UTC).Unix()) * segmentSize / 720
}

func segments(tli pg.Timeline, from, to pg.LSN) []Segment {
	var list []Segment
	for lsn := pg.SegmentSize(segmentSize).Start(from); lsn < to; lsn += segmentSize {
		list = append(list, Segment{pg.SegmentName(tli, lsn, segmentSize), Range{tli, lsn, lsn + segmentSize}, false})
	}
	return list
}

// days makes a backup at one o'clock in the morning of each day of a range.
func days(zone *time.Location, from, to time.Time) []Backup {
	var list []Backup
	for t := from; !t.After(to); t = t.AddDate(0, 0, 1) {
		list = append(list, at(time.Date(t.Year(), t.Month(), t.Day(), 1, 0, 0, 0, zone)))
	}
	return list
}

func dates(p Plan, zone *time.Location) string {
	var words []string
	for _, d := range p.Decisions {
		if d.Keep {
			words = append(words, d.Label.Time().In(zone).Format("0102"))
		}
	}
	return strings.Join(words, " ")
}

// TestGolden has the rule of pgmoneta 0.22 in dates: daily backups from 1 June 2025 on, looked at on Saturday, 21 November 2026.
func TestGolden(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
	daily := days(time.UTC, time.Date(2025, 6, 1, 0, 0, 0, 0, time.UTC), now)
	for _, tt := range []struct {
		policy Policy
		want   string
	}{
		{Policy{Days: 1}, "1121"},
		{Policy{Days: 2}, "1120 1121"},
		{Policy{Days: 7}, "1115 1116 1117 1118 1119 1120 1121"},
		{Policy{Days: 1, Weeks: 1}, "1116 1121"},
		{Policy{Days: 1, Weeks: 4}, "1005 1026 1109 1116 1121"}, // 0, 1, 3 and 6 weeks back
		{Policy{Days: 1, Months: 3}, "0901 1001 1101 1121"},
		{Policy{Days: 1, Years: 2}, "0101 1121"},
		{Policy{Days: 1, Weeks: 2, Months: 12, Years: 3}, "1201 0101 0201 0301 0401 0501 0601 0701 0801 0901 1001 1101 1109 1116 1121"},
		{Policy{Days: 1, Count: 3}, "1119 1120 1121"},
		{Policy{Days: 1, Min: 2}, "1120 1121"},
		{Policy{Days: 1, Window: 3 * 24 * time.Hour}, "1118 1119 1120 1121"}, // the window begins on 18 November at noon
	} {
		p := Decide(Catalogue{Backups: daily}, tt.policy, now)
		got := dates(p, time.UTC)
		if len(p.Refused) > 0 {
			t.Errorf("%+v: refused %v", tt.policy, p.Refused)
		}
		if got != tt.want {
			t.Errorf("%+v keeps %s, want %s", tt.policy, got, tt.want)
		}
	}
}

// TestCalendar has days whose dates are not what 24 hours make of them.
func TestCalendar(t *testing.T) {
	t.Parallel()
	berlin, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name   string
		now    string // in Berlin
		policy Policy
		want   string
	}{
		{"Monday after the clock went forward", "2026-03-30 02:30", Policy{Days: 1, Weeks: 2}, "0323 0330"},
		{"Sunday when the clock goes back", "2026-10-25 03:30", Policy{Days: 1, Weeks: 1}, "1019 1025"},
		{"leap day", "2028-02-29 12:00", Policy{Days: 1, Months: 2, Years: 1}, "0101 0201 0229"},
		{"31st, and months with 30 days", "2026-07-31 12:00", Policy{Days: 1, Months: 3}, "0501 0601 0701 0731"},
		{"New Year", "2027-01-01 12:00", Policy{Days: 1, Months: 2, Years: 2}, "0101 1201 0101"},
		{"1970", "1970-03-01 12:00", Policy{Days: 1, Months: 3, Years: 3}, "0101 0201 0301"},
	} {
		now, err := time.ParseInLocation("2006-01-02 15:04", tt.now, berlin)
		if err != nil {
			t.Fatal(err)
		}
		from := time.Date(now.Year()-1, now.Month(), now.Day()-3, 0, 0, 0, 0, berlin)
		if now.Year() == 1970 {
			from = time.Date(1970, 1, 1, 0, 0, 0, 0, berlin)
		}
		tt.policy.Zone = berlin
		p := Decide(Catalogue{Backups: days(berlin, from, now)}, tt.policy, now)
		if got := dates(p, berlin); got != tt.want || len(p.Refused) > 0 {
			t.Errorf("%s: keeps %s, want %s, refused %v", tt.name, got, tt.want, p.Refused)
		}
	}
}

func TestClockThatCannotBeRightDeletesNothing(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
	list := days(time.UTC, now.AddDate(0, 0, -60), now)
	wal := segments(1, list[0].Start, position(now))
	for name, clock := range map[string]time.Time{
		"1970": time.Unix(0, 0), "an hour back": list[60].At.Add(-time.Hour), "a month back": now.AddDate(0, -1, 0),
		"a month ahead": now.AddDate(0, 1, 0), "2100": time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC),
	} {
		p := Decide(Catalogue{Backups: list, Segments: wal}, Policy{Days: 7}, clock)
		if len(p.Delete()) > 0 || len(p.WAL) > 0 || p.WALKept == "" {
			t.Errorf("%s: %d backups and %d segments go, refused %v", name, len(p.Delete()), len(p.WAL), p.Refused)
		}
	}
	// The first backup taken while the clock is ahead makes nothing older.
	ahead := now.AddDate(10, 0, 0)
	p := Decide(Catalogue{Backups: append(list, at(ahead)), Segments: wal}, Policy{Days: 7}, ahead.Add(time.Hour))
	if len(p.Delete()) > 0 || len(p.WAL) > 0 {
		t.Errorf("a backup of the future: %v go", p.Delete())
	}
	if p := Decide(Catalogue{Backups: list, Segments: wal}, Policy{Days: 7}, now); len(p.Delete()) == 0 || len(p.WAL) == 0 || len(p.Refused) > 0 {
		t.Errorf("the right clock: %v go, refused %v", p.Delete(), p.Refused)
	}
}

func TestWhatIsNotUnderstoodStays(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
	list := days(time.UTC, now.AddDate(0, 0, -30), now)
	wal := segments(1, list[0].Start, position(now))
	list[3].Kept = "somebody asked for it"
	c := Catalogue{Backups: list, Segments: wal}
	p := Decide(c, Policy{Days: 7}, now)
	if !p.Decisions[3].Keep || p.Decisions[4].Keep {
		t.Errorf("decided %+v", p.Decisions[3:5])
	}
	var left int
	for _, s := range without(wal, p.WAL) {
		if closed(list[3]).covers(s) {
			left++
		} else if s.To <= list[24].Start {
			t.Errorf("%s is left", s.Name)
		}
	}
	if left == 0 {
		t.Error("the WAL of a kept backup goes")
	}
	if p := Decide(c, Policy{Days: 7, WALAll: true}, now); len(p.WAL) == 0 || p.WAL[len(p.WAL)-1].To > list[3].Start {
		t.Error("wal_keep = all does not keep all after the oldest")
	}
	c.Unshipped, c.Shipped = true, list[1].Start
	if p := Decide(c, Policy{Days: 7}, now); len(p.WAL) == 0 || p.WAL[len(p.WAL)-1].To > list[1].Start {
		t.Error("WAL goes that was not shipped")
	}
	c.Backups = slices.Clone(list)
	c.Backups[5].Known, c.Backups[5].Valid = false, false
	if p := Decide(c, Policy{Days: 7}, now); len(p.Delete()) > 0 || len(p.WAL) > 0 || p.WALKept == "" || len(p.Refused) == 0 {
		t.Errorf("beside an unreadable backup %v and %d segments go", p.Delete(), len(p.WAL))
	}
	for i := range c.Backups {
		c.Backups[i].Valid = false
	}
	if p := Decide(c, Policy{Days: 1}, now); len(p.Delete()) > 0 || len(p.WAL) > 0 {
		t.Error("something goes of a server without a valid backup")
	}
	list[2].Foreign, list[3].Foreign, list[3].Base = true, true, list[2].Label
	if p := Decide(Catalogue{Backups: list}, Policy{Days: 7}, now); !p.Decisions[2].Keep {
		t.Error("the base of a backup goes that needs it")
	}
	// Taken while the clocks went back: the later label is the parent's.
	newest := len(list) - 1
	for i := range list {
		list[i].Foreign, list[i].Base = true, ""
	}
	list[newest].Base, list[1].Base, list[2].Base = list[1].Label, list[2].Label, list[0].Label
	p = Decide(Catalogue{Backups: list}, Policy{Days: 1}, now)
	if p.Decisions[5].Keep {
		t.Error("what nothing needs stays")
	}
	for _, i := range []int{0, 1, 2, newest} {
		if !p.Decisions[i].Keep {
			t.Errorf("of a chain that is needed number %d goes", i)
		}
	}
}

// A world is a server whose past is known.
type world struct {
	Catalogue
	switched time.Time // to timeline 2
	lost     pg.LSN    // written on timeline 1 after the switch
	now      time.Time
}

// place is where the server was at a time.
func (w *world) place(t time.Time) (pg.Timeline, pg.LSN) {
	if w.switched.IsZero() || t.Before(w.switched) {
		return 1, position(t)
	}
	return 2, position(t) - w.lost
}

// newWorld makes one up.
func newWorld(r *rand.Rand) *world {
	begin := time.Unix(r.Int64N(70*365*86400), 0)
	length := time.Duration(1+r.IntN(40*24)) * time.Hour
	w := &world{now: begin.Add(length)}
	w.SegmentSize = segmentSize
	if r.IntN(2) == 0 {
		w.switched = begin.Add(time.Duration(r.Int64N(int64(length))))
		if r.IntN(2) == 0 {
			w.lost = pg.LSN(r.Int64N(100)) * segmentSize
		}
		left := position(w.switched) - w.lost
		w.Histories = map[pg.Timeline]pg.History{2: {Timeline: 2, Ancestors: []pg.Switch{{Timeline: 1, End: left}}}}
		w.Segments = append(segments(1, position(begin), position(w.switched)), segments(2, left, position(w.now)-w.lost)...)
	} else {
		w.Segments = segments(1, position(begin), position(w.now))
	}
	for t := begin; t.Before(w.now.Add(-time.Hour)); t = t.Add(time.Duration(1+r.IntN(72*3600)) * time.Second * time.Duration(1+r.IntN(2))) {
		w.Backups = append(w.Backups, w.backup(r, t))
	}
	for range r.IntN(4) {
		w.lose(r)
	}
	if r.IntN(4) == 0 {
		w.Unshipped, w.Shipped = true, position(begin.Add(time.Duration(r.Int64N(int64(length)))))
	}
	return w
}

func (w *world) backup(r *rand.Rand, t time.Time) Backup {
	b := at(t)
	b.StartTLI, b.Start = w.place(t)
	b.EndTLI, b.End = w.place(b.Stopped)
	if b.EndTLI != b.StartTLI { // one that a promotion ended was none
		b.Valid = false
		b.EndTLI, b.End = b.StartTLI, b.Start+1
	}
	if n := len(w.Backups); n > 0 && b.Label <= w.Backups[n-1].Label {
		b.Label = repo.NewLabel(t, w.Backups[n-1].Label)
	}
	switch r.IntN(20) {
	case 0:
		b.Valid = false
	case 1:
		b.Kept = "asked for"
	case 2:
		if r.IntN(20) == 0 {
			b.Known, b.Valid = false, false
		}
	}
	return b
}

// lose removes WAL somewhere, and backups that would need it.
func (w *world) lose(r *rand.Rand) {
	i := r.IntN(len(w.Segments))
	lost := w.Segments[i:min(i+1+r.IntN(20), len(w.Segments))]
	for _, s := range lost {
		w.Backups = slices.DeleteFunc(w.Backups, func(b Backup) bool { return closed(b).covers(s) })
	}
	w.Segments = slices.Delete(slices.Clone(w.Segments), i, i+len(lost))
}

// restorable reports whether a moment can be restored: it reads WAL as a recovery does,
// segment by segment.
func (w *world) restorable(t time.Time, backups []Backup, stored map[Range]bool) bool {
	tli, to := w.place(t)
	h := pg.History{Timeline: 1}
	if tli == 2 {
		h = w.Histories[2]
	}
	for _, b := range backups {
		if !b.Valid || b.Stopped.After(t) || !passes(h, b) {
			continue
		}
		whole := true
		for lsn := pg.SegmentSize(segmentSize).Start(b.Start); whole && lsn < to; lsn += segmentSize {
			whole = stored[Range{h.At(min(lsn+segmentSize, to) - 1), lsn, lsn + segmentSize}]
		}
		if whole {
			return true
		}
	}
	return false
}

func ranges(list []Segment) map[Range]bool {
	set := map[Range]bool{}
	for _, s := range list {
		set[s.Range] = true
	}
	return set
}

func (w *world) left(p Plan) *world {
	next := *w
	gone := p.Delete()
	next.Backups = slices.DeleteFunc(slices.Clone(w.Backups), func(b Backup) bool { return slices.Contains(gone, b.Label) })
	next.Segments = without(w.Segments, p.WAL)
	return &next
}

func TestEveryPromisedMomentStaysRestorable(t *testing.T) {
	t.Parallel()
	zones := []*time.Location{time.UTC}
	for _, name := range []string{"Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Pacific/Apia"} {
		zone, err := time.LoadLocation(name)
		if err != nil {
			t.Fatal(err)
		}
		zones = append(zones, zone)
	}
	var deleted, segments, moments, held int
	for seed := range uint64(120) {
		r := rand.New(rand.NewPCG(seed, 7))
		w := newWorld(r)
		if len(w.Backups) == 0 {
			continue
		}
		p := Policy{Days: 1 + r.IntN(10), Weeks: r.IntN(4), Months: r.IntN(3), Years: r.IntN(2), Count: r.IntN(4), Min: r.IntN(4),
			Window: time.Duration(r.IntN(15*24)) * time.Hour, WALAll: r.IntN(5) == 0, Zone: zones[r.IntN(len(zones))]}
		plan := Decide(w.Catalogue, p, w.now)
		after := w.left(plan)
		deleted, segments = deleted+len(plan.Delete()), segments+len(plan.WAL)
		held += len(plan.Refused)
		fail := func(format string, args ...any) {
			t.Helper()
			t.Fatalf("seed %d, %+v: %s", seed, p, fmt.Sprintf(format, args...))
		}
		for i, d := range plan.Decisions {
			if b := w.Backups[i]; !d.Keep && (b.Kept != "" || !b.Known || !b.At.Before(w.now.AddDate(0, 0, -p.Days).UTC()) && p.Zone == time.UTC) {
				fail("%s goes", d.Label)
			}
		}
		before, stored := ranges(w.Segments), ranges(after.Segments)
		for range 15 {
			moment := w.now.Add(-time.Duration(r.Int64N(int64(p.Window) + int64(time.Hour))))
			if moment.Before(w.now.Add(-p.Window)) || !w.restorable(moment, w.Backups, before) {
				continue
			}
			moments++
			if !w.restorable(moment, after.Backups, stored) {
				fail("%s is lost", moment)
			}
		}
		for _, b := range after.Backups { // each of them alone, too
			if b.Valid && w.restorable(b.Stopped, []Backup{b}, before) && !w.restorable(b.Stopped, []Backup{b}, stored) {
				fail("the WAL of %s is gone", b.Label)
			}
		}
		if again := Decide(after.Catalogue, p, w.now); len(again.Delete()) > 0 || len(again.WAL) > 0 {
			fail("a second run deletes %v and %d segments", again.Delete(), len(again.WAL))
		}
	}
	t.Logf("%d backups and %d segments deleted, %d moments restorable, %d refused", deleted, segments, moments, held)
	if deleted < 300 || moments < 300 {
		t.Error("too little was tried")
	}
}
