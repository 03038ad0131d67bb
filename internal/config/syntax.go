package config

import (
	"bytes"
	"errors"
	"fmt"
	"iter"
	"strings"
)

// lines yields the lines of data, numbered from 1, without their line ends. A byte order mark at the begin is dropped.
func lines(data []byte) iter.Seq2[int, string] {
	return func(yield func(int, string) bool) {
		data = bytes.TrimPrefix(data, []byte("\xef\xbb\xbf"))
		number := 0
		for line := range bytes.Lines(data) {
			number++
			if !yield(number, string(bytes.TrimRight(line, "\r\n"))) {
				return
			}
		}
	}
}

const (
	blanks          = " \t\r\n"
	blanksAndQuotes = blanks + `"'`
)

// cutComment removes white space at both ends and the comment, which begins at the first # or ; that is not quoted.
//
// A quote begins where no letter or digit stands before it and ends at the next quote of its kind on the line; without that second one
// it is an ordinary character. So an apostrophe in a word does not hide a comment.
func cutComment(line string) string {
	for i := 0; i < len(line); i++ {
		switch c := line[i]; c {
		case '#', ';':
			return strings.Trim(line[:i], blanks)
		case '"', '\'':
			if end := strings.IndexByte(line[i+1:], c); end >= 0 && !afterWord(line, i) {
				i += end + 1
			}
		}
	}
	return strings.Trim(line, blanks)
}

// afterWord reports whether a letter, a digit or a backslash stands before position i.
func afterWord(line string, i int) bool {
	if i == 0 {
		return false
	}
	c := line[i-1]
	return c == '\\' || c >= 0x80 || c >= '0' && c <= '9' || c >= 'A' && c <= 'Z' || c >= 'a' && c <= 'z'
}

// splitAssignment separates the key from the rest of the line, which begins after the equal sign if there is one.
// A key that takes a path may do without the equal sign.
func splitAssignment(line string) (name, rest string, hasEqual bool) {
	if before, after, ok := strings.Cut(line, "="); ok {
		name = strings.Trim(before, blanksAndQuotes)
		if !strings.ContainsAny(name, blanks) {
			return name, strings.Trim(after, blanks), true
		}
	}
	if i := strings.IndexAny(line, blanks); i >= 0 {
		return line[:i], line[i:], false
	}
	return line, "", false
}

// readValue turns the text after the key into the value.
func readValue(rest string, path, hasEqual bool, env func(string) (string, bool)) (string, error) {
	if path {
		return readPath(strings.TrimLeft(rest, blanks+"="), env)
	}
	if !hasEqual {
		return "", errors.New("the equal sign is missing: write key = value")
	}
	return strings.TrimRight(strings.TrimLeft(rest, blanksAndQuotes+"="), blanksAndQuotes), nil
}

// maxPath is the longest path in bytes, as in Linux.
const maxPath = 4095

// readPath resolves quotes, backslashes and environment variables. Inside single quotes a dollar sign is an ordinary character.
func readPath(text string, env func(string) (string, bool)) (string, error) {
	var b strings.Builder
	var quote byte
	for i := 0; i < len(text); i++ {
		c := text[i]
		switch {
		case c == '\\':
			i++
			if i == len(text) {
				return "", errors.New("a backslash at the end has nothing to protect")
			}
			b.WriteByte(text[i])
		case c == quote:
			quote = 0
		case quote == 0 && (c == '"' || c == '\''):
			quote = c
		case c == '$' && quote != '\'':
			name := variableName(text[i+1:])
			value, err := variable(name, env)
			if err != nil {
				return "", err
			}
			b.WriteString(value)
			i += len(name)
		default:
			b.WriteByte(c)
		}
		if b.Len() > maxPath {
			return "", fmt.Errorf("the path is longer than %d bytes", maxPath)
		}
	}
	if quote != 0 {
		return "", fmt.Errorf("the quote %c is not closed", quote)
	}
	return b.String(), nil
}

// variableName returns the letters, digits and underscores at the begin of text.
func variableName(text string) string {
	end := strings.IndexFunc(text, func(r rune) bool {
		return r != '_' && (r < '0' || r > '9') && (r < 'A' || r > 'Z') && (r < 'a' || r > 'z')
	})
	if end < 0 {
		return text
	}
	return text[:end]
}

func variable(name string, env func(string) (string, bool)) (string, error) {
	if name == "" {
		return "", errors.New("a dollar sign needs a variable name after it, as in $HOME; write \\$ for the character")
	}
	value, ok := env(name)
	if !ok {
		return "", fmt.Errorf("the environment variable %s is not set", name)
	}
	return value, nil
}
