package mgmt

import (
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
)

// Append appends the document as it travels in a frame: compact, in the dialect of the package comment.
// It fails only for a value of a type that a Document must not hold; dst is then worth nothing.
func (d Document) Append(dst []byte) ([]byte, error) {
	e := encoder{out: dst}
	err := e.object(d, 0)
	return e.out, err
}

// AppendIndent is Append for people: one member per line, two blanks per level, no final newline.
func (d Document) AppendIndent(dst []byte) ([]byte, error) {
	e := encoder{out: dst, indent: true}
	err := e.object(d, 0)
	return e.out, err
}

type encoder struct {
	out    []byte
	indent bool
}

func (e *encoder) object(d Document, level int) error {
	if len(d) == 0 {
		e.out = append(e.out, "{}"...)
		return nil
	}

	e.out = append(e.out, '{')
	for i, key := range slices.Sorted(maps.Keys(d)) {
		e.separate(i, level+1)
		e.quote(key)
		e.out = append(e.out, ':')
		if e.indent {
			e.out = append(e.out, ' ')
		}
		if err := e.value(d[key], level+1); err != nil {
			return fmt.Errorf("%s: %w", key, err)
		}
	}
	e.newline(level)
	e.out = append(e.out, '}')
	return nil
}

func (e *encoder) array(list []any, level int) error {
	// Programs of 0.22 never wrote or expected []: an array nobody added to had no type yet.
	if len(list) == 0 {
		e.out = append(e.out, "{}"...)
		return nil
	}

	e.out = append(e.out, '[')
	for i, v := range list {
		e.separate(i, level+1)
		if err := e.value(v, level+1); err != nil {
			return fmt.Errorf("[%d]: %w", i, err)
		}
	}
	e.newline(level)
	e.out = append(e.out, ']')
	return nil
}

func (e *encoder) separate(i, level int) {
	if i > 0 {
		e.out = append(e.out, ',')
	}
	e.newline(level)
}

func (e *encoder) newline(level int) {
	if !e.indent {
		return
	}
	e.out = append(e.out, '\n')
	for range level {
		e.out = append(e.out, "  "...)
	}
}

func (e *encoder) value(v any, level int) error {
	switch v := canonical(v).(type) {
	case Document:
		return e.object(v, level)
	case []any:
		return e.array(v, level)
	case nil:
		e.out = append(e.out, "null"...)
	case bool:
		e.out = strconv.AppendBool(e.out, v)
	case string:
		e.text(v)
	case int64:
		e.out = strconv.AppendInt(e.out, v, 10)
	case float64:
		e.float(v)
	case json.Number:
		e.out = append(e.out, v...)
	default:
		return fmt.Errorf("a document cannot hold a %T", v)
	}
	return nil
}

func (e *encoder) text(s string) {
	if s == "" {
		e.out = append(e.out, "null"...)
		return
	}
	e.quote(s)
}

func (e *encoder) float(v float64) {
	if math.IsNaN(v) || math.IsInf(v, 0) {
		e.out = append(e.out, "null"...)
		return
	}
	e.out = strconv.AppendFloat(e.out, v, 'f', 6, 64)
}

func (e *encoder) quote(s string) {
	e.out = append(e.out, '"')
	e.out = AppendEscaped(e.out, s)
	e.out = append(e.out, '"')
}

// AppendEscaped appends s as it stands between the quotes of a string: \" \\ \n \t \r
// escaped, other control characters as a blank, everything else as it is.
func AppendEscaped(dst []byte, s string) []byte {
	for i := range len(s) {
		switch c := s[i]; {
		case c == '"' || c == '\\':
			dst = append(dst, '\\', c)
		case c == '\n':
			dst = append(dst, `\n`...)
		case c == '\t':
			dst = append(dst, `\t`...)
		case c == '\r':
			dst = append(dst, `\r`...)
		case c < ' ':
			dst = append(dst, ' ')
		default:
			dst = append(dst, c)
		}
	}
	return dst
}

func formatUint(v uint64) string { return strconv.FormatUint(v, 10) }
