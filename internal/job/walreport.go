package job

import "github.com/pgmoneta/pgmoneta-go/internal/pg"

// A WALReport is what a check of archived WAL found. Sizes are bytes.
type WALReport struct {
	Deep        bool // content was read
	SegmentSize pg.SegmentSize

	Segments  int // stored
	Received  int // complete and waiting to be stored
	Partial   int // being received, or short at the end of a timeline
	Histories int
	Stored    int64 // as stored
	Read      int64 // plain, compared with hashes and places

	Ranges   []WALRange   // without a gap each, by timeline and position
	Findings []WALFinding // at most [MaxFindings]
	Total    int          // findings, those left out included

	Holes  int // recorded now
	New    int // of those, recorded by this check
	Filled int // recorded before, and found whole
}

// MaxFindings bounds the findings, and the ranges, that travel in a report.
const MaxFindings = 1000

// A WALRange is WAL of one timeline without a gap.
type WALRange struct {
	Timeline pg.Timeline
	From, To pg.LSN
	Segments int
}

// A WALFinding is something that stands in the way of a recovery. Members are
// zero where they make no sense.
type WALFinding struct {
	Kind     string
	Timeline pg.Timeline
	From, To pg.LSN
	Segment  string // of several the first
	Message  string // without the range
	Text     string // all of it on one line
	Recorded bool   // the range is recorded as a hole
}
