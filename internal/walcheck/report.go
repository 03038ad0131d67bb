package walcheck

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/pgmoneta/pgmoneta-go/internal/pg"
	"github.com/pgmoneta/pgmoneta-go/internal/repo"
)

// A Kind sorts findings.
type Kind string

// Kinds of findings.
const (
	Missing    Kind = "missing"    // a range of WAL between others is not there
	Damaged    Kind = "damaged"    // an object is not what was written
	WrongSize  Kind = "size"       // a segment has another length than the others
	WrongPage  Kind = "page"       // a page does not belong where it is
	Misplaced  Kind = "misplaced"  // a segment that no recovery would read under its name
	BadHistory Kind = "history"    // missing, not readable, or contradicting another
	Unreadable Kind = "unreadable" // an object could not be read; it may be whole
	Recorded   Kind = "hole"       // recorded earlier, and nothing else shows it
)

// lost reports whether WAL is lost for recovery, so that the finding is a hole.
func (k Kind) lost() bool {
	switch k {
	case Missing, Damaged, WrongSize, WrongPage:
		return true
	}
	return false
}

func (k Kind) cause() repo.Cause {
	if k == Missing {
		return repo.CauseMissing
	}
	return repo.CauseDamaged
}

// A Finding is something that stands in the way of a recovery. Timeline, From,
// To and Segment are zero where they make no sense.
type Finding struct {
	Kind     Kind
	Timeline pg.Timeline
	From     pg.LSN
	To       pg.LSN
	Segment  string // of several the first
	Message  string // what is wrong, without the range
	Recorded bool   // the range is recorded as a hole
}

// String returns the finding on one line.
func (f Finding) String() string {
	var b strings.Builder
	b.WriteString(string(f.Kind))
	if f.Timeline != 0 {
		fmt.Fprintf(&b, ": timeline %d", f.Timeline)
	}
	if f.To != 0 {
		fmt.Fprintf(&b, " from %s to %s", f.From, f.To)
	}
	return b.String() + ": " + f.Message
}

// A Range is WAL of one timeline without a gap.
type Range struct {
	Timeline pg.Timeline
	From     pg.LSN
	To       pg.LSN // where its bytes end
	Segments int
}

// A Report is the result of [Check]. Sizes are bytes.
type Report struct {
	Server      string
	System      uint64 // system identifier that pages must have, 0 if unknown
	SegmentSize pg.SegmentSize
	Deep        bool

	Segments  int // stored
	Received  int // complete and waiting to be stored
	Partial   int // being received, or short at the end of a timeline
	Histories int
	Stored    int64 // as stored, with histories
	Read      int64 // plain bytes that were compared with hashes and places

	Ranges   []Range // by timeline and position
	Findings []Finding
	Holes    int // recorded now
	New      int // of those, recorded by this check
	Filled   int // recorded before, and found whole
}

// OK reports whether nothing stands in the way of a recovery.
func (r *Report) OK() bool { return len(r.Findings) == 0 }

// Summary describes the report in a few lines: ranges, findings, and a verdict.
func (r *Report) Summary() string {
	var b strings.Builder
	mode := "quick"
	if r.Deep {
		mode = "deep"
	}
	fmt.Fprintf(&b, "server %q, %s check: %d segments stored, %d waiting, %d partial, %d histories\n",
		r.Server, mode, r.Segments, r.Received, r.Partial, r.Histories)
	for _, w := range r.Ranges {
		fmt.Fprintf(&b, "timeline %d: %s to %s (%d segments)\n", w.Timeline, w.From, w.To, w.Segments)
	}
	for _, f := range r.Findings {
		b.WriteString(f.String() + "\n")
	}
	if r.OK() {
		b.WriteString("no hole, nothing damaged\n")
	} else {
		fmt.Fprintf(&b, "%d findings, %d holes recorded\n", len(r.Findings), r.Holes)
	}
	return b.String()
}

// An interval is a range of one timeline.
type interval struct{ from, to pg.LSN }

// union merges intervals that overlap or touch. It reorders list.
func union(list []interval) []interval {
	slices.SortFunc(list, func(a, b interval) int {
		return cmp.Or(cmp.Compare(a.from, b.from), cmp.Compare(a.to, b.to))
	})
	var merged []interval
	for _, v := range list {
		if n := len(merged); n > 0 && v.from <= merged[n-1].to {
			merged[n-1].to = max(merged[n-1].to, v.to)
			continue
		}
		merged = append(merged, v)
	}
	return merged
}

// without returns what of v lies outside of the intervals of list, which is a union.
func (v interval) without(list []interval) []interval {
	var rest []interval
	for _, o := range list {
		if o.to <= v.from || o.from >= v.to {
			continue
		}
		if o.from > v.from {
			rest = append(rest, interval{v.from, o.from})
		}
		v.from = o.to
		if v.from >= v.to {
			return rest
		}
	}
	return append(rest, v)
}
