package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
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

func TestSchemaNeedsNoDaemon(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	p := &program{stdin: strings.NewReader(""), stdout: &out, stderr: &out, env: noEnv, now: clock}
	if status := p.run(context.Background(), []string{"schema"}); status != exitOK || !json.Valid(out.Bytes()) {
		t.Errorf("schema = %d, %.200s", status, out.String())
	}
}

// TestProgressAndCtrlC watches a backup on a terminal until it is half done, and interrupts it there.
func TestProgressAndCtrlC(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	d := &fakeDaemon{hold: make(chan struct{})}
	conf := startDaemon(t, dir, d)
	t.Cleanup(func() { close(d.hold) })
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self, "-c", conf, "backup", "slow")
	cmd.Env = append(os.Environ(), playVariable+"=1")
	s := startOnTerminal(t, cmd)
	s.expect("waiting for another job of this server")
	s.expect("\rBackup  50 % [##########----------]  1.0 GB of 2.0 GB")
	s.write("\x03")
	var exit *exec.ExitError
	if err := s.wait(); !errors.As(err, &exit) || exit.ExitCode() != exitInterrupted || !d.cancelled.Load() {
		t.Errorf("the program ended with %v, cancelled: %t\n%q", err, d.cancelled.Load(), s.screen())
	}
	_, after, _ := strings.Cut(s.screen(), "^C")
	if !strings.HasSuffix(after, "\rpgmoneta-cli: interrupted: backup was cancelled\r\n") {
		t.Errorf("after Ctrl-C: %q", after)
	}
}

func TestProgressIsForPeopleWhoWait(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		line    string
		columns int
		want    bool
	}{
		{"backup primary", 80, true},
		{"verify primary newest /tmp", 80, true},
		{"restore primary newest /tmp", 80, true},
		{"archive primary newest /tmp", 80, true},
		{"backup primary", 0, false},
		{"--no-progress backup primary", 80, false},
		{"--dry-run restore primary newest /tmp", 80, false},
		{"delete primary newest", 80, true},
		{"undelete primary newest", 80, false},
	} {
		parsed, err := parse(tt.line)
		if err != nil {
			t.Fatal(err)
		}
		f, words, _ := match(parsed.Words)
		p := &program{progressColumns: tt.columns}
		if got := p.newBar(call{form: f, words: words, options: parsed}) != nil; got != tt.want {
			t.Errorf("%s with %d columns: progress %t, want %t", tt.line, tt.columns, got, tt.want)
		}
	}
}

func TestProgressBarTellsTheRateOfThePhase(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	at := clock()
	b := &progressBar{w: &out, columns: 79, now: func() time.Time { return at }}
	step := func(after time.Duration, phase string, done int64) string {
		at = at.Add(after)
		out.Reset()
		b.show(phase, done, 100<<20)
		return strings.TrimRight(out.String(), " ")
	}
	for _, tt := range []struct {
		after time.Duration
		phase string
		done  int64
		want  string
	}{
		{0, "Backup", 0, "\rBackup   0 % [--------------------]  0 B of 100.0 MB"},
		{100 * time.Millisecond, "Backup", 1 << 20, ""}, // too soon
		{1900 * time.Millisecond, "Backup", 20 << 20, "\rBackup  20 % [####----------------]  20.0 MB of 100.0 MB  10.0 MB/s  8.0 s left"},
		{time.Second, "Sync", 0, "\rSync   0 % [--------------------]  0 B of 100.0 MB  3.0 s"},
	} {
		if got := step(tt.after, tt.phase, tt.done); got != tt.want {
			t.Errorf("%s at %d: %q, want %q", tt.phase, tt.done, got, tt.want)
		}
	}
	out.Reset()
	if b.clear(); strings.ReplaceAll(out.String(), " ", "") != "\r\r" {
		t.Errorf("clear: %q", out.String())
	}
}
