package logging

import (
	"fmt"
	"log/slog"
	"log/syslog"
	"strings"
)

// openSyslog connects to the local syslog daemon. Lines carry the ident pgmoneta, the facility user and the process id.
func openSyslog(o Options) (*Log, error) {
	w, err := syslog.New(syslog.LOG_USER|syslog.LOG_INFO, "pgmoneta")
	if err != nil {
		return nil, fmt.Errorf("connect to syslog: %w; is a syslog daemon running, or use log_type = file", err)
	}
	c := newCore(o, func(level slog.Level, line []byte) error {
		return syslogFunc(w, level)(strings.TrimSuffix(string(line), "\n"))
	})
	c.plain = true
	return &Log{Logger: slog.New(&handler{core: c}), closer: w}, nil
}

// syslogFunc returns the call for a level: TRACE and DEBUG are debug, FATAL is crit.
func syslogFunc(w *syslog.Writer, level slog.Level) func(string) error {
	switch rank(level) {
	case 0, 1:
		return w.Debug
	case 2:
		return w.Info
	case 3:
		return w.Warning
	case 4:
		return w.Err
	}
	return w.Crit
}
