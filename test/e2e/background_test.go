package e2e

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/pgmoneta/pgmoneta-go/test/pgtest"
)

// detached runs pgmoneta -d and returns what it printed until it ended, and its exit code.
func (d *daemon) detached(t *testing.T, conf string) (string, int) {
	t.Helper()
	cmd := d.command(t, conf, "-d")
	out, err := cmd.CombinedOutput() // ends when nobody has its output open any more
	if cmd.ProcessState == nil {
		t.Fatal(err)
	}
	return string(out), cmd.ProcessState.ExitCode()
}

func TestDaemonInTheBackgroundTellsTheShell(t *testing.T) {
	t.Parallel()
	s := pgtest.Start(t, pgtest.Options{})
	d := prepareDaemon(t, map[string]*pgtest.Server{"primary": s})
	conf, err := os.ReadFile(d.path("pgmoneta.conf"))
	if err != nil {
		t.Fatal(err)
	}
	variant := func(name, old, replacement string) string {
		if !strings.Contains(string(conf), old) {
			t.Fatalf("the configuration has no %q", old)
		}
		d.write(t, name, strings.Replace(string(conf), old, replacement, 1))
		pgtest.Own(t, d.dir)
		return name
	}
	refused := func(name, want string) {
		t.Helper()
		if out, code := d.detached(t, name); code == 0 || !strings.Contains(out, want) {
			t.Errorf("%s: exit %d, want another than 0 and %q:\n%s", name, code, want, out)
		}
	}
	refused(variant("unknown.conf", "create_slot = yes", "create_slot = perhaps"), "create_slot")
	refused(variant("console.conf", "log_type = file", "log_type = console"), "log_type = file")
	refused("missing.conf", "missing.conf")
	ln, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", d.metrics))
	if err != nil {
		t.Fatal(err)
	}
	refused("pgmoneta.conf", "address already in use")
	if err := ln.Close(); err != nil {
		t.Fatal(err)
	}

	out, code := d.detached(t, "pgmoneta.conf")
	t.Cleanup(func() { d.cli(t, "shutdown") })
	if code != 0 || out != "" {
		t.Fatalf("exit %d:\n%s", code, out)
	}
	d.must(t, "ping") // at once
	refused("pgmoneta.conf", "another daemon uses base_dir")
	d.waitStreaming(t, "primary")
	d.must(t, "backup", "primary")
	worker := d.worker(t, "primary")
	d.must(t, "shutdown")
	waitFor(t, 20*time.Second, "the end of the daemon", func() error {
		if _, code := d.cli(t, "ping"); code == 0 || alive(worker) {
			return errors.New("it runs")
		}
		return nil
	})
}
