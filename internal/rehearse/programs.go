package rehearse

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Programs are those of one PostgreSQL installation.
type Programs struct {
	Dir     string
	Version string // such as 17.6
}

func (p Programs) path(name string) string { return filepath.Join(p.Dir, name) }

// A NoProgramsError reports that PostgreSQL of a version is not installed here.
type NoProgramsError struct {
	Major int
	Tried []string // directories
}

func (e *NoProgramsError) Error() string {
	return fmt.Sprintf("no programs of PostgreSQL %d in %s: install them, or name their directory with rehearse_bindir", e.Major, strings.Join(e.Tried, ", "))
}

// installed is where distributions put the programs; %v stands for the major version.
func installed() []string {
	return []string{
		"/usr/lib/postgresql/%v/bin", // Debian
		"/usr/pgsql-%v/bin",          // PostgreSQL's own RPMs
		"/usr/libexec/postgresql%v",  // Alpine
		"/usr/local/pgsql/bin",       // built from source
		"/usr/local/bin",
		"/usr/bin",
	}
}

// FindPrograms returns the programs of a major version: those in dir, in which %v
// stands for the version, or without one those in the places where distributions put
// them. It fails with a [*NoProgramsError].
func FindPrograms(ctx context.Context, dir string, major int) (Programs, error) {
	places := installed()
	if dir != "" {
		places = []string{dir}
	}
	none := &NoProgramsError{Major: major}
	for _, place := range places {
		place = strings.ReplaceAll(place, "%v", strconv.Itoa(major))
		none.Tried = append(none.Tried, place)
		if version := versionOf(ctx, filepath.Join(place, "postgres")); majorOf(version) == major {
			return Programs{Dir: place, Version: version}, nil
		}
	}
	return Programs{}, none
}

// versionOf returns the version that a program named postgres tells, "" if it does not.
func versionOf(ctx context.Context, program string) string {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, "--version")
	cmd.Env = environment()
	out, err := cmd.Output()
	if err != nil {
		return ""
	}
	return parseVersion(string(out))
}

// parseVersion reads "postgres (PostgreSQL) 17.6 (Debian 17.6-1)".
func parseVersion(line string) string {
	words := strings.Fields(line)
	i := slices.Index(words, "(PostgreSQL)")
	if i < 0 || i+1 >= len(words) {
		return ""
	}
	return words[i+1]
}

// majorOf reads the digits that a version begins with: 17 of 17.6, 18 of 18beta1.
func majorOf(version string) int {
	end := strings.IndexFunc(version, func(r rune) bool { return r < '0' || r > '9' })
	if end < 0 {
		end = len(version)
	}
	n, err := strconv.Atoi(version[:end])
	if err != nil {
		return 0
	}
	return n
}

// environment is what PostgreSQL's programs see. Their messages are in English,
// because some of them are read.
func environment() []string {
	env := []string{"LC_ALL=C", "PATH=/usr/bin:/bin"}
	if tmp := os.Getenv("TMPDIR"); tmp != "" {
		env = append(env, "TMPDIR="+tmp)
	}
	return env
}
