package metrics

import (
	"bytes"
	"cmp"
	"compress/gzip"
	"context"
	"errors"
	"html/template"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

const (
	// maxScrapes at the same time; further ones wait.
	maxScrapes = 8

	// scrapeTimeout ends a scrape that waits longer. Prometheus gives up after 10 s by default.
	scrapeTimeout = 30 * time.Second

	shutdownTimeout = 5 * time.Second
)

// Options of the metrics port. The zero value has no cache and is healthy.
type Options struct {
	// CacheAge returns for how long a reply may be given again, 0 for not at all; nil is 0.
	CacheAge func() time.Duration
	// CacheSize is the size in bytes of the largest reply that is kept; 0 is [DefaultCacheSize].
	CacheSize int64
	// Health is asked for each of the two pages about it; nil is good health.
	Health func() Health
}

// DefaultCacheSize is the size of the largest reply that is kept when nothing else is said.
const DefaultCacheSize = 256 << 10

// A Handler answers on the metrics port.
type Handler struct {
	options  Options
	source   Source
	families []family
	process  *process
	slots    chan struct{}
	cache    cache
	zip      sync.Pool // of *gzip.Writer
}

// New returns the handler of the metrics port.
func New(src Source, o Options) *Handler {
	h := &Handler{options: o, source: src, families: families(), process: newProcess(), slots: make(chan struct{}, maxScrapes)}
	h.zip.New = func() any {
		z, _ := gzip.NewWriterLevel(nil, gzip.BestSpeed) // fails only for a level that there is not
		return z
	}
	return h
}

// Clear forgets what is cached.
func (h *Handler) Clear() { h.cache.clear() }

// ServeHTTP implements [http.Handler].
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	switch r.URL.Path {
	case "/metrics":
		h.metrics(w, r)
	case "/", "/index.html":
		h.overview(w)
	case "/healthz":
		h.health().Live.answer(w)
	case "/readyz":
		h.health().Ready.answer(w)
	default:
		w.WriteHeader(http.StatusForbidden)
	}
}

func (h *Handler) metrics(w http.ResponseWriter, r *http.Request) {
	f := accepted(r.Header)
	w.Header().Set("Content-Type", contentType(f.open))
	if f.gzip {
		w.Header().Set("Content-Encoding", "gzip")
	}
	if r.Method == http.MethodHead {
		return
	}
	var age time.Duration
	if h.options.CacheAge != nil {
		age = h.options.CacheAge()
	}
	if body, ok := h.cache.get(f, time.Now()); ok && age > 0 {
		_, _ = w.Write(body) // an error is the client's absence
		return
	}
	select {
	case h.slots <- struct{}{}:
	default: // all are busy: wait, but not for ever
		ctx, cancel := context.WithTimeout(r.Context(), scrapeTimeout)
		defer cancel()
		select {
		case h.slots <- struct{}{}:
		case <-ctx.Done():
			w.Header().Del("Content-Encoding")
			http.Error(w, "too many scrapes at the same time", http.StatusServiceUnavailable)
			return
		}
	}
	defer func() { <-h.slots }()
	if age <= 0 {
		_ = h.scrape(r.Context(), w, f)
		return
	}
	kept := &recorder{ResponseWriter: w, limit: cmp.Or(h.options.CacheSize, DefaultCacheSize)}
	if err := h.scrape(r.Context(), kept, f); err == nil && !kept.over {
		h.cache.put(f, reply{time.Now().Add(age), kept.body})
	}
}

// scrape writes the page. It is written while it is made: the largest fleet takes no more memory than a small one.
func (h *Handler) scrape(ctx context.Context, w io.Writer, f format) error {
	if f.gzip {
		z := h.zip.Get().(*gzip.Writer)
		defer h.zip.Put(z)
		z.Reset(w)
		if err := h.writePage(ctx, z, f.open); err != nil {
			return err
		}
		return z.Close()
	}
	return h.writePage(ctx, w, f.open)
}

