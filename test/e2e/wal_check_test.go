package e2e

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pgmoneta/pgmoneta-go/internal/durable"
	"github.com/pgmoneta/pgmoneta-go/internal/pg"
	"github.com/pgmoneta/pgmoneta-go/test/pgtest"
)

// stored waits until a segment is in the repository and returns its file.
func (d *daemon) stored(t *testing.T, server, segment string) string {
	t.Helper()
	path := filepath.Join(d.path("base"), server, "wal", segment[:8], segment)
	waitFor(t, 30*time.Second, "segment "+segment, func() error {
		_, err := os.Stat(path)
		return err
	})
	return path
}

// found runs a check that must find something and returns its response.
func (d *daemon) found(t *testing.T, args ...string) map[string]any {
	t.Helper()
	out, code := d.cli(t, append([]string{"-F", "json", "wal", "check"}, args...)...)
	var doc struct {
		Outcome  struct{ Error int }
		Response map[string]any
	}
	if err := json.Unmarshal([]byte(out), &doc); err != nil || code != 2 || doc.Outcome.Error != 4002 {
		t.Fatalf("wal check %s exits with %d, %v; want 2 and error 4002:\n%s", strings.Join(args, " "), code, err, out)
	}
	return doc.Response
}

func number(t *testing.T, resp map[string]any, key string, want int) {
	t.Helper()
	if got, _ := resp[key].(float64); int(got) != want {
		t.Errorf("%s is %v, want %d", key, resp[key], want)
	}
}

func TestWALCheckPassesAfterPromotion(t *testing.T) {
	t.Parallel()
	pgtest.ForEach(t, func(t *testing.T, major int) {
		t.Parallel()
		primary := pgtest.Start(t, pgtest.Options{Major: major, WALSegmentSize: 1, Settings: map[string]string{"wal_keep_size": "256MB"}})
		standby := primary.Standby(t, "standby")
		d := newDaemon(t, map[string]*pgtest.Server{"cluster": standby})
		d.waitStreaming(t, "cluster")
		load := pgtest.StartLoad(t, primary, 2)
		load.WaitFor(t, 200)
		d.stored(t, "cluster", primary.SwitchWAL(t))
		primary.Stop(t, pgtest.Fast)
		standby.Promote(t)
		load.Redirect(standby)
		load.WaitFor(t, 400)
		d.stored(t, "cluster", standby.SwitchWAL(t))
		d.must(t, "wal", "check", "cluster", "--quick") // while WAL arrives
		load.Stop()

		// A job that holds the repository does not stand in the way.
		lock, err := durable.TryLock(filepath.Join(d.path("base"), "cluster", "lock"))
		if err != nil {
			t.Fatal(err)
		}
		defer lock.Release()
		resp := d.must(t, "wal", "check", "cluster")
		timelines := map[any]bool{}
		for _, r := range resp["Ranges"].([]any) {
			timelines[r.(map[string]any)["Timeline"]] = true
		}
		if resp["Mode"] != "deep" || resp["ReadSize"].(float64) < 3<<20 || len(timelines) != 2 {
			t.Errorf("wal check answers %v", resp)
		}
		number(t, resp, "NumberOfHistories", 1)
		number(t, resp, "NumberOfHoles", 0)
		if out, code := d.cli(t, "wal", "check", "--offline", "cluster"); code != 0 || !strings.Contains(out, "NumberOfFindings: 0") {
			t.Errorf("offline: exit %d\n%s", code, out)
		}
	})
}

