package repo

import (
	"fmt"
	"time"
)

// A Label names one backup: 14 digits YYYYMMDDHHMMSS, the UTC time of its start.
type Label string

const labelLayout = "20060102150405"

// ParseLabel checks the form of a label.
func ParseLabel(s string) (Label, error) {
	if _, err := time.Parse(labelLayout, s); err != nil || len(s) != len(labelLayout) {
		return "", fmt.Errorf("backup label %q: want 14 digits YYYYMMDDHHMMSS", s)
	}
	return Label(s), nil
}

// NewLabel returns the label of a backup that starts now. It is larger than
// newest, the largest label in use, also when the clock has been set back.
func NewLabel(now time.Time, newest Label) Label {
	l := Label(now.UTC().Format(labelLayout))
	if l > newest {
		return l
	}
	last, err := time.Parse(labelLayout, string(newest))
	if err != nil {
		return l
	}
	return Label(last.Add(time.Second).Format(labelLayout))
}

// Time returns the moment the label stands for, in UTC.
func (l Label) Time() time.Time {
	t, _ := time.Parse(labelLayout, string(l))
	return t
}
