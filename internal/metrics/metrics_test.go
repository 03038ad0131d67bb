package metrics

import (
	"bufio"
	"bytes"
	"context"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
)

var update = flag.Bool("update", false, "rewrite the golden files")

type fixed struct{ s Snapshot }

func (f fixed) Snapshot() Snapshot { return f.s }

func example() Snapshot {
	return Snapshot{
		Version: "0.22.0",
		Now:     time.Unix(1_800_000_010, 0),
		Reload:  Reload{At: time.Unix(1_799_000_000, 0), Good: true},
		Requests: []StorageRequests{{"local", "open", 1, Distribution{[]Bucket{{time.Millisecond, 5}, {0, 2}}, 3 * time.Second}},
			{Engine: "local", Operation: "sweep", Elapsed: Distribution{Buckets: []Bucket{{time.Millisecond, 0}, {0, 0}}}}},
		Certificate: []Certificate{{"metrics", time.Unix(1_830_000_000, 0)}},
		Log:         LogCounts{Info: 43, Warn: 4, Error: 13},
		Retention:   Retention{Days: 7, Weeks: -1},
		Compression: 18,
		Storage:     Storage{Used: 100585472, Free: 69432832000, Total: 270553174016, Forecast: Forecast{true, 50000, 1388656.5}},
		Servers: []Server{
			{
				Name: "west", Online: true, Primary: true, Valid: true, Checksums: true, Timeline: 2, Workers: 2,
				Retention: Retention{Days: 7, Weeks: 4, Months: 6, Years: 1},
				WAL: WAL{
					Streaming: true, Slot: "pgm", File: "000000020000000100000015.partial",
					Written: 0x1_15000060, Flushed: 0x1_15000000, Stored: 0x1_14000000, Server: 0x1_15000080,
					LagBytes: 0x80, LagSeconds: 0.25, LastReceived: time.Unix(1_800_000_000, 500_000_000),
					ReceivedBytes: 12345, Restarts: 1, Reconnects: 2, Errors: 3, Segments: 20, Bytes: 26533888,
					Gaps:    Gaps{Count: 3, Bytes: 50331392, Last: time.Unix(1_799_000_000, 0)},
					Flushes: Distribution{[]Bucket{{time.Millisecond, 5}, {2500 * time.Microsecond, 2}, {0, 1}}, 2 * time.Second}, StoreQueue: 1,
					SlotState: "extended", SlotRetained: 1 << 30,
					Shipping: true, ShipLagSegments: 2, ShipLagBytes: 32 << 20, ShipLagSeconds: 12.5,
				},
				Summarize: true, Timelines: []Timeline{{ID: 2, Parent: 1, Switch: 0x1_13000000}},
				Progress:  Progress{Workflow: "Backup", Phase: "copy", Done: 250, Total: 1000, Elapsed: 4500 * time.Millisecond},
				Operation: Operations{Succeeded: 7, Failed: 2, LastSucceeded: time.Date(2026, 11, 21, 12, 0, 0, 0, time.Local)},
				Workspace: Directory{Free: 5, Total: 9}, Shipping: Shipping{33554432, Directory{33558528, 1000, 2000}},
				Recovery:    Recovery{Start: time.Unix(1_795_000_000, 0), End: time.Unix(1_800_000_009, 750_000_000), Lost: 0x80, Known: true},
				Verified:    &Verified{At: time.Unix(1_796_500_000, 0), Files: 1000, BadFiles: 1},
				Jobs:        []Job{{"backup", false, 3, time.Unix(1_795_000_000, 0), 90 * time.Second}, {"verify", true, 1, time.Unix(1_796_500_000, 0), time.Second}},
				Running:     []string{"backup"},
				Active:      Active{Backup: true},
				BackupBytes: 34836480, TotalBytes: 61370368, UsedBytes: 61500000, Usage: &Usage{110000000, 34836480, 12000000, 1000},
				LastFull: time.Unix(1_795_000_000, 0), BackupDue: time.Unix(1_795_086_400, 0),
				Rehearsal: &Rehearsal{At: time.Unix(1_796_000_000, 0), Proven: true, Started: true, RTO: 8400 * time.Millisecond,
					Restore: 5 * time.Second, RestoreBytes: 3 << 30, Replay: 2 * time.Second, ReplayBytes: 64 << 20},
				Failures: map[string]uint64{"wal": 2, "execute": 1},
				Backups: []Backup{
					{
						Label: "20261121123716", Valid: true, Keep: true, Major: 17, Minor: 11, Elapsed: 2605300 * time.Microsecond, Base: 2 * time.Second,
						StoredBytes: 14241792, RestoreBytes: 40000000,
						StartLSN: 0x11000028, CheckpointLSN: 0x11000080, EndLSN: 0x11000120, StartTimeline: 1, EndTimeline: 1,
					},
					{Label: "20261121123744", Incremental: true, Major: 17, Minor: 11, StartTimeline: 1, EndTimeline: 1},
					{
						Label: "20261121123746", Valid: true, Incremental: true, Major: 17, Minor: 11, Elapsed: 4 * time.Second,
						StoredBytes: 14196736, RestoreBytes: 30000000,
						StartLSN: 0x1_14000028, CheckpointLSN: 0x1_14000080, EndLSN: 0x1_14000120, StartTimeline: 1, EndTimeline: 2,
					},
				},
			},
			{Name: "empty"},
		},
	}
}