func TestWALCheckFindsAndRecordsAHole(t *testing.T) {
	t.Parallel()
	pgtest.ForEach(t, func(t *testing.T, major int) {
		t.Parallel()
		s := pgtest.Start(t, pgtest.Options{Major: major, WALSegmentSize: 1})
		d := newDaemon(t, map[string]*pgtest.Server{"primary": s}, "on_gap = continue")
		d.waitStreaming(t, "primary")
		s.Exec(t, "CREATE TABLE marks (n int)")
		d.must(t, "backup", "primary")
		s.Exec(t, "INSERT INTO marks VALUES (1)")
		before := s.QueryString(t, "SELECT pg_current_wal_insert_lsn()")
		s.SwitchWAL(t)
		s.Exec(t, "INSERT INTO marks VALUES (2)")
		lost := s.SwitchWAL(t)
		s.Exec(t, "INSERT INTO marks VALUES (3)")
		d.stored(t, "primary", s.SwitchWAL(t))
		d.must(t, "wal", "check", "primary")

		path := d.stored(t, "primary", lost)
		aside := d.path("aside")
		if err := os.Rename(path, aside); err != nil {
			t.Fatal(err)
		}
		_, from, err := pg.ParseSegmentName(lost, 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		span := fmt.Sprintf("timeline 1 from %s to %s", from, from+1<<20)
		d.holeShows(t, lost, span)
		d.holeStopsRestores(t, major, span, before)

		// What is put back is believed only after it was read.
		if err := os.Rename(aside, path); err != nil {
			t.Fatal(err)
		}
		d.found(t, "primary", "--quick")
		number(t, d.must(t, "wal", "check", "primary"), "FilledHoles", 1)
		d.must(t, "wal", "check", "primary", "--quick")
		number(t, d.status(t, "primary"), "Holes", 0)
		if got := marks(t, d.restored(t, major, "primary", "latest")); got != "1 2 3" {
			t.Errorf("marks after a restore over the range that is back: %q", got)
		}

		// One flipped byte leaves no gap to be seen, only its record.
		content, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		content[64] ^= 1 // the first byte of the first frame
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		d.must(t, "wal", "check", "primary", "--quick")
		finding := d.found(t, "primary")["Findings"].([]any)[0].(map[string]any)
		if finding["Kind"] != "damaged" || finding["Segment"] != lost || finding["Recorded"] != true {
			t.Errorf("finding %v", finding)
		}
		d.holeStopsRestores(t, major, span, before)
	})
}

// holeShows checks everything that tells of a hole.
func (d *daemon) holeShows(t *testing.T, segment, span string) {
	t.Helper()
	resp := d.found(t, "primary", "--offline")
	number(t, resp, "NumberOfHoles", 0) // it changes nothing
	number(t, resp, "NumberOfFindings", 1)
	resp = d.found(t, "primary", "--quick")
	number(t, resp, "NumberOfFindings", 1)
	number(t, resp, "RecordedHoles", 1)
	finding := resp["Findings"].([]any)[0].(map[string]any)
	if got := fmt.Sprintf("timeline %v from %v to %v", finding["Timeline"], finding["From"], finding["To"]); got != span ||
		finding["Kind"] != "missing" || finding["Segment"] != segment || finding["Recorded"] != true {
		t.Errorf("finding %v, want %s in %s", finding, span, segment)
	}
	number(t, d.found(t, "primary"), "RecordedHoles", 0) // it is recorded already
	out, code := d.cli(t, "wal", "check", "primary")
	if code != 2 || !strings.Contains(out, span) || !strings.Contains(out, "Error: 4002") {
		t.Errorf("wal check: exit %d, want 2 and %q\n%s", code, span, out)
	}
	objects, err := filepath.Glob(filepath.Join(d.path("base"), "primary", "hole", "00000001", "*"))
	if err != nil || len(objects) != 1 {
		t.Errorf("hole objects: %v, %v", objects, err)
	}
	status := d.status(t, "primary")
	number(t, status, "Holes", 1)
	if first, _ := status["FirstHole"].(string); !strings.HasPrefix(first, span+": segment missing") {
		t.Errorf("FirstHole is %v", status["FirstHole"])
	}
	page := d.scrape(t)
	if !strings.Contains(page, `pgmoneta_wal_gaps{server="primary"} 1`) || !strings.Contains(page, `pgmoneta_wal_gap_bytes{server="primary"} 1048576`) {
		t.Errorf("metrics do not show the hole:\n%s", page)
	}
}

// scrape returns the metrics page.
func (d *daemon) scrape(t *testing.T) string {
	t.Helper()
	resp, err := http.Get(fmt.Sprintf("http://127.0.0.1:%d/metrics", d.metrics))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	page, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(page)
}

// holeStopsRestores checks that a restore to behind the hole is refused and that
// one to before it works.
func (d *daemon) holeStopsRestores(t *testing.T, major int, span, before string) {
	t.Helper()
	out, code := d.cli(t, "restore", "primary", "newest", "latest", t.TempDir())
	if code != 2 || !strings.Contains(out, "hole in WAL: "+span) {
		t.Errorf("restore over the hole: exit %d, want 2 and %q\n%s", code, span, out)
	}
	if got := marks(t, d.restored(t, major, "primary", "lsn="+before+",action=promote")); got != "1" {
		t.Errorf("marks after a restore to before the hole: %q", got)
	}
}

func marks(t *testing.T, s *pgtest.Server) string {
	t.Helper()
	return s.QueryString(t, "SELECT string_agg(n::text, ' ' ORDER BY n) FROM marks")
}
