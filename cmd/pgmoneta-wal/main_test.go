package main

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/pgmoneta/pgmoneta-go/internal/pg"
	"github.com/pgmoneta/pgmoneta-go/internal/walpage"
)

// TestMain lets the test binary play the program: its children are started through /proc/self/exe, as the program's own are.
func TestMain(m *testing.M) {
	if os.Getenv("PGMONETA_WAL_PLAY") != "" {
		main()
	}
	os.Exit(m.Run())
}

const segmentSize = pg.SegmentSize(1 << 20)

// A site is a configuration, a repository and a data directory in which commands run.
type site struct {
	t    testing.TB
	dir  string
	data string
}

func newSite(t testing.TB) *site {
	t.Helper()
	s := &site{t: t, dir: t.TempDir()}
	s.data = filepath.Join(s.dir, "data")
	s.must(os.MkdirAll(filepath.Join(s.data, "pg_wal", "archive_status"), 0o700))
	s.must(os.Mkdir(filepath.Join(s.dir, "base"), 0o700))
	// Directories and files of the daemon's machine that do not exist on this one are no reason to refuse.
	s.configure("[pgmoneta]\nbase_dir = " + filepath.Join(s.dir, "base") + "\nunix_socket_dir = /nonexistent\nlog_type = file\nlog_path = /nonexistent/log\n[primary]\n[new]\n")
	return s
}

func (s *site) must(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

func (s *site) configure(text string) {
	s.t.Helper()
	s.must(os.WriteFile(filepath.Join(s.dir, "pgmoneta.conf"), []byte(text), 0o600))
}

// run runs the program in the data directory and returns what it wrote to standard error and its status.
func (s *site) run(args ...string) (stderr string, code int) {
	s.t.Helper()
	var out bytes.Buffer
	cmd := exec.Command("/proc/self/exe", args...)
	cmd.Dir, cmd.Stderr = s.data, &out
	cmd.Env = append(os.Environ(), "PGMONETA_WAL_PLAY=1", "HOME="+s.dir)
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		s.t.Fatal(err)
	}
	return out.String(), cmd.ProcessState.ExitCode()
}

func (s *site) get(server, file string, options ...string) (stderr string, code int) {
	s.t.Helper()
	_ = os.Remove(filepath.Join(s.data, "pg_wal", "RECOVERYXLOG"))
	args := append([]string{"get", "-c", "../pgmoneta.conf"}, options...)
	return s.run(append(args, server, file, "pg_wal/RECOVERYXLOG")...)
}

func (s *site) push(server, file string, options ...string) (stderr string, code int) {
	s.t.Helper()
	args := append([]string{"push", "-c", "../pgmoneta.conf"}, options...)
	return s.run(append(args, server, "pg_wal/"+file)...)
}

func segment(n int) string { return pg.SegmentName(1, pg.LSN(n)*pg.LSN(segmentSize), segmentSize) }

func content(n int, system uint64) []byte {
	h := walpage.Header{Magic: 0xD116, Info: walpage.LongHeader, Timeline: 1, Address: pg.LSN(n) * pg.LSN(segmentSize),
		System: system, SegmentSize: uint32(segmentSize), BlockSize: 8192}
	b := h.Append(make([]byte, 0, segmentSize))
	return append(b, bytes.Repeat([]byte(fmt.Sprintf("%08d", n)), int(segmentSize))...)[:segmentSize]
}

// archive pushes the first n segments.
func (s *site) archive(n int) {
	s.t.Helper()
	for i := range n {
		s.write(segment(i), content(i, 7))
		if out, code := s.push("primary", segment(i)); code != exitOK || out != "" {
			s.t.Fatalf("push %s: %d, %s", segment(i), code, out)
		}
		s.must(os.Remove(filepath.Join(s.data, "pg_wal", segment(i))))
	}
}

func (s *site) write(file string, b []byte) {
	s.t.Helper()
	s.must(os.WriteFile(filepath.Join(s.data, "pg_wal", file), b, 0o600))
}

func (s *site) delivered(n int) {
	s.t.Helper()
	got, err := os.ReadFile(filepath.Join(s.data, "pg_wal", "RECOVERYXLOG"))
	if err != nil || !bytes.Equal(got, content(n, 7)) {
		s.t.Errorf("segment %d: %d bytes delivered, %v", n, len(got), err)
	}
}

// says checks that a message is one line and holds the words.
func says(t testing.TB, message string, words ...string) {
	t.Helper()
	if strings.Count(message, "\n") != 1 || !strings.HasPrefix(message, "pgmoneta-wal: ") {
		t.Errorf("%q is not one line of ours", message)
	}
	for _, w := range words {
		if !strings.Contains(message, w) {
			t.Errorf("%q does not say %q", message, w)
		}
	}
}

