package ipc

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestMain lets the test binary play the worker.
func TestMain(m *testing.M) {
	if IsWorker() {
		os.Exit(playWorker())
	}
	// Workers under the race detector would sleep a second before they end.
	if os.Getenv("GORACE") == "" {
		_ = os.Setenv("GORACE", "atexit_sleep_ms=0")
	}
	os.Exit(m.Run())
}

// about is what a worker tells of itself.
type about struct {
	Args    []string
	Env     []string
	Comm    string
	FDs     []string
	Segment string
	Log     string
	Nice    []int // of each thread
	IO      []int // I/O priority of each thread
}

// playWorker answers messages until its supervisor is gone.
func playWorker() int {
	conn, segment, log, err := Inherit()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 3
	}
	for {
		m, err := conn.Receive()
		if errors.Is(err, io.EOF) {
			return 0
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 4
		}
		switch m.Kind {
		case "about":
			err = conn.Send("about", tellAbout(segment, log))
		case "echo":
			err = conn.Send("echo", m.Body)
		case "panic":
			fmt.Println("on stdout")
			panic("told to")
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 5
		}
	}
}

func tellAbout(segment, log *os.File) about {
	a := about{Args: os.Args, Env: os.Environ()}
	comm, _ := os.ReadFile("/proc/self/comm")
	a.Comm = strings.TrimSpace(string(comm))
	a.FDs = descriptors(os.Getpid())
	a.Nice, a.IO = priorities()
	for _, f := range []struct {
		file *os.File
		text *string
	}{{segment, &a.Segment}, {log, &a.Log}} {
		if f.file != nil {
			data := make([]byte, 100)
			n, _ := f.file.ReadAt(data, 0)
			*f.text = string(data[:n])
		}
	}
	return a
}

// priorities returns those of every thread of this process.
func priorities() (nice, io []int) {
	threads, _ := os.ReadDir("/proc/self/task")
	for _, e := range threads {
		thread, _ := strconv.Atoi(e.Name())
		raw, _ := unix.Getpriority(unix.PRIO_PROCESS, thread)
		prio, _, _ := unix.Syscall(unix.SYS_IOPRIO_GET, ioprioWhoProcess, uintptr(thread), 0)
		nice, io = append(nice, 20-raw), append(io, int(prio))
	}
	return nice, io
}

// descriptors lists what a process has open, without the runtime's own.
func descriptors(pid int) []string {
	dir := fmt.Sprintf("/proc/%d/fd", pid)
	entries, _ := os.ReadDir(dir)
	var list []string
	for _, e := range entries {
		target, err := os.Readlink(dir + "/" + e.Name())
		runtimes := strings.HasPrefix(target, "anon_inode:") || strings.HasPrefix(target, "/sys/fs/cgroup/") || strings.HasPrefix(target, "/proc/")
		if err == nil && !runtimes {
			list = append(list, e.Name()+" "+target)
		}
	}
	return list
}

// startWorker starts a worker and makes sure that it ends with the test.
func startWorker(t *testing.T, spec Spec) *Process {
	t.Helper()
	if spec.Title == "" {
		spec.Title = "pgmoneta: test"
	}
	p, err := Start(spec)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = p.Conn().Close()
		_ = p.Wait()
	})
	return p
}

func ask(t *testing.T, c *Conn, kind string, body, answer any) {
	t.Helper()
	if err := c.Send(kind, body); err != nil {
		t.Fatal(err)
	}
	m, err := c.Receive()
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Decode(answer); err != nil {
		t.Fatal(err)
	}
}

func tempFile(t *testing.T, content string) *os.File {
	t.Helper()
	f, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	if _, err := f.WriteString(content); err != nil {
		t.Fatal(err)
	}
	return f
}

