package mgmt

import (
	"encoding/json"
	"errors"
	"math"
	"reflect"
	"strings"
	"testing"
)

func TestDecodeAcceptsBothDialects(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, in string
		want     Document
	}{
		{"empty", `{}`, Document{}},
		{"blanks everywhere", " {\t\"a\" :\r\n1 , \"b\": [ ] } ", Document{"a": int64(1), "b": []any{}}},
		{"literals", `{"t":true,"f":false,"n":null}`, Document{"t": true, "f": false, "n": nil}},
		{"nested", `{"a":{"b":[{"c":"d"},2]}}`, Document{"a": Document{"b": []any{Document{"c": "d"}, int64(2)}}}},
		{"last of equal names counts", `{"a":1,"a":2}`, Document{"a": int64(2)}},
		{"bytes after the object", `{"a":1}}]garbage`, Document{"a": int64(1)}},
		{"escapes of the old writer", `{"a":"q\"b\\n\nt\tr\ra\'"}`, Document{"a": "q\"b\\n\nt\tr\ra'"}},
		{"other escapes of JSON", `{"a":"\/\b\f\u0041\u00e9"}`, Document{"a": "/\b\fAé"}},
		{"surrogate pair", `{"a":"\ud83d\ude00"}`, Document{"a": "😀"}},
		{"half a pair", `{"a":"\ud83dx"}`, Document{"a": "\uFFFDx"}},
		{"half a pair and a letter", `{"a":"\ud83d\u0041"}`, Document{"a": "\uFFFDA"}},
		{"raw control characters", "{\"a\":\"x\ty\nz\"}", Document{"a": "x\ty\nz"}},
		{"bytes that are not UTF-8", "{\"a\":\"\xff\"}", Document{"a": "\xff"}},
		{"empty string", `{"a":""}`, Document{"a": ""}},
		{"integers", `{"a":0,"b":-7,"c":+5,"d":007}`, Document{"a": int64(0), "b": int64(-7), "c": int64(5), "d": int64(7)}},
		{"largest integer", `{"a":9223372036854775807}`, Document{"a": int64(math.MaxInt64)}},
		{"beyond int64", `{"a":18446744073709551615}`, Document{"a": json.Number("18446744073709551615")}},
		{"floats", `{"a":1.5,"b":1.0,"c":-0.25,"d":2e3}`, Document{"a": 1.5, "b": 1.0, "c": -0.25, "d": 2000.0}},
		{"numbers only the old parser takes", `{"a":1.2.3,"b":4-5,"c":.5}`, Document{"a": 1.2, "b": int64(4), "c": 0.5}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got, err := Decode([]byte(tt.in))
			if err != nil || !reflect.DeepEqual(got, tt.want) {
				t.Errorf("Decode(%q) = %#v, %v, want %#v", tt.in, got, err, tt.want)
			}
		})
	}
}

func TestDecodeRefuses(t *testing.T) {
	t.Parallel()
	tests := []struct{ name, in string }{
		{"nothing", ``},
		{"blanks", `  `},
		{"array", `[{"a":1}]`},
		{"scalar", `"a"`},
		{"not JSON", `hello`},
		{"cut in a name", `{"Head`},
		{"cut after a name", `{"a"`},
		{"cut after a colon", `{"a":`},
		{"cut after a value", `{"a":1`},
		{"cut after a comma", `{"a":1,`},
		{"cut in an escape", `{"a":"\`},
		{"cut in a unicode escape", `{"a":"\u12`},
		{"unknown escape", `{"a":"\x41"}`},
		{"bad unicode escape", `{"a":"\u12g4"}`},
		{"name without quotes", `{a:1}`},
		{"missing colon", `{"a" 1}`},
		{"missing comma", `{"a":1 "b":2}`},
		{"trailing comma", `{"a":1,}`},
		{"half a literal", `{"a":tru}`},
		{"sign without digits", `{"a":-}`},
		{"only a dot", `{"a":.}`},
		{"out of range", `{"a":1e999}`},
		{"zero bytes", "{\x00}"},
		{"wrong bracket", `{"a":[1}`},
		{"too deep", strings.Repeat(`{"a":`, 1000)},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			doc, err := Decode([]byte(tt.in))
			var syntax *SyntaxError
			if !errors.As(err, &syntax) {
				t.Errorf("Decode(%q) = %v, %v, want a SyntaxError", tt.in, doc, err)
			}
		})
	}
}

