package metrics

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"
)

// fleet returns a state of many servers with as many backups each.
func fleet(servers, backups int) Snapshot {
	one := example().Servers[0]
	s := example()
	s.Servers = nil
	for i := range servers {
		v := one
		v.Name, v.Backups = fmt.Sprintf("server%02d", i), nil
		for k := range backups {
			b := one.Backups[0]
			b.Label = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC).AddDate(0, 0, k).Format("20060102150405")
			v.Backups = append(v.Backups, b)
		}
		s.Servers = append(s.Servers, v)
	}
	return s
}

// discard is a client that reads everything.
type discard struct {
	header http.Header
	n      int64
}

func (d *discard) Header() http.Header         { return d.header }
func (d *discard) WriteHeader(int)             {}
func (d *discard) Write(p []byte) (int, error) { d.n += int64(len(p)); return io.Discard.Write(p) }

func benchmarkScrape(b *testing.B, s Snapshot) {
	h := New(fixed{s}, Options{})
	r := httptest.NewRequest(http.MethodGet, "/metrics", nil)
	b.ReportAllocs()
	for b.Loop() {
		w := &discard{header: http.Header{}}
		h.ServeHTTP(w, r)
		b.SetBytes(w.n)
	}
}

func BenchmarkScrape(b *testing.B)      { benchmarkScrape(b, fleet(3, 5)) }
func BenchmarkScrapeFleet(b *testing.B) { benchmarkScrape(b, fleet(50, 60)) }
