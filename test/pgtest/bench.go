package pgtest

import (
	"fmt"
	"testing"
)

// InitBench fills the database postgres with pgbench's tables; scale 1 is 100,000 accounts, about 16 MB.
func InitBench(t testing.TB, s *Server, scale int) {
	t.Helper()
	RunBench(t, s, "--initialize", "--quiet", fmt.Sprintf("--scale=%d", scale))
}

// RunBench runs pgbench with the arguments, such as "--client=4", "--time=5", to its end and returns what it printed.
func RunBench(t testing.TB, s *Server, args ...string) string {
	t.Helper()
	out, err := s.account.run(s.base, Tool(t, s.Major, "pgbench"), append(args, s.DSN("postgres"))...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// RunTool runs a client tool as the user that servers run as, in the temporary directory of the server, and returns
// what it printed. program is a path as of [Tool]. No connection is given to it: use [Server.DSN].
func RunTool(t testing.TB, s *Server, program string, args ...string) string {
	t.Helper()
	out, err := s.account.run(s.base, program, args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}
