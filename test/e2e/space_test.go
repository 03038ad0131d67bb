package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/pgmoneta/pgmoneta-go/test/pgtest"
)

// TestUsageIsFoundOutByItself compares what status and metrics tell of the space of a
// server with "repo stats".
func TestUsageIsFoundOutByItself(t *testing.T) {
	t.Parallel()
	s := pgtest.Start(t, pgtest.Options{})
	d := newDaemon(t, map[string]*pgtest.Server{"primary": s})
	d.waitStreaming(t, "primary")
	d.must(t, "backup", "primary")
	d.must(t, "backup", "primary")
	var usage map[string]any
	waitFor(t, 60*time.Second, "the usage of two backups", func() error {
		usage = d.status(t, "primary")["Usage"].(map[string]any)
		if shared, _ := usage["SharedSize"].(float64); shared == 0 || usage["UsedSize"] == 0.0 {
			return fmt.Errorf("usage: %v", usage)
		}
		return nil
	})
	stats := d.must(t, "repo", "stats", "primary")
	page := d.page(t)
	for member, metric := range map[string]string{"LogicalSize": "logical", "StoredSize": "stored", "SharedSize": "shared", "DeadSize": "dead"} {
		if usage[member] != stats[member] {
			t.Errorf("%s: status says %v, repo stats %v", member, usage[member], stats[member])
		}
		if want := fmt.Sprintf("\npgmoneta_server_%s_bytes{server=\"primary\"} %.0f\n", metric, stats[member]); !strings.Contains(page, want) {
			t.Errorf("the metrics lack %q", want)
		}
	}
	for _, row := range d.must(t, "jobs", "--all")["Jobs"].([]any) {
		if kind := row.(map[string]any)["Kind"]; kind == "usage" || kind == "retentionplan" {
			t.Errorf("the history of jobs has a %v", kind)
		}
	}
	if got := d.must(t, "status", "details"); got["SpaceForecast"] != "not known yet" {
		t.Errorf("forecast of a new daemon: %v", got["SpaceForecast"])
	}
}
