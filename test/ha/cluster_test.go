//go:build ha

package ha

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/pgmoneta/pgmoneta-go/test/pgtest"
)

const (
	major    = 17
	segments = 1 << 20 // wal_segment_size
)

// A cluster is what a small production site has: servers that Patroni manages, etcd, and HAProxy in front of the primary.
type cluster struct {
	dir   string
	tools map[string]string
	bin   string // programs of PostgreSQL
	net   network
	etcd  int // port
	proxy *pgtest.Server
	nodes []*node
}

// A node is one server with the Patroni that runs it.
type node struct {
	number     int
	dir        string
	address    string
	port, rest int
	patroni    *exec.Cmd
	ended      chan struct{}
}

func (n *node) name() string            { return fmt.Sprintf("node%d", n.number+1) }
func (n *node) path(name string) string { return filepath.Join(n.dir, name) }
func (n *node) superuser() *pgtest.Server {
	return &pgtest.Server{Major: major, SocketDir: n.dir, Port: n.port}
}

// slots are the permanent slots of the cluster, one for each receiver.
func slots() []string { return []string{"pgmoneta_hosts", "pgmoneta_proxy"} }

// startCluster returns when the cluster has a primary, its synchronous standby and one more.
func startCluster(t *testing.T) *cluster {
	t.Helper()
	const members = 3
	c := &cluster{dir: t.TempDir(), tools: tools(t), bin: pgtest.Bin(t, major), net: newNetwork(t, members)}
	ports := freePorts(t, 3+2*members)
	c.etcd = ports[0]
	pgtest.Own(t, c.dir)
	c.startEtcd(t, ports[1])
	for i := range members {
		n := &node{number: i, dir: filepath.Join(c.dir, fmt.Sprintf("node%d", i+1)), address: c.net.address(i), port: ports[3+2*i], rest: ports[4+2*i]}
		if err := os.Mkdir(n.dir, 0o700); err != nil {
			t.Fatal(err)
		}
		write(t, n.path("patroni.yml"), c.patroniConfig(n))
		pgtest.Own(t, n.dir)
		c.nodes = append(c.nodes, n)
		t.Cleanup(func() { c.remove(t, n) })
		c.startPatroni(t, n)
	}
	c.startProxy(t, ports[2])
	c.waitHealthy(t)
	c.proxy.WaitFor(t, "true")
	c.proxy.Exec(t, fmt.Sprintf("create role %[1]s login replication password '%[2]s'; grant pg_monitor to %[1]s", pgtest.ReplUser, pgtest.ReplPassword))
	return c
}

// tools returns the programs of the stack by name.
func tools(t *testing.T) map[string]string {
	t.Helper()
	out, err := exec.Command("../install/ha.sh").Output()
	if err != nil {
		t.Fatal(err)
	}
	paths := map[string]string{}
	for line := range strings.Lines(string(out)) {
		name, path, _ := strings.Cut(strings.TrimSpace(line), " ")
		paths[name] = path
	}
	return paths
}

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

// start runs a program until the end of the test, with its output in a file.
func (c *cluster) start(t *testing.T, cmd *exec.Cmd, logFile string) (ended chan struct{}) {
	t.Helper()
	log, err := os.OpenFile(logFile, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended = make(chan struct{})
	go func() { _ = cmd.Wait(); close(ended) }()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-ended
		if t.Failed() {
			text, _ := os.ReadFile(logFile)
			t.Logf("end of %s:\n%s", filepath.Base(logFile), tail(text, 6000))
		}
	})
	return ended
}

func tail(b []byte, n int) []byte { return b[max(0, len(b)-n):] }

func (c *cluster) startEtcd(t *testing.T, peer int) {
	t.Helper()
	client, between := fmt.Sprintf("http://%s:%d", c.net.hub(), c.etcd), fmt.Sprintf("http://%s:%d", c.net.hub(), peer)
	cmd := pgtest.Command(t, c.dir, c.tools["etcd"], "--data-dir", filepath.Join(c.dir, "etcd"), "--unsafe-no-fsync", "--log-level", "warn",
		"--listen-client-urls", client, "--advertise-client-urls", client,
		"--listen-peer-urls", between, "--initial-advertise-peer-urls", between, "--initial-cluster", "default="+between)
	c.start(t, cmd, filepath.Join(c.dir, "etcd.log"))
	pgtest.WaitFor(t, 30*time.Second, "etcd", func() error {
		status, _, err := ask(client + "/health")
		if err == nil && status != http.StatusOK {
			err = fmt.Errorf("status %d", status)
		}
		return err
	})
}