func TestRequestsAreBoundedInValues(t *testing.T) {
	t.Parallel()
	in := []byte(`{"a":[` + strings.Repeat(`[],`, maxRequestValues) + `0]}`)
	if _, err := decode(in, maxRequestValues); err == nil {
		t.Error("decode of a request with 100002 values succeeded, want an error")
	}
	if _, err := Decode(in); err != nil {
		t.Errorf("Decode of a response with 100002 values = %v, want no error", err)
	}
}

func TestAppendWritesTheOldDialect(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		in   Document
		want string
	}{
		{"no members", Document{}, `{}`},
		{"sorted by bytes", Document{"b": 1, "a": 2, "B": 3, "_": 4}, `{"B":3,"_":4,"a":2,"b":1}`},
		{"empty string and nothing", Document{"a": "", "b": nil}, `{"a":null,"b":null}`},
		{"empty containers", Document{"a": []any{}, "b": Document{}, "c": []string(nil)}, `{"a":{},"b":{},"c":{}}`},
		{"floats", Document{"a": 1.5, "b": 1e21, "c": math.NaN()}, `{"a":1.500000,"b":1000000000000000000000.000000,"c":null}`},
		{"integers", Document{"a": int64(-1), "b": uint64(math.MaxUint64), "c": uint32(7)}, `{"a":-1,"b":18446744073709551615,"c":7}`},
		{"escapes", Document{"a": "q\"b\\n\nt\tr\r'/<é\x01\x00"}, `{"a":"q\"b\\n\nt\tr\r'/<é  "}`},
		{"lists", Document{"a": []string{"x", "y"}, "b": []Document{{"c": true}}}, `{"a":["x","y"],"b":[{"c":true}]}`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got, err := tt.in.Append(nil)
			if err != nil || string(got) != tt.want {
				t.Errorf("Append(%v) = %s, %v, want %s", tt.in, got, err, tt.want)
			}
		})
	}
}

func TestAppendNamesTheMemberItCannotWrite(t *testing.T) {
	t.Parallel()
	_, err := Document{"a": []any{Document{"b": struct{}{}}}}.Append(nil)
	const want = "a: [0]: b: a document cannot hold a struct {}"
	if err == nil || err.Error() != want {
		t.Errorf("Append = %v, want %q", err, want)
	}
}

func TestCloneSharesNothing(t *testing.T) {
	t.Parallel()
	orig := Document{"o": map[string]any{"k": "v"}, "l": []Document{{"n": 1}}}
	clone := orig.Clone()
	clone.Object("o")["k"] = "changed"
	clone.List("l")[0].(Document)["n"] = "changed"

	if got := orig.Object("o").Text("k"); got != "v" {
		t.Errorf("after changing the clone, o.k = %q, want v", got)
	}
	if n, ok := orig["l"].([]Document)[0].Integer("n"); n != 1 || !ok {
		t.Errorf("after changing the clone, l[0].n = %d, %t, want 1", n, ok)
	}
}

func TestAccessorsReadZeroForOtherTypes(t *testing.T) {
	t.Parallel()
	d := Document{"s": "text", "n": int64(1), "f": 2.0, "h": 2.5, "b": true, "o": Document{"x": nil}, "e": Document{}}
	if d.Text("n") != "" || d.Bool("s") || d.Object("s") != nil || d.List("e") != nil {
		t.Error("an accessor returned a value of another type")
	}
	if n, ok := d.Integer("f"); n != 2 || !ok {
		t.Errorf("Integer of 2.0 = %d, %t, want 2, true", n, ok)
	}
	for _, key := range []string{"h", "s", "missing"} {
		if n, ok := d.Integer(key); ok {
			t.Errorf("Integer(%q) = %d, true, want false", key, n)
		}
	}
}

func FuzzDecode(f *testing.F) {
	for _, seed := range []string{
		`{}`, `{"a":[1,2.5,-3],"b":{"c":null}}`, `{"a":"\u00e9\ud83d\ude00\'"}`, `[]`, `{"a":1.2.3e+}`, `{"a":"`,
		`{"Header":{"Command":9},"Request":{}}`, `{"":"","a":[[],{}]}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		doc, err := Decode(in)
		if err != nil {
			return
		}
		first, err := doc.Append(nil)
		if err != nil {
			t.Fatalf("a decoded document does not encode: %v", err)
		}
		if !json.Valid(first) {
			t.Fatalf("not JSON: %q", first)
		}
		again, err := Decode(first)
		if err != nil {
			t.Fatalf("Decode of what Append wrote: %v: %q", err, first)
		}
		second, err := again.Append(nil)
		if err != nil || string(second) != string(first) {
			t.Fatalf("second round differs: %v\n%q\n%q", err, first, second)
		}
	})
}