func TestWorkerInheritsExactlyWhatItIsGiven(t *testing.T) {
	t.Setenv("PGMONETA_PASSWORD", "hush")
	p := startWorker(t, Spec{
		Title: "pgmoneta: wal primary", Name: "wal-primary-with-long-name",
		Segment: tempFile(t, "the segment"), Log: tempFile(t, "the log"), Env: []string{"EXTRA=1"},
	})
	var a about
	ask(t, p.Conn(), "about", nil, &a)
	if len(a.Args) != 1 || a.Args[0] != "pgmoneta: wal primary" {
		t.Errorf("arguments are %q, want only the title", a.Args)
	}
	if a.Comm != "wal-primary-wit" {
		t.Errorf("name is %q", a.Comm)
	}
	if a.Segment != "the segment" || a.Log != "the log" {
		t.Errorf("files hold %q and %q", a.Segment, a.Log)
	}
	env := strings.Join(a.Env, " ")
	if strings.Contains(env, "hush") || strings.Contains(env, workerVariable) || !strings.Contains(env, "EXTRA=1") {
		t.Errorf("environment is %q", env)
	}
	// Descriptor 3 was duplicated by the net package and closed.
	if len(a.FDs) != 6 {
		t.Errorf("open descriptors: %q, want 6", a.FDs)
	}
}

// Every thread of a nice worker is nice, and none of ours has become it.
func TestNiceWorkerLeavesSupervisorAsItIs(t *testing.T) {
	before, _ := priorities()
	for _, tt := range []struct{ nice, want, io int }{
		{0, before[0], 0},
		{10, min(before[0]+10, leastNice), ioprioBestEffort | ioprioLowest},
		{40, leastNice, ioprioBestEffort | ioprioLowest},
	} {
		p := startWorker(t, Spec{Nice: tt.nice})
		var got about
		ask(t, p.Conn(), "about", nil, &got)
		other := func(want int) func(int) bool { return func(n int) bool { return n != want } }
		if slices.ContainsFunc(got.Nice, other(tt.want)) {
			t.Errorf("nice %d: the threads have %v, want %d", tt.nice, got.Nice, tt.want)
		}
		if tt.nice > 0 && slices.ContainsFunc(got.IO, other(tt.io)) {
			t.Errorf("nice %d: the threads have I/O priorities %v, want %d", tt.nice, got.IO, tt.io)
		}
	}
	// The threads that started them end in their own time.
	deadline := time.Now().Add(10 * time.Second)
	for after, _ := priorities(); slices.Max(after) > before[0]; after, _ = priorities() {
		if time.Now().After(deadline) {
			t.Fatalf("our threads had %v and have %v", before, after)
		}
		runtime.Gosched()
	}
}

func TestMissingFilesAreNil(t *testing.T) {
	t.Parallel()
	p := startWorker(t, Spec{Log: tempFile(t, "the log")})
	var a about
	ask(t, p.Conn(), "about", nil, &a)
	if a.Segment != "" || a.Log != "the log" {
		t.Errorf("files hold %q and %q", a.Segment, a.Log)
	}
}

func TestWorkerEndsWhenSupervisorCloses(t *testing.T) {
	t.Parallel()
	p := startWorker(t, Spec{})
	var text string
	ask(t, p.Conn(), "echo", "hello", &text)
	if text != "hello" {
		t.Errorf("echo is %q", text)
	}
	if err := p.Conn().Close(); err != nil {
		t.Fatal(err)
	}
	if err := p.Wait(); err != nil {
		t.Errorf("Wait: %v, want a clean end", err)
	}
	if err := p.Wait(); err != nil {
		t.Errorf("second Wait: %v", err)
	}
	if err := p.Signal(syscall.SIGTERM); !errors.Is(err, os.ErrProcessDone) {
		t.Errorf("Signal after the end: %v, want ErrProcessDone", err)
	}
}

func TestKilledWorkerIsNoticed(t *testing.T) {
	t.Parallel()
	p := startWorker(t, Spec{})
	if err := p.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if _, err := p.Conn().Receive(); !errors.Is(err, io.EOF) {
		t.Errorf("Receive: %v, want io.EOF", err)
	}
	var exit *exec.ExitError
	if err := p.Wait(); !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
		t.Errorf("Wait: %v, want death by SIGKILL", err)
	}
}

