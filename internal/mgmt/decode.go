package mgmt

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

const (
	// maxDepth bounds nesting; the deepest document of the protocol has five levels.
	maxDepth = 64

	// maxRequestValues bounds the values of one request, so that 16 MiB of "[[],[],..." do not become
	// a gigabyte of slices. Responses are not bounded so: a verification lists every file of a backup.
	maxRequestValues = 100_000
)

// A SyntaxError says where and why bytes are not a document.
type SyntaxError struct {
	Offset int    // of the byte that was not understood
	Reason string // what was wrong with it
}

func (e *SyntaxError) Error() string {
	return fmt.Sprintf("not a management document: byte %d: %s", e.Offset, e.Reason)
}

// Decode reads one document. It does not keep data. Errors are of type [*SyntaxError].
func Decode(data []byte) (Document, error) {
	// A value takes a byte at least, so this never refuses for their number.
	return decode(data, len(data)+1)
}

func decode(data []byte, maxValues int) (Document, error) {
	d := decoder{data: data, values: maxValues}
	d.blanks()
	if d.peek() != '{' {
		return nil, d.fail("want an object")
	}
	return d.object()
}

type decoder struct {
	data   []byte
	pos    int
	depth  int
	values int // still allowed
}

func (d *decoder) fail(reason string) error {
	return &SyntaxError{Offset: d.pos, Reason: reason}
}

// peek returns the next byte, 0 at the end; a real zero byte is as unwelcome as the end.
func (d *decoder) peek() byte {
	if d.pos >= len(d.data) {
		return 0
	}
	return d.data[d.pos]
}

func (d *decoder) blanks() {
	for d.pos < len(d.data) {
		switch d.data[d.pos] {
		case ' ', '\t', '\n', '\r':
			d.pos++
		default:
			return
		}
	}
}

func (d *decoder) enter() error {
	d.depth++
	if d.depth > maxDepth {
		return d.fail("nested too deeply")
	}
	d.pos++
	d.blanks()
	return nil
}

func (d *decoder) leave() {
	d.depth--
	d.pos++
}

func (d *decoder) object() (Document, error) {
	if err := d.enter(); err != nil {
		return nil, err
	}
	doc := Document{}
	if d.peek() == '}' {
		d.leave()
		return doc, nil
	}
	for {
		if err := d.member(doc); err != nil {
			return nil, err
		}
		more, err := d.more('}')
		if err != nil {
			return nil, err
		}
		if !more {
			return doc, nil
		}
	}
}

func (d *decoder) member(doc Document) error {
	if d.peek() != '"' {
		return d.fail("want a member name")
	}
	key, err := d.text()
	if err != nil {
		return err
	}
	d.blanks()
	if d.peek() != ':' {
		return d.fail("want a colon")
	}
	d.pos++
	v, err := d.value()
	if err != nil {
		return err
	}
	doc[key] = v
	return nil
}

func (d *decoder) array() ([]any, error) {
	if err := d.enter(); err != nil {
		return nil, err
	}
	list := []any{}
	if d.peek() == ']' {
		d.leave()
		return list, nil
	}
	for {
		v, err := d.value()
		if err != nil {
			return nil, err
		}
		list = append(list, v)
		more, err := d.more(']')
		if err != nil {
			return nil, err
		}
		if !more {
			return list, nil
		}
	}
}

// more consumes what follows an element: a comma, or the closing bracket.
func (d *decoder) more(end byte) (bool, error) {
	d.blanks()
	switch d.peek() {
	case ',':
		d.pos++
		d.blanks()
		return true, nil
	case end:
		d.leave()
		return false, nil
	default:
		return false, d.fail("want a comma or the closing bracket")
	}
}

func (d *decoder) value() (any, error) {
	d.values--
	if d.values < 0 {
		return nil, d.fail("too many values")
	}

	d.blanks()
	switch c := d.peek(); {
	case c == '{':
		return d.object()
	case c == '[':
		return d.array()
	case c == '"':
		return d.text()
	case isNumeric(c):
		return d.number()
	default:
		return d.literal()
	}
}

func (d *decoder) literal() (any, error) {
	rest := d.data[d.pos:]
	switch {
	case bytes.HasPrefix(rest, []byte("true")):
		d.pos += 4
		return true, nil
	case bytes.HasPrefix(rest, []byte("false")):
		d.pos += 5
		return false, nil
	case bytes.HasPrefix(rest, []byte("null")):
		d.pos += 4
		return nil, nil
	default:
		return nil, d.fail("want a value")
	}
}

