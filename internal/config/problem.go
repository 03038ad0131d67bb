package config

import (
	"fmt"
	"strings"
)

// A Problem is one thing that is wrong in a configuration file. It is an error.
type Problem struct {
	File    string
	Line    int    // 0 when the problem is that something is missing
	Section string // empty outside of a section
	Key     string // empty when it is about a section or a whole line
	Value   string // as written; empty for secrets
	Message string // what is wrong and what is accepted
}

// Error returns everything on one line.
func (p Problem) Error() string {
	var b strings.Builder
	b.WriteString(p.File)
	if p.Line > 0 {
		fmt.Fprintf(&b, ":%d", p.Line)
	}
	b.WriteString(": ")
	if p.Section != "" {
		fmt.Fprintf(&b, "[%s] ", printable(p.Section))
	}
	if p.Key != "" {
		b.WriteString(printable(p.Key))
		if p.Value != "" {
			fmt.Fprintf(&b, " = %s", printable(p.Value))
		}
		b.WriteString(": ")
	}
	b.WriteString(p.Message)
	return b.String()
}

// printable returns text for one line of a message: control characters escaped, long text cut.
func printable(text string) string {
	const most = 200
	quoted := fmt.Sprintf("%+q", text)
	if quoted == `"`+text+`"` && len(text) <= most {
		return text
	}
	quoted = fmt.Sprintf("%q", text)
	if len(quoted) > most {
		return strings.ToValidUTF8(quoted[:most], "") + "..."
	}
	return quoted
}

// Errors holds every problem of a file, in the order of its lines, what is missing last.
type Errors []Problem

// Error returns one problem per line.
func (e Errors) Error() string {
	lines := make([]string, len(e))
	for i, p := range e {
		lines[i] = p.Error()
	}
	return strings.Join(lines, "\n")
}

// Unwrap gives access to the single problems through [errors.As].
func (e Errors) Unwrap() []error {
	errs := make([]error, len(e))
	for i, p := range e {
		errs[i] = p
	}
	return errs
}

// orNil returns nil for an empty list.
func (e Errors) orNil() error {
	if len(e) == 0 {
		return nil
	}
	return e
}

// A FileError reports a configuration file that could not be read at all.
type FileError struct {
	Path    string
	Message string
	Err     error // cause, may be nil
}

func (e *FileError) Error() string {
	if e.Err == nil {
		return fmt.Sprintf("%s: %s", e.Message, e.Path)
	}
	return fmt.Sprintf("%s: %s: %v", e.Message, e.Path, e.Err)
}

func (e *FileError) Unwrap() error { return e.Err }

// nearest returns the word that differs least from got, if it is close enough to be a slip of the pen.
func nearest(got string, words []string) (string, bool) {
	if len(got) > 64 {
		return "", false
	}
	best, bestDistance := "", len(got)/2+1
	for _, w := range words {
		if d := distance(got, w); d < bestDistance {
			best, bestDistance = w, d
		}
	}
	return best, best != ""
}

// distance is the Levenshtein distance of two words, in bytes.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
