package metrics

import (
	"os"
	"regexp"
	"strings"
	"testing"
)

// TestRulesNameWhatThereIs holds every file that asks for metrics to the names, and the runbooks to the alerts.
func TestRulesNameWhatThereIs(t *testing.T) {
	t.Parallel()
	known := map[string]bool{}
	for _, f := range Families() {
		known[f.Name] = true
		if f.Type == string(histogramKind) {
			known[f.Name+"_bucket"], known[f.Name+"_sum"], known[f.Name+"_count"] = true, true, true
		}
	}
	manual := read(t, "../../doc/MANUAL.md")
	name := regexp.MustCompile(`\bpgmoneta_[a-z0-9_]+\b`)
	for _, file := range []string{"../../doc/etc/pgmoneta.rules.yml", "../../test/e2e/testdata/rules_test.yml"} {
		for i, line := range strings.Split(read(t, file), "\n") {
			if trimmed := strings.TrimSpace(line); strings.HasPrefix(trimmed, "#") {
				continue
			}
			for _, n := range name.FindAllString(line, -1) {
				if !known[n] {
					t.Errorf("%s:%d: %s is no metric", file, i+1, n)
				}
			}
		}
	}
	alerts := regexp.MustCompile(`(?m)^ *- alert: (\w+)$`).FindAllStringSubmatch(read(t, "../../doc/etc/pgmoneta.rules.yml"), -1)
	if len(alerts) < 10 {
		t.Errorf("%d alerts", len(alerts))
	}
	for _, a := range alerts {
		if !strings.Contains(manual, "#### "+a[1]+"\n") {
			t.Errorf("the manual has no section about the alert %s", a[1])
		}
	}
}

func read(t *testing.T, file string) string {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
