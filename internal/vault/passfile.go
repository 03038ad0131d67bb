package vault

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// maxPassfile bounds what is read from a password file.
const maxPassfile = 1 << 20

// A Passfile is a parsed password file of PostgreSQL. It does not change.
//
// See PostgreSQL documentation, "The Password File".
type Passfile struct{ entries []passEntry }

// passEntry is one line: a field that is only an asterisk matches everything.
type passEntry struct {
	fields   [4]passField // host, port, database, user
	password Secret
}

type passField struct {
	text string
	any  bool
}

// LoadPassfile reads a password file: lines of host:port:database:user:password. Unlike libpq, which passes over
// it in silence, a file that others can read is a [*ModeError] and a malformed line is a [*LineError].
func LoadPassfile(path string) (*Passfile, error) {
	if err := checkMode(path, false); err != nil {
		return nil, fmt.Errorf("password file: %w", err)
	}
	data, err := readBounded(path, maxPassfile)
	if err != nil {
		return nil, fmt.Errorf("password file: %w", err)
	}
	return ParsePassfile(path, data)
}

// ParsePassfile parses the content of a password file. name is used in messages.
func ParsePassfile(name string, data []byte) (*Passfile, error) {
	p := &Passfile{}
	var errs []error
	for i, line := range splitLines(data) {
		if line == "" || line[0] == '#' {
			continue
		}
		e, err := parsePassLine(line)
		if err != nil {
			errs = append(errs, &LineError{name, i + 1, err.Error(), nil})
			continue
		}
		p.entries = append(p.entries, e)
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	return p, nil
}

func parsePassLine(line string) (passEntry, error) {
	const form = "the line is not of the form host:port:database:user:password (write : and \\ in a field as \\: and \\\\)"
	var e passEntry
	rest := line
	for i := range e.fields {
		raw, after, ok := cutField(rest)
		if !ok {
			return passEntry{}, errors.New(form)
		}
		e.fields[i] = passField{unescape(raw), raw == "*"}
		rest = after
	}
	password, _, more := cutField(rest)
	if more {
		// libpq would take what stands before the colon for the password.
		return passEntry{}, errors.New(form)
	}
	if password = unescape(password); password == "" {
		return passEntry{}, errors.New("the password is empty")
	}
	e.password = NewSecret(password)
	return e, nil
}

// cutField splits text at the first colon that no backslash protects. Without one it returns all of text and false.
func cutField(text string) (field, rest string, ok bool) {
	for i := 0; i < len(text); i++ {
		switch text[i] {
		case '\\':
			i++
		case ':':
			return text[:i], text[i+1:], true
		}
	}
	return text, "", false
}

// unescape removes the backslash before a protected character. One at the end stays.
func unescape(text string) string {
	var b strings.Builder
	for i := 0; i < len(text); i++ {
		if text[i] == '\\' && i+1 < len(text) {
			i++
		}
		b.WriteByte(text[i])
	}
	return b.String()
}

// Lookup returns the password of the first line that matches. For a replication connection the database is "replication". A host that is
// the directory of a Unix socket also matches the word localhost.
func (p *Passfile) Lookup(host string, port int, database, user string) (Secret, bool) {
	want := [4]string{host, strconv.Itoa(port), database, user}
	for _, e := range p.entries {
		if e.matches(want) {
			return e.password, true
		}
	}
	return Secret{}, false
}

func (e *passEntry) matches(want [4]string) bool {
	for i, f := range e.fields {
		if f.any || f.text == want[i] {
			continue
		}
		if i == 0 && f.text == "localhost" && strings.HasPrefix(want[0], "/") {
			continue
		}
		return false
	}
	return true
}