func TestWorkerKilledWithUnreadMessageIsEOF(t *testing.T) {
	t.Parallel()
	p := startWorker(t, Spec{})
	if err := p.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	if err := p.Conn().Send("echo", "never read"); err != nil {
		t.Fatal(err)
	}
	if err := p.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if _, err := p.Conn().Receive(); !errors.Is(err, io.EOF) {
		t.Errorf("Receive: %v, want io.EOF", err)
	}
}

func TestPanicArrivesAsLines(t *testing.T) {
	t.Parallel()
	var lines []string
	p := startWorker(t, Spec{OnStderr: func(line string) { lines = append(lines, line) }})
	if err := p.Conn().Send("panic", nil); err != nil {
		t.Fatal(err)
	}
	var exit *exec.ExitError
	if err := p.Wait(); !errors.As(err, &exit) || exit.ExitCode() != 2 {
		t.Errorf("Wait: %v, want exit code 2", err)
	}
	text := strings.Join(lines, "\n")
	if !strings.Contains(text, "on stdout") || !strings.Contains(text, "panic: told to") || !strings.Contains(text, "playWorker") {
		t.Errorf("output is %q", text)
	}
}

func TestLongOutputLinesArriveInPieces(t *testing.T) {
	t.Parallel()
	var pieces []string
	copyLines(strings.NewReader(strings.Repeat("x", 3*maxLine-1)+"\nend"), func(s string) { pieces = append(pieces, s) })
	if len(pieces) != 4 || len(pieces[0]) != maxLine || pieces[3] != "end" {
		t.Errorf("%d pieces", len(pieces))
	}
}

func TestWorkerInheritsNothingFromOurParents(t *testing.T) {
	t.Parallel()
	stray, err := unix.Dup(0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Close(stray) }()
	p := startWorker(t, Spec{})
	var a about
	ask(t, p.Conn(), "about", nil, &a)
	if len(a.FDs) != 4 {
		t.Errorf("open descriptors: %q, want 0, 1, 2 and the control socket", a.FDs)
	}
}

// Not parallel: it counts the descriptors of the process.
func TestStartLeaksNoDescriptors(t *testing.T) {
	run := func() {
		p, err := Start(Spec{Title: "pgmoneta: test"})
		if err != nil {
			t.Fatal(err)
		}
		_ = p.Conn().Close()
		if err := p.Wait(); err != nil {
			t.Fatal(err)
		}
	}
	run() // opens what the runtime keeps
	before := descriptors(os.Getpid())
	for range 5 {
		run()
	}
	if after := descriptors(os.Getpid()); len(after) != len(before) {
		t.Errorf("descriptors before: %q, after: %q", before, after)
	}
}

func TestInheritOutsideOfAWorkerIsRefused(t *testing.T) {
	t.Parallel()
	if _, _, _, err := Inherit(); err == nil {
		t.Error("Inherit succeeded in the test process")
	}
}

// pair returns two connected ends in this process.
func pair(t *testing.T) (a, b *Conn) {
	t.Helper()
	a, file, err := Pair()
	if err != nil {
		t.Fatal(err)
	}
	b, err = FromFile(file)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = a.Close(), b.Close() })
	return a, b
}