func get(t *testing.T, src Source, method, target string) *http.Response {
	t.Helper()
	w := httptest.NewRecorder()
	New(src, Options{}).ServeHTTP(w, httptest.NewRequest(method, target, nil))
	return w.Result()
}

func body(t *testing.T, r *http.Response) string {
	t.Helper()
	b, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o600); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s: got\n%s\nwant\n%s", name, got, want)
	}
}

// TestFamilies holds the names, types, labels and help texts that dashboards and rules are built on.
func TestFamilies(t *testing.T) {
	t.Parallel()
	var out strings.Builder
	for _, f := range families() {
		fmt.Fprintf(&out, "%s{%s} %s: %s\n", f.name, strings.Join(f.labels, ","), f.kind, f.help)
	}
	golden(t, "families.txt", out.String())
}

// TestSamples holds every sample of our own families for one snapshot.
func TestSamples(t *testing.T) {
	t.Parallel()
	var out strings.Builder
	page := body(t, get(t, fixed{example()}, http.MethodGet, "/metrics"))
	for line := range strings.Lines(page) {
		if strings.HasPrefix(line, "pgmoneta_") && !strings.HasPrefix(line, "pgmoneta_build_info") {
			out.WriteString(line)
		}
	}
	golden(t, "samples.txt", out.String())
}

// TestCompatFamiliesMatch022 compares with the names and labels on a page of pgmoneta 0.22.
func TestCompatFamiliesMatch022(t *testing.T) {
	t.Parallel()
	f, err := os.Open("testdata/pgmoneta-0.22.txt")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	recorded := map[string]string{}
	for s := bufio.NewScanner(f); s.Scan(); {
		name, labels, _ := strings.Cut(s.Text(), " ")
		recorded[name] = labels
	}
	if len(recorded) != 100 {
		t.Errorf("%d families are recorded, want 100", len(recorded))
	}
	have := map[string]bool{}
	for _, f := range compat() {
		labels, ok := recorded[f.name]
		if !ok || labels != strings.Join(f.labels, ",") || f.kind != gaugeKind || have[f.name] {
			t.Errorf("%s %s{%s}, want a gauge with labels %q, once, known %t", f.kind, f.name, strings.Join(f.labels, ","), labels, ok)
		}
		have[f.name] = true
	}
	for name := range recorded {
		if !have[name] {
			t.Errorf("%s is missing", name)
		}
	}
	for _, f := range designed() {
		if _, ok := recorded[f.name]; ok {
			t.Errorf("%s is in both sets", f.name)
		}
	}
}

func TestDesignedFamiliesFollowTheConventions(t *testing.T) {
	t.Parallel()
	names := map[string]bool{}
	for _, f := range designed() {
		names[f.name] = true
	}
	page := body(t, get(t, fixed{example()}, http.MethodGet, "/metrics"))
	problems, err := promlint.New(strings.NewReader(page)).Lint()
	if err != nil {
		t.Fatalf("the page does not parse: %v", err)
	}
	for _, p := range problems {
		if names[p.Metric] {
			t.Errorf("%s: %s", p.Metric, p.Text)
		}
	}
}

