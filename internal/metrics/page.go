package metrics

import (
	"io"
	"math"
	"strconv"
	"strings"
	"unicode/utf8"
)

// A page writes families in the text format 0.0.4 of Prometheus or in OpenMetrics 1.0.0. It is written here and not
// by client_golang, whose checks per sample are for metrics that many packages make: ours come from one table that the
// tests check, and the difference is a factor of ten in time.
type page struct {
	w    io.Writer
	open bool   // OpenMetrics
	buf  []byte // not yet written
	err  error  // the first of w; nothing is written after it
}

// pageChunk is how much is gathered before it is written.
const pageChunk = 32 << 10

// write writes all families of a snapshot.
func (p *page) write(families []family, s *Snapshot) error {
	for i := range families {
		f := &families[i]
		p.head(f)
		f.samples(s, func(value float64, labels ...string) { p.sample(f, value, labels) })
		if p.err != nil {
			return p.err
		}
	}
	p.flush()
	return p.err
}

func (p *page) flush() {
	if p.err == nil && len(p.buf) > 0 {
		_, p.err = p.w.Write(p.buf)
	}
	p.buf = p.buf[:0]
}

// head writes help and type, also of a family without samples: what is said about it does not come and go.
func (p *page) head(f *family) {
	name := f.name
	if p.open && f.kind == counterKind {
		name = strings.TrimSuffix(name, "_total") // there the suffix belongs to the sample
	}
	p.buf = append(append(append(p.buf, "# HELP "...), name...), ' ')
	p.buf = appendEscaped(p.buf, f.help, p.open)
	p.buf = append(append(append(p.buf, "\n# TYPE "...), name...), ' ')
	p.buf = append(append(p.buf, f.kind...), '\n')
}

func (p *page) sample(f *family, value float64, labels []string) {
	if len(p.buf) >= pageChunk {
		p.flush()
	}
	p.buf = append(p.buf, f.name...)
	names := f.labels
	if f.kind == histogramKind {
		last := len(labels) - 1
		switch labels[last] {
		case leSum, leCount:
			p.buf = append(append(p.buf, '_'), labels[last]...)
			names, labels = names[:last], labels[:last]
		default:
			p.buf = append(p.buf, "_bucket"...)
		}
	}
	for i, label := range labels {
		p.buf = append(p.buf, ",{"[b2i(i == 0)])
		p.buf = append(append(p.buf, names[i]...), `="`...)
		p.buf = append(appendEscaped(p.buf, label, true), '"')
	}
	if len(labels) > 0 {
		p.buf = append(p.buf, '}')
	}
	p.buf = append(appendValue(append(p.buf, ' '), value), '\n')
}

func b2i(b bool) int {
	if b {
		return 1
	}
	return 0
}

// appendValue appends a number; those without a fraction in the form that people can read.
func appendValue(b []byte, v float64) []byte {
	switch {
	case v == math.Trunc(v) && math.Abs(v) < 1e18:
		return strconv.AppendInt(b, int64(v), 10)
	case math.IsInf(v, 1):
		return append(b, "+Inf"...)
	case math.IsInf(v, -1):
		return append(b, "-Inf"...)
	}
	return strconv.AppendFloat(b, v, 'g', -1, 64)
}

// appendEscaped appends text of one line, valid UTF-8 whatever it was: the format allows nothing else.
func appendEscaped(b []byte, text string, quotes bool) []byte {
	if !strings.ContainsAny(text, "\\\"\n") && utf8.ValidString(text) {
		return append(b, text...)
	}
	for _, r := range text { // a byte that is no UTF-8 arrives as U+FFFD
		switch {
		case r == '\\':
			b = append(b, `\\`...)
		case r == '\n':
			b = append(b, `\n`...)
		case r == '"' && quotes:
			b = append(b, `\"`...)
		default:
			b = utf8.AppendRune(b, r)
		}
	}
	return b
}
