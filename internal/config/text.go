package config

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
)

// A Text is a daemon configuration as it was written, for programs that show and edit it line by line. It also takes
// a file with mistakes, so that one can look at them and take them out.
type Text struct {
	name    string
	all     []string // lines with their ends
	entries []entry
}

// An entry is a line with something on it besides a comment.
type entry struct {
	line    int // counted from 1
	section string
	key     string // empty for a header
	value   string // as written, without the comment
}

// ReadText reads a configuration file. The error is a [*FileError].
func ReadText(path string) (*Text, error) {
	data, err := readFile(path)
	if err != nil {
		return nil, err
	}
	return NewText(path, data), nil
}

// NewText takes the lines of data. name is used in messages.
func NewText(name string, data []byte) *Text {
	t := &Text{name: name, all: strings.SplitAfter(string(data), "\n")}
	section, inside := "", false
	for number, raw := range lines(data) {
		line := cutComment(raw)
		switch {
		case line == "":
		case line[0] == '[':
			if section, _, inside = strings.Cut(line[1:], "]"); inside {
				t.entries = append(t.entries, entry{line: number, section: section})
			}
		case inside:
			if key, value, _ := splitAssignment(line); key != "" {
				t.entries = append(t.entries, entry{number, section, key, strings.Trim(value, blanks)})
			}
		}
	}
	return t
}

// Bytes returns the text.
func (t *Text) Bytes() []byte { return []byte(strings.Join(t.all, "")) }

// Sections returns the names of the sections in the order of their lines.
func (t *Text) Sections() []string {
	var names []string
	for _, e := range t.entries {
		if e.key == "" && !slices.Contains(names, e.section) {
			names = append(names, e.section)
		}
	}
	return names
}

// Keys returns the keys of a section in the order of their lines. The error is a [*NotFoundError].
func (t *Text) Keys(section string) ([]string, error) {
	if err := t.hasSection(section); err != nil {
		return nil, err
	}
	var names []string
	for _, e := range t.entries {
		if e.section == section && e.key != "" {
			names = append(names, e.key)
		}
	}
	return names, nil
}

// Value returns a value as it is written in the file, without the comment behind it. The error is a [*NotFoundError], or a
// [Problem] when the key or its section stands twice.
func (t *Text) Value(section, key string) (string, error) {
	e, err := t.find(section, key)
	return e.value, err
}

// Delete returns the text without the line of a key. The errors are those of [Text.Value].
func (t *Text) Delete(section, key string) (*Text, error) {
	e, err := t.find(section, key)
	if err != nil {
		return nil, err
	}
	return t.without(e.line, e.line), nil
}

// DeleteSection returns the text without a section. A comment directly above the next section belongs to that and stays.
// The errors are those of [Text.Value].
func (t *Text) DeleteSection(section string) (*Text, error) {
	if err := t.hasSection(section); err != nil {
		return nil, err
	}
	header, err := t.single(section, "")
	if err != nil {
		return nil, err
	}
	return t.without(header.line, sectionEnd(t.all, header.line)), nil
}

// without returns the text without the lines from first to last, counted from 1.
func (t *Text) without(first, last int) *Text {
	rest := slices.Delete(slices.Clone(t.all), first-1, last)
	return NewText(t.name, []byte(strings.Join(rest, "")))
}

// find returns the entry of a key that stands once.
func (t *Text) find(section, key string) (entry, error) {
	if err := t.hasSection(section); err != nil {
		return entry{}, err
	}
	if section != MainSection { // which may be continued further down
		if _, err := t.single(section, ""); err != nil {
			return entry{}, err
		}
	}
	return t.single(section, key)
}

// single returns the one entry at a place.
func (t *Text) single(section, key string) (entry, error) {
	var found []entry
	for _, e := range t.entries {
		if e.section == section && e.key == key {
			found = append(found, e)
		}
	}
	switch len(found) {
	case 0:
		return entry{}, t.missing(section, key)
	case 1:
		return found[0], nil
	}
	what := "the key stands twice in this section"
	if key == "" {
		what = "this section stands twice"
	}
	return entry{}, Problem{t.name, found[1].line, section, key, "", fmt.Sprintf("%s, first in line %d; remove one", what, found[0].line)}
}

