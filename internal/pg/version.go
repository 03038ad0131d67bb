package pg

import (
	"fmt"
	"strconv"
	"strings"
)

// A Version is a server version as server_version_num counts it: 170011 is 17.11.
type Version int

// Oldest and newest major versions this program is built and tested for.
const (
	MinMajor = 14
	MaxMajor = 19
)

// ParseVersion reads the server_version parameter: "17.11 (Debian 17.11-1)",
// "18beta2" and "19devel" included.
func ParseVersion(s string) (Version, error) {
	number, _, _ := strings.Cut(strings.TrimSpace(s), " ")
	major, minor, _ := strings.Cut(number, ".")
	digits := func(t string) string {
		end := strings.IndexFunc(t, func(r rune) bool { return r < '0' || r > '9' })
		if end >= 0 {
			t = t[:end]
		}
		return t
	}
	ma, err := strconv.ParseUint(digits(major), 10, 16)
	if err != nil {
		return 0, fmt.Errorf("server version %q: want a number such as 17.2", s)
	}
	mi, _ := strconv.ParseUint(digits(minor), 10, 16)
	return Version(ma*10000 + mi), nil
}

// Major returns 17 for 17.11.
func (v Version) Major() int { return int(v) / 10000 }

// Minor returns 11 for 17.11.
func (v Version) Minor() int { return int(v) % 10000 }

// String prints "17.11".
func (v Version) String() string { return fmt.Sprintf("%d.%d", v.Major(), v.Minor()) }
