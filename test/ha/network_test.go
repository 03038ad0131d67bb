//go:build ha

package ha

import (
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"os/user"
	"strings"
	"syscall"
	"testing"

	"github.com/pgmoneta/pgmoneta-go/test/pgtest"
)

// A network connects the members of the cluster with the test, the daemon, etcd and HAProxy.
type network interface {
	// hub returns the address of the test.
	hub() string
	// address returns that of member i.
	address(i int) string
	// command prepares a program to run as member i, as the user that servers run as.
	command(t *testing.T, i int, dir, program string, args ...string) *exec.Cmd
	// cut makes member n unreachable until heal.
	cut(t *testing.T, n *node)
	heal(t *testing.T, n *node)
}

func newNetwork(t *testing.T, members int) network {
	t.Helper()
	if os.Getenv(insideEnv) == "" {
		return loopback{}
	}
	return newCables(t, members)
}

// loopback has all members on one address. One that is cut off is stopped.
type loopback struct{}

func (loopback) hub() string        { return "127.0.0.1" }
func (loopback) address(int) string { return "127.0.0.1" }
func (loopback) command(t *testing.T, _ int, dir, program string, args ...string) *exec.Cmd {
	return pgtest.Command(t, dir, program, args...)
}
func (loopback) cut(_ *testing.T, n *node)  { n.signal(syscall.SIGSTOP) }
func (loopback) heal(_ *testing.T, n *node) { n.signal(syscall.SIGCONT) }

// cables is a bridge with a cable to the network namespace of each member.
type cables struct {
	holders []int // a process in each namespace, which keeps it
	uid     string
	gid     string
}

func newCables(t *testing.T, members int) *cables {
	t.Helper()
	account, err := user.Lookup("postgres")
	if err != nil {
		t.Fatal(err)
	}
	c := &cables{uid: account.Uid, gid: account.Gid}
	ip(t, "link add br0 type bridge")
	ip(t, "addr add %s/24 dev br0", c.hub())
	ip(t, "link set br0 up")
	for i := range members {
		c.plug(t, i)
	}
	return c
}

// plug makes the namespace of member i and its cable.
func (c *cables) plug(t *testing.T, i int) {
	t.Helper()
	holder := exec.Command("sleep", "infinity")
	holder.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	if err := holder.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = holder.Process.Kill(); _ = holder.Wait() })
	c.holders = append(c.holders, holder.Process.Pid)
	ip(t, "link add cable%d type veth peer name eth0 netns %d", i, holder.Process.Pid)
	ip(t, "link set cable%d master br0 up", i)
	for _, command := range []string{"link set lo up", fmt.Sprintf("addr add %s/24 dev eth0", c.address(i)), "link set eth0 up"} {
		run(t, "nsenter", strings.Fields(fmt.Sprintf("%s ip %s", c.namespace(i), command))...)
	}
}

func (c *cables) namespace(i int) string { return fmt.Sprintf("--net=/proc/%d/ns/net", c.holders[i]) }

func (c *cables) hub() string          { return "10.0.0.254" }
func (c *cables) address(i int) string { return fmt.Sprintf("10.0.0.%d", i+1) }

func (c *cables) command(t *testing.T, i int, dir, program string, args ...string) *exec.Cmd {
	cmd := pgtest.Command(t, dir, "nsenter", append([]string{c.namespace(i), "--setuid=" + c.uid, "--setgid=" + c.gid, "--", program}, args...)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // nsenter itself needs root
	return cmd
}

func (c *cables) cut(t *testing.T, n *node)  { ip(t, "link set cable%d down", n.number) }
func (c *cables) heal(t *testing.T, n *node) { ip(t, "link set cable%d up", n.number) }

func ip(t *testing.T, format string, args ...any) {
	t.Helper()
	run(t, "ip", strings.Fields(fmt.Sprintf(format, args...))...)
}

func run(t *testing.T, program string, args ...string) {
	t.Helper()
	if out, err := exec.Command(program, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s %s: %v\n%s", program, strings.Join(args, " "), err, out)
	}
}

// freePorts returns ports that nobody listened on a moment ago, below those that the kernel gives to outgoing
// connections, so that they are still free when a server comes back.
func freePorts(t *testing.T, n int) []int {
	t.Helper()
	const low, high = 15000, 32000
	var ports []int
	for len(ports) < n {
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", low+rand.IntN(high-low)))
		if err != nil {
			continue
		}
		defer l.Close()
		ports = append(ports, l.Addr().(*net.TCPAddr).Port)
	}
	return ports
}