// text reads a string. Raw control characters are accepted: the old writer escapes only five bytes.
func (d *decoder) text() (string, error) {
	d.pos++ // the quote
	var out []byte
	for {
		n := bytes.IndexAny(d.data[d.pos:], `"\`)
		if n < 0 {
			d.pos = len(d.data)
			return "", d.fail("string without an end")
		}
		out = append(out, d.data[d.pos:d.pos+n]...)
		d.pos += n
		if d.data[d.pos] == '"' {
			d.pos++
			return string(out), nil
		}
		var err error
		if out, err = d.escape(out); err != nil {
			return "", err
		}
	}
}

func (d *decoder) escape(out []byte) ([]byte, error) {
	d.pos++ // the backslash
	c := d.peek()
	d.pos++
	switch c {
	case '"', '\\', '/', '\'':
		return append(out, c), nil
	case 'n':
		return append(out, '\n'), nil
	case 't':
		return append(out, '\t'), nil
	case 'r':
		return append(out, '\r'), nil
	case 'b':
		return append(out, '\b'), nil
	case 'f':
		return append(out, '\f'), nil
	case 'u':
		return d.unicode(out)
	default:
		d.pos--
		return nil, d.fail("unknown escape")
	}
}

// unicode reads the four digits after \u, and a second such escape when the first is half of a pair.
func (d *decoder) unicode(out []byte) ([]byte, error) {
	r, err := d.hex4()
	if err != nil {
		return nil, err
	}
	if utf16.IsSurrogate(r) && bytes.HasPrefix(d.data[d.pos:], []byte(`\u`)) {
		mark := d.pos
		d.pos += 2
		low, err := d.hex4()
		if err != nil {
			return nil, err
		}
		r = utf16.DecodeRune(r, low)
		if r == utf8.RuneError {
			d.pos = mark // the second stands for itself
		}
	}
	return utf8.AppendRune(out, r), nil // half a pair becomes U+FFFD
}

func (d *decoder) hex4() (rune, error) {
	if len(d.data)-d.pos < 4 {
		return 0, d.fail("want four hexadecimal digits")
	}
	n, err := strconv.ParseUint(string(d.data[d.pos:d.pos+4]), 16, 32)
	if err != nil {
		return 0, d.fail("want four hexadecimal digits")
	}
	d.pos += 4
	return rune(n), nil
}

func isNumeric(c byte) bool {
	return isDigit(c) || c == '+' || c == '-' || c == '.'
}

func isDigit(c byte) bool { return '0' <= c && c <= '9' }

// number reads a number the way the old parser does: it takes every byte that could belong to one and
// believes the longest beginning that is one. Exponents are an addition.
func (d *decoder) number() (any, error) {
	start := d.pos
	for d.pos < len(d.data) && (isNumeric(d.data[d.pos]) || d.data[d.pos]|0x20 == 'e') {
		d.pos++
	}
	text, whole := numberPrefix(string(d.data[start:d.pos]))
	if text == "" {
		d.pos = start
		return nil, d.fail("want a number")
	}
	if whole {
		return integer(text), nil
	}
	f, err := strconv.ParseFloat(text, 64)
	if err != nil {
		d.pos = start
		return nil, d.fail("number out of range")
	}
	return f, nil
}

// numberPrefix returns the longest prefix of s that is a number, and whether that is an integer.
func numberPrefix(s string) (prefix string, whole bool) {
	i := signs(s, 0)
	n := digits(s, i)
	count, end := n-i, n
	whole = true
	if end < len(s) && s[end] == '.' {
		n = digits(s, end+1)
		count += n - end - 1
		end, whole = n, false
	}
	if count == 0 {
		return "", false
	}
	if end < len(s) && s[end]|0x20 == 'e' {
		i = signs(s, end+1)
		if n = digits(s, i); n > i {
			end, whole = n, false
		}
	}
	return s[:end], whole
}

func signs(s string, i int) int {
	if i < len(s) && (s[i] == '+' || s[i] == '-') {
		return i + 1
	}
	return i
}

func digits(s string, i int) int {
	for i < len(s) && isDigit(s[i]) {
		i++
	}
	return i
}

// integer keeps an integer of any size exactly; one beyond int64 as its digits.
func integer(text string) any {
	n, err := strconv.ParseInt(text, 10, 64)
	if err == nil {
		return n
	}
	sign := ""
	if text[0] == '-' {
		sign = "-"
	}
	return json.Number(sign + strings.TrimLeft(text, "+-0"))
}
