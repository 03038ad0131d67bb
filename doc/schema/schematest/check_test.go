package schematest

import (
	"encoding/json"
	"strings"
	"testing"
)

const ping = `{"Header":{"ClientVersion":"0.22.0","Command":"ping","Compression":"none","Encryption":"none","Output":"json","Timestamp":"20261121123900"},
	"Outcome":{"Status":true,"Time":"00:00:0.0000"},"Request":{},"Response":{"ServerVersion":"0.22.0"}}`

// TestTheCheckerFindsWhatIsWrong damages an answer in every way that the schema can tell.
func TestTheCheckerFindsWhatIsWrong(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ old, new, problem string }{
		{``, ``, ``},
		{`"ping"`, `"pong"`, "pong is none of"},
		{`"none","Encryption"`, `"zip","Encryption"`, "zip is none of"},
		{`true`, `"yes"`, "yes is not of type boolean"},
		{`"Status":true`, `"Status":false`, ""}, // a failure has to have nothing more
		{`"Status":true,`, ``, "Status is missing"},
		{`{"ServerVersion":"0.22.0"}`, `{}`, "ServerVersion is missing"},
		{`,"Response":{"ServerVersion":"0.22.0"}`, ``, "Response is missing"},
		{`"Request":{}`, `"Request":[]`, "is not of type object"},
		{`"Request":{}`, `"Request":{"x":1}`, "x is not in the schema"},
		{`"ServerVersion"`, `"New":[{}],"ServerVersion"`, "New is not in the schema"},
		{`"Time":"00:00:0.0000"`, `"WorkerErrors":{"x":1}`, "1 members, at most 0"},
		{`"Time":"00:00:0.0000"`, `"WorkerErrors":["x",1]`, "1 is not of type string"},
	} {
		var v any
		if err := json.Unmarshal([]byte(strings.Replace(ping, tt.old, tt.new, 1)), &v); err != nil {
			t.Fatal(err)
		}
		c := checker{defs: definitions(t)}
		c.check("$", []object{{"$ref": "#/$defs/answer-ping"}}, v)
		got := strings.Join(c.problems, "\n")
		if (got == "") != (tt.problem == "") || !strings.Contains(got, tt.problem) {
			t.Errorf("%s for %s: %q, want %q", tt.new, tt.old, got, tt.problem)
		}
	}
}
