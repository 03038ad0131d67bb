//go:build ha

// Package ha follows a cluster of three servers that Patroni manages, with etcd and HAProxy, through everything that
// makes another server the primary. make test-ha runs it; it takes two to three minutes and is not part of make test.
//
// # Where it runs
//
// As root the test binary starts itself again in namespaces of its own: network, processes, mounts and System V
// memory. There every server of the cluster has a network namespace with a cable that can be cut. When the test ends,
// in whatever way, the kernel ends every process in there and takes the namespaces, the cables and the files away.
//
// Elsewhere all servers share the loopback interface, and a server that should be unreachable is stopped with SIGSTOP.
package ha

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// These tell the test binary inside the namespaces where it is and what was prepared outside, where there is a network.
const (
	insideEnv   = "PGMONETA_HA_INSIDE"
	programsEnv = "PGMONETA_HA_PROGRAMS"
)

// enter makes the private directory a file system that goes away with the namespaces, and runs the test binary. As
// process 1 the shell also takes in orphans: Patroni would take a dead postmaster that nobody waited for as alive.
const enter = `mount -t tmpfs -o mode=755 pgmoneta-ha "$TMPDIR" && ip link set lo up && { "$@" & wait $!; }`

func namespaces(command ...string) *exec.Cmd {
	args := []string{"--net", "--pid", "--ipc", "--mount-proc", "--fork", "--kill-child"}
	return exec.Command("unshare", append(args, command...)...)
}

func TestMain(m *testing.M) {
	if os.Getenv(insideEnv) != "" {
		os.Exit(m.Run())
	}
	code, err := outside(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, "ha:", err)
		code = 1
	}
	os.Exit(code)
}

// outside prepares what needs the network and the machine's own file system, then runs the tests.
func outside(m *testing.M) (int, error) {
	programs, err := os.MkdirTemp("", "pgmoneta-ha-bin-")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(programs)
	if err := os.Chmod(programs, 0o755); err != nil {
		return 0, err
	}
	for _, command := range [][]string{
		{"../install/ha.sh"}, {"../install/postgres.sh", "17"},
		{"env", "CGO_ENABLED=0", "go", "build", "-o", programs, "../../cmd/..."},
	} {
		if out, err := exec.Command(command[0], command[1:]...).CombinedOutput(); err != nil {
			return 0, fmt.Errorf("%s: %w\n%s", strings.Join(command, " "), err, out)
		}
	}
	if err := os.Setenv(programsEnv, programs); err != nil {
		return 0, err
	}
	if why := cannotSeparate(); why != "" {
		fmt.Fprintf(os.Stderr, "ha: no namespaces, servers are stopped instead of cut off: %s\n", why)
		return m.Run(), nil
	}
	return inside()
}

// cannotSeparate says why namespaces cannot be used, or nothing.
func cannotSeparate() string {
	if os.Geteuid() != 0 {
		return "this needs root"
	}
	try := namespaces("sh", "-c", "ip link set lo up && ip link add br0 type bridge && ip link add cable0 type veth peer name eth0 && command -v nsenter")
	if out, err := try.CombinedOutput(); err != nil {
		return fmt.Sprintf("%v: %s", err, bytes.TrimSpace(out))
	}
	return ""
}

// inside runs this test binary once more, in namespaces, and returns its exit code. Its directory for temporary files
// is its own: pgtest removes the directories of processes that it cannot see.
func inside() (int, error) {
	dir, err := os.MkdirTemp("", "pgmoneta-ha-")
	if err != nil {
		return 0, err
	}
	defer os.Remove(dir)
	self, err := os.Executable()
	if err != nil {
		return 0, err
	}
	if self, err = filepath.Abs(self); err != nil {
		return 0, err
	}
	cmd := namespaces(append([]string{"sh", "-c", enter, "sh", self}, os.Args[1:]...)...)
	cmd.Env = append(os.Environ(), insideEnv+"=1", "TMPDIR="+dir)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	err = cmd.Run()
	if exit, ok := err.(*exec.ExitError); ok {
		return exit.ExitCode(), nil
	}
	return 0, err
}
