package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestPeopleGetTablesAndProgramsText runs the program with its output on a terminal and elsewhere.
func TestPeopleGetTablesAndProgramsText(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	conf := startDaemon(t, dir, &fakeDaemon{})
	writeFile(t, filepath.Join(dir, "text.conf"), "unix_socket_dir = "+dir+"\noutput = text\n")
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	command := func(args ...string) *exec.Cmd {
		cmd := exec.Command(self, args...)
		cmd.Env = append(os.Environ(), playVariable+"=1")
		return cmd
	}
	const table, text = "pgmoneta 0.22.0 answers", "Outcome:"
	for _, tt := range []struct {
		args             []string
		terminal, elsewh string
	}{
		{[]string{"-c", conf, "ping"}, table, text},
		{[]string{"-c", conf, "-F", "text", "ping"}, text, text},
		{[]string{"-c", conf, "-F", "table", "ping"}, table, table},
		{[]string{"-c", dir + "/text.conf", "ping"}, text, text},
		{[]string{"-c", conf, "-F", "json", "ping"}, `"Outcome": {`, `"Outcome": {`},
	} {
		s := startOnTerminal(t, command(tt.args...))
		if err := s.wait(); err != nil || !strings.Contains(s.screen(), tt.terminal) {
			t.Errorf("%q on a terminal: %v\n%s\nwant %q", tt.args, err, s.screen(), tt.terminal)
		}
		var out bytes.Buffer
		cmd := command(tt.args...)
		cmd.Stdout = &out
		s = startOnTerminal(t, cmd)
		if err := s.wait(); err != nil || !strings.Contains(out.String(), tt.elsewh) || s.screen() != "" {
			t.Errorf("%q in a pipe: %v\n%s\nwant %q, and on the terminal nothing: %q", tt.args, err, out.String(), tt.elsewh, s.screen())
		}
	}
}
