// Package pgtest runs real PostgreSQL servers for tests.
//
// # Use
//
//	func TestSomething(t *testing.T) {
//		pgtest.ForEach(t, func(t *testing.T, major int) {
//			t.Parallel()
//			s := pgtest.Start(t, pgtest.Options{Major: major})
//			s.Exec(t, "create table t as select generate_series(1, 1000) as i")
//		})
//	}
//
// The environment variable PGMONETA_TEST_PG names the majors to test: "15 17" (the default), any other list, or "all".
// A server that is not there is installed by test/install/postgres.sh; when that does not work the test fails. It is
// never skipped.
//
// # The servers
//
// A server listens on a free port of 127.0.0.1 and on a Unix socket in its own temporary directory. Over the socket the
// superuser postgres is trusted. Over TCP, for ordinary and for replication connections, a password is needed
// (scram-sha-256): the role [ReplUser] with [ReplPassword] may replicate and is a member of pg_monitor.
//
// When the test runs as root, servers and tools run as user postgres, because PostgreSQL refuses to run as root.
//
// Servers of the same major are copies of one cached cluster, and have the same system identifier, as a standby and
// its primary do. [Options.Fresh] gives a server an identifier of its own.
//
// # What is left behind
//
// Nothing: the cleanup of the test kills the server and removes its directory. What a killed test binary left is found
// by its name, "pgtest-<pid>-<start time>-", and removed by the next [Start] or [OpenDir] on the machine.
package pgtest

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// DefaultMajors are tested when PGMONETA_TEST_PG is not set.
const DefaultMajors = "15 17"

// ReplUser is the replication role of every server; it has no other rights than pg_monitor.
const ReplUser = "repl"

// ReplPassword is the password of [ReplUser].
const ReplPassword = "secret"

// toolMajor is the version whose client tools work against all supported servers.
const toolMajor = 18

func supportedMajors() []int { return []int{14, 15, 16, 17, 18} }

// Versions returns the majors to test, ascending. See the package comment for PGMONETA_TEST_PG.
func Versions(t testing.TB) []int {
	t.Helper()
	majors, err := parseMajors(os.Getenv("PGMONETA_TEST_PG"))
	if err != nil {
		t.Fatalf("PGMONETA_TEST_PG: %v", err)
	}
	return majors
}

func parseMajors(s string) ([]int, error) {
	s = strings.TrimSpace(s)
	if s == "all" {
		return supportedMajors(), nil
	}
	if s == "" {
		s = DefaultMajors
	}
	var majors []int
	for _, field := range strings.FieldsFunc(s, func(r rune) bool { return r == ' ' || r == ',' }) {
		major, err := strconv.Atoi(field)
		if err != nil || !slices.Contains(supportedMajors(), major) {
			return nil, fmt.Errorf("%q is not a supported major: want a list of 14 to 18, or all", field)
		}
		majors = append(majors, major)
	}
	slices.Sort(majors)
	return slices.Compact(majors), nil
}

// Newest returns the highest of [Versions].
func Newest(t testing.TB) int {
	t.Helper()
	majors := Versions(t)
	return majors[len(majors)-1]
}

// ForEach runs test once for each of [Versions] as the subtest pg<major>. The subtests may call t.Parallel.
func ForEach(t *testing.T, test func(t *testing.T, major int)) {
	t.Helper()
	for _, major := range Versions(t) {
		t.Run(fmt.Sprintf("pg%d", major), func(t *testing.T) { test(t, major) })
	}
}
