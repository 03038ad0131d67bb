package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/pgmoneta/pgmoneta-go/internal/config"
)

// With -d the daemon runs in the background. Go cannot fork: the first process starts this
// program again in a session of its own, waits until it answers requests or has ended, and
// ends with its status. Until then the daemon prints where the first one does.

// readyVariable names the descriptor over which the daemon in the background tells that it
// is ready. It is taken out of the environment at once.
const readyVariable = "PGMONETA_READY_FD"

// readyByte is what it tells; without it, the daemon has ended.
const readyByte = 'R'

// detach starts the daemon with the words but for -d, and returns the exit code.
func detach(words []string, stdout, stderr io.Writer) int {
	code, err := startDetached(words, stdout, stderr)
	if err != nil {
		fmt.Fprintln(stderr, "pgmoneta: run in the background:", err)
		return 1
	}
	return code
}

func startDetached(words []string, stdout, stderr io.Writer) (code int, err error) {
	read, write, err := os.Pipe()
	if err != nil {
		return 0, err
	}
	defer func() { _ = read.Close() }()
	cmd := exec.Command("/proc/self/exe", slices.DeleteFunc(slices.Clone(words), isDaemonOption)...)
	cmd.Args[0] = os.Args[0]
	cmd.Stdout, cmd.Stderr = stdout, stderr
	cmd.ExtraFiles = []*os.File{write} // descriptor 3
	cmd.Env = append(os.Environ(), readyVariable+"=3")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	err = cmd.Start()
	_ = write.Close()
	if err != nil {
		return 0, err
	}
	var told [1]byte
	if _, err := io.ReadFull(read, told[:]); err == nil && told[0] == readyByte {
		return 0, cmd.Process.Release()
	}
	err = cmd.Wait()
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit) && exit.Exited():
		return exit.ExitCode(), nil
	case err != nil:
		return 0, err // a signal
	}
	return 1, nil // it was told to stop before it was ready
}

func isDaemonOption(word string) bool { return word == "-d" || word == "--daemon" }

// inBackground returns what tells the first process that this one is ready, nil when
// there is none.
func inBackground() (ready func() error, err error) {
	text, ok := os.LookupEnv(readyVariable)
	if !ok {
		return nil, nil
	}
	if err := os.Unsetenv(readyVariable); err != nil {
		return nil, err
	}
	fd, err := strconv.Atoi(text)
	if err != nil || fd < 3 {
		return nil, fmt.Errorf("%s=%q: want the number of a descriptor", readyVariable, text)
	}
	unix.CloseOnExec(fd)
	pipe := os.NewFile(uintptr(fd), "ready")
	return func() error {
		_, err := pipe.Write([]byte{readyByte})
		return errors.Join(err, pipe.Close(), leaveTerminal())
	}, nil
}

// leaveTerminal lets go of what the first process printed to: who waits for the end of
// that output must not wait for the daemon.
func leaveTerminal() error {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer func() { _ = null.Close() }()
	for fd := range 3 {
		if err := unix.Dup3(int(null.Fd()), fd, 0); err != nil {
			return fmt.Errorf("leave the terminal: %w", err)
		}
	}
	return nil
}

// backgroundable refuses a log that nobody would see.
func backgroundable(c *config.Config) error {
	console := c.Main.LogType == config.LogConsole || c.Main.LogType == config.LogJSON && c.Main.LogPath == ""
	if console {
		return fmt.Errorf("%s: a daemon in the background (-d) cannot log to the console: set log_type = file or syslog", c.Path)
	}
	return nil
}
