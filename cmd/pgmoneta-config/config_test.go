package main

import (
	"bufio"
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/pgmoneta/pgmoneta-go/internal/config"
	"github.com/pgmoneta/pgmoneta-go/internal/durable"
)

// runIn executes a command line and returns exit code and output.
func runIn(fsys durable.FS, uid int, terminal bool, input string, args ...string) (code int, stdout, stderr string) {
	var out, errs bytes.Buffer
	p := program{
		stdin: bufio.NewReader(strings.NewReader(input)), stdout: &out, stderr: &errs, terminal: terminal, uid: uid, fs: fsys,
		env: func(name string) (string, bool) { return "/home/pg", name == "HOME" },
	}
	code = p.run(args)
	return code, out.String(), errs.String()
}

func run(args ...string) (code int, stdout, stderr string) {
	return runIn(durable.OS{}, 1000, false, "", args...)
}

// TestTranscripts plays the files of testdata/script in an empty directory: a line with a dollar sign is a command line, or "cat FILE"; lines with < before
// it are what is entered at a terminal, what follows is what was printed, with 2> before lines of standard error and the exit code unless it is 0.
func TestTranscripts(t *testing.T) {
	scripts, err := filepath.Glob("testdata/script/*.txt")
	if err != nil || len(scripts) == 0 {
		t.Fatalf("no scripts: %v", err)
	}
	for _, script := range scripts {
		path, err := filepath.Abs(script)
		if err != nil {
			t.Fatal(err)
		}
		want, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		t.Run(filepath.Base(script), func(t *testing.T) {
			t.Chdir(t.TempDir())
			got := play(t, string(want))
			if flag.Lookup("update").Value.String() == "true" {
				if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if got != string(want) {
				t.Errorf("the transcript is\n%s\nwant\n%s", got, want)
			}
		})
	}
}

// play runs the command lines of a script and returns the script with what they print.
func play(t *testing.T, script string) string {
	var b, input strings.Builder
	for line := range strings.Lines(script) {
		line = strings.TrimSuffix(line, "\n")
		if entered, ok := strings.CutPrefix(line, "<"); ok {
			b.WriteString(line + "\n")
			input.WriteString(strings.TrimPrefix(entered, " ") + "\n")
		}
		if strings.HasPrefix(line, "# ") {
			b.WriteString(line + "\n")
		}
		command, ok := strings.CutPrefix(line, "$ ")
		if !ok {
			continue
		}
		b.WriteString(line + "\n")
		if file, ok := strings.CutPrefix(command, "cat "); ok {
			content, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			b.WriteString(indent("", string(content)))
			continue
		}
		code, stdout, stderr := runIn(durable.OS{}, 1000, input.Len() > 0, input.String(), words(command)...)
		input.Reset()
		b.WriteString(indent("", stdout) + indent("2> ", stderr))
		if code != 0 {
			fmt.Fprintf(&b, "exit code %d\n", code)
		}
	}
	return b.String()
}

// indent puts a mark before each line, so that no line of output is taken for one of the script.
func indent(mark, text string) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		b.WriteString("  " + mark + strings.TrimSuffix(line, "\n") + "\n")
	}
	return b.String()
}

// words splits a command line at blanks that are not in double quotes.
func words(line string) []string {
	var list []string
	for i, part := range strings.Split(line, `"`) {
		if i%2 == 1 {
			list = append(list, part)
		} else {
			list = append(list, strings.Fields(part)...)
		}
	}
	return list
}

const someFile = "# mine\n[pgmoneta]\nhost = *\n\n[primary]\nhost = db\nport = 5432\nuser = repl\n"

func writeSome(t *testing.T, dir string, mode os.FileMode) string {
	t.Helper()
	path := filepath.Join(dir, "x.conf")
	if err := os.WriteFile(path, []byte(someFile), mode); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
	return path
}

// changes are the command lines that write a file of someFile, without the file.
func changes() [][]string {
	return [][]string{{"set", "", "primary", "port", "5433"}, {"set", "", "replica", "host", "x"}, {"del", "", "primary", "port"}, {"del", "", "primary"}, {"-q", "-F", "-o", "", "init"}}
}

func at(path string, args []string) []string {
	list := append([]string{}, args...)
	for i := range list {
		if list[i] == "" {
			list[i] = path
		}
	}
	return list
}

func TestPowerCutLeavesTheOldFileOrTheNew(t *testing.T) {
	t.Parallel()
	for _, args := range changes() {
		for cut := 1; ; cut++ {
			dir, after := t.TempDir(), t.TempDir()
			path := writeSome(t, dir, 0o600)
			fsys, err := durable.NewPowerCut(dir, cut)
			if err != nil {
				t.Fatal(err)
			}
			code, _, _ := runIn(fsys, 1000, false, "", at(path, args)...)
			fsys.Cut()
			if err := fsys.Image(after); err != nil {
				t.Fatal(err)
			}
			got, err := os.ReadFile(filepath.Join(after, "x.conf"))
			if err != nil || code != 0 && string(got) != someFile || code == 0 && string(got) == someFile {
				t.Errorf("%q, cut at operation %d: exit code %d, %v, the file is\n%s", args, cut, code, err, got)
			}
			if code == 0 {
				break
			}
		}
	}
}

