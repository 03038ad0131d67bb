package e2e

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/pgmoneta/pgmoneta-go/internal/durable"
	"github.com/pgmoneta/pgmoneta-go/internal/repo"
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

// TestPacksThatAreMostlyDeadAreWrittenAgainLater deletes a backup behind the back of the daemon, which leaves
// what a deletion with too small a budget leaves, and waits for the daemon to find it.
func TestPacksThatAreMostlyDeadAreWrittenAgainLater(t *testing.T) {
	t.Parallel()
	s := pgtest.Start(t, pgtest.Options{})
	s.Exec(t, "CREATE TABLE big AS SELECT i, repeat(md5(i::text), 20) AS filler FROM generate_series(1, 60000) AS i")
	d := newDaemon(t, map[string]*pgtest.Server{"primary": s})
	d.waitStreaming(t, "primary")
	first := d.must(t, "backup", "primary")["Backup"].(string)
	s.Exec(t, "UPDATE big SET filler = repeat(md5(filler), 20)")
	s.Exec(t, "VACUUM FULL big")
	d.must(t, "backup", "primary")
	d.end()
	r, err := repo.Open(durable.OS{}, d.path("base"), "primary")
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Delete(context.Background(), repo.Label(first)); err != nil {
		t.Fatal(err)
	}
	d.start(t)
	waitFor(t, 60*time.Second, "the job that compacts", func() error {
		for _, row := range d.must(t, "jobs", "--all")["Jobs"].([]any) {
			if job := row.(map[string]any); job["Kind"] == "compact" && job["State"] == "done" {
				return nil
			}
		}
		return errors.New("no job did it")
	})
	if stats := d.must(t, "repo", "stats", "primary"); stats["DeadSize"] != 0.0 {
		t.Errorf("what is dead is still there: %v", stats)
	}
	d.must(t, "repo", "check", "primary")
	d.must(t, "verify", "primary", "newest", "all")
}
