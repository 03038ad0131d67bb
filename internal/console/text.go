package console

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/pgmoneta/pgmoneta-go/internal/mgmt"
)

// A textWriter writes the text layout:
//
//	Key: value
//	Object:
//	  Member: value
//	Array:
//	  - First: value
//	    Second: value
//	  - word
//	Empty: {}
//
// It expects the types that mgmt.Decode produces.
type textWriter struct {
	out []byte
}

// members writes the members of one object at column. With joined the first one continues the line.
func (t *textWriter) members(doc mgmt.Document, column int, joined bool) {
	for i, key := range slices.Sorted(maps.Keys(doc)) {
		if i > 0 || !joined {
			t.indent(column)
		}
		t.out = append(t.out, printable(key)...)
		t.out = append(t.out, ':')
		t.value(doc[key], column)
	}
}

// value writes what follows the colon of a member at column, and the end of the line.
func (t *textWriter) value(v any, column int) {
	switch v := v.(type) {
	case mgmt.Document:
		if len(v) > 0 {
			t.out = append(t.out, '\n')
			t.members(v, column+2, false)
			return
		}
	case []any:
		if len(v) > 0 {
			t.out = append(t.out, '\n')
			t.elements(v, column+2)
			return
		}
	}
	t.out = append(t.out, ' ')
	t.out = append(t.out, scalar(v)...)
	t.out = append(t.out, '\n')
}

func (t *textWriter) elements(list []any, column int) {
	for _, v := range list {
		t.indent(column)
		t.out = append(t.out, '-')
		if doc, ok := v.(mgmt.Document); ok && len(doc) > 0 {
			t.out = append(t.out, ' ')
			t.members(doc, column+2, true)
			continue
		}
		t.value(v, column)
	}
}

func (t *textWriter) indent(column int) {
	for range column {
		t.out = append(t.out, ' ')
	}
}

// scalar returns the text of a value without members.
func scalar(v any) string {
	switch v := v.(type) {
	case nil:
		return ""
	case string:
		return printable(v)
	case float64:
		return fmt.Sprintf("%.6f", v)
	case mgmt.Document, []any:
		return "{}"
	default:
		return fmt.Sprint(v)
	}
}

// printable keeps a text on its line and away from the terminal's controls.
func printable(s string) string {
	if !strings.ContainsFunc(s, unicode.IsControl) {
		return s
	}
	var out []byte
	for len(s) > 0 {
		r, size := utf8.DecodeRuneInString(s)
		switch {
		case !unicode.IsControl(r):
			out = append(out, s[:size]...) // also bytes that are not UTF-8
		case r == '\n' || r == '\r' || r == '\t':
			out = mgmt.AppendEscaped(out, s[:size])
		default:
			out = append(out, ' ')
		}
		s = s[size:]
	}
	return string(out)
}
