package e2e

import (
	"fmt"
	"net/http"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/pgmoneta/pgmoneta-go/test/pgtest"
)

func TestKilledWorkerIsReplacedWithinTwoSeconds(t *testing.T) {
	t.Parallel()
	a, b := pgtest.Start(t, pgtest.Options{}), pgtest.Start(t, pgtest.Options{})
	d := newDaemon(t, map[string]*pgtest.Server{"a": a, "b": b})
	d.waitStreaming(t, "a")
	d.waitStreaming(t, "b")
	first, other := d.worker(t, "a"), d.worker(t, "b")
	title, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", first))
	if err != nil || strings.TrimRight(string(title), "\x00") != "pgmoneta: wal a" {
		t.Errorf("process title %q, %v", title, err)
	}
	if err := syscall.Kill(first, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	killed := time.Now()
	waitFor(t, 10*time.Second, "a new worker", func() error {
		if pid := d.worker(t, "a"); pid == 0 || pid == first || d.status(t, "a")["WalStreaming"] != true {
			return fmt.Errorf("worker %d", pid)
		}
		return nil
	})
	if took := time.Since(killed); took > 2*time.Second {
		t.Errorf("the worker was replaced after %s", took)
	}
	if d.worker(t, "b") != other {
		t.Error("the worker of the other server was touched")
	}
}

func TestKilledSupervisorLeavesNoOrphanAndStartsAgain(t *testing.T) {
	t.Parallel()
	s := pgtest.Start(t, pgtest.Options{})
	d := newDaemon(t, map[string]*pgtest.Server{"primary": s})
	d.waitStreaming(t, "primary")
	worker := d.worker(t, "primary")
	d.kill()
	waitFor(t, time.Second, "the worker to end", func() error {
		if alive(worker) {
			return fmt.Errorf("process %d lives", worker)
		}
		return nil
	})
	d.start(t) // over the stale socket and pid file
	d.waitStreaming(t, "primary")
}

func TestShutdownIsOrderly(t *testing.T) {
	t.Parallel()
	s := pgtest.Start(t, pgtest.Options{})
	d := newDaemon(t, map[string]*pgtest.Server{"primary": s})
	d.waitStreaming(t, "primary")
	worker := d.worker(t, "primary")
	if out, code := d.cli(t, "shutdown"); code != 0 {
		t.Fatalf("shutdown: %d\n%s", code, out)
	}
	select {
	case <-d.exited:
	case <-time.After(10 * time.Second):
		t.Fatal("the daemon did not end")
	}
	if code := d.cmd.ProcessState.ExitCode(); code != 0 || alive(worker) {
		t.Errorf("exit code %d, worker alive: %v", code, alive(worker))
	}
	for _, left := range []string{".s.pgmoneta", "pgmoneta.127.0.0.1.pid"} {
		if _, err := os.Stat(d.path(left)); !os.IsNotExist(err) {
			t.Errorf("%s is left behind", left)
		}
	}
}

func TestSecondDaemonOnTheSameRepositoryIsRefused(t *testing.T) {
	t.Parallel()
	s := pgtest.Start(t, pgtest.Options{})
	d := newDaemon(t, map[string]*pgtest.Server{"primary": s})
	out, err := d.command(t, "pgmoneta.conf").CombinedOutput()
	if err == nil || !strings.Contains(string(out), fmt.Sprint(d.pid())) {
		t.Errorf("the second daemon: %v, %s; want an error with the holder's pid %d", err, out, d.pid())
	}
}

func TestServerRestartNeedsNoHelp(t *testing.T) {
	t.Parallel()
	s := pgtest.Start(t, pgtest.Options{})
	d := newDaemon(t, map[string]*pgtest.Server{"primary": s})
	d.waitStreaming(t, "primary")
	s.Kill(t)
	waitFor(t, 20*time.Second, "the loss to show", func() error {
		if d.status(t, "primary")["WalStreaming"] != false {
			return fmt.Errorf("still streaming")
		}
		return nil
	})
	if out, code := d.cli(t, "backup", "primary"); code != 2 || !strings.Contains(out, "101") {
		t.Errorf("backup without WAL: exit %d\n%s", code, out)
	}
	s.Restart(t)
	d.waitStreaming(t, "primary")
	d.must(t, "backup", "primary")
}

func TestFailuresTellByExitCode(t *testing.T) {
	t.Parallel()
	s := pgtest.Start(t, pgtest.Options{})
	d := newDaemon(t, map[string]*pgtest.Server{"primary": s})
	d.waitStreaming(t, "primary")
	for args, want := range map[string]string{
		"backup nosuch":                       "Error: 111",
		"list-backup nosuch":                  "Error: 304",
		"info primary newest":                 "Error: 2200",
		"info primary 20200101000000":         "Error: 2200",
		"restore primary newest /tmp/nowhere": "Error: 600",
		"delete primary oldest":               "Error: 50",
		"verify primary newest /tmp":          "Error: 80",
		"backup primary newest":               "Error: 103",
	} {
		if out, code := d.cli(t, strings.Fields(args)...); code != 2 || !strings.Contains(out, want) {
			t.Errorf("%s: exit %d, want 2 and %q\n%s", args, code, want, out)
		}
	}
}

func TestMetricsUnderManyScrapes(t *testing.T) {
	t.Parallel()
	s := pgtest.Start(t, pgtest.Options{})
	d := newDaemon(t, map[string]*pgtest.Server{"primary": s})
	d.waitStreaming(t, "primary")
	load := pgtest.StartLoad(t, s, 2)
	url := fmt.Sprintf("http://127.0.0.1:%d/metrics", d.metrics)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 50 {
				resp, err := http.Get(url)
				if err != nil {
					t.Error(err)
					return
				}
				if resp.StatusCode != http.StatusOK || len(resp.TransferEncoding) == 0 {
					t.Errorf("status %s, transfer encoding %v", resp.Status, resp.TransferEncoding)
				}
				_ = resp.Body.Close()
			}
		})
	}
	wg.Wait()
	load.Stop()
	resp, err := http.Get(strings.TrimSuffix(url, "metrics") + "else")
	if err != nil || resp.StatusCode != http.StatusForbidden {
		t.Errorf("another path: %v, %v", resp, err)
	}
}

