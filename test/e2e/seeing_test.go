package e2e

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/pgmoneta/pgmoneta-go/test/pgtest"
)

// sample returns the value of a series on a page.
func sample(page, series string) (float64, error) {
	for line := range strings.Lines(page) {
		if value, ok := strings.CutPrefix(line, series+" "); ok {
			return strconv.ParseFloat(strings.TrimSpace(value), 64)
		}
	}
	return 0, fmt.Errorf("the page lacks %s", series)
}

func (d *daemon) page(t *testing.T) string {
	t.Helper()
	resp, err := http.Get(fmt.Sprintf("http://127.0.0.1:%d/metrics", d.metrics))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// TestWhatIsSeenOfABackup holds what metrics and log tell about a server, its WAL and a backup.
func TestWhatIsSeenOfABackup(t *testing.T) {
	t.Parallel()
	settings, summarize := map[string]string{}, 0.0
	if pgtest.Newest(t) >= 17 {
		settings["summarize_wal"], summarize = "on", 1
	}
	s := pgtest.Start(t, pgtest.Options{Settings: settings})
	d := newDaemon(t, map[string]*pgtest.Server{"primary": s})
	d.waitStreaming(t, "primary")
	if _, err := sample(d.page(t), `pgmoneta_recovery_window_start_timestamp_seconds{server="primary"}`); err == nil {
		t.Error("there is a time to restore without a backup")
	}
	d.must(t, "backup", "primary")
	s.Exec(t, "CREATE TABLE t AS SELECT generate_series(1, 1000)")
	within := map[string][2]float64{
		`pgmoneta_rpo_seconds{server="primary"}`:                                            {0, 10},
		`pgmoneta_backup_age_seconds{server="primary"}`:                                     {0, 60},
		`pgmoneta_wal_flush_duration_seconds_count{server="primary"}`:                       {1, 1e6},
		`pgmoneta_wal_flush_duration_seconds_bucket{server="primary",le="+Inf"}`:            {1, 1e6},
		`pgmoneta_jobs_total{server="primary",job="backup",outcome="success"}`:              {1, 1},
		`pgmoneta_server_operation_count{name="primary"}`:                                   {1, 1e3},
		`pgmoneta_backup_valid{name="primary"}`:                                             {1, 1},
		`pgmoneta_catalog_readable{server="primary"}`:                                       {1, 1},
		`pgmoneta_wal_receiver_up{server="primary"}`:                                        {1, 1},
		`pgmoneta_server_summarize_wal{name="primary"}`:                                     {summarize, summarize},
		`pgmoneta_storage_requests_total{engine="local",operation="commit"}`:                {2, 1e6},
		`pgmoneta_storage_request_duration_seconds_count{engine="local",operation="write"}`: {2, 1e6},
		`pgmoneta_storage_request_errors_total{engine="local",operation="open"}`:            {0, 0},
		`pgmoneta_used_space`:            {1, 1e12},
		`pgmoneta_repository_free_bytes`: {1, 1e18},
		`pgmoneta_recovery_window_end_timestamp_seconds{server="primary"}`:                        {float64(time.Now().Unix() - 60), float64(time.Now().Unix() + 60)},
		`pgmoneta_progress_elapsed_time{name="primary",workflow="Backup",phase="Unknown"}`:        {0, 0},
		`pgmoneta_server_timeline_switchpos{name="primary",tli="1",walpos="0/0"}`:                 {1, 1},
		`pgmoneta_config_last_reload_success`:                                                     {1, 1},
		`pgmoneta_wal_slot_state{server="primary",slot="pgmoneta_primary",state="reserved"}`:      {1, 1},
		`pgmoneta_server_extension{name="primary",extension="none",version="",comment=""}`:        {0, 0},
		`pgmoneta_backup_compression_zstd_elapsed_time{name="primary",label="` + d.only(t) + `"}`: {0, 0},
	}
	waitFor(t, 30*time.Second, "the numbers", func() error {
		page := d.page(t)
		for series, limits := range within {
			got, err := sample(page, series)
			if err == nil && (got < limits[0] || got > limits[1]) {
				err = fmt.Errorf("%s is %g, want %g to %g", series, got, limits[0], limits[1])
			}
			if err != nil {
				return err
			}
		}
		return nil
	})

	log, err := os.ReadFile(d.path("log"))
	if err != nil {
		t.Fatal(err)
	}
	line := regexp.MustCompile(`^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d (TRACE|DEBUG|INFO |WARN |ERROR|FATAL) \w+\.go:\d+ .*\n$`)
	for text := range bytes.Lines(log) {
		if !line.Match(text) {
			t.Errorf("the log has the line %q", text)
		}
	}
	if !regexp.MustCompile(`(?m) job done server=primary run=1 request=\d+ job=backup `).Match(log) {
		t.Errorf("the line about the backup lacks its numbers:\n%s", log)
	}
	if bytes.Contains(log, []byte(pgtest.ReplPassword)) {
		t.Error("the log has the password")
	}
}

// only returns the label of the only backup of the server "primary".
func (d *daemon) only(t *testing.T) string {
	t.Helper()
	resp := d.must(t, "list-backup", "primary")
	list, _ := resp["Backups"].([]any)
	if len(list) != 1 {
		t.Fatalf("%d backups are listed: %v", len(list), resp)
	}
	return fmt.Sprint(list[0].(map[string]any)["Backup"])
}