func (t *Text) hasSection(section string) error {
	if slices.Contains(t.Sections(), section) {
		return nil
	}
	e := &NotFoundError{File: t.name, Section: section}
	e.Near, _ = nearest(section, append(t.Sections(), MainSection))
	return e
}

// missing tells what may have been meant: a key that the section has, or one that it could have.
func (t *Text) missing(section, key string) error {
	e := &NotFoundError{File: t.name, Section: section, Key: key}
	own, _ := t.Keys(section)
	known := ServerKeys()
	if section == MainSection {
		known = MainKeys()
	}
	if !slices.Contains(known, key) {
		e.Near, _ = nearest(key, append(own, known...))
	}
	return e
}

// sectionEnd returns how many of the lines stand before the end of the section whose header is line header, counted from
// 1. A comment right above the next header, with an empty line above it, is not the section's.
func sectionEnd(all []string, header int) int {
	next := header
	for next < len(all) && !strings.HasPrefix(strings.TrimSpace(all[next]), "[") {
		next++
	}
	if next == len(all) {
		return next
	}
	end := next
	for end > header && isComment(all[end-1]) {
		end--
	}
	if end > header && strings.TrimSpace(all[end-1]) != "" {
		return next
	}
	return end
}

func isComment(line string) bool {
	line = strings.TrimSpace(line)
	return line != "" && (line[0] == '#' || line[0] == ';')
}

// A NotFoundError reports a section or key that a file does not have.
type NotFoundError struct {
	File    string
	Section string
	Key     string // empty when the section is missing
	Near    string // what may have been meant, else empty
}

func (e *NotFoundError) Error() string {
	text := fmt.Sprintf("Section [%s] not found in %s", printable(e.Section), e.File)
	if e.Key != "" {
		text = fmt.Sprintf("Key '%s' not found in section [%s]", printable(e.Key), printable(e.Section))
	}
	switch {
	case e.Near == "":
		return text
	case e.Key == "":
		return fmt.Sprintf("%s; did you mean [%s]?", text, printable(e.Near))
	}
	return fmt.Sprintf("%s; did you mean %s?", text, printable(e.Near))
}

// A NearNameError reports a new section whose name looks like a slip of one that is there.
type NearNameError struct{ File, Section, Near string }

func (e *NearNameError) Error() string {
	return fmt.Sprintf("%s: there is no section [%s]; did you mean [%s]? Say --force to add a new one", e.File, printable(e.Section), printable(e.Near))
}

// AddSection returns the text with an empty section at its end. A name that looks like a slip of one in the text, or of
// the main section's, is refused with a [*NearNameError] unless force is set.
func (t *Text) AddSection(section string, force bool) (*Text, error) {
	if message := serverNameProblem(section); message != "" && section != MainSection {
		return nil, Problem{File: t.name, Section: section, Message: message}
	}
	if strings.ContainsAny(section, "#;]") {
		return nil, Problem{File: t.name, Section: section, Message: "the name of a server must not contain #, ; or a bracket: they end a section header"}
	}
	if near, ok := likely(section, append(t.Sections(), MainSection)); ok && !force {
		return nil, &NearNameError{t.name, section, near}
	}
	text := t.Bytes()
	if len(bytes.TrimSpace(text)) > 0 {
		if !bytes.HasSuffix(text, []byte("\n")) {
			text = append(text, '\n')
		}
		text = append(text, '\n')
	}
	return NewText(t.name, fmt.Appendf(text, "[%s]\n", section)), nil
}

// likely returns the name that section is a misspelling of: the same letters in another order, or one letter less or
// more. One letter for another is no reason: that is how servers are told apart.
func likely(section string, names []string) (string, bool) {
	for _, name := range names {
		a, b := withoutDigits(section), withoutDigits(name)
		if a == b || len(section) < 5 {
			continue
		}
		if sortedLetters(a) == sortedLetters(b) || len(a) != len(b) && distance(a, b) == 1 {
			return name, true
		}
	}
	return "", false
}

func withoutDigits(s string) string {
	return strings.Map(func(r rune) rune {
		if r >= '0' && r <= '9' {
			return -1
		}
		return r
	}, s)
}

func sortedLetters(s string) string {
	letters := []byte(strings.ToLower(s))
	slices.Sort(letters)
	return string(letters)
}
