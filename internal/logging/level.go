package logging

import (
	"fmt"
	"log/slog"
	"strconv"
	"strings"
)

// Levels. TRACE and FATAL stand beside the four of log/slog. FATAL says that the process is about to end; logging it ends nothing.
const (
	LevelTrace = slog.LevelDebug - 4
	LevelDebug = slog.LevelDebug
	LevelInfo  = slog.LevelInfo
	LevelWarn  = slog.LevelWarn
	LevelError = slog.LevelError
	LevelFatal = slog.LevelError + 4
)

// LevelWords names the words ParseLevel accepts, for error messages.
const LevelWords = "fatal, error, warn, info, debug, debug1 .. debug5"

// ParseLevel reads the value of log_level, in any case: fatal, error, warn, info, debug or debug with a number.
// debug, debug0 and debug1 are DEBUG, higher numbers are TRACE. "trace" is accepted as well.
func ParseLevel(word string) (slog.Level, error) {
	w := strings.ToLower(word)
	switch w {
	case "fatal":
		return LevelFatal, nil
	case "error":
		return LevelError, nil
	case "warn":
		return LevelWarn, nil
	case "info":
		return LevelInfo, nil
	case "debug":
		return LevelDebug, nil
	case "trace":
		return LevelTrace, nil
	}
	if digits, ok := strings.CutPrefix(w, "debug"); ok {
		n, err := strconv.ParseUint(digits, 10, 16)
		if err == nil && n <= 1 {
			return LevelDebug, nil
		}
		if err == nil {
			return LevelTrace, nil
		}
	}
	return LevelInfo, fmt.Errorf("log level %q is not one of %s", word, LevelWords)
}

// LevelName returns the word of a log line: TRACE, DEBUG, INFO, WARN, ERROR or FATAL. A level between two names has the lower one.
func LevelName(level slog.Level) string { return levelNames[rank(level)] }

// LevelCode returns the number the management protocol uses: 1 TRACE, 2 DEBUG, 3 INFO, 4 WARN, 5 ERROR, 6 FATAL.
func LevelCode(level slog.Level) int { return rank(level) + 1 }

var levelNames = [...]string{"TRACE", "DEBUG", "INFO", "WARN", "ERROR", "FATAL"}

// rank returns the index of a level in levelNames.
func rank(level slog.Level) int {
	switch {
	case level < LevelDebug:
		return 0
	case level < LevelInfo:
		return 1
	case level < LevelWarn:
		return 2
	case level < LevelError:
		return 3
	case level < LevelFatal:
		return 4
	}
	return 5
}
