package metrics

import (
	"bytes"
	"context"
	"net/http"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// process are the families go_* and process_* of this process. Reading them takes longer than all of ours, so they
// are read at most once a second.
type process struct {
	registry *prometheus.Registry
	handler  http.Handler

	mu    sync.Mutex
	pages map[bool]processPage // by whether it is OpenMetrics
}

type processPage struct {
	at   time.Time
	body []byte
}

const processAge = time.Second

func newProcess() *process {
	r := prometheus.NewRegistry()
	r.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{})) // fails only for names that are there twice
	return &process{
		registry: r, pages: map[bool]processPage{},
		handler: promhttp.HandlerFor(r, promhttp.HandlerOpts{ErrorHandling: promhttp.ContinueOnError, EnableOpenMetrics: true, DisableCompression: true}),
	}
}

// page returns the families in one of the two formats. The result must not be changed.
func (p *process) page(ctx context.Context, open bool, now time.Time) []byte {
	p.mu.Lock()
	defer p.mu.Unlock()
	if have, ok := p.pages[open]; ok && now.Sub(have.at) < processAge {
		return have.body
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "/metrics", nil)
	if err != nil {
		return nil // no: the arguments are constants
	}
	if open {
		r.Header.Set("Accept", openMetrics)
	}
	var w kept
	p.handler.ServeHTTP(&w, r)
	body := bytes.TrimSuffix(w.body.Bytes(), []byte(openEnd))
	p.pages[open] = processPage{now, body}
	return body
}

// kept is a reply that is kept.
type kept struct {
	body   bytes.Buffer
	header http.Header
}

func (k *kept) Header() http.Header {
	if k.header == nil {
		k.header = http.Header{}
	}
	return k.header
}
func (k *kept) WriteHeader(int)             {}
func (k *kept) Write(p []byte) (int, error) { return k.body.Write(p) }