// What a setting does is seen without a restart, what needs one says so, and what
// makes no sense changes nothing.
func TestSettingsOfARunningDaemon(t *testing.T) {
	t.Parallel()
	d := newDaemon(t, map[string]*pgtest.Server{"primary": pgtest.Start(t, pgtest.Options{})}, "s3_secret_access_key = hush")
	all := d.must(t, "conf", "get")
	if s := fmt.Sprint(all["compression"]); !strings.Contains(s, "string_value:zstd") || !strings.Contains(s, "value:18") {
		t.Errorf("compression is %v", s)
	}
	if all["workers"] != float64(0) || all["base_dir"] != d.path("base") || all["s3_secret_access_key"] != "***" {
		t.Errorf("settings: %v", all)
	}
	if s := all["server"].(map[string]any)["primary"].(map[string]any); s["user"] != pgtest.ReplUser || s["wal_slot"] != "pgmoneta_primary" {
		t.Errorf("settings of the server: %v", s)
	}
	if out, code := d.cli(t, "conf", "get", "server.primary.max_rate"); code != 0 || strings.TrimSpace(out) != "-1" {
		t.Errorf("one setting: exit %d: %s", code, out)
	}

	port := freePort(t)
	if out, code := d.cli(t, "conf", "set", "metrics", fmt.Sprint(port)); code != 0 || !strings.Contains(out, "applied successfully") {
		t.Errorf("exit %d: %s", code, out)
	}
	d.metrics = port
	if page := d.scrape(t); !strings.Contains(page, "pgmoneta_state 1") {
		t.Errorf("metrics on the new port: %.200s", page)
	}
	if out, code := d.cli(t, "-F", "json", "conf", "set", "server.primary.max_rate", "1000"); code != 0 || !strings.Contains(out, `"old_value": "-1"`) || !strings.Contains(out, `"new_value": "1000"`) {
		t.Errorf("exit %d: %s", code, out)
	}
	if out, code := d.cli(t, "conf", "set", "log_type", "console"); code != 0 || !strings.Contains(out, "requires manual restart") {
		t.Errorf("exit %d: %s", code, out)
	}
	for _, bad := range [][2]string{{"nosuch", "1"}, {"server.nowhere.workers", "1"}, {"workers", "many"}, {"a.b.c.d", "1"}, {"base_dir", "/x"}} {
		if out, code := d.cli(t, "-F", "json", "conf", "set", bad[0], bad[1]); code != 2 || !strings.Contains(out, "2707") {
			t.Errorf("%v: exit %d: %s", bad, code, out)
		}
	}
	d.must(t, "conf", "reload") // the file's values are back
	if got := d.must(t, "conf", "get")["server"].(map[string]any)["primary"].(map[string]any)["max_rate"]; got != float64(-1) {
		t.Errorf("max_rate is %v after the reload", got)
	}
}
