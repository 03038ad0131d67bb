package e2e

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/pgmoneta/pgmoneta-go/test/pgtest"
)

// certify writes a new certificate for 127.0.0.1 and its key, and makes the client trust it.
func (d *daemon) certify(t *testing.T) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(time.Now().UnixNano()), IsCA: true, BasicConstraintsValid: true,
		NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	if err != nil {
		t.Fatal(err)
	}
	key, err := x509.MarshalECPrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	cert := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	d.write(t, "tls.crt", cert)
	d.write(t, "tls.key", string(pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: key})))
	d.write(t, ".pgmoneta/root.crt", cert)
	pgtest.Own(t, d.dir)
}

func TestRemoteManagement(t *testing.T) {
	t.Parallel()
	s := pgtest.Start(t, pgtest.Options{})
	port := freePort(t)
	d := prepareDaemon(t, map[string]*pgtest.Server{"primary": s}, fmt.Sprintf("management = %d", port), "tls = require")
	d.mustAdmin(t, "master-key", "-P", "passphrase of the test")
	d.administrator(t, "letmein:ß")
	d.certify(t)
	conf, err := os.ReadFile(d.path("pgmoneta.conf"))
	if err != nil {
		t.Fatal(err)
	}
	tls := "tls_cert_file = " + d.path("tls.crt") + "\ntls_key_file = " + d.path("tls.key") + "\n"
	d.write(t, "pgmoneta.conf", strings.Replace(string(conf), "tls = require\n", "tls = require\n"+tls, 1))
	pgtest.Own(t, d.dir)
	d.start(t)
	d.waitStreaming(t, "primary")

	client := func(password string, args ...string) *exec.Cmd {
		t.Helper()
		all := append([]string{"-c", d.path("client.conf"), "-h", "127.0.0.1", "-p", strconv.Itoa(port), "-U", "dba", "-P", password, "-F", "raw"}, args...)
		return pgtest.Command(t, d.dir, filepath.Join(d.bin, "pgmoneta-cli"), all...)
	}
	remote := func(password string, args ...string) (string, int) {
		t.Helper()
		cmd := client(password, args...)
		out, _ := cmd.CombinedOutput()
		return string(out), cmd.ProcessState.ExitCode()
	}
	if out, code := remote("letmein:ß", "-C", "lz4", "-E", "aes256", "status", "details"); code != 0 || !strings.Contains(out, `"Server": "primary"`) {
		t.Errorf("exit %d: %s", code, out)
	}
	began := time.Now()
	if out, code := remote("wrong", "ping"); code != 1 || !strings.Contains(out, "refused the login") {
		t.Errorf("wrong password: exit %d: %s", code, out)
	}
	if _, code := remote("letmein:ß", "ping"); code != 0 || time.Since(began) > 20*time.Second {
		t.Errorf("after a failure: exit %d after %s", code, time.Since(began))
	}

	// A renewed certificate counts from the next connection on, and SIGUSR1 opens
	// the port again; neither touches the stream, nor a backup and the client that waits for it.
	const title = "pgmoneta: backup primary"
	stream := func() string {
		return fmt.Sprint(d.worker(t, "primary"), " ", s.QueryString(t, "SELECT pid FROM pg_stat_replication WHERE application_name = 'pgmoneta'"))
	}
	before := stream()
	waiting := &command{cmd: client("letmein:ß", "backup", "primary")}
	waiting.cmd.Stdout, waiting.cmd.Stderr = &waiting.out, &waiting.out
	if err := waiting.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	backup := d.hold(t, title)
	d.certify(t)
	if out, code := remote("letmein:ß", "ping"); code != 0 {
		t.Errorf("with a new certificate: exit %d: %s", code, out)
	}
	if err := syscall.Kill(d.pid(), syscall.SIGUSR1); err != nil {
		t.Fatal(err)
	}
	waitFor(t, 10*time.Second, "the listeners", func() error {
		if log, _ := os.ReadFile(d.path("log")); !strings.Contains(string(log), "rebound listeners") {
			return fmt.Errorf("not bound again")
		}
		return nil
	})
	if out, code := remote("letmein:ß", "ping"); code != 0 {
		t.Errorf("after SIGUSR1: exit %d: %s", code, out)
	}
	if pids := d.children(title); !slices.Equal(pids, []int{backup}) {
		t.Errorf("after SIGUSR1 processes %v take the backup that process %d took before", pids, backup)
	}
	if err := syscall.Kill(backup, syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	waiting.done(t)
	s.SwitchWAL(t)
	d.waitFlushed(t, "primary", s)
	if after := stream(); after != before {
		t.Errorf("worker and walsender are %s after SIGUSR1 and were %s before", after, before)
	}
	if n := d.must(t, "list-backup", "primary")["NumberOfBackups"]; n != 1.0 {
		t.Errorf("%v backups are listed", n)
	}

	if err := os.Remove(d.path(".pgmoneta/root.crt")); err != nil {
		t.Fatal(err)
	}
	if out, code := remote("letmein:ß", "ping"); code != 1 || !strings.Contains(out, "refused the login") {
		t.Errorf("without TLS: exit %d: %s", code, out)
	}
	log, err := os.ReadFile(d.path("log"))
	if err != nil || !strings.Contains(string(log), "TLS is required") || strings.Contains(string(log), "letmein") {
		t.Errorf("log: %v\n%s", err, tail(log, 2000))
	}
}