func TestExitCodesOfGet(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name    string
		server  string
		file    string
		options []string
		spoil   func(*site)
		code    int
		says    []string
	}{
		{name: "delivered", code: 0},
		{name: "delivered, no prefetch", options: []string{"--prefetch", "0"}, code: 0},
		{name: "after the last", file: segment(3), code: 1, says: []string{`"primary"`, segment(3), "not in the archive"}},
		{name: "history", file: "00000002.history", code: 1, says: []string{"00000002.history"}},
		{name: "partial", file: segment(1) + ".partial", code: 1},
		{name: "backup history", file: segment(1) + ".00000028.backup", code: 1},
		{name: "no name", file: "pg_control", code: 200, says: []string{"pg_control"}},
		{name: "unknown server", server: "nosuch", code: 200, says: []string{`"nosuch"`, "pgmoneta.conf", "no section"}},
		{name: "nothing archived", server: "new", code: 200, says: []string{`"new"`, "no repository", "mounted"}},
		{name: "damaged", spoil: func(s *site) { s.must(os.Truncate(s.object(1), 3000)) }, code: 200, says: []string{"damaged", segment(1), "move"}},
		{name: "hole", spoil: func(s *site) { s.must(os.Remove(s.object(1))) }, code: 200, says: []string{segment(1), segment(2), "--end-at-hole"}},
		{name: "hole accepted", options: []string{"--end-at-hole"}, spoil: func(s *site) { s.must(os.Remove(s.object(1))) }, code: 1},
		{name: "target directory missing", spoil: func(s *site) { s.must(os.RemoveAll(filepath.Join(s.data, "pg_wal"))) }, code: 200, says: []string{"RECOVERYXLOG"}},
		{name: "no configuration", spoil: func(s *site) { s.must(os.Remove(filepath.Join(s.dir, "pgmoneta.conf"))) }, code: 200, says: []string{"pgmoneta.conf"}},
		{name: "wrong configuration", spoil: func(s *site) { s.configure("[pgmoneta]\nbase_dirr = x\nworkers = y\n[primary]\n") }, code: 200, says: []string{"base_dirr", "workers"}},
		{name: "no base_dir", spoil: func(s *site) { s.configure("[pgmoneta]\n[primary]\n") }, code: 200, says: []string{"base_dir"}},
		{name: "object store", spoil: func(s *site) {
			s.configure("[pgmoneta]\nbase_dir = " + s.dir + "/base\nstorage_engine = s3\n[primary]\n")
		}, code: 200, says: []string{"local"}},
		{name: "unknown option", options: []string{"--fast"}, code: 200, says: []string{"-fast", "--help"}},
		{name: "bad prefetch", options: []string{"--prefetch", "-1"}, code: 200, says: []string{"--prefetch"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t)
			s.archive(3)
			if tt.spoil != nil {
				tt.spoil(s)
			}
			server, file := "primary", segment(1)
			if tt.server != "" {
				server = tt.server
			}
			if tt.file != "" {
				file = tt.file
			}
			message, code := s.get(server, file, tt.options...)
			if code != tt.code {
				t.Fatalf("exit status %d, want %d: %s", code, tt.code, message)
			}
			if code != exitOK {
				says(t, message, tt.says...)
				if _, err := os.Stat(filepath.Join(s.data, "pg_wal", "RECOVERYXLOG")); err == nil {
					t.Error("something was delivered")
				}
				return
			}
			if message != "" {
				t.Errorf("success says %q", message)
			}
			s.delivered(1)
		})
	}
}

func (s *site) object(n int) string {
	return filepath.Join(s.dir, "base", "primary", "wal", "00000001", segment(n))
}

