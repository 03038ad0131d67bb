package metrics

import (
	"time"
)

// A kind is the type of a family, in the words of the exposition.
type kind string

const (
	gaugeKind     kind = "gauge"
	counterKind   kind = "counter"
	histogramKind kind = "histogram"
)

// A family is a metric name with its samples.
type family struct {
	name   string
	help   string
	kind   kind
	labels []string
	// samples calls emit once per sample, with the values of labels in order. The last label of
	// a histogram is "le"; there it is an upper bound in seconds, or leSum or leCount.
	samples func(s *Snapshot, emit emit)
}

type emit func(value float64, labels ...string)

// Values that stand for the other two samples of a histogram in its label "le".
const (
	leSum   = "sum"
	leCount = "count"
)

// families returns every family of our own. Names, labels and help are an interface: testdata/families.txt holds them.
func families() []family {
	return append(compat(), designed()...)
}

// gauge is a family without labels.
func gauge(name, help string, value func(s *Snapshot) float64) family {
	return family{name: name, help: help, kind: gaugeKind, samples: func(s *Snapshot, emit emit) {
		emit(value(s))
	}}
}

// perServer is a gauge with one sample per server; label names the server's label.
func perServer(label, name, help string, value func(v *Server) float64) family {
	return family{name: name, help: help, kind: gaugeKind, labels: []string{label}, samples: func(s *Snapshot, emit emit) {
		for i := range s.Servers {
			emit(value(&s.Servers[i]), s.Servers[i].Name)
		}
	}}
}

// counterPerServer is a counter of the designed set.
func counterPerServer(name, help string, value func(v *Server) uint64) family {
	f := perServer("server", name, help, func(v *Server) float64 { return float64(value(v)) })
	f.kind = counterKind
	return f
}

// labelled is a family with further labels per server. samples is called once per server.
func labelled(kind kind, name, help string, labels []string, samples func(v *Server, emit emit)) family {
	return family{name: name, help: help, kind: kind, labels: labels, samples: func(s *Snapshot, emit emit) {
		for i := range s.Servers {
			samples(&s.Servers[i], emit)
		}
	}}
}

func number(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

func unix(t time.Time) float64 { return float64(t.UnixMilli()) / 1000 }
