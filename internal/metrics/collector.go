package metrics

import (
	"strings"

	"github.com/prometheus/client_golang/prometheus"
)

// A collector turns one snapshot per scrape into samples.
type collector struct {
	source   Source
	families []family
	descs    []*prometheus.Desc // of families
}

func newCollector(src Source) *collector {
	c := &collector{source: src, families: families()}
	for _, f := range c.families {
		c.descs = append(c.descs, prometheus.NewDesc(f.name, f.help, f.labels, nil))
	}
	return c
}

// Describe implements [prometheus.Collector].
func (c *collector) Describe(descs chan<- *prometheus.Desc) {
	for _, d := range c.descs {
		descs <- d
	}
}

// Collect implements [prometheus.Collector].
func (c *collector) Collect(samples chan<- prometheus.Metric) {
	s := c.source.Snapshot()
	for i, f := range c.families {
		f.samples(&s, func(value float64, labels ...string) {
			for k := range labels {
				// The format allows nothing else, and one such label would cost the sample.
				labels[k] = strings.ToValidUTF8(labels[k], "\uFFFD")
			}
			m, err := prometheus.NewConstMetric(c.descs[i], f.kind, value, labels...)
			if err != nil {
				m = prometheus.NewInvalidMetric(c.descs[i], err)
			}
			samples <- m
		})
	}
}