func (h *Handler) writePage(ctx context.Context, w io.Writer, open bool) error {
	s := h.source.Snapshot()
	s.Servers = withoutTwins(s.Servers)
	p := page{w: w, open: open, buf: make([]byte, 0, pageChunk+pageChunk/4)}
	if err := p.write(h.families, &s); err != nil {
		return err
	}
	if _, err := w.Write(h.process.page(ctx, open, time.Now())); err != nil || !open {
		return err
	}
	_, err := io.WriteString(w, openEnd)
	return err
}

// withoutTwins leaves out servers of a name that was there before: two samples of one series would cost the page.
func withoutTwins(servers []Server) []Server {
	seen := make(map[string]bool, len(servers))
	return slices.DeleteFunc(slices.Clone(servers), func(v Server) bool {
		twin := seen[v.Name]
		seen[v.Name] = true
		return twin
	})
}

const (
	openMetrics = "application/openmetrics-text"
	openEnd     = "# EOF\n"
)

func contentType(open bool) string {
	if open {
		return openMetrics + "; version=1.0.0; charset=utf-8"
	}
	return "text/plain; version=0.0.4; charset=utf-8"
}

// accepted returns what a client wants. Who names OpenMetrics and does not prefer plain text gets it.
func accepted(h http.Header) format {
	best := map[string]float64{}
	for word := range strings.SplitSeq(h.Get("Accept"), ",") {
		media, params, _ := strings.Cut(word, ";")
		q := 1.0
		for param := range strings.SplitSeq(params, ";") {
			if v, ok := strings.CutPrefix(strings.TrimSpace(param), "q="); ok {
				q, _ = strconv.ParseFloat(v, 64)
			}
		}
		media = strings.TrimSpace(media)
		best[media] = max(best[media], q)
	}
	return format{
		open: best[openMetrics] > 0 && best[openMetrics] >= best["text/plain"],
		gzip: acceptsGzip(h.Get("Accept-Encoding")),
	}
}

func acceptsGzip(header string) bool {
	for word := range strings.SplitSeq(header, ",") {
		coding, params, _ := strings.Cut(word, ";")
		if strings.TrimSpace(coding) == "gzip" {
			return !strings.HasPrefix(strings.TrimSpace(params), "q=0") || strings.Contains(params, "q=0.")
		}
	}
	return false
}

// A row is one family on the overview.
type row struct {
	Name, Help string
	Labels     []string
}

// overviewPage is built per request: it is small, rarely asked for, and templates are no constants.
const overviewPage = `<!DOCTYPE html>
<html lang="en">
<head><meta charset="utf-8"><title>pgmoneta exporter</title></head>
<body>
<h1>pgmoneta exporter</h1>
<p><a href="/metrics">Metrics</a></p>
{{range .}}<h2>{{.Name}}</h2>
<p>{{.Help}}</p>
{{with .Labels}}<ul>{{range .}}<li>{{.}}</li>{{end}}</ul>
{{end}}{{end}}</body>
</html>
`

func (h *Handler) overview(w http.ResponseWriter) {
	rows, err := h.rows()
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	var page bytes.Buffer
	if err := template.Must(template.New("overview").Parse(overviewPage)).Execute(&page, rows); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	_, _ = w.Write(page.Bytes()) // an error is the client's absence
}

func (h *Handler) rows() ([]row, error) {
	var rows []row
	for _, f := range h.families {
		rows = append(rows, row{f.name, f.help, f.labels})
	}
	others, err := h.process.registry.Gather()
	if err != nil {
		return nil, err
	}
	for _, f := range others {
		rows = append(rows, row{Name: f.GetName(), Help: f.GetHelp()})
	}
	return rows, nil
}

// Serve answers requests on ln with h until ctx ends, lets running scrapes finish for a few seconds, and returns nil.
// It closes ln.
func Serve(ctx context.Context, ln net.Listener, h http.Handler) error {
	srv := &http.Server{
		Handler:           h,
		ReadHeaderTimeout: 10 * time.Second,
		ReadTimeout:       10 * time.Second,
		WriteTimeout:      60 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    16 << 10,
	}
	stopped := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(stopped)
		grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownTimeout)
		defer cancel()
		if srv.Shutdown(grace) != nil {
			_ = srv.Close()
		}
	})

	err := srv.Serve(ln)
	if !stop() {
		<-stopped
	}
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}
