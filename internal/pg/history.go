package pg

import (
	"fmt"
	"strconv"
	"strings"
)

// A Switch tells where a timeline was left: the next timeline begins at End.
type Switch struct {
	Timeline Timeline
	End      LSN    // first position that is not on Timeline any more
	Reason   string // free text of the server
}

// A History is the content of a timeline history file: the ancestors of
// Timeline, oldest first. Timeline 1 has no ancestors and no file.
//
// See PostgreSQL documentation, "Timelines", and src/backend/access/transam/timeline.c.
type History struct {
	Timeline  Timeline
	Ancestors []Switch
}

// HistoryName returns the name of the history file of tli, such as 00000002.history.
func HistoryName(tli Timeline) string { return fmt.Sprintf("%08X.history", uint32(tli)) }

// ParseHistoryName reads the timeline from a history file's name. The lower-case
// form that C pgmoneta wrote is accepted.
func ParseHistoryName(name string) (Timeline, bool) {
	digits, ok := strings.CutSuffix(name, ".history")
	if !ok || len(digits) != 8 {
		return 0, false
	}
	n, err := strconv.ParseUint(digits, 16, 32)
	return Timeline(n), err == nil && n > 0
}

// ParseHistory reads a timeline history file. Lines are "timeline TAB LSN TAB
// reason"; blank lines and lines that begin with # are ignored, and so is a
// trailing NUL, which C pgmoneta left in its files. Ancestors must ascend and
// be smaller than tli.
func ParseHistory(tli Timeline, content []byte) (History, error) {
	h := History{Timeline: tli}
	text := strings.TrimRight(string(content), "\x00")
	for i, line := range strings.Split(text, "\n") {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		s, err := parseSwitch(line)
		if err != nil {
			return History{}, fmt.Errorf("%s line %d: %w", HistoryName(tli), i+1, err)
		}
		if n := len(h.Ancestors); n > 0 && (s.Timeline <= h.Ancestors[n-1].Timeline || s.End < h.Ancestors[n-1].End) {
			return History{}, fmt.Errorf("%s line %d: timelines and positions must ascend", HistoryName(tli), i+1)
		}
		if s.Timeline >= tli {
			return History{}, fmt.Errorf("%s line %d: timeline %d is no ancestor of %d", HistoryName(tli), i+1, s.Timeline, tli)
		}
		h.Ancestors = append(h.Ancestors, s)
	}
	return h, nil
}

func parseSwitch(line string) (Switch, error) {
	fields := strings.Fields(line)
	if len(fields) < 2 {
		return Switch{}, fmt.Errorf("%q: want a timeline and an LSN", line)
	}
	tli, err := strconv.ParseUint(fields[0], 10, 32)
	if err != nil || tli == 0 {
		return Switch{}, fmt.Errorf("%q: want a timeline and an LSN", line)
	}
	end, err := ParseLSN(fields[1])
	if err != nil {
		return Switch{}, err
	}
	return Switch{Timeline: Timeline(tli), End: end, Reason: strings.Join(fields[2:], " ")}, nil
}

// Contains reports whether tli is the history's own timeline or one of its ancestors.
func (h History) Contains(tli Timeline) bool {
	_, ok := h.End(tli)
	return ok
}

// End returns the position at which h left tli. It is the largest LSN for the
// history's own timeline, and ok is false for a timeline that is no ancestor.
func (h History) End(tli Timeline) (end LSN, ok bool) {
	if tli == h.Timeline {
		return ^LSN(0), true
	}
	for _, s := range h.Ancestors {
		if s.Timeline == tli {
			return s.End, true
		}
	}
	return 0, false
}

// Next returns the timeline that follows tli in h and the position where it begins.
func (h History) Next(tli Timeline) (next Timeline, begin LSN, ok bool) {
	for i, s := range h.Ancestors {
		if s.Timeline != tli {
			continue
		}
		if i+1 < len(h.Ancestors) {
			return h.Ancestors[i+1].Timeline, s.End, true
		}
		return h.Timeline, s.End, true
	}
	return 0, 0, false
}

// At returns the timeline of h that wrote the byte at lsn.
func (h History) At(lsn LSN) Timeline {
	for _, s := range h.Ancestors {
		if lsn < s.End {
			return s.Timeline
		}
	}
	return h.Timeline
}

// SegmentTimeline returns the timeline whose copy of the segment that begins at
// start a recovery along h reads. It is the newest timeline that has bytes in
// that segment, because a new timeline's first segment repeats what came before
// the switch.
func (h History) SegmentTimeline(start LSN, size SegmentSize) Timeline {
	return h.At(start + LSN(size) - 1)
}
