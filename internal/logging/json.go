package logging

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"strconv"
	"time"
)

// jsonHandler writes one JSON object in a line, and counts.
type jsonHandler struct {
	slog.Handler
	count func(slog.Level)
}

func newJSON(w io.Writer, o Options) *jsonHandler {
	if o.Level == nil {
		o.Level = LevelInfo
	}
	return &jsonHandler{count: o.Count, Handler: slog.NewJSONHandler(w, &slog.HandlerOptions{AddSource: true, Level: o.Level, ReplaceAttr: plainAttr})}
}

// Handle implements [slog.Handler].
func (h *jsonHandler) Handle(ctx context.Context, r slog.Record) error {
	if h.count != nil && r.Level >= LevelInfo {
		h.count(r.Level)
	}
	return h.Handler.Handle(ctx, r)
}

// WithAttrs implements [slog.Handler].
func (h *jsonHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &jsonHandler{h.Handler.WithAttrs(attrs), h.count}
}

// WithGroup implements [slog.Handler].
func (h *jsonHandler) WithGroup(name string) slog.Handler {
	return &jsonHandler{h.Handler.WithGroup(name), h.count}
}

// plainAttr gives values the text that they have in the other formats: a reader finds "0/1000000" and not a number.
func plainAttr(groups []string, a slog.Attr) slog.Attr {
	if len(groups) == 0 {
		switch v := a.Value.Any().(type) {
		case slog.Level:
			if a.Key == slog.LevelKey {
				return slog.String(a.Key, LevelName(v))
			}
		case *slog.Source:
			return slog.String(a.Key, filepath.Base(v.File)+":"+strconv.Itoa(v.Line))
		}
	}
	switch a.Value.Kind() {
	case slog.KindTime:
		return slog.String(a.Key, a.Value.Time().UTC().Format(time.RFC3339Nano))
	case slog.KindDuration:
		return slog.String(a.Key, a.Value.Duration().String())
	case slog.KindAny:
		switch v := a.Value.Any().(type) {
		case error:
			return slog.String(a.Key, v.Error())
		case fmt.Stringer:
			return slog.String(a.Key, v.String())
		}
	}
	return a
}
