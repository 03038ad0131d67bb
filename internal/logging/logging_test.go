package logging

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// TestMain lets the test binary play a process that logs to an inherited file.
func TestMain(m *testing.M) {
	if name := os.Getenv("LOGGING_TEST_STRESS"); name != "" {
		stress(name)
		os.Exit(0)
	}
	if name := os.Getenv("LOGGING_TEST_WRITER"); name != "" {
		writeMany(New(os.NewFile(3, "log"), Options{}), name)
		os.Exit(0)
	}
	os.Exit(m.Run())
}

const manyLines = 300

func writeMany(log *slog.Logger, name string) {
	for i := range manyLines {
		log.Info("line", "writer", name, "i", i, "fill", strings.Repeat(name, 100))
	}
}

func TestLineFormat(t *testing.T) {
	t.Parallel()
	var b bytes.Buffer
	log := New(&b, Options{Level: LevelTrace})
	log.Warn("timeline switch", "server", "primary", "file", "a b", "empty", "", "quote", `x"y`)
	want := regexp.MustCompile(`^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d WARN  logging_test\.go:\d+ timeline switch server=primary file="a b" empty="" quote="x\\"y"\n$`)
	if !want.Match(b.Bytes()) {
		t.Errorf("line is %q, want %s", b.String(), want)
	}
}

func TestRecordIsAlwaysOneLine(t *testing.T) {
	t.Parallel()
	var b bytes.Buffer
	log := New(&b, Options{Prefix: "%n>\n"}).With("with", "a\nb").WithGroup("g")
	log.Info("two\nlines\x1b[31m \xff é", "k\n", "v\r\n", "err", fmt.Errorf("x\ny"), slog.Group("h", "i", 1))
	got := b.String()
	if strings.Count(got, "\n") != 1 || strings.ContainsAny(got, "\r\x1b") {
		t.Errorf("record is %q, want one line without control characters", got)
	}
	for _, part := range []string{`two\nlines\x1b[31m \xff é`, `with="a\nb"`, `"g.k\n"="v\r\n"`, `g.err="x\ny"`, "g.h.i=1"} {
		if !strings.Contains(got, part) {
			t.Errorf("record is %q, want %q in it", got, part)
		}
	}
}

func TestLevelsAndCounts(t *testing.T) {
	t.Parallel()
	var b bytes.Buffer
	var level slog.LevelVar
	var counts [6]atomic.Int64
	log := New(&b, Options{Level: &level, Count: func(l slog.Level) { counts[LevelCode(l)-1].Add(1) }})
	all := []slog.Level{LevelTrace, LevelDebug, LevelInfo, LevelWarn, LevelError, LevelFatal}
	for _, l := range all {
		log.Log(context.Background(), l, "m")
	}
	level.Set(LevelTrace)
	for _, l := range all {
		log.Log(context.Background(), l, "m")
	}
	var words []string
	for line := range strings.Lines(b.String()) {
		words = append(words, strings.Fields(line)[2])
	}
	if got, want := strings.Join(words, " "), "INFO WARN ERROR FATAL TRACE DEBUG INFO WARN ERROR FATAL"; got != want {
		t.Errorf("levels of the lines: %s, want %s", got, want)
	}
	for i, want := range []int64{0, 0, 2, 2, 2, 2} {
		if got := counts[i].Load(); got != want {
			t.Errorf("count of %s is %d, want %d", levelNames[i], got, want)
		}
	}
}

func TestColours(t *testing.T) {
	t.Parallel()
	var b bytes.Buffer
	New(&b, Options{Color: true, Prefix: "p"}).Error("m")
	if got := b.String(); !strings.HasPrefix(got, "p \x1b[31mERROR\x1b[0m \x1b[90mlogging_test.go:") || !strings.HasSuffix(got, "\x1b[0m m\n") {
		t.Errorf("line is %q", got)
	}
}

func TestParseLevel(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		word string
		want slog.Level
	}{
		{"FATAL", LevelFatal}, {"error", LevelError}, {"Warn", LevelWarn}, {"info", LevelInfo},
		{"debug", LevelDebug}, {"debug0", LevelDebug}, {"debug1", LevelDebug}, {"debug2", LevelTrace}, {"DEBUG5", LevelTrace},
	} {
		if got, err := ParseLevel(tt.word); err != nil || got != tt.want {
			t.Errorf("ParseLevel(%q) = %v, %v, want %v", tt.word, got, err, tt.want)
		}
	}
	for _, word := range []string{"", "loud", "debugx", "debug-1"} {
		if _, err := ParseLevel(word); err == nil {
			t.Errorf("ParseLevel(%q) accepted it", word)
		}
	}
}

