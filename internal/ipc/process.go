package ipc

import (
	"bufio"
	"fmt"
	"io"
	"math"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Descriptors of a worker. 0 is /dev/null, 1 and 2 are a pipe to the supervisor.
const (
	controlFD = 3
	segmentFD = 4
	logFD     = 5
)

const (
	workerVariable = "PGMONETA_WORKER"      // "1" in a worker
	nameVariable   = "PGMONETA_WORKER_NAME" // Spec.Name
)

// maxLine is the longest piece of output that OnStderr gets, in bytes. Longer lines arrive in pieces.
const maxLine = 16 << 10

// outputGrace is how long Wait waits for the end of the output after the process has ended. Only a process that
// the worker left behind could keep the pipe open.
const outputGrace = 5 * time.Second

// A Spec describes a worker process.
type Spec struct {
	Title   string   // process title, the only argument: "pgmoneta: wal primary"
	Name    string   // name of the main thread, cut to 15 bytes; empty keeps that of the binary
	Segment *os.File // shared segment, may be nil
	Log     *os.File // log file, may be nil
	Nice    int      // added to our own nice value; from 1 on its I/O comes last too. 0 keeps both
	Env     []string // further environment, "NAME=value"; never secrets

	// OnStderr is called for each line the worker prints instead of logging, such as those of a panic. Calls come from one goroutine,
	// all of them before Wait returns. nil drops the lines.
	OnStderr func(line string)
}

// A Process is a running worker. The one who started it must call Wait.
type Process struct {
	conn   *Conn
	cmd    *exec.Cmd
	output *os.File
	copied sync.WaitGroup
	wait   func() error
}

// Start starts the binary of this process again as a worker. The files of the spec stay with the caller.
func Start(spec Spec) (*Process, error) {
	conn, child, err := Pair()
	if err != nil {
		return nil, err
	}
	defer func() { _ = child.Close() }()
	p, err := start(spec, child)
	if err != nil {
		_ = conn.Close()
		return nil, fmt.Errorf("start worker %q: %w", spec.Title, err)
	}
	p.conn = conn
	return p, nil
}

func start(spec Spec, control *os.File) (*Process, error) {
	// A missing file becomes /dev/null, because a gap at 4 or 5 would be filled by the runtime of the worker.
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer func() { _ = null.Close() }()
	reader, writer, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	cmd := &exec.Cmd{
		Path:       "/proc/self/exe",
		Args:       []string{spec.Title},
		Env:        environment(spec),
		Stdin:      null,
		Stdout:     writer,
		Stderr:     writer,
		ExtraFiles: []*os.File{control, orNull(spec.Segment, null), orNull(spec.Log, null)},
		// A process group of its own: an interrupt at the terminal is for the supervisor alone, which then stops its workers in order.
		SysProcAttr: &syscall.SysProcAttr{Setpgid: true},
	}
	// Descriptors that our own parents left open without O_CLOEXEC are not for the worker. Kernels before 5.11 do not know this
	// call; there they are inherited, as everywhere.
	_ = unix.CloseRange(controlFD, math.MaxUint32, unix.CLOSE_RANGE_CLOEXEC)
	err = startNice(cmd, spec.Nice)
	_ = writer.Close()
	if err != nil {
		_ = reader.Close()
		return nil, err
	}
	p := &Process{cmd: cmd, output: reader}
	p.wait = sync.OnceValue(p.waitOnce)
	p.copied.Go(func() { copyLines(reader, spec.OnStderr) })
	return p, nil
}

func orNull(f, null *os.File) *os.File {
	if f == nil {
		return null
	}
	return f
}

// environment returns what a worker sees: what steers the Go runtime, the clock and certificates, and nothing that could hold a secret.
func environment(spec Spec) []string {
	env := []string{workerVariable + "=1", nameVariable + "=" + spec.Name}
	for _, name := range []string{
		"TZ", "TZDIR", "TMPDIR", "SSL_CERT_FILE", "SSL_CERT_DIR",
		"GODEBUG", "GOGC", "GOMAXPROCS", "GOMEMLIMIT", "GOTRACEBACK", "GORACE", "GOCOVERDIR",
	} {
		if value, ok := os.LookupEnv(name); ok {
			env = append(env, name+"="+value)
		}
	}
	return append(env, spec.Env...)
}

// copyLines calls yield for each line until the pipe ends.
func copyLines(r io.Reader, yield func(string)) {
	buffered := bufio.NewReaderSize(r, maxLine)
	for {
		line, _, err := buffered.ReadLine()
		if err != nil {
			return
		}
		if yield != nil {
			yield(string(line))
		}
	}
}

// Conn returns the supervisor's end of the control socket. Closing it tells the worker to end.
func (p *Process) Conn() *Conn { return p.conn }

// PID returns the process id.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Signal sends a signal. A process that has ended and was waited for is [os.ErrProcessDone].
func (p *Process) Signal(sig os.Signal) error { return p.cmd.Process.Signal(sig) }

// Wait waits until the process has ended and its output has been handed over. The control socket stays open, so that what the worker sent
// last can still be received; the caller closes it.
// The error is an [*exec.ExitError] unless the exit code is 0. Calling it again, from any goroutine, returns the same.
func (p *Process) Wait() error { return p.wait() }

func (p *Process) waitOnce() error {
	err := p.cmd.Wait()
	_ = p.output.SetReadDeadline(time.Now().Add(outputGrace))
	p.copied.Wait()
	if closeErr := p.output.Close(); err == nil {
		err = closeErr
	}
	return err
}
