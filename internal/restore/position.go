package restore

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/pgmoneta/pgmoneta-go/internal/pg"
)

// A Kind tells what ends recovery.
type Kind int

// Kinds of targets.
const (
	TargetNone      Kind = iota // no recovery beyond what makes the backup consistent
	TargetImmediate             // stop as soon as the backup is consistent
	TargetLatest                // the end of archived WAL
	TargetName                  // a restore point
	TargetXID
	TargetLSN
	TargetTime
)

// An Action is what PostgreSQL does at the target; empty is its default, pause.
type Action string

// Actions.
const (
	Pause    Action = "pause"
	Promote  Action = "promote"
	Shutdown Action = "shutdown"
)

// A Setting is a line of postgresql.auto.conf.
type Setting struct{ Name, Value string }

// A Target is a parsed position. The zero value is the backup's own consistent state.
type Target struct {
	Kind      Kind
	Name      string
	XID       uint64
	LSN       pg.LSN
	Time      time.Time // UTC, microseconds
	Exclusive bool      // stop before the target; only with XID, LSN and Time

	Timeline    pg.Timeline // timeline to follow, 0 = the latest
	OwnTimeline bool        // follow the timeline of the backup instead
	Action      Action
	Replica     bool      // make a standby
	Settings    []Setting // copied to postgresql.auto.conf
}

// A PositionError reports a position that cannot be understood.
type PositionError struct {
	Word string // the word at fault
	Want string // accepted forms, or what it contradicts
}

func (e *PositionError) Error() string {
	return fmt.Sprintf("restore position: %q: %s", e.Word, e.Want)
}

// ParsePosition reads a position: words separated by commas, in any order.
//
//	current, immediate         stop as soon as the backup is consistent
//	latest                     recover to the end of archived WAL
//	name=, xid=, lsn=, time=   recover to that target
//	inclusive=on|off           stop after (default) or before the target
//	timeline=latest|current|n  timeline to follow; alone it implies latest
//	action=pause|promote|shutdown
//	primary, replica           kind of result, primary by default
//	key=value                  any other setting, copied to postgresql.auto.conf
//
// A time is "YYYY-MM-DD HH:MM:SS[.ffffff]" with an optional zone (Z, +02, +02:00,
// UTC); without one it is local time. An empty position is the zero Target.
// Errors are [*PositionError].
func ParsePosition(s string) (Target, error) { return parsePosition(s, time.Local) }

func parsePosition(s string, local *time.Location) (Target, error) {
	p := positionParser{local: local, seen: map[string]string{}}
	for word := range strings.SplitSeq(s, ",") {
		word = strings.TrimSpace(word)
		if word == "" {
			continue
		}
		if err := p.word(word); err != nil {
			return Target{}, err
		}
	}
	return p.finish()
}

type positionParser struct {
	t     Target
	local *time.Location
	seen  map[string]string // word by the group of words that exclude each other
}

var settingName = regexp.MustCompile(`^[a-z_][a-z0-9_.]*$`)

const knownWords = "want current, immediate, latest, primary, replica, name=, xid=, lsn=, time=, inclusive=, timeline=, action=, or a setting key=value"

func (p *positionParser) word(word string) error {
	if strings.ContainsFunc(word, func(r rune) bool { return r < ' ' || r == 0x7F }) {
		return &PositionError{word, "control characters are not allowed"}
	}
	key, value, hasValue := strings.Cut(word, "=")
	if err := p.claim(key, word, hasValue); err != nil {
		return err
	}
	want := ""
	if hasValue {
		want = p.pair(key, value)
	} else {
		want = p.single(key)
	}
	if want != "" {
		return &PositionError{word, want}
	}
	return nil
}

// claim refuses a second word of a group of which only one can hold.
func (p *positionParser) claim(key, word string, hasValue bool) error {
	group := key + "="
	switch key {
	case "current", "immediate", "latest":
		if !hasValue {
			group = "target"
		}
	case "name", "xid", "lsn", "time":
		group = "target"
	case "primary", "replica":
		if !hasValue {
			group = "kind of result"
		}
	}
	if other, ok := p.seen[group]; ok {
		return &PositionError{word, fmt.Sprintf("contradicts or repeats %q: give one of them", other)}
	}
	p.seen[group] = word
	return nil
}

// single takes a word without a value; it returns the accepted forms if it is none.
func (p *positionParser) single(word string) (want string) {
	switch word {
	case "current", "immediate":
		p.t.Kind = TargetImmediate
	case "latest":
		p.t.Kind = TargetLatest
	case "primary":
	case "replica":
		p.t.Replica = true
	default:
		return knownWords
	}
	return ""
}

func (p *positionParser) pair(key, value string) (want string) {
	switch key {
	case "name":
		p.t.Kind, p.t.Name = TargetName, value
		if value == "" || len(value) > 63 {
			return "want the name of a restore point, 1 to 63 bytes"
		}
	case "xid":
		return p.xid(value)
	case "lsn":
		lsn, err := pg.ParseLSN(value)
		p.t.Kind, p.t.LSN = TargetLSN, lsn
		if err != nil || lsn == 0 {
			return "want an LSN such as lsn=1/A2000000"
		}
	case "time":
		return p.time(value)
	case "inclusive":
		return p.inclusive(value)
	case "timeline":
		return p.timeline(value)
	case "action":
		return p.action(value)
	case "current", "immediate", "latest", "primary", "replica":
		return "takes no value"
	default:
		return p.setting(key, value)
	}
	return ""
}

