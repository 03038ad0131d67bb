package ipc

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// IsWorker reports whether this process was started by [Start]: the marker is in its environment and descriptor 3 is a socket.
func IsWorker() bool {
	return os.Getenv(workerVariable) == "1" && isType(controlFD, unix.S_IFSOCK)
}

// Inherit takes over what [Start] handed to this worker: the control socket, the shared segment and the log file; the last two are nil when the
// supervisor gave none. It is called once, early, and makes sure that no process started later gets these descriptors.
func Inherit() (conn *Conn, segment, log *os.File, err error) {
	if !IsWorker() {
		return nil, nil, nil, errors.New("this process is not a worker of pgmoneta; do not set " + workerVariable)
	}
	for fd := controlFD; fd <= logFD; fd++ {
		unix.CloseOnExec(fd)
	}
	name := os.Getenv(nameVariable)
	for _, variable := range []string{workerVariable, nameVariable} {
		if err := os.Unsetenv(variable); err != nil {
			return nil, nil, nil, err
		}
	}
	if err := setName(name); err != nil {
		return nil, nil, nil, err
	}
	conn, err = FromFile(os.NewFile(controlFD, "control socket"))
	if err != nil {
		return nil, nil, nil, err
	}
	return conn, inherited(segmentFD, "shared segment"), inherited(logFD, "log"), nil
}

// inherited returns the file of a descriptor, nil when the supervisor put /dev/null there.
func inherited(fd int, name string) *os.File {
	f := os.NewFile(uintptr(fd), name)
	if f != nil && isType(fd, unix.S_IFCHR) && isNull(fd) {
		_ = f.Close()
		return nil
	}
	return f
}

// isType reports whether a descriptor is open and of a kind.
func isType(fd int, kind uint32) bool {
	var stat unix.Stat_t
	return unix.Fstat(fd, &stat) == nil && stat.Mode&unix.S_IFMT == kind
}

// isNull reports whether a descriptor is /dev/null.
func isNull(fd int) bool {
	var stat, null unix.Stat_t
	return unix.Fstat(fd, &stat) == nil && unix.Stat(os.DevNull, &null) == nil && stat.Rdev == null.Rdev
}

// setName sets the name of the main thread, which ps and top show. PR_SET_NAME would name whatever
// thread this goroutine runs on; the file names the first one.
func setName(name string) error {
	if name == "" {
		return nil
	}
	if err := os.WriteFile("/proc/self/comm", []byte(name), 0); err != nil {
		return fmt.Errorf("set process name: %w", err)
	}
	return nil
}