func TestExitCodesOfPush(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.archive(2)
	changed := content(1, 7)
	changed[500_000]++
	base := filepath.Join(s.dir, "base")
	good := "[pgmoneta]\nbase_dir = " + base + "\n[primary]\n[new]\n"
	for i := range 3 {
		s.write(filepath.Join("archive_status", segment(i)+".ready"), nil)
	}
	full := []string{"--max-queue", "2M"}
	tests := []struct {
		name    string
		server  string
		file    string
		bytes   []byte
		conf    string
		options []string
		code    int
		says    []string
	}{
		{name: "new", file: segment(2), bytes: content(2, 7), code: 0},
		{name: "again", file: segment(1), bytes: content(1, 7), code: 0},
		{name: "different", file: segment(1), bytes: changed, code: 200, says: []string{"differs", "pg_wal/" + segment(1), "/base/primary/wal/00000001/" + segment(1)}},
		{name: "foreign", file: segment(3), bytes: content(3, 8), code: 200, says: []string{"system identifier 8", "that of 7"}},
		{name: "first of a server", server: "new", file: segment(3), bytes: content(3, 8), code: 0},
		{name: "no WAL", file: segment(4), bytes: []byte("x"), code: 200, says: []string{segment(4)}},
		{name: "gone", file: segment(5), code: 1, says: []string{segment(5), "no such file"}},
		{name: "unknown server", server: "nosuch", file: segment(1), code: 200, says: []string{`"nosuch"`}},
		{name: "wrong configuration", conf: "x", file: segment(1), code: 200, says: []string{"pgmoneta.conf"}},
		{name: "base_dir missing", conf: "[pgmoneta]\nbase_dir = /nonexistent/base\n[primary]\n", file: segment(1), bytes: content(1, 7), code: 1, says: []string{"mounted"}},
		{name: "encryption", conf: strings.Replace(good, "[primary]", "encryption = aes\n[primary]", 1), file: segment(1), code: 200, says: []string{"encryption is aes-256-gcm and cannot be done", "master.key"}},
		{name: "queue within limit", file: segment(2), bytes: content(2, 7), options: []string{"--max-queue", "1G"}, code: 0},
		{name: "queue over limit", file: segment(2), bytes: content(2, 7), options: full, code: 0, says: []string{"falls behind", segment(2)}},
		{name: "queue over limit, dropping", file: segment(6), bytes: content(6, 7), options: append(full, "--drop-when-full"), code: 0, says: []string{"DROPPED", segment(6), "hole"}},
		{name: "dropping without a limit", file: segment(6), options: []string{"--drop-when-full"}, code: 200, says: []string{"--max-queue"}},
		{name: "bad limit", file: segment(6), options: []string{"--max-queue", "8X"}, code: 200, says: []string{"max-queue"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s.t = t
			s.configure(good)
			if tt.conf != "" {
				s.configure(tt.conf)
			}
			// The queue is that of these three at any time.
			for i := range 3 {
				s.write(segment(i), content(i, 7))
			}
			if tt.bytes != nil {
				s.write(tt.file, tt.bytes)
			}
			server := "primary"
			if tt.server != "" {
				server = tt.server
			}
			message, code := s.push(server, tt.file, tt.options...)
			if code != tt.code {
				t.Errorf("exit status %d, want %d: %s", code, tt.code, message)
			}
			if len(tt.says) > 0 {
				says(t, message, tt.says...)
			} else if message != "" {
				t.Errorf("success says %q", message)
			}
		})
	}
	if _, err := os.Stat(s.object(6)); err == nil {
		t.Error("the dropped segment is archived")
	}
}

func TestUsage(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	for _, tt := range []struct {
		args string
		code int
	}{
		{"--help", 0}, {"-?", 0}, {"help", 0}, {"-V", 0}, {"--version", 0}, {"get --help", 0}, {"push -V", 0},
		{"", 200}, {"fetch", 200}, {"get", 200}, {"get primary x", 200}, {"push primary x y", 200}, {"get -c", 200},
	} {
		if message, code := s.run(strings.Fields(tt.args)...); code != tt.code || (code == 0) != (message == "") {
			t.Errorf("pgmoneta-wal %s: %d, %s", tt.args, code, message)
		}
	}
}

// TestCommandLineIsWhatIsRead holds the table that people are shown to the flags that are read.
func TestCommandLineIsWhatIsRead(t *testing.T) {
	t.Parallel()
	for _, command := range []string{"get", "push", "check"} {
		shown := map[string]bool{}
		for _, g := range commandLine().Groups {
			for _, o := range g.Options {
				if o.For == nil || slices.Contains(o.For, command) {
					shown[strings.TrimLeft(o.Long, "-")] = true
				}
			}
		}
		flags(command, new(options)).VisitAll(func(f *flag.Flag) {
			if len(f.Name) > 1 && !shown[f.Name] {
				t.Errorf("%s reads --%s, which nobody is told of", command, f.Name)
			}
			delete(shown, f.Name)
		})
		for name := range shown {
			t.Errorf("%s does not read --%s", command, name)
		}
	}
}

func TestCompletionNamesTheServers(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	var out bytes.Buffer
	p := program{stdout: &out, stderr: &out, env: os.LookupEnv}
	code := p.run([]string{"completion", "words", "--", "get", "-c", filepath.Join(s.dir, "pgmoneta.conf"), ""})
	if code != 0 || out.String() != "primary\t\nnew\t\n" {
		t.Errorf("completion = %d, %q, want the servers", code, out.String())
	}
}

