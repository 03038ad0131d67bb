package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// playVariable makes the test binary play the program.
const playVariable = "PGMONETA_CLI_TEST_PLAY"

func TestMain(m *testing.M) {
	if os.Getenv(playVariable) != "" {
		_ = os.Unsetenv(playVariable)
		main()
	}
	os.Exit(m.Run())
}

// openPTY returns the two sides of a terminal of 80 columns.
func openPTY(t *testing.T) (control, terminal *os.File) {
	t.Helper()
	control, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = control.Close() })
	if err := unix.IoctlSetPointerInt(int(control.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(int(control.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	terminal, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = terminal.Close() })
	if err := unix.IoctlSetWinsize(int(terminal.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: 24, Col: 80}); err != nil {
		t.Fatal(err)
	}
	return control, terminal
}

// A session is a program on a terminal of its own.
type session struct {
	t       *testing.T
	control *os.File
	ended   chan error
	read    chan struct{} // closed when all output was read

	mu     sync.Mutex
	output bytes.Buffer
}

// startOnTerminal starts cmd with a terminal for those of its standard files that are not set. It ends with the test.
func startOnTerminal(t *testing.T, cmd *exec.Cmd) *session {
	t.Helper()
	control, terminal := openPTY(t)
	if cmd.Stdin == nil {
		cmd.Stdin = terminal
	}
	if cmd.Stdout == nil {
		cmd.Stdout = terminal
	}
	if cmd.Stderr == nil {
		cmd.Stderr = terminal
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	_ = terminal.Close() // the program's own descriptors keep it open
	s := &session{t: t, control: control, ended: make(chan error, 1), read: make(chan struct{})}
	go func() {
		defer close(s.read)
		s.collect()
	}()
	go func() { s.ended <- cmd.Wait() }()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-s.read
	})
	return s
}

// wait waits for the end of the program and of its output.
func (s *session) wait() error {
	s.t.Helper()
	select {
	case err := <-s.ended:
		<-s.read
		return err
	case <-time.After(time.Minute):
		s.t.Fatalf("the program does not end; on the terminal:\n%q", s.screen())
		return nil
	}
}

// collect keeps what the program writes until its side is closed.
func (s *session) collect() {
	buf := make([]byte, 4096)
	for {
		n, err := s.control.Read(buf)
		s.mu.Lock()
		s.output.Write(buf[:n])
		s.mu.Unlock()
		if err != nil {
			return
		}
	}
}

// screen returns all that was written.
func (s *session) screen() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.output.String()
}

func (s *session) write(text string) {
	s.t.Helper()
	if _, err := s.control.WriteString(text); err != nil {
		s.t.Fatal(err)
	}
}

// until polls for a condition.
func (s *session) until(what string, done func() bool) {
	s.t.Helper()
	for deadline := time.Now().Add(time.Minute); !done(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			s.t.Fatalf("waiting for %s; on the terminal:\n%q", what, s.screen())
		}
	}
}

// expect waits for a text.
func (s *session) expect(text string) {
	s.t.Helper()
	s.until(fmt.Sprintf("%q", text), func() bool { return strings.Contains(s.screen(), text) })
}

// TestCompletionInShells types into real shells, with tabs, and looks what they run then: into bash, in the long form
// into zsh and fish too.
func TestCompletionInShells(t *testing.T) {
	t.Parallel()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for shell, start := range map[string]func(dir string) *exec.Cmd{
		"bash": func(dir string) *exec.Cmd {
			return exec.Command("bash", "--noprofile", "--rcfile", dir+"/bashrc", "-i")
		},
		"zsh": func(string) *exec.Cmd { return exec.Command("zsh", "-i") },
		"fish": func(dir string) *exec.Cmd {
			return exec.Command("fish", "--no-config", "-i", "-C", "source "+dir+"/fishrc")
		},
	} {
		if shell != "bash" && os.Getenv("PGMONETA_TEST_LONG") == "" {
			continue
		}
		if _, err := exec.LookPath(shell); err != nil {
			t.Errorf("%v; mend: apt-get install bash zsh fish", err)
			continue
		}
		t.Run(shell, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			shellHome(t, dir, self)
			cmd := start(dir)
			cmd.Dir = dir
			cmd.Env = []string{"PATH=" + dir + ":/usr/bin:/bin", "HOME=" + dir, "ZDOTDIR=" + dir, "TERM=vt100", "PGMONETA_CONFIG_DIR=" + dir, playVariable + "=1"}
			s := startOnTerminal(t, cmd)
			s.expect("ready> ")
			for i, tt := range []struct{ keys, want string }{
				{"conf che\t", "conf check"},
				{"list-b\tprim\t--so\tdes\t", "list-backup primary --sort desc"},
				{"--no-w\tbackup sta\tnew\t", "--no-wait backup standby newest"},
				{"verify primary newest oth\t fai\t", "verify primary newest other failed"},
				{"-c away.conf info st\told\t", "-c away.conf info standby oldest"},
				{"conf get compression_l\t", "conf get compression_level"},
			} {
				s.write("pgmoneta-cli " + tt.keys + "\r")
				ran := filepath.Join(dir, "ran")
				s.until("the command", func() bool {
					text, _ := os.ReadFile(ran)
					return strings.Count(string(text), "\n") > i
				})
				text, _ := os.ReadFile(ran)
				lines := strings.Split(strings.TrimSpace(string(text)), "\n")
				if got := strings.ReplaceAll(lines[i], "/", ""); got != tt.want {
					t.Errorf("%s: typed %q, ran %q, want %q", shell, tt.keys, got, tt.want)
				}
			}
		})
	}
}

// shellHome fills dir with a pgmoneta-cli that notes how it is called, and with what the shells read first.
func shellHome(t *testing.T, dir, self string) {
	t.Helper()
	writeFile(t, filepath.Join(dir, "pgmoneta-cli"), "#!/bin/sh\n[ \"$1\" != completion ] || exec "+self+" \"$@\"\necho \"$*\" >>"+dir+"/ran\n")
	if err := os.Chmod(filepath.Join(dir, "pgmoneta-cli"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, "other"), 0o700); err != nil {
		t.Fatal(err)
	}
	server := "host = localhost\nport = 5432\nuser = repl\nwal_slot = repl\n"
	writeFile(t, filepath.Join(dir, "pgmoneta.conf"), "[pgmoneta]\nhost = localhost\nbase_dir = "+dir+"/base\nunix_socket_dir = "+dir+
		"\n\n[primary]\n"+server+"\n[standby]\n"+server)
	writeFile(t, filepath.Join(dir, "away.conf"), "unix_socket_dir = "+dir+"\n")
	writeFile(t, filepath.Join(dir, "bashrc"), "PS1='ready> '\neval \"$(pgmoneta-cli completion bash)\"\n")
	writeFile(t, filepath.Join(dir, ".zshrc"), "autoload -Uz compinit\ncompinit -u -D\neval \"$(pgmoneta-cli completion zsh)\"\nPS1='ready> '\n")
	writeFile(t, filepath.Join(dir, "fishrc"), "pgmoneta-cli completion fish | source\nfunction fish_prompt; echo 'ready> '; end\n")
}