func TestPageHasProcessAndHelp(t *testing.T) {
	t.Parallel()
	page := body(t, get(t, fixed{example()}, http.MethodGet, "/metrics"))
	for _, want := range []string{
		"# HELP pgmoneta_server_online ", "# TYPE pgmoneta_server_timeline gauge\n", "# TYPE pgmoneta_wal_received_bytes_total counter\n",
		"\ngo_goroutines ", "\nprocess_start_time_seconds ", `pgmoneta_build_info{version="`,
	} {
		if !strings.Contains(page, want) {
			t.Errorf("the page lacks %q", want)
		}
	}
}

func TestOddLabelsDoNotBreakThePage(t *testing.T) {
	t.Parallel()
	s := Snapshot{Version: "v", Servers: []Server{{Name: "a\"b\\c\nd\xffe"}, {Name: "twice"}, {Name: "twice"}}}
	resp := get(t, fixed{s}, http.MethodGet, "/metrics")
	page := body(t, resp)
	if resp.StatusCode != http.StatusOK {
		t.Fatalf("status %d: %s", resp.StatusCode, page)
	}
	if want := `pgmoneta_server_up{server="a\"b\\c\nd` + "\uFFFD" + `e"} 0`; !strings.Contains(page, want) {
		t.Errorf("the page lacks %s", want)
	}
	if _, err := promlint.New(strings.NewReader(page)).Lint(); err != nil {
		t.Errorf("the page does not parse: %v", err)
	}
}

func TestPathsAndMethods(t *testing.T) {
	t.Parallel()
	const text, html = "text/plain; version=0.0.4; charset=utf-8", "text/html; charset=utf-8"
	tests := []struct {
		method, target string
		status         int
		contentType    string
	}{
		{"GET", "/metrics", 200, text},
		{"GET", "/metrics?name=x", 200, text},
		{"HEAD", "/metrics", 200, text},
		{"GET", "/", 200, html},
		{"GET", "/index.html", 200, html},
		{"HEAD", "/", 200, html},
		{"GET", "/metrics/", 403, ""},
		{"GET", "/favicon.ico", 403, ""},
		{"GET", "/../metrics", 403, ""},
		{"HEAD", "/x", 403, ""},
		{"POST", "/metrics", 400, ""},
		{"POST", "/x", 400, ""},
		{"OPTIONS", "/", 400, ""},
	}
	for _, tt := range tests {
		t.Run(tt.method+" "+tt.target, func(t *testing.T) {
			t.Parallel()
			resp := get(t, fixed{example()}, tt.method, tt.target)
			contentType := resp.Header.Get("Content-Type")
			if resp.StatusCode != tt.status || !strings.HasPrefix(contentType, tt.contentType) {
				t.Errorf("status %d with %q, want %d with %q", resp.StatusCode, contentType, tt.status, tt.contentType)
			}
		})
	}
}

func TestOverviewListsEveryFamily(t *testing.T) {
	t.Parallel()
	page := body(t, get(t, fixed{Snapshot{}}, http.MethodGet, "/"))
	for _, f := range families() {
		if !strings.Contains(page, "<h2>"+f.name+"</h2>") {
			t.Errorf("the overview lacks %s", f.name)
		}
	}
	for _, want := range []string{"<h2>go_goroutines</h2>", "<li>walpos</li>", `href="/metrics"`} {
		if !strings.Contains(page, want) {
			t.Errorf("the overview lacks %s", want)
		}
	}
}

// serve runs Serve on a port of its own until the test ends.
func serve(t *testing.T, src Source) (addr string, cancel func()) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- Serve(ctx, ln, New(src, Options{})) }()
	cancel = sync.OnceFunc(func() {
		stop()
		if err := <-served; err != nil {
			t.Errorf("Serve = %v, want nil", err)
		}
	})
	t.Cleanup(cancel)
	return ln.Addr().String(), cancel
}

