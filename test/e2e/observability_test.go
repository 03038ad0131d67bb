//go:build observability

package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/pgmoneta/pgmoneta-go/test/pgtest"
)

// TestObservability checks the rules with promtool, lets Prometheus scrape a daemon and load the rules, stops its WAL
// worker, and waits until Alertmanager has told a webhook of the alert, and of its end.
func TestObservability(t *testing.T) {
	dir := t.TempDir()
	program := monitoring(t)
	rules := filepath.Join(dir, "pgmoneta.rules.yml")
	place(t, "../../doc/etc/pgmoneta.rules.yml", rules, nil)
	place(t, "testdata/rules_test.yml", filepath.Join(dir, "rules_test.yml"), nil)
	check(t, program["promtool"], "check", "rules", rules)
	check(t, program["promtool"], "test", "rules", filepath.Join(dir, "rules_test.yml"))
	fleet, err := os.Open("../../internal/metrics/testdata/fleet.txt")
	if err != nil {
		t.Fatal(err)
	}
	defer fleet.Close()
	lintPage(t, program["promtool"], fleet)
	// From here on nobody waits for two minutes to be sure.
	place(t, rules, rules, strings.NewReplacer("for: 2m", "for: 3s"))

	d := newDaemon(t, map[string]*pgtest.Server{"primary": pgtest.Start(t, pgtest.Options{})})
	d.waitStreaming(t, "primary")
	d.must(t, "backup", "primary")
	lint(t, program["promtool"], d.metrics)

	told := &sink{}
	hook := httptest.NewServer(told)
	t.Cleanup(hook.Close)
	alerts, prometheus := freePort(t), freePort(t)
	write(t, filepath.Join(dir, "alertmanager.yml"), fmt.Sprintf(`
route: {receiver: hook, group_by: [alertname], group_wait: 0s, group_interval: 1s, repeat_interval: 1h}
receivers: [{name: hook, webhook_configs: [{url: %q, send_resolved: true}]}]
`, hook.URL))
	write(t, filepath.Join(dir, "prometheus.yml"), fmt.Sprintf(`
global: {scrape_interval: 1s, evaluation_interval: 1s}
rule_files: [pgmoneta.rules.yml]
alerting: {alertmanagers: [{static_configs: [{targets: ["127.0.0.1:%d"]}]}]}
scrape_configs: [{job_name: pgmoneta, static_configs: [{targets: ["127.0.0.1:%d"]}]}]
`, alerts, d.metrics))
	for _, name := range []string{"default.tmpl", "email.tmpl"} {
		place(t, filepath.Join(program["templates"], name), filepath.Join(dir, name), nil)
	}
	run(t, dir, program["prometheus-alertmanager"], "--config.file=alertmanager.yml", "--storage.path=alerts", "--cluster.listen-address=", fmt.Sprintf("--web.listen-address=127.0.0.1:%d", alerts))
	run(t, dir, program["prometheus"], "--config.file=prometheus.yml", "--storage.tsdb.path=data", fmt.Sprintf("--web.listen-address=127.0.0.1:%d", prometheus))

	waitFor(t, time.Minute, "help and type of every family", func() error { return metadata(prometheus) })

	worker := d.worker(t, "primary")
	began := time.Now()
	if err := syscall.Kill(worker, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Kill(worker, syscall.SIGCONT) })
	waitFor(t, 2*time.Minute, "the alert at the webhook", func() error { return told.heard("PgmonetaWALWorkerDown", "firing") })
	t.Logf("told of the WAL worker that was stopped after %s", time.Since(began).Round(time.Second))
	began = time.Now()
	if err := syscall.Kill(worker, syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	waitFor(t, 2*time.Minute, "its end at the webhook", func() error { return told.heard("PgmonetaWALWorkerDown", "resolved") })
	t.Logf("told of the end after %s", time.Since(began).Round(time.Second))
	if err := told.heard("PgmonetaDown", "firing"); err == nil {
		t.Error("the daemon was reported as down")
	}
}

// monitoring returns the paths of the programs, by name.
func monitoring(t *testing.T) map[string]string {
	t.Helper()
	out, err := exec.Command("../install/prometheus.sh").Output()
	if err != nil {
		t.Fatalf("prometheus.sh: %v", err)
	}
	paths := map[string]string{}
	for line := range strings.Lines(string(out)) {
		if name, path, ok := strings.Cut(strings.TrimSpace(line), " "); ok {
			paths[name] = path
		}
	}
	return paths
}