// startProxy starts HAProxy as Patroni's documentation shows it: the port leads to the member that says it is the primary.
func (c *cluster) startProxy(t *testing.T, port int) {
	t.Helper()
	var conf strings.Builder
	fmt.Fprintf(&conf, `global
  maxconn 200
defaults
  mode tcp
  timeout connect 2s
  timeout check 2s
  timeout client 30m
  timeout server 30m
listen primary
  bind %s:%d
  option httpchk OPTIONS /primary
  http-check expect status 200
  default-server inter 1s fall 2 rise 1 on-marked-down shutdown-sessions
`, c.net.hub(), port)
	for _, n := range c.nodes {
		fmt.Fprintf(&conf, "  server %s %s:%d check port %d\n", n.name(), n.address, n.port, n.rest)
	}
	file := filepath.Join(c.dir, "haproxy.cfg")
	write(t, file, conf.String())
	pgtest.Own(t, file)
	c.start(t, pgtest.Command(t, c.dir, c.tools["haproxy"], "-db", "-f", file), filepath.Join(c.dir, "haproxy.log"))
	// A server whose socket directory is an address is one that is reached over TCP.
	c.proxy = &pgtest.Server{Major: major, SocketDir: c.net.hub(), Port: port}
}

// patroniConfig is what a site would have, with the shortest ttl that Patroni accepts. What pgmoneta needs of it are
// the permanent slots and wal_keep_size.
func (c *cluster) patroniConfig(n *node) string {
	var permanent strings.Builder
	for _, name := range slots() {
		fmt.Fprintf(&permanent, "      %s: {type: physical}\n", name)
	}
	return fmt.Sprintf(`scope: ha
name: %[1]s
restapi: {listen: '%[2]s:%[4]d', connect_address: '%[2]s:%[4]d'}
etcd3: {hosts: '%[5]s:%[6]d'}
bootstrap:
  dcs:
    ttl: 20
    loop_wait: 2
    retry_timeout: 5
    synchronous_mode: true
    postgresql:
      use_pg_rewind: true
      use_slots: true
      parameters: {wal_level: replica, hot_standby: 'on', wal_keep_size: 64MB, max_wal_senders: 10, max_replication_slots: 10, shared_buffers: 32MB}
    slots:
%[7]s  initdb: [{encoding: UTF8}, {locale: C}, data-checksums, {wal-segsize: '%[8]d'}]
postgresql:
  listen: '%[2]s:%[3]d'
  connect_address: '%[2]s:%[3]d'
  bin_dir: %[9]s
  data_dir: %[10]s/data
  pgpass: %[10]s/pgpass
  use_unix_socket: true
  parameters: {unix_socket_directories: %[10]s}
  authentication:
    superuser: {username: postgres}
    replication: {username: replicator}
  pg_hba:
    - local all all trust
    - host all,replication %[11]s all scram-sha-256
    - host all,replication all all trust
`, n.name(), n.address, n.port, n.rest, c.net.hub(), c.etcd, permanent.String(), segments>>20, c.bin, n.dir, pgtest.ReplUser)
}

func (c *cluster) startPatroni(t *testing.T, n *node) {
	t.Helper()
	n.patroni = c.net.command(t, n.number, n.dir, c.tools["python3"], c.tools["patroni"], n.path("patroni.yml"))
	n.patroni.Env = append(n.patroni.Env, "LC_ALL=C.UTF-8")
	n.ended = c.start(t, n.patroni, n.path("patroni.log"))
}

// patronictl runs a command of the administrator's program.
func (c *cluster) patronictl(t *testing.T, args ...string) {
	t.Helper()
	n := c.nodes[0]
	cmd := pgtest.Command(t, c.dir, c.tools["python3"], append([]string{c.tools["patronictl"], "-c", n.path("patroni.yml")}, args...)...)
	cmd.Env = append(cmd.Env, "LC_ALL=C.UTF-8")
	out, err := cmd.CombinedOutput()
	t.Logf("patronictl %s:\n%s", strings.Join(args, " "), out)
	if err != nil {
		t.Fatal(err)
	}
}

