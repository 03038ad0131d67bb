package ipc

import (
	"os"
	"os/exec"
	"runtime"

	"golang.org/x/sys/unix"
)

// Of ioprio_set(2).
const (
	ioprioWhoProcess = 1
	ioprioBestEffort = 2 << 13
	ioprioLowest     = 7
)

const leastNice = 19

// startNice starts cmd with lower priorities than ours. A process inherits them from the thread that starts it, with all
// threads it will ever have; lowered later, they would hold for the threads of that moment only.
func startNice(cmd *exec.Cmd, nice int) error {
	if nice <= 0 {
		return cmd.Start()
	}
	started := make(chan error)
	go func() {
		runtime.LockOSThread()
		if unix.Gettid() == os.Getpid() {
			// The main thread would outlive the goroutine, and show its priority as that of our process. While it is locked, another takes the next.
			defer runtime.UnlockOSThread()
			started <- startNice(cmd, nice)
			return
		}
		// Never unlocked: the thread ends with the goroutine, because nobody without privileges may raise a priority again.
		lowerPriority(nice)
		started <- cmd.Start()
	}()
	return <-started
}

// lowerPriority makes this thread nicer and its I/O the last of those that are served at all. Where that is refused, what it does is only less polite.
func lowerPriority(nice int) {
	thread := unix.Gettid()
	if raw, err := unix.Getpriority(unix.PRIO_PROCESS, thread); err == nil {
		_ = unix.Setpriority(unix.PRIO_PROCESS, thread, min(20-raw+nice, leastNice)) // the kernel says 20 - nice
	}
	_, _, _ = unix.Syscall(unix.SYS_IOPRIO_SET, ioprioWhoProcess, uintptr(thread), ioprioBestEffort|ioprioLowest)
}
