package logging

import (
	"context"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode"
	"unicode/utf8"
)

// core is what a handler shares with the handlers derived from it.
type core struct {
	level   slog.Leveler
	prefix  string
	color   bool
	plain   bool // message and attributes only, for syslog
	count   func(slog.Level)
	emit    func(level slog.Level, line []byte) error
	buffers sync.Pool
}

// handler implements [slog.Handler].
type handler struct {
	core   *core
	attrs  string // rendered attributes of With, each with a blank before it
	groups string // "group." of WithGroup
}

func newHandler(w io.Writer, o Options) *handler {
	return &handler{core: newCore(o, writeTo(w))}
}

func newCore(o Options, emit func(slog.Level, []byte) error) *core {
	c := &core{level: o.Level, prefix: o.Prefix, color: o.Color, count: o.Count, emit: emit}
	c.buffers.New = func() any { return new([]byte) }
	if c.level == nil {
		c.level = LevelInfo
	}
	if c.prefix == "" {
		c.prefix = DefaultPrefix
	}
	c.prefix = strings.NewReplacer("\n", " ", "\r", " ", "%n", " ").Replace(c.prefix)
	return c
}

// writeTo returns a function that writes whole lines to w.
func writeTo(w io.Writer) func(slog.Level, []byte) error {
	switch w.(type) {
	case *os.File, *rotatingFile:
		return func(_ slog.Level, line []byte) error {
			_, err := w.Write(line)
			return err
		}
	}
	var mu sync.Mutex
	return func(_ slog.Level, line []byte) error {
		mu.Lock()
		defer mu.Unlock()
		_, err := w.Write(line)
		return err
	}
}

// Enabled implements [slog.Handler].
func (h *handler) Enabled(_ context.Context, level slog.Level) bool {
	return level >= h.core.level.Level()
}

// Handle implements [slog.Handler].
func (h *handler) Handle(_ context.Context, r slog.Record) error {
	buf := h.core.buffers.Get().(*[]byte)
	defer h.core.buffers.Put(buf)
	line := (*buf)[:0]
	if !h.core.plain {
		line = h.core.appendHead(line, r)
	}
	line = appendMessage(line, r.Message)
	line = append(line, h.attrs...)
	r.Attrs(func(a slog.Attr) bool {
		line = appendAttr(line, h.groups, a)
		return true
	})
	line = append(line, '\n')
	*buf = line
	if h.core.count != nil && r.Level >= LevelInfo {
		h.core.count(r.Level)
	}
	return h.core.emit(r.Level, line)
}

// WithAttrs implements [slog.Handler].
func (h *handler) WithAttrs(attrs []slog.Attr) slog.Handler {
	var b []byte
	for _, a := range attrs {
		b = appendAttr(b, h.groups, a)
	}
	return &handler{h.core, h.attrs + string(b), h.groups}
}

// WithGroup implements [slog.Handler].
func (h *handler) WithGroup(name string) slog.Handler {
	if name == "" {
		return h
	}
	return &handler{h.core, h.attrs, h.groups + name + "."}
}

// ANSI colours of the levels, as C pgmoneta has them.
var levelColors = [...]string{"\x1b[37m", "\x1b[36m", "\x1b[32m", "\x1b[91m", "\x1b[31m", "\x1b[35m"}

const (
	colorGrey  = "\x1b[90m"
	colorReset = "\x1b[0m"
)

// appendHead appends prefix, level and source.
func (c *core) appendHead(b []byte, r slog.Record) []byte {
	when := r.Time
	if when.IsZero() {
		when = time.Now()
	}
	b = AppendTime(b, c.prefix, when.Local())
	b = append(b, ' ')
	if c.color {
		b = append(b, levelColors[rank(r.Level)]...)
	}
	name := LevelName(r.Level)
	b = append(b, name...)
	b = append(b, "     "[len(name):]...)
	if c.color {
		b = append(b, colorReset+" "+colorGrey...)
	} else {
		b = append(b, ' ')
	}
	b = appendSource(b, r.PC)
	if c.color {
		b = append(b, colorReset...)
	}
	return append(b, ' ')
}

// appendSource appends file and line of the call.
func appendSource(b []byte, pc uintptr) []byte {
	if pc == 0 {
		return append(b, "-:0"...)
	}
	frame, _ := runtime.CallersFrames([]uintptr{pc}).Next()
	b = append(b, filepath.Base(frame.File)...)
	b = append(b, ':')
	return strconv.AppendInt(b, int64(frame.Line), 10)
}

// appendMessage appends text with its control characters escaped.
func appendMessage(b []byte, text string) []byte {
	for i, r := range text {
		switch {
		case r == utf8.RuneError && !strings.HasPrefix(text[i:], string(utf8.RuneError)):
			b = append(b, `\x`...)
			b = append(b, "0123456789abcdef"[text[i]>>4], "0123456789abcdef"[text[i]&15])
		case !unicode.IsPrint(r):
			quoted := strconv.QuoteRune(r)
			b = append(b, quoted[1:len(quoted)-1]...)
		default:
			b = utf8.AppendRune(b, r)
		}
	}
	return b
}

// appendAttr appends " key=value", for a group one pair for each member.
func appendAttr(b []byte, groups string, a slog.Attr) []byte {
	value := a.Value.Resolve()
	if value.Kind() == slog.KindGroup {
		if a.Key != "" {
			groups += a.Key + "."
		}
		for _, member := range value.Group() {
			b = appendAttr(b, groups, member)
		}
		return b
	}
	if a.Equal(slog.Attr{}) {
		return b
	}
	b = append(b, ' ')
	b = appendText(b, groups+a.Key)
	b = append(b, '=')
	if value.Kind() == slog.KindTime {
		return value.Time().UTC().AppendFormat(b, time.RFC3339Nano)
	}
	return appendText(b, value.String())
}

// appendText appends a key or a value, quoted when a reader could not tell where it ends.
func appendText(b []byte, text string) []byte {
	plain := text != "" && utf8.ValidString(text) && !strings.ContainsFunc(text, func(r rune) bool {
		return r == '"' || r == '=' || unicode.IsSpace(r) || !unicode.IsPrint(r)
	})
	if plain {
		return append(b, text...)
	}
	return strconv.AppendQuote(b, text)
}
