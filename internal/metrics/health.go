package metrics

import (
	"fmt"
	"io"
	"net/http"
)

// Health is what /healthz and /readyz tell.
type Health struct {
	// Live fails when only a new start of the process helps.
	Live Verdict
	// Ready fails while the process cannot do its work: it is starting or ending, or a repository cannot be read.
	Ready Verdict
}

// A Verdict is an answer with its reasons. The zero value is good.
type Verdict struct {
	Problems []string // empty if all is well
	Notes    []string // what there is to know beside that
}

func (h *Handler) health() Health {
	if h.options.Health == nil {
		return Health{}
	}
	return h.options.Health()
}

// answer writes "ok" with status 200, or the problems with 503.
func (v Verdict) answer(w http.ResponseWriter) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	if len(v.Problems) == 0 {
		_, _ = io.WriteString(w, "ok\n") // an error is the client's absence, here and below
	} else {
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	for _, p := range v.Problems {
		_, _ = fmt.Fprintln(w, p)
	}
	for _, n := range v.Notes {
		_, _ = fmt.Fprintln(w, n)
	}
}