func TestSizes(t *testing.T) {
	for text, want := range map[string]size{"1": 1, "16777216": 16777216, "2K": 2048, "3M": 3 << 20, "8G": 8 << 30, "1T": 1 << 40,
		"": 0, "0": 0, "-1": 0, "G": 0, "8GB": 0, "8KK": 0, "1.5G": 0, "9223372036854775807T": 0} {
		var s size
		if err := s.Set(text); (err == nil) != (want != 0) || s != want {
			t.Errorf("%q gives %d, %v; want %d", text, s, err, want)
		}
	}
}

// prefetcher returns the process id of the live prefetcher, 0 if there is none.
func (s *site) prefetcher() int {
	b, _ := os.ReadFile(filepath.Join(s.data, "pg_wal", "pgmoneta-prefetch", "lock"))
	pid, _ := strconv.Atoi(strings.TrimSpace(string(b)))
	cmdline, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	if !strings.Contains(string(cmdline), "\x00prefetch\x00") {
		return 0
	}
	return pid
}

func (s *site) waitFor(what string, ok func() bool) {
	s.t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			s.t.Fatalf("waiting for %s", what)
		}
	}
}

func (s *site) prepared() int {
	entries, _ := filepath.Glob(filepath.Join(s.data, "pg_wal", "pgmoneta-prefetch", "*."+strings.Repeat("[0-9A-F]", 24)))
	return len(entries)
}

// The real process: it is started, detached, fills the spool, is killed in the middle, replaced, and ends by itself.
func TestPrefetchProcess(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.archive(14)
	get := func(n int) {
		t.Helper()
		if message, code := s.get("primary", segment(n), "--prefetch", "4"); code != exitOK {
			t.Fatalf("get %s: %d, %s", segment(n), code, message)
		}
		s.delivered(n)
	}
	get(0)
	var pid int
	s.waitFor("a prefetcher", func() bool { pid = s.prefetcher(); return pid != 0 })
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err == nil {
		// pid (comm) state ppid pgrp session: its session is its own.
		if f := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:])); f[3] != strconv.Itoa(pid) {
			t.Errorf("session %s of process %d", f[3], pid)
		}
	}
	s.waitFor("a full spool", func() bool { return s.prepared() == 4 })
	get(1)
	if pid := s.prefetcher(); pid != 0 {
		_ = syscall.Kill(pid, syscall.SIGKILL)
		s.waitFor("the end of the killed prefetcher", func() bool { return s.prefetcher() != pid })
	}
	for n := 2; n < 14; n++ {
		get(n)
		if pid := s.prefetcher(); n == 6 && pid != 0 {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	}
	if message, code := s.get("primary", segment(14), "--prefetch", "4"); code != exitNo {
		t.Errorf("after the last: %d, %s", code, message)
	}
	s.waitFor("the prefetcher to end", func() bool { return s.prefetcher() == 0 })
	if message, code := s.get("primary", "00000002.history", "--prefetch", "4"); code != exitNo {
		t.Errorf("history: %d, %s", code, message)
	}
	if n := s.prepared(); n != 0 {
		t.Errorf("%d segments are left in the spool", n)
	}
}

func TestQuitLeavesNoListingInTheLog(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.archive(1)
	s.must(os.MkdirAll(filepath.Join(s.dir, "base", "primary", "tmp"), 0o700))
	lock, err := os.Create(filepath.Join(s.dir, "base", "primary", "tmp", "push.lock"))
	s.must(err)
	defer lock.Close()
	s.must(syscall.Flock(int(lock.Fd()), syscall.LOCK_EX))
	s.write(segment(1), content(1, 7))

	var out bytes.Buffer
	cmd := exec.Command("/proc/self/exe", "push", "-c", "../pgmoneta.conf", "primary", "pg_wal/"+segment(1))
	cmd.Dir, cmd.Stderr, cmd.Env = s.data, &out, append(os.Environ(), "PGMONETA_WAL_PLAY=1")
	s.must(cmd.Start())
	s.waitFor("it to wait for the lock", func() bool {
		fds, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", cmd.Process.Pid))
		for _, fd := range fds {
			if to, _ := os.Readlink(fd); strings.HasSuffix(to, segment(1)) {
				return true
			}
		}
		return false
	})
	s.must(cmd.Process.Signal(syscall.SIGQUIT))
	_ = cmd.Wait()
	if code := cmd.ProcessState.ExitCode(); code != 128+int(syscall.SIGQUIT) || out.Len() > 0 {
		t.Errorf("exit status %d, %s", code, out.Bytes())
	}
}