// The expected text comes from date(1), which has the strftime of the C library.
func TestStrftimeMatchesDate(t *testing.T) {
	t.Parallel()
	const pattern = "%a %A %b %B %c %C %d %D %e %F %g %G %h %H %I %j %k %l %m %M %p %r %R %s %S %T %u %V %w %x %X %y %Y %z %Z %%"
	for _, unix := range []int64{0, 1700000000, 1735689599, 1704067200, 951782400} {
		cmd := exec.Command("date", "-u", fmt.Sprintf("-d@%d", unix), "+"+pattern)
		cmd.Env = []string{"LC_ALL=C", "PATH=" + os.Getenv("PATH")}
		out, err := cmd.Output()
		if err != nil {
			t.Fatal(err)
		}
		got := string(AppendTime(nil, pattern, time.Unix(unix, 0).UTC()))
		if want := strings.TrimSuffix(string(out), "\n"); got != want {
			t.Errorf("at %d: got %s, want %s", unix, got, want)
		}
	}
	if got, want := string(AppendTime(nil, "%Q%f%", time.Unix(0, 1500).UTC())), "%Q000001%"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func openTest(t *testing.T, o Options) *Log {
	t.Helper()
	o.Kind = File
	log, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = log.Close() })
	return log
}

func TestProcessesShareAFileWithoutTornLines(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "log")
	log := openTest(t, Options{Path: path})
	var wg sync.WaitGroup
	for _, name := range []string{"a", "b", "c"} {
		file, err := log.File()
		if err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command("/proc/self/exe")
		cmd.Env = []string{"LOGGING_TEST_WRITER=" + name}
		cmd.ExtraFiles = []*os.File{file}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		_ = file.Close()
		wg.Go(func() {
			if err := cmd.Wait(); err != nil {
				t.Error(err)
			}
		})
	}
	for _, name := range []string{"d", "e"} {
		wg.Go(func() { writeMany(log.Logger, name) })
	}
	wg.Wait()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	whole := regexp.MustCompile(`^\S+ \S+ INFO  logging_test\.go:\d+ line writer=([a-e]) i=\d+ fill=([a-e])+\n$`)
	n := 0
	for line := range strings.Lines(string(data)) {
		m := whole.FindStringSubmatch(line)
		if m == nil || !strings.HasSuffix(line, "fill="+strings.Repeat(m[1], 100)+"\n") {
			t.Fatalf("torn line %q", line)
		}
		n++
	}
	if n != 5*manyLines {
		t.Errorf("%d lines, want %d", n, 5*manyLines)
	}
}

func TestFileModes(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "log")
	for _, tt := range []struct {
		truncate bool
		want     int
	}{{false, 1}, {false, 2}, {true, 1}} {
		log := openTest(t, Options{Path: path, Truncate: tt.truncate})
		log.Info("x")
		if err := log.Close(); err != nil {
			t.Fatal(err)
		}
		data, _ := os.ReadFile(path)
		if got := strings.Count(string(data), "\n"); got != tt.want {
			t.Errorf("with truncate %t the file has %d lines, want %d", tt.truncate, got, tt.want)
		}
	}
}

func TestRotationGoesOnUnderTheSamePath(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "log")
	log := openTest(t, Options{Path: path, RotationSize: 100, RotationAge: time.Nanosecond})
	for range 20 {
		log.Info("a line of some length")
	}
	moved := path + ".1"
	if err := os.Rename(path, moved); err != nil {
		t.Fatal(err)
	}
	if err := log.Reopen(); err != nil {
		t.Fatal(err)
	}
	log.Info("after")
	old, _ := os.ReadFile(moved)
	fresh, _ := os.ReadFile(path)
	if strings.Count(string(old), "\n") != 20 || strings.Count(string(fresh), "\n") != 1 {
		t.Errorf("old file %q, new file %q", old, fresh)
	}
}

func TestRotationThatFailsKeepsTheFile(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "d")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	log := openTest(t, Options{Path: filepath.Join(dir, "log"), RotationSize: 1})
	moved := dir + ".moved"
	if err := os.Rename(dir, moved); err != nil {
		t.Fatal(err)
	}
	log.Info("one")
	log.Info("two")
	data, _ := os.ReadFile(filepath.Join(moved, "log"))
	if strings.Count(string(data), "\n") != 2 {
		t.Errorf("the file holds %q, want both lines", data)
	}
}

func TestOpenNamesThePathItCannotOpen(t *testing.T) {
	t.Parallel()
	_, err := Open(Options{Kind: File, Path: "/nonexistent/%Y.log"})
	if err == nil || !strings.Contains(err.Error(), fmt.Sprintf("/nonexistent/%d.log", time.Now().Year())) {
		t.Errorf("Open: %v", err)
	}
}

func BenchmarkHandler(b *testing.B) {
	f, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	log := New(f, Options{}).With("server", "primary")
	b.ReportAllocs()
	for b.Loop() {
		log.Info("segment stored", "segment", "000000010000000000000001", "bytes", 16<<20)
	}
}