// place copies a file, changed on the way.
func place(t *testing.T, from, to string, change *strings.Replacer) {
	t.Helper()
	b, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	text := string(b)
	if change != nil {
		text = change.Replace(text)
	}
	write(t, to, text)
}

func write(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// check runs a program that has to succeed.
func check(t *testing.T, name string, args ...string) {
	t.Helper()
	cmd := exec.Command(name, args...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("%s: %v\n%s", cmd, err, out)
	}
}

// lint gives the page to promtool. It must find nothing in our own set; that of 0.22 breaks the conventions.
func lint(t *testing.T, promtool string, port int) {
	t.Helper()
	resp, err := http.Get(fmt.Sprintf("http://127.0.0.1:%d/metrics", port))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	lintPage(t, promtool, resp.Body)
}

func lintPage(t *testing.T, promtool string, page io.Reader) {
	t.Helper()
	cmd := exec.Command(promtool, "check", "metrics")
	cmd.Stdin = page
	out, err := cmd.CombinedOutput()
	if exit := (*exec.ExitError)(nil); err != nil && (!errors.As(err, &exit) || exit.ExitCode() != 3) { // 3: the conventions
		t.Errorf("promtool: %v\n%s", err, out)
	}
	for line := range strings.Lines(string(out)) {
		name, _, _ := strings.Cut(line, " ")
		if f, ok := families(t)[name]; !ok || !f.Compat {
			t.Errorf("promtool: %s", line)
		}
	}
}

// A family is one of doc/metrics.json.
type family struct {
	Name, Type, Help string
	Compat           bool
}

func families(t *testing.T) map[string]family {
	t.Helper()
	list, err := readFamilies()
	if err != nil {
		t.Fatal(err)
	}
	return list
}

func readFamilies() (map[string]family, error) {
	b, err := os.ReadFile("../../doc/metrics.json")
	if err != nil {
		return nil, err
	}
	var list []family
	if err := json.Unmarshal(b, &list); err != nil {
		return nil, err
	}
	byName := map[string]family{}
	for _, f := range list {
		byName[f.Name] = f
	}
	return byName, nil
}

// metadata compares what Prometheus knows with the list of families.
func metadata(port int) error {
	want, err := readFamilies()
	if err != nil {
		return err
	}
	resp, err := http.Get(fmt.Sprintf("http://127.0.0.1:%d/api/v1/metadata", port))
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	var got struct {
		Data map[string][]struct{ Type, Help string }
	}
	if err := json.NewDecoder(resp.Body).Decode(&got); err != nil {
		return err
	}
	for name, f := range want {
		have, ok := got.Data[name]
		if !ok { // in OpenMetrics the suffix belongs to the sample
			have = got.Data[strings.TrimSuffix(name, "_total")]
		}
		if len(have) != 1 || have[0].Type != f.Type || have[0].Help != f.Help {
			return fmt.Errorf("%s: Prometheus has %v", name, have)
		}
	}
	return nil
}

// run starts a program that runs until the test ends.
func run(t *testing.T, dir, name string, args ...string) {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Dir = dir
	log, err := os.Create(filepath.Join(dir, filepath.Base(name)+".log"))
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		_ = log.Close()
		if t.Failed() {
			b, _ := os.ReadFile(log.Name())
			t.Logf("%s:\n%s", name, tail(b, 4000))
		}
	})
}

// A sink is the webhook.
type sink struct {
	mu     sync.Mutex
	states map[string]string // the server, by alert and state
}

func (s *sink) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var message struct {
		Alerts []struct {
			Status string
			Labels map[string]string
		}
	}
	if err := json.NewDecoder(r.Body).Decode(&message); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.states == nil {
		s.states = map[string]string{}
	}
	for _, a := range message.Alerts {
		s.states[a.Labels["alertname"]+" "+a.Status] = a.Labels["server"]
	}
}

// heard reports whether an alert arrived in a state.
func (s *sink) heard(alert, state string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if server, ok := s.states[alert+" "+state]; !ok {
		return fmt.Errorf("only %v arrived", s.states)
	} else if server != "primary" {
		return fmt.Errorf("it is about %q", server)
	}
	return nil
}