// ask gets a page and returns its status and body.
func ask(url string) (int, []byte, error) {
	client := http.Client{Timeout: time.Second}
	resp, err := client.Get(url)
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close()
	var body json.RawMessage
	_ = json.NewDecoder(resp.Body).Decode(&body) // a page without JSON has no body for us
	return resp.StatusCode, body, nil
}

// A member is how Patroni sees a node.
type member struct {
	Name, Role, State string
	Timeline          int
}

// leads asks a node whether it is the primary, and on which timeline.
func (c *cluster) leads(n *node) (timeline int, ok bool) {
	status, body, err := ask(fmt.Sprintf("http://%s:%d/primary", n.address, n.rest))
	var m member
	if err != nil || status != http.StatusOK || json.Unmarshal(body, &m) != nil {
		return 0, false
	}
	return m.Timeline, m.Timeline > 0
}

// leader returns the primary other than not.
func (c *cluster) leader(not *node) (n *node, timeline int, err error) {
	for _, n := range c.nodes {
		if n == not {
			continue
		}
		if timeline, ok := c.leads(n); ok {
			return n, timeline, nil
		}
	}
	return nil, 0, fmt.Errorf("no member is the primary")
}

// waitHealthy waits until all members run on the primary's timeline and one of them is a synchronous standby.
func (c *cluster) waitHealthy(t *testing.T) {
	t.Helper()
	pgtest.WaitFor(t, 2*time.Minute, "a primary with two standbys", func() error {
		for _, n := range c.nodes {
			select {
			case <-n.ended:
				t.Fatalf("Patroni of %s has ended", n.name())
			default:
			}
		}
		n, timeline, err := c.leader(nil)
		if err != nil {
			return err
		}
		_, body, err := ask(fmt.Sprintf("http://%s:%d/cluster", n.address, n.rest))
		if err != nil {
			return err
		}
		var all struct{ Members []member }
		if err := json.Unmarshal(body, &all); err != nil {
			return err
		}
		roles := map[string]int{}
		for _, m := range all.Members {
			if m.Timeline == timeline && (m.Role == "leader" || m.State == "streaming") {
				roles[m.Role]++
			}
		}
		if roles["leader"] != 1 || roles["sync_standby"] != 1 || roles["replica"] != len(c.nodes)-2 {
			return fmt.Errorf("timeline %d: %s", timeline, body)
		}
		return nil
	})
}

// postmaster returns the process of a node's server, 0 when there is none.
func (n *node) postmaster() int {
	raw, err := os.ReadFile(n.path("data/postmaster.pid"))
	if err != nil {
		return 0
	}
	line, _, _ := strings.Cut(string(raw), "\n")
	pid, _ := strconv.Atoi(line)
	return pid
}

// signal sends a signal to Patroni, to the postmaster and to all their children.
func (n *node) signal(sig syscall.Signal) {
	for _, root := range []int{n.patroni.Process.Pid, n.postmaster()} {
		if root == 0 {
			continue
		}
		_ = syscall.Kill(root, sig)
		for _, pid := range descendants(root) {
			_ = syscall.Kill(pid, sig)
		}
	}
}

func descendants(root int) []int {
	raw, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%[1]d/children", root))
	var all []int
	for _, word := range strings.Fields(string(raw)) {
		if pid, err := strconv.Atoi(word); err == nil {
			all = append(append(all, pid), descendants(pid)...)
		}
	}
	return all
}

// kill ends Patroni and the server at one moment. They are stopped first, so that none sees another die.
func (n *node) kill() {
	n.signal(syscall.SIGSTOP)
	n.signal(syscall.SIGKILL)
	<-n.ended
}

// remove ends a node for good. The server is ended with SIGQUIT where that works, because it then removes its shared memory.
func (c *cluster) remove(t *testing.T, n *node) {
	n.signal(syscall.SIGCONT)
	_ = n.patroni.Process.Kill()
	<-n.ended
	pid := n.postmaster()
	if pid == 0 {
		return
	}
	_ = syscall.Kill(pid, syscall.SIGQUIT)
	for end := time.Now().Add(5 * time.Second); time.Now().Before(end) && n.postmaster() != 0 && syscall.Kill(pid, 0) == nil; {
		time.Sleep(20 * time.Millisecond)
	}
	n.signal(syscall.SIGKILL)
}