func TestFramingFollowsTheProtocolVersion(t *testing.T) {
	t.Parallel()
	addr, _ := serve(t, fixed{example()})
	for _, path := range []string{"/metrics", "/"} {
		for version, chunked := range map[string]bool{"HTTP/1.1": true, "HTTP/1.0": false} {
			conn, err := net.Dial("tcp", addr)
			if err != nil {
				t.Fatal(err)
			}
			fmt.Fprintf(conn, "GET %s %s\r\nHost: x\r\nConnection: close\r\n\r\n", path, version)
			raw, err := io.ReadAll(conn)
			_ = conn.Close()
			if err != nil {
				t.Fatal(err)
			}
			head, rest, _ := bytes.Cut(raw, []byte("\r\n\r\n"))
			if got := bytes.Contains(head, []byte("Transfer-Encoding: chunked")); got != chunked {
				t.Errorf("GET %s %s: chunked %t, want %t:\n%s", path, version, got, chunked, head)
			}
			if chunked && !bytes.HasSuffix(rest, []byte("\r\n0\r\n\r\n")) {
				t.Errorf("GET %s %s ends with %q, want the last chunk", path, version, rest[max(0, len(rest)-20):])
			}
		}
	}
}

func TestParallelScrapes(t *testing.T) {
	t.Parallel()
	addr, _ := serve(t, fixed{example()})
	client := &http.Client{Transport: &http.Transport{}}
	defer client.CloseIdleConnections()
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() {
			resp, err := client.Get("http://" + addr + "/metrics")
			if err != nil {
				t.Error(err)
				return
			}
			defer func() { _ = resp.Body.Close() }()
			if n, err := io.Copy(io.Discard, resp.Body); err != nil || n == 0 || resp.StatusCode != http.StatusOK {
				t.Errorf("scrape: status %d, %d bytes, %v", resp.StatusCode, n, err)
			}
		})
	}
	wg.Wait()
}

// gate is a source whose snapshots wait for the test.
type gate struct {
	entered, open chan struct{}
}

func (g gate) Snapshot() Snapshot {
	g.entered <- struct{}{}
	<-g.open
	return Snapshot{}
}

func TestScrapesBeyondTheLimitWaitForTheirTurn(t *testing.T) {
	t.Parallel()
	g := gate{entered: make(chan struct{}), open: make(chan struct{})}
	h := New(g, Options{})
	var wg sync.WaitGroup
	for range maxScrapes {
		wg.Go(func() { h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/metrics", nil)) })
		<-g.entered
	}

	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequestWithContext(ctx, http.MethodGet, "/metrics", nil))
	if w.Code != http.StatusServiceUnavailable {
		t.Errorf("scrape beyond the limit that gave up: status %d, want 503", w.Code)
	}
	close(g.open)
	wg.Wait()
}

func TestServeLetsARunningScrapeFinish(t *testing.T) {
	t.Parallel()
	g := gate{entered: make(chan struct{}), open: make(chan struct{})}
	addr, cancel := serve(t, g)
	status := make(chan string, 1)
	go func() {
		resp, err := http.Get("http://" + addr + "/metrics")
		if err != nil {
			status <- err.Error()
			return
		}
		_ = resp.Body.Close()
		status <- resp.Status
	}()
	<-g.entered
	go func() { close(g.open) }()
	cancel()
	if got := <-status; got != "200 OK" {
		t.Errorf("scrape running at shutdown: %s, want 200 OK", got)
	}
	if _, err := net.DialTimeout("tcp", addr, time.Second); err == nil {
		t.Error("the port still answers after Serve returned")
	}
}

func TestPositionsOfAServerThatWasNeverReachedAreAbsent(t *testing.T) {
	t.Parallel()
	page := body(t, get(t, fixed{Snapshot{Servers: []Server{{Name: "a"}}}}, http.MethodGet, "/metrics"))
	for _, name := range []string{"pgmoneta_wal_received_lsn_bytes{", "pgmoneta_wal_lag_bytes{", "pgmoneta_wal_lag_seconds{",
		"pgmoneta_wal_last_received_timestamp_seconds{", "pgmoneta_backup_last_success_timestamp_seconds{"} {
		if strings.Contains(page, name) {
			t.Errorf("the page has %s of a server never reached", name)
		}
	}
	if !strings.Contains(page, `pgmoneta_backup_failures_total{server="a",reason="other"} 0`) {
		t.Error("failures do not start at zero")
	}
}
