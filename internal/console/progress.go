package console

import (
	"fmt"
	"strings"
	"time"
)

// A Progress is how far a job is.
type Progress struct {
	Phase       string
	Done, Total int64         // bytes; a Total of 0 is not known
	Rate        float64       // bytes per second, 0 while it is not known
	Elapsed     time.Duration // of the job
}

// leastBar is the smallest bar worth to be drawn, with its brackets.
const leastBar = 8

// Line returns the progress as one line of at most columns:
//
//	Backup  45 % [#########-----------]  1.2 GB of 2.7 GB  105.3 MB/s  15 s left
//
// What does not fit is left out, from the end; the bar takes what space remains.
func (p Progress) Line(columns int) string {
	parts := []string{clean(strings.ReplaceAll(p.Phase, "\n", " "))}
	share := 0.0
	if p.Total > 0 {
		share = min(max(float64(p.Done)/float64(p.Total), 0), 1)
		parts[0] += fmt.Sprintf(" %3d %%", int(share*100))
		parts = append(parts, humanSize(float64(p.Done))+" of "+humanSize(float64(p.Total)))
	}
	if p.Total > 0 && p.Rate > 0 {
		parts = append(parts, humanSize(p.Rate)+"/s")
	}
	if left, known := p.left(); known {
		parts = append(parts, humanDuration(left)+" left")
	} else if p.Elapsed >= time.Second {
		parts = append(parts, humanDuration(p.Elapsed.Truncate(time.Second)))
	}
	for len(parts) > 1 && width(strings.Join(parts, gap)) > columns {
		parts = parts[:len(parts)-1]
	}
	if space := columns - width(strings.Join(parts, gap)) - 1; p.Total > 0 && space >= leastBar {
		parts[0] += " " + bar(share, min(space, 2*leastBar+6))
	}
	line := []rune(strings.Join(parts, gap))
	return string(line[:min(len(line), max(columns, 0))])
}

// left returns how long it will still take at the present rate.
func (p Progress) left() (time.Duration, bool) {
	if p.Total <= 0 || p.Rate <= 0 {
		return 0, false
	}
	const most = 365 * 24 * time.Hour
	seconds := float64(max(p.Total-p.Done, 0)) / p.Rate
	return time.Duration(min(seconds, most.Seconds()) * float64(time.Second)), true
}

func bar(share float64, columns int) string {
	inner := columns - 2
	full := int(share * float64(inner))
	return "[" + strings.Repeat("#", full) + strings.Repeat("-", inner-full) + "]"
}
