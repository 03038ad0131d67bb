package config

import (
	"errors"
	"strconv"
	"strings"
)

// A Space is a limit of free space: a number of bytes, or a percentage of the file system. The zero value is none.
type Space struct {
	Bytes   int64
	Percent int
}

// String returns the limit in the form of the file.
func (s Space) String() string {
	if s.Percent > 0 {
		return strconv.Itoa(s.Percent) + "%"
	}
	return strconv.FormatInt(s.Bytes, 10)
}

// Reached reports whether no more than the limit is free.
func (s Space) Reached(free, total uint64) bool {
	if s == (Space{}) {
		return false
	}
	limit := uint64(max(s.Bytes, 0))
	if s.Percent > 0 {
		limit = total / 100 * uint64(s.Percent)
	}
	return free <= limit
}

// parseSpace reads a size such as 10G, or a percentage such as 5%.
func parseSpace(value string) (Space, error) {
	if value == "" {
		return Space{}, nil
	}
	digits, ok := strings.CutSuffix(value, "%")
	if !ok {
		n, err := ParseSize(value)
		return Space{Bytes: n}, err
	}
	n, err := strconv.Atoi(strings.TrimSpace(digits))
	if err != nil || n < 0 || n > 99 {
		return Space{}, errors.New("a percentage of free space is a number from 0 to 99 with % after it")
	}
	return Space{Percent: n}, nil
}
