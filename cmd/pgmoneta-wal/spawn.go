package main

import (
	"math"
	"os/exec"
	"syscall"

	"golang.org/x/sys/unix"
)

// spawn starts this program once more, detached: a session of its own, nothing
// on its standard descriptors, no directory and no file of the caller held open.
func spawn(args []string) error {
	// Descriptors that the server did not close came to us through the shell. The
	// process must not keep its files open. Kernels before 5.11 cannot do this;
	// it then holds them for its minute at most.
	_ = unix.CloseRange(3, math.MaxInt32, unix.CLOSE_RANGE_CLOEXEC)
	cmd := exec.Command("/proc/self/exe", args...)
	cmd.Args[0] = "pgmoneta-wal"
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return err
	}
	return cmd.Process.Release()
}
