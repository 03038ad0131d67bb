package config

import (
	"log/slog"

	"github.com/pgmoneta/pgmoneta-go/internal/logging"
)

// A Setting is a key and its value as programs see it: a string, an int64, a bool or
// a [Coded]. Secrets are "***" when they are set.
type Setting struct {
	Name  string
	Value any
}

// Coded is a value that is a word and a number.
type Coded struct {
	Text   string
	Number int64
}

// Settings returns every key of the main section, defaults included.
func (m *Main) Settings() []Setting { return settings(mainKeys(), m) }

// Settings returns every key of the section, as it is there: what is inherited shows as unset.
func (s *Server) Settings() []Setting { return settings(serverKeys(), s) }

func settings[S any](keys []key[S], s *S) []Setting {
	list := make([]Setting, len(keys))
	for i, k := range keys {
		text, _ := show(keys, s, k.name)
		list[i] = Setting{k.name, text}
		if k.typed != nil {
			list[i].Value = k.typed(s)
		}
	}
	return list
}

// typedPorts is one number where there is one, as it always was.
func typedPorts(s *Server) any {
	if len(s.Ports) == 1 {
		return int64(s.Ports[0])
	}
	return showPorts(s.Ports)
}

// levelNumber is the number of C pgmoneta: 2 for DEBUG, of any depth, to 6 for FATAL.
func levelNumber(l slog.Level) int64 {
	switch {
	case l < logging.LevelInfo:
		return 2
	case l < logging.LevelWarn:
		return 3
	case l < logging.LevelError:
		return 4
	case l < logging.LevelFatal:
		return 5
	}
	return 6
}
