package config

import (
	"errors"
	"os"
	"strings"
	"testing"
)

// Whatever happens to a byte of a file, it is an error that names file and line, or it
// changes the key of that line and nothing else.

func TestEveryTruncation(t *testing.T) {
	t.Parallel()
	whole := parse(t, sample)
	for cut := range len(sample) {
		text := sample[:cut]
		got := survive(t, text)
		if got == nil {
			continue
		}
		// The lines before the cut keep their meaning.
		lines := strings.Count(text, "\n")
		for _, ch := range Changes(whole, got) {
			if line := whole.lines[place{ch.Section, ch.Key}]; line > 0 && line <= lines {
				t.Errorf("cut after %d bytes: %s of [%s] in line %d became %q", cut, ch.Key, ch.Section, line, ch.New)
			}
		}
	}
}

func TestEverySingleByteChange(t *testing.T) {
	t.Parallel()
	whole := parse(t, sample)
	bytes := []byte("\x00\n\r\t =#;'\"\\$[]|,.0x\x7f\xff")
	if os.Getenv("PGMONETA_TEST_LONG") != "" {
		bytes = bytes[:0]
		for b := range 256 {
			bytes = append(bytes, byte(b))
		}
	}
	for at := range len(sample) {
		line := 1 + strings.Count(sample[:at], "\n")
		for _, b := range bytes {
			text := sample[:at] + string([]byte{b}) + sample[at+1:]
			got := survive(t, text)
			if got == nil || b == '\n' || sample[at] == '\n' || header(sample, line) || header(text, line) {
				continue // other lines change their number, or their section
			}
			for _, ch := range Changes(whole, got) {
				if ch.Key == "compression_level" {
					continue // its bounds are those of the codec
				}
				was, is := whole.lines[place{ch.Section, ch.Key}], got.lines[place{ch.Section, ch.Key}]
				if was != line && is != line {
					t.Errorf("byte %d of line %d became %q: %s of [%s] is %q, was %q", at, line, b, ch.Key, ch.Section, ch.New, ch.Old)
				}
			}
		}
	}
}

// header reports whether a line begins a section.
func header(text string, line int) bool {
	return strings.HasPrefix(strings.TrimSpace(strings.Split(text, "\n")[line-1]), "[")
}

// survive parses and validates; it returns nil when there was a proper error.
func survive(t *testing.T, text string) *Config {
	t.Helper()
	c, err := ParseBytes("test.conf", []byte(text), testEnv)
	if err == nil {
		_ = c.Validate()
		return c
	}
	var errs Errors
	if !errors.As(err, &errs) || len(errs) == 0 {
		t.Fatalf("error %T %v", err, err)
	}
	for _, p := range errs {
		if p.File != "test.conf" || p.Message == "" || p.Line > 1+strings.Count(text, "\n") || p.Line == 0 && p.Section == "" && !strings.Contains(p.Message, "[") {
			t.Errorf("problem %+v", p)
		}
	}
	return nil
}
