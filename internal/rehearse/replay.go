package rehearse

import (
	"strconv"
	"strings"
	"time"

	"github.com/pgmoneta/pgmoneta-go/internal/pg"
)

// A replay is what PostgreSQL's log tells about its recovery.
type replay struct {
	from, to pg.LSN
	elapsed  time.Duration
}

// readReplay looks for the lines "redo starts at 0/5000028" and "redo done at
// 0/6000100", which begin with the time in seconds.
func readReplay(log string) replay {
	var r replay
	var began float64
	for line := range strings.Lines(log) {
		stamp, text, _ := strings.Cut(line, " ")
		at, err := strconv.ParseFloat(stamp, 64)
		if err != nil {
			continue
		}
		if lsn, ok := position(text, "redo starts at "); ok && r.from == 0 {
			r.from, began = lsn, at
		}
		if lsn, ok := position(text, "redo done at "); ok {
			r.to, r.elapsed = lsn, time.Duration((at-began)*float64(time.Second)).Round(time.Millisecond)
		}
	}
	return r
}

func position(text, before string) (pg.LSN, bool) {
	_, rest, ok := strings.Cut(text, "LOG:  "+before)
	if !ok {
		return 0, false
	}
	word, _, _ := strings.Cut(strings.TrimSpace(rest), " ")
	lsn, err := pg.ParseLSN(word)
	return lsn, err == nil
}