func TestConcurrentSendsStayWhole(t *testing.T) {
	t.Parallel()
	a, b := pair(t)
	const senders, each = 8, 50
	var wg sync.WaitGroup
	for i := range senders {
		wg.Go(func() {
			for range each {
				if err := a.Send("n", strings.Repeat(string(rune('a'+i)), 10000)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for range senders * each {
		m, err := b.Receive()
		if err != nil {
			t.Fatal(err)
		}
		var text string
		if err := m.Decode(&text); err != nil || strings.Trim(text, text[:1]) != "" {
			t.Fatalf("mixed message, %v", err)
		}
	}
	wg.Wait()
}

func TestCloseEndsBothReceives(t *testing.T) {
	t.Parallel()
	a, b := pair(t)
	received := make(chan error)
	go func() {
		_, err := a.Receive()
		received <- err
	}()
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-received; !errors.Is(err, net.ErrClosed) {
		t.Errorf("Receive of the closed end: %v, want net.ErrClosed", err)
	}
	if _, err := b.Receive(); !errors.Is(err, io.EOF) {
		t.Errorf("Receive of the other end: %v, want io.EOF", err)
	}
	if err := a.Close(); err != nil {
		t.Errorf("second Close: %v", err)
	}
	if err := a.Send("x", nil); err == nil {
		t.Error("Send after Close succeeded")
	}
}

func TestMessageLimits(t *testing.T) {
	t.Parallel()
	a, _ := pair(t)
	var size *MessageSizeError
	if err := a.Send("big", strings.Repeat("x", MaxMessage)); !errors.As(err, &size) {
		t.Errorf("Send of too much: %v, want a MessageSizeError", err)
	}
	if err := a.Send("x", func() {}); err == nil {
		t.Error("Send of a function succeeded")
	}
	announced := binary.BigEndian.AppendUint32(nil, MaxMessage+1)
	if _, err := decode(bytes.NewReader(announced)); !errors.As(err, &size) {
		t.Errorf("decode of too much: %v, want a MessageSizeError", err)
	}
}

func TestEveryTruncationIsAnError(t *testing.T) {
	t.Parallel()
	frame, err := encode("kind", map[string]int{"a": 1})
	if err != nil {
		t.Fatal(err)
	}
	if m, err := decode(bytes.NewReader(frame)); err != nil || m.Kind != "kind" || string(m.Body) != `{"a":1}` {
		t.Fatalf("decode: %+v, %v", m, err)
	}
	for n := range frame {
		_, err := decode(bytes.NewReader(frame[:n]))
		if n == 0 && !errors.Is(err, io.EOF) || n > 0 && !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("decode of %d bytes: %v", n, err)
		}
	}
}

func TestFromFileRefusesOtherDescriptors(t *testing.T) {
	t.Parallel()
	if _, err := FromFile(tempFile(t, "")); err == nil {
		t.Error("FromFile accepted a plain file")
	}
}

func FuzzDecode(f *testing.F) {
	good, err := encode("kind", "body")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add([]byte{0, 0, 0, 2, '{', '}'})
	f.Add([]byte{0xff, 0xff, 0xff, 0xff})
	f.Add([]byte{0, 0xff, 0xff, 0xff, 'x'})
	f.Fuzz(func(t *testing.T, data []byte) {
		r := bytes.NewReader(data)
		for {
			m, err := decode(r)
			if err != nil {
				return
			}
			again, err := encode(m.Kind, m.Body)
			if err != nil {
				t.Fatalf("message %+v cannot be sent: %v", m, err)
			}
			if back, err := decode(bytes.NewReader(again)); err != nil || back.Kind != m.Kind {
				t.Fatalf("message %+v came back as %+v, %v", m, back, err)
			}
		}
	})
}

func BenchmarkRoundTrip(b *testing.B) {
	p, err := Start(Spec{Title: "pgmoneta: bench"})
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if err := p.Conn().Send("echo", "x"); err != nil {
			b.Fatal(err)
		}
		if _, err := p.Conn().Receive(); err != nil {
			b.Fatal(err)
		}
	}
	_ = p.Conn().Close()
	_ = p.Wait()
}

func BenchmarkStart(b *testing.B) {
	for b.Loop() {
		p, err := Start(Spec{Title: "pgmoneta: bench"})
		if err != nil {
			b.Fatal(err)
		}
		_ = p.Conn().Close()
		_ = p.Wait()
	}
}