func (p *positionParser) xid(value string) (want string) {
	n, err := strconv.ParseUint(value, 10, 64)
	p.t.Kind, p.t.XID = TargetXID, n
	// The numbers below 3 mark special transactions; none of them commits.
	if err != nil || n < 3 {
		return "want a transaction id in decimal, such as xid=1234"
	}
	return ""
}

// zones are the layouts of what may follow the seconds. Go accepts a fraction
// behind the seconds without being told.
var zones = [...]string{"Z07:00", "Z07", "Z0700", " Z07:00", " Z07", " Z0700"}

func (p *positionParser) time(value string) (want string) {
	t, ok := parseTime(value, p.local)
	p.t.Kind, p.t.Time = TargetTime, t.UTC().Truncate(time.Microsecond)
	if !ok || p.t.Time.Year() < 1 || p.t.Time.Year() > 9999 {
		return "want a time such as 2026-11-21 12:00:00, 2026-11-21 12:00:00.5+02 or 2026-11-21T12:00:00Z"
	}
	return ""
}

func parseTime(value string, local *time.Location) (time.Time, bool) {
	const day, clock = "2006-01-02", "15:04:05"
	if len(value) <= len(day) || value[len(day)] != ' ' && value[len(day)] != 'T' {
		return time.Time{}, false
	}
	value = value[:len(day)] + " " + value[len(day)+1:]
	for _, name := range []string{"UTC", "GMT", "utc", "gmt"} {
		if rest, ok := strings.CutSuffix(value, name); ok {
			value, local = strings.TrimSuffix(rest, " "), time.UTC
			break
		}
	}
	if t, err := time.ParseInLocation(day+" "+clock, value, local); err == nil {
		return t, true
	}
	for _, zone := range zones {
		if t, err := time.Parse(day+" "+clock+zone, value); err == nil {
			return t, true
		}
	}
	return time.Time{}, false
}

func (p *positionParser) inclusive(value string) (want string) {
	switch strings.ToLower(value) {
	case "", "on", "true", "yes", "1":
		return ""
	case "off", "false", "no", "0":
		p.t.Exclusive = true
		return ""
	}
	return "want inclusive=on or inclusive=off"
}

func (p *positionParser) timeline(value string) (want string) {
	switch value {
	case "", "latest":
		return ""
	case "current":
		p.t.OwnTimeline = true
		return ""
	}
	n, err := strconv.ParseUint(value, 10, 32)
	p.t.Timeline = pg.Timeline(n)
	if err != nil || n == 0 {
		return "want timeline=latest, timeline=current or a number from 1"
	}
	return ""
}

func (p *positionParser) action(value string) (want string) {
	switch a := Action(value); a {
	case "":
		p.t.Action = Pause
	case Pause, Promote, Shutdown:
		p.t.Action = a
	default:
		return "want action=pause, action=promote or action=shutdown"
	}
	return ""
}

func (p *positionParser) setting(key, value string) (want string) {
	if !settingName.MatchString(key) {
		return knownWords
	}
	if strings.HasPrefix(key, "recovery_target") {
		return "use name=, xid=, lsn=, time=, inclusive=, timeline= or action= instead"
	}
	p.t.Settings = append(p.t.Settings, Setting{key, value})
	return ""
}

// finish checks what only all words together show.
func (p *positionParser) finish() (Target, error) {
	t := &p.t
	if _, ok := p.seen["timeline="]; ok && t.Kind == TargetNone {
		t.Kind = TargetLatest
	}
	if t.Exclusive && t.Kind != TargetXID && t.Kind != TargetLSN && t.Kind != TargetTime {
		return Target{}, &PositionError{p.seen["inclusive="], "needs xid=, lsn= or time="}
	}
	if t.Action != "" && t.Kind == TargetNone || t.Kind == TargetLatest && t.Action != "" && t.Action != Promote {
		return Target{}, &PositionError{p.seen["action="], "needs a target to act at: immediate, name=, xid=, lsn= or time="}
	}
	return *t, nil
}

// toTheEnd reports whether only the WAL itself shows where recovery ends, so that
// all of it is needed. A replica goes on from wherever archived WAL ends.
func (t Target) toTheEnd() bool {
	switch t.Kind {
	case TargetNone:
		return t.Replica
	case TargetImmediate, TargetLSN:
		return false
	}
	return true
}

// String returns the position in a form that [ParsePosition] reads.
func (t Target) String() string {
	var words []string
	add := func(format string, args ...any) { words = append(words, fmt.Sprintf(format, args...)) }
	switch t.Kind {
	case TargetImmediate:
		add("immediate")
	case TargetLatest:
		add("latest")
	case TargetName:
		add("name=%s", t.Name)
	case TargetXID:
		add("xid=%d", t.XID)
	case TargetLSN:
		add("lsn=%s", t.LSN)
	case TargetTime:
		add("time=%s", t.timeText())
	}
	if t.Exclusive {
		add("inclusive=off")
	}
	if t.OwnTimeline {
		add("timeline=current")
	} else if t.Timeline != 0 {
		add("timeline=%d", t.Timeline)
	}
	if t.Action != "" {
		add("action=%s", t.Action)
	}
	if t.Replica {
		add("replica")
	}
	for _, s := range t.Settings {
		add("%s=%s", s.Name, s.Value)
	}
	return strings.Join(words, ",")
}

// timeText always carries its zone: the server's own may be another.
func (t Target) timeText() string { return t.Time.Format("2006-01-02 15:04:05.999999-07:00") }
