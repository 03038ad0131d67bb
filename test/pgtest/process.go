package pgtest

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A procID names a process beyond reuse of its number.
type procID struct {
	pid   int
	start uint64 // clock ticks after boot, see proc(5)
}

// A procStat is the part of /proc/<pid>/stat that is used here.
type procStat struct {
	procID
	parent int
	zombie bool
}

// readStat reads /proc/<pid>/stat. The name of the program stands in parentheses and may hold any byte.
func readStat(pid int) (procStat, error) {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return procStat{}, err
	}
	fields := strings.Fields(string(raw[bytes.LastIndexByte(raw, ')')+1:]))
	const state, parent, start = 0, 1, 19
	if len(fields) <= start {
		return procStat{}, fmt.Errorf("/proc/%d/stat has %d fields", pid, len(fields))
	}
	ppid, err := strconv.Atoi(fields[parent])
	if err != nil {
		return procStat{}, err
	}
	ticks, err := strconv.ParseUint(fields[start], 10, 64)
	if err != nil {
		return procStat{}, err
	}
	return procStat{procID: procID{pid, ticks}, parent: ppid, zombie: fields[state] == "Z"}, nil
}

// alive reports whether the process still runs; a zombie does not.
func (p procID) alive() bool {
	st, err := readStat(p.pid)
	return err == nil && st.start == p.start && !st.zombie
}

// children returns the processes whose parent is pid.
func children(pid int) []procID {
	entries, _ := os.ReadDir("/proc")
	var found []procID
	for _, e := range entries {
		n, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		if st, err := readStat(n); err == nil && st.parent == pid && !st.zombie {
			found = append(found, st.procID)
		}
	}
	return found
}

// killTree kills a postmaster and its children at one moment: it is stopped first, so that it neither sees a child
// die nor starts another. Each child has a process group of its own, so a kill of the group would not reach them.
// It returns when all are gone.
func killTree(postmaster procID) error {
	if !postmaster.alive() {
		return nil
	}
	_ = syscall.Kill(postmaster.pid, syscall.SIGSTOP)
	all := append(children(postmaster.pid), postmaster)
	for _, p := range all {
		if err := syscall.Kill(p.pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
			return fmt.Errorf("kill %d: %w", p.pid, err)
		}
	}
	for _, p := range all {
		if !waitUntil(10*time.Second, func() bool { return !p.alive() }) {
			return fmt.Errorf("process %d of postmaster %d survived a kill", p.pid, postmaster.pid)
		}
	}
	return nil
}

// waitUntil polls until done reports true, and reports whether it did so in time.
func waitUntil(timeout time.Duration, done func() bool) bool {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(timeout); ; <-tick.C {
		if done() {
			return true
		}
		if time.Now().After(deadline) {
			return false
		}
	}
}

// WaitFor asks until ok has no error. After patience the test fails with the last one.
func WaitFor(t testing.TB, patience time.Duration, what string, ok func() error) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for {
		err := ok()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("waiting %s for %s: %v", patience, what, err)
		}
		time.Sleep(20 * time.Millisecond) // who asks often starts a process
	}
}

// removeSharedMemory removes the System V segment that a killed postmaster left; line 7 of postmaster.pid names it.
// A segment that somebody is still attached to is left alone. The kernel has room for a limited number of them.
func removeSharedMemory(dataDir string) {
	raw, err := os.ReadFile(filepath.Join(dataDir, "postmaster.pid"))
	if err != nil {
		return
	}
	lines := strings.Split(string(raw), "\n")
	if len(lines) < 7 {
		return
	}
	var key, id int
	if n, _ := fmt.Sscan(lines[6], &key, &id); n != 2 {
		return
	}
	var desc unix.SysvShmDesc
	if _, err := unix.SysvShmCtl(id, unix.IPC_STAT, &desc); err != nil || desc.Nattch != 0 || int(desc.Perm.Key) != key {
		return
	}
	_, _ = unix.SysvShmCtl(id, unix.IPC_RMID, nil)
}

const basePrefix = "pgtest-"

// pidsFile lists the postmasters of a base directory, one "pid start dataDir" per line.
const pidsFile = "postmasters"

// makeBase creates the temporary directory of one server. Its name tells which process owns it.
func makeBase(a account) (string, error) {
	self, err := readStat(os.Getpid())
	if err != nil {
		return "", err
	}
	base, err := os.MkdirTemp("", fmt.Sprintf("%s%d-%d-", basePrefix, self.pid, self.start))
	if err != nil {
		return "", err
	}
	if err := os.Chmod(base, 0o755); err != nil {
		return "", err
	}
	return base, a.own(base)
}

// recordPostmaster notes a server for [reap].
func recordPostmaster(base, dataDir string, p procID) error {
	f, err := os.OpenFile(filepath.Join(base, pidsFile), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(f, "%d %d %s\n", p.pid, p.start, dataDir)
	return errors.Join(err, f.Close())
}

// reap removes what test processes that were killed left: their servers and their temporary directories. It believes
// only directories of the user it runs as and of the account of servers.
func reap(a account) {
	bases, _ := filepath.Glob(filepath.Join(os.TempDir(), basePrefix+"*"))
	for _, base := range bases {
		var owner procID
		n, _ := fmt.Sscanf(filepath.Base(base), basePrefix+"%d-%d-", &owner.pid, &owner.start)
		if n != 2 || owner.alive() || !a.trusts(base) {
			continue
		}
		reapBase(base)
	}
}

func reapBase(base string) {
	raw, _ := os.ReadFile(filepath.Join(base, pidsFile))
	for line := range strings.Lines(string(raw)) {
		var p procID
		if n, _ := fmt.Sscanf(line, "%d %d ", &p.pid, &p.start); n != 2 {
			continue
		}
		_ = killTree(p)
		removeSharedMemory(strings.SplitN(strings.TrimSpace(line), " ", 3)[2])
	}
	_ = os.RemoveAll(base)
}
