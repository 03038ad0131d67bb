package metrics

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
)

// ask returns the reply of a handler to a request with header lines.
func ask(h http.Handler, target string, header ...string) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	r := httptest.NewRequest(http.MethodGet, target, nil)
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	h.ServeHTTP(w, r)
	return w
}

func TestPrometheusGetsOpenMetrics(t *testing.T) {
	t.Parallel()
	const accept = "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
	w := ask(New(fixed{example()}, Options{}), "/metrics", "Accept", accept)
	page := w.Body.String()
	if got := w.Header().Get("Content-Type"); got != "application/openmetrics-text; version=1.0.0; charset=utf-8" {
		t.Errorf("Content-Type %q", got)
	}
	if strings.Count(page, "# EOF") != 1 || !strings.HasSuffix(page, "\n# EOF\n") {
		t.Errorf("the page ends with %q", page[max(0, len(page)-60):])
	}
	for _, want := range []string{"# TYPE pgmoneta_wal_received_bytes counter\n", "\npgmoneta_wal_received_bytes_total{", "# TYPE go_goroutines gauge\n"} {
		if !strings.Contains(page, want) {
			t.Errorf("the page lacks %q", want)
		}
	}
}

func TestFormats(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		accept, encoding string
		want             format
	}{
		{"", "", format{}},
		{"*/*", "identity", format{}},
		{"text/plain, application/openmetrics-text;q=0.9", "deflate, gzip;q=0.5", format{gzip: true}},
		{"application/openmetrics-text; version=1.0.0; q=0.8, text/plain;q=0.2", "gzip", format{open: true, gzip: true}},
		{"application/openmetrics-text;q=0", "gzip;q=0", format{}},
		{"application/openmetrics-text;q=x", "gzip; q=0.1", format{gzip: true}},
	} {
		if got := accepted(http.Header{"Accept": {tt.accept}, "Accept-Encoding": {tt.encoding}}); got != tt.want {
			t.Errorf("%q, %q: %+v, want %+v", tt.accept, tt.encoding, got, tt.want)
		}
	}
}

func TestZippedPageIsThePage(t *testing.T) {
	t.Parallel()
	h := New(fixed{example()}, Options{})
	for range 2 { // the second takes the writer of the first
		z, err := gzip.NewReader(ask(h, "/metrics", "Accept-Encoding", "gzip").Body)
		if err != nil {
			t.Fatal(err)
		}
		page, err := io.ReadAll(z)
		if err != nil {
			t.Fatal(err)
		}
		if ours, _, _ := bytes.Cut(page, []byte("# HELP go_")); !strings.HasPrefix(ask(h, "/metrics").Body.String(), string(ours)) {
			t.Error("the zipped page differs")
		}
	}
}

// counting is a source that tells how often it was asked.
type counting struct{ n int }

func (c *counting) Snapshot() Snapshot {
	c.n++
	return Snapshot{Version: fmt.Sprint(c.n)}
}

func TestCacheGivesTheSameWholeReply(t *testing.T) {
	t.Parallel()
	src, age := &counting{}, time.Hour
	h := New(src, Options{CacheAge: func() time.Duration { return age }})
	page := func(header ...string) string { return ask(h, "/metrics", header...).Body.String() }
	first := page()
	if page() != first || src.n != 1 {
		t.Errorf("the second reply differs or was made anew: %d snapshots", src.n)
	}
	if zipped := page("Accept-Encoding", "gzip"); src.n != 2 || page("Accept-Encoding", "gzip") != zipped {
		t.Errorf("the second zipped reply differs: %d snapshots", src.n)
	}
	h.Clear()
	if page() == first || src.n != 3 {
		t.Error("Clear had no effect")
	}
	age = 0
	if page(); src.n != 4 {
		t.Error("a cache that was turned off is used")
	}
}

func TestReplyThatIsTooLargeIsNotKeptAndWhole(t *testing.T) {
	t.Parallel()
	src := &counting{}
	h := New(src, Options{CacheAge: func() time.Duration { return time.Hour }, CacheSize: 5000})
	for range 2 {
		page := ask(h, "/metrics").Body.String()
		if len(page) <= 5000 || !strings.Contains(page, "\npgmoneta_time_seconds ") || !strings.HasSuffix(page, "\n") {
			t.Errorf("%d bytes, want a whole page", len(page))
		}
	}
	if src.n != 2 {
		t.Errorf("%d snapshots, want 2", src.n)
	}
}

func TestHealthPages(t *testing.T) {
	t.Parallel()
	var health Health
	h := New(&counting{}, Options{Health: func() Health { return health }})
	check := func(path string, status int, body string) {
		t.Helper()
		if w := ask(h, path); w.Code != status || w.Body.String() != body {
			t.Errorf("%s: %d %q, want %d %q", path, w.Code, w.Body, status, body)
		}
	}
	health.Ready.Notes = []string{"a note"}
	check("/healthz", 200, "ok\n")
	check("/readyz", 200, "ok\na note\n")
	health.Ready.Problems = []string{"the daemon is starting"}
	check("/healthz", 200, "ok\n")
	check("/readyz", 503, "the daemon is starting\na note\n")
	health.Live.Problems = []string{"stuck"}
	check("/healthz", 503, "stuck\n")
	check("/healthz/", 403, "")
}

// TestLargeFleet holds what a scrape of 50 servers with 60 backups each takes: more than 110,000 series.
func TestLargeFleet(t *testing.T) {
	h := New(fixed{fleet(50, 60)}, Options{})
	r := httptest.NewRequest(http.MethodGet, "/metrics", nil)
	w := &lines{discard: discard{header: http.Header{}}}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	began := time.Now()
	h.ServeHTTP(w, r)
	elapsed := time.Since(began)
	runtime.ReadMemStats(&after)
	if w.samples < 110_000 {
		t.Errorf("%d samples, want at least 110000", w.samples)
	}
	allocated := after.TotalAlloc - before.TotalAlloc
	t.Logf("%d samples, %d bytes, %s, %d bytes allocated", w.samples, w.n, elapsed, allocated)
	if allocated > 64<<20 || elapsed > 5*time.Second {
		t.Errorf("the scrape took %s and %d bytes of memory", elapsed, allocated)
	}
}

// lines counts samples.
type lines struct {
	discard
	samples int
}

func (l *lines) Write(p []byte) (int, error) {
	l.samples += bytes.Count(p, []byte("\npgmoneta_"))
	return l.discard.Write(p)
}

func FuzzLabels(f *testing.F) {
	f.Add("west", 1.5)
	f.Add("a\"b\\c\nd\xffe", -0.25)
	f.Fuzz(func(t *testing.T, text string, value float64) {
		var b bytes.Buffer
		p := page{w: &b}
		p.head(&family{name: "a_bytes", help: text, kind: gaugeKind})
		p.sample(&family{name: "a_bytes", labels: []string{"l"}}, value, []string{text})
		p.flush()
		if got := strings.Count(b.String(), "\n"); got != 3 {
			t.Errorf("%d lines of %q", got, b.String())
		}
		if _, err := promlint.New(&b).Lint(); err != nil {
			t.Errorf("%q: %v", text, err)
		}
	})
}
