package repo

import (
	"encoding/json"
	"testing"
)

// What is read is what encoding/json reads as an array of five numbers within the limits.
func FuzzExtent(f *testing.F) {
	for _, seed := range []string{
		"[0,8192,3,17,4096]", " [ 1 , 2 , 3 , 4 , 5 ] ", "[0,0,0,0]", "[0,0,0,0,0,0]", "[-1,0,0,0,0]", "[1e3,0,0,0,0]",
		"[1.5,0,0,0,0]", "[[1],0,0,0,0]", `["1,2",0,0,0]`, "null", "{}", "[1125899906842625,0,0,0,0]", "[-0,0,0,0,0]",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if !json.Valid([]byte(text)) {
			return // encoding/json asks us for values only
		}
		var e, again Extent
		err := e.UnmarshalJSON([]byte(text))
		if err != nil {
			return
		}
		var a [5]int64
		if err := json.Unmarshal([]byte(text), &a); err != nil {
			t.Fatalf("%q is read as %+v; encoding/json says %v", text, e, err)
		}
		if want := (Extent{Offset: a[0], Length: a[1], Pack: int(a[2]), Frame: int(a[3]), Skip: a[4]}); e != want {
			t.Fatalf("%q is read as %+v, want %+v", text, e, want)
		}
		b, err := json.Marshal(e)
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(b, &again); err != nil || again != e {
			t.Fatalf("%+v becomes %s, and that %+v, %v", e, b, again, err)
		}
	})
}