func TestFullDiskLeavesTheOldFileAlone(t *testing.T) {
	t.Parallel()
	for _, args := range append(changes(), []string{"-q", "-o", "new", "init"}) {
		for _, kind := range []string{"create", "write", "sync", "close", "replace", "rename"} {
			dir := t.TempDir()
			path := writeSome(t, dir, 0o640)
			fsys, err := durable.NewFault(dir, func(op durable.Op) error {
				if op.Kind == kind {
					return syscall.ENOSPC
				}
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
			args := at(path, args)
			if args[2] == "new" {
				args[2] = filepath.Join(dir, "new")
			}
			code, _, stderr := runIn(fsys, 1000, false, "", args...)
			if code == 0 && (kind == "replace" || kind == "rename") {
				continue // one of the two is enough
			}
			got, err := os.ReadFile(path)
			names, _ := os.ReadDir(dir)
			if code != 1 || err != nil || string(got) != someFile || len(names) != 1 || !strings.Contains(stderr, "no space left") {
				t.Errorf("%q without space at %s: exit code %d, %d files, %v, stderr %q, the file is\n%s", args, kind, code, len(names), err, stderr, got)
			}
		}
	}
}

func TestModeAndSymbolicLinkAreKept(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path, link := writeSome(t, dir, 0o640), filepath.Join(dir, "link.conf")
	if err := os.Symlink("x.conf", link); err != nil {
		t.Fatal(err)
	}
	if code, _, stderr := run("set", link, "primary", "port", "1"); code != 0 {
		t.Fatal(stderr)
	}
	info, err := os.Lstat(path)
	if err != nil || info.Mode() != 0o640 {
		t.Errorf("mode %v, %v, want 0640", info.Mode(), err)
	}
	if info, err = os.Lstat(link); err != nil || info.Mode()&os.ModeSymlink == 0 {
		t.Errorf("the link is %v, %v", info.Mode(), err)
	}
	dangling := filepath.Join(dir, "dangling.conf")
	if err := os.Symlink("nowhere.conf", dangling); err != nil {
		t.Fatal(err)
	}
	if code, _, stderr := run("set", dangling, "pgmoneta", "host", "*"); code != 1 || !strings.Contains(stderr, "symbolic link") {
		t.Errorf("a link to nowhere: exit code %d, %s", code, stderr)
	}
	fresh := filepath.Join(dir, "fresh.conf")
	if code, _, stderr := run("set", fresh, "pgmoneta", "host", "*"); code != 0 {
		t.Fatal(stderr)
	}
	if info, err = os.Lstat(fresh); err != nil || info.Mode() != 0o600 {
		t.Errorf("mode of a new file %v, %v, want 0600", info.Mode(), err)
	}
}

func TestValuesOfAnyLength(t *testing.T) {
	t.Parallel()
	path := writeSome(t, t.TempDir(), 0o600)
	for _, n := range []int{127, 1023, 4095, 4096, 100_000} {
		want := strings.Repeat("h,", n/2) + "h"
		if code, _, stderr := run("set", path, "primary", "host", want); code != 0 {
			t.Fatal(stderr)
		}
		if code, got, _ := run("get", path, "primary", "host"); code != 0 || got != want+"\n" {
			t.Errorf("%d bytes: exit code %d, %d bytes", len(want), code, len(got))
		}
	}
}

func TestInitMakesWhatTheDaemonLoads(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "x.conf")
	if code, _, stderr := run("init", "-o", path, "--base-dir", dir, "--unix-socket-dir", dir, "--server-user", "u", "--server-slot", "s", "--server", "db1"); code != 0 {
		t.Fatal(stderr)
	}
	c, err := config.Load(path)
	if err != nil {
		t.Fatal(err)
	}
	if s, ok := c.Server("db1"); !ok || s.User != "u" || c.Main.BaseDir != dir || c.Main.Metrics != 5001 {
		t.Errorf("%+v", c)
	}
}

func TestRootIsRefusedAndHelpIsNot(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		arg, stdout, stderr string
		code                int
	}{
		{"-V", "pgmoneta-config 0.22.0\n", "", 1},
		{"-?", usage(), "", 0},
		{"ls", "", "pgmoneta-config: pgmoneta-config: Using the root account is not allowed\n", 1},
	} {
		if code, stdout, stderr := runIn(durable.OS{}, 0, false, "", tt.arg); code != tt.code || stdout != tt.stdout || stderr != tt.stderr {
			t.Errorf("%s: exit code %d, stdout %q, stderr %q", tt.arg, code, stdout, stderr)
		}
	}
}

func TestCompletion(t *testing.T) {
	t.Parallel()
	path := writeSome(t, t.TempDir(), 0o600)
	for _, tt := range []struct {
		words []string
		want  string
	}{
		{[]string{"get", path, ""}, "pgmoneta\t\nprimary\t\n"},
		{[]string{"del", path, "primary", "po"}, "port\t\n"},
		{[]string{"set", path, "pgmoneta", "job_"}, "job_nice\t\n"},
		{[]string{"set", path, "new", "wal_sl"}, "wal_slot\t\n"},
		{[]string{"init", "--compression", "z"}, "zstd\t\n"},
	} {
		if code, got, _ := run(append([]string{"completion", "words", "--"}, tt.words...)...); code != 0 || got != tt.want {
			t.Errorf("%q: exit code %d, %q, want %q", tt.words, code, got, tt.want)
		}
	}
}
