package mgmt

import (
	"encoding/json"
	"math"
)

// A Document is one JSON object of the protocol.
//
// [Decode] produces only these values: nil, bool, string, int64, float64, [json.Number] for an
// integer that does not fit int64, Document and []any. For encoding, the other integer
// types, []string, []Document and map[string]any are accepted as well.
//
// The accessors accept absent members and members of another type: both read as the zero value.
type Document map[string]any

// Text returns the string member key, "" for null, absence or another type.
func (d Document) Text(key string) string {
	s, _ := d[key].(string)
	return s
}

// Integer returns the integer member key. A floating number counts when it is whole.
func (d Document) Integer(key string) (n int64, ok bool) {
	switch v := d[key].(type) {
	case int64:
		return v, true
	case int:
		return int64(v), true
	case int32:
		return int64(v), true
	case uint32:
		return int64(v), true
	case uint64:
		return int64(v), v <= math.MaxInt64
	case float64:
		return int64(v), v == math.Trunc(v) && math.Abs(v) < 1<<53
	default:
		return 0, false
	}
}

// Bool returns the boolean member key.
func (d Document) Bool(key string) bool {
	b, _ := d[key].(bool)
	return b
}

// Object returns the object member key, nil when there is none.
func (d Document) Object(key string) Document {
	o, _ := canonical(d[key]).(Document)
	return o
}

// List returns the array member key. An empty array is sent as {}, so an object reads as no elements.
func (d Document) List(key string) []any {
	l, _ := canonical(d[key]).([]any)
	return l
}

// Clone returns a deep copy that holds only the types [Decode] produces.
func (d Document) Clone() Document {
	if d == nil {
		return nil
	}
	out := make(Document, len(d))
	for key, v := range d {
		out[key] = cloneValue(v)
	}
	return out
}

func cloneValue(v any) any {
	switch v := canonical(v).(type) {
	case Document:
		return v.Clone()
	case []any:
		out := make([]any, len(v))
		for i, e := range v {
			out[i] = cloneValue(e)
		}
		return out
	default:
		return v
	}
}

// canonical maps the convenience types accepted for encoding to those Decode produces.
func canonical(v any) any {
	switch v := v.(type) {
	case map[string]any:
		return Document(v)
	case []string:
		return anySlice(v)
	case []Document:
		return anySlice(v)
	case int:
		return int64(v)
	case int32:
		return int64(v)
	case uint32:
		return int64(v)
	case uint64:
		return fromUint64(v)
	default:
		return v
	}
}

func anySlice[T any](in []T) []any {
	out := make([]any, len(in))
	for i, e := range in {
		out[i] = e
	}
	return out
}

func fromUint64(v uint64) any {
	if v <= math.MaxInt64 {
		return int64(v)
	}
	return json.Number(formatUint(v))
}
