package metrics

import (
	"bytes"
	"context"
	"errors"
	"html/template"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

const (
	// maxScrapes at the same time; further ones wait. A scrape of a large fleet holds some tens of megabytes.
	maxScrapes = 8

	// scrapeTimeout ends a scrape that waits or runs longer. Prometheus gives up after 10 s by default.
	scrapeTimeout = 30 * time.Second

	shutdownTimeout = 5 * time.Second
)

// New returns the handler of the metrics port. It uses a registry of its own.
func New(src Source) http.Handler {
	own := newCollector(src)
	registry := prometheus.NewRegistry()
	registry.MustRegister(own) // fails only for a mistake in the table of families, which a test would meet
	process := prometheus.NewRegistry()
	process.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))

	scrape := promhttp.HandlerFor(prometheus.Gatherers{registry, process}, promhttp.HandlerOpts{
		ErrorHandling:     promhttp.ContinueOnError,
		EnableOpenMetrics: true,
		Registry:          process, // counts samples that were left out
	})
	return &handler{
		slots:    make(chan struct{}, maxScrapes),
		scrape:   scrape,
		families: own.families,
		process:  process,
	}
}

type handler struct {
	slots    chan struct{}
	scrape   http.Handler
	families []family
	process  prometheus.Gatherer // the families of other makers
}

func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	switch r.URL.Path {
	case "/metrics":
		h.metrics(w, r)
	case "/", "/index.html":
		h.overview(w)
	default:
		w.WriteHeader(http.StatusForbidden)
	}
}

func (h *handler) metrics(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), scrapeTimeout)
	defer cancel()
	select {
	case h.slots <- struct{}{}:
		defer func() { <-h.slots }()
		h.scrape.ServeHTTP(w, r)
	case <-ctx.Done():
		http.Error(w, "too many scrapes at the same time", http.StatusServiceUnavailable)
	}
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

func (h *handler) overview(w http.ResponseWriter) {
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

func (h *handler) rows() ([]row, error) {
	var rows []row
	for _, f := range h.families {
		rows = append(rows, row{f.name, f.help, f.labels})
	}
	others, err := h.process.Gather()
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
