package console

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/pgmoneta/pgmoneta-go/internal/mgmt"
)

func read(t *testing.T, path ...string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(append([]string{"testdata"}, path...)...))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func document(t *testing.T, text string) mgmt.Document {
	t.Helper()
	doc, err := mgmt.Decode([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return doc
}

func render(t *testing.T, doc mgmt.Document, format Format) string {
	t.Helper()
	var out bytes.Buffer
	if err := Render(&out, doc, format); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

// TestRenderMatchesRecordedOutput compares with what pgmoneta-cli 0.22 printed in the three formats.
func TestRenderMatchesRecordedOutput(t *testing.T) {
	t.Parallel()
	raws, err := filepath.Glob("testdata/render/*.raw")
	if err != nil || len(raws) < 15 {
		t.Fatalf("found %d recordings, %v", len(raws), err)
	}
	for _, path := range raws {
		name := strings.TrimSuffix(filepath.Base(path), ".raw")
		for _, tt := range []struct {
			ext    string
			format Format
		}{{".raw", Raw}, {".json", JSON}, {".text", Text}} {
			t.Run(name+tt.ext, func(t *testing.T) {
				t.Parallel()
				doc := document(t, read(t, "render", name+".raw"))
				doc.Object("Header")["Output"] = int64(tt.format) // each recording is of its own request
				want := read(t, "render", name+tt.ext)
				if got := render(t, doc, tt.format); got != want {
					t.Errorf("Render:\n%s\nwant\n%s", got, want)
				}
			})
		}
	}
}

func TestRenderDoesNotChangeTheDocument(t *testing.T) {
	t.Parallel()
	raw := read(t, "render", "status-details.raw")
	doc := document(t, raw)
	render(t, doc, Text)
	render(t, doc, JSON)
	if got := render(t, doc, Raw); got != raw {
		t.Errorf("after Render the document is\n%s\nwant\n%s", got, raw)
	}
}

func TestStatusDetailsWithoutBackups(t *testing.T) {
	t.Parallel()
	// The C client crashed when a server with backups came before one without.
	doc := document(t, `{"Header":{"Command":8},"Outcome":{"Status":true},"Response":{"Servers":[
		{"Server":"a","Backups":[{"Backup":"1","Valid":0}]},{"Server":"b","Backups":{}},{"Server":"c"}]}}`)
	const want = `  Servers:
    - Backups:
        - Backup: 1
          BackupSize: 0.00B
          BiggestFileSize: 0.00B
          Compression: none
          Delta: 0.00B
          Encryption: none
          RestoreSize: 0.00B
          Valid: no
          WAL: 0.00B
      HotStandbySize: 0.00B
      Server: a
      ServerSize: 0.00B
      WorkspaceFreeSpace: 0.00B
    - Backups: {}
      HotStandbySize: 0.00B
`
	if got := render(t, doc, Text); !strings.Contains(got, want) {
		t.Errorf("Render:\n%s\nwant it to contain\n%s", got, want)
	}
}

func TestRenderKeepsMembersItDoesNotKnow(t *testing.T) {
	t.Parallel()
	doc := document(t, `{"Header":{"Command":18,"Extra":[1,[2,"x"],{},null]},
		"Outcome":{"Status":false,"Error":2200,"Message":"no backup \"x\"\nsee list-backup\u001b[2J"},"Response":{"Server":"a","Valid":1}}`)
	const want = `Header:
  Command: info
  Extra:
    - 1
    -
      - 2
      - x
    - {}
    - ` + `
Outcome:
  Error: 2200
  Message: no backup "x"\nsee list-backup [2J
  Status: false
Response:
  Server: a
  Valid: 1
`
	if got := render(t, doc, Text); got != want {
		t.Errorf("Render:\n%s\nwant\n%s", got, want)
	}
}

func TestRenderedJSONIsJSON(t *testing.T) {
	t.Parallel()
	doc := document(t, `{"Header":{"Command":20},"Outcome":{"Status":true},"Request":{"Comment":"it's\n\u0001\"é"},"Response":{}}`)
	for _, format := range []Format{JSON, Raw} {
		if got := render(t, doc, format); !json.Valid([]byte(got)) {
			t.Errorf("format %d is not JSON:\n%s", format, got)
		}
	}
}

func TestEncryptIsAWord(t *testing.T) {
	t.Parallel()
	doc := document(t, `{"Header":{"Command":15}}`)
	if got, want := render(t, doc, Text), "Header:\n  Command: encrypt\n"; got != want {
		t.Errorf("Render = %q, want %q", got, want)
	}
}

func TestSize(t *testing.T) {
	t.Parallel()
	tests := []struct {
		in   float64
		want string
	}{
		{0, "0.00B"}, {1023, "1023.00B"}, {1024, "1.00kB"}, {253952, "248.00kB"}, {6545408, "6.24MB"},
		{270553174016, "251.97GB"}, {1 << 50, "1.00PB"}, {1 << 62, "4096.00PB"},
	}
	for _, tt := range tests {
		if got := Size(tt.in); got != tt.want {
			t.Errorf("Size(%.0f) = %s, want %s", tt.in, got, tt.want)
		}
	}
}

func TestParseFormat(t *testing.T) {
	t.Parallel()
	for word, want := range map[string]Format{"text": Text, "json": JSON, "raw": Raw} {
		if got, err := ParseFormat(word); got != want || err != nil {
			t.Errorf("ParseFormat(%q) = %d, %v, want %d", word, got, err, want)
		}
	}
	if _, err := ParseFormat("JSON"); err == nil {
		t.Error(`ParseFormat("JSON") succeeded, want an error`)
	}
}

func TestRenderSetting(t *testing.T) {
	t.Parallel()
	doc := document(t, read(t, "render", "conf-get.raw"))
	tests := []struct {
		key, want string
		found     bool
	}{
		{"compression", "zstd\n", true},
		{"pgmoneta.compression", "zstd\n", true},
		{"PGMONETA.backlog", "16\n", true},
		{"libev", "\n", true},
		{"keep_alive", "true\n", true},
		{"server.west.port", "6417\n", true},
		{"server.west.create_slot", "0\n", true},
		{"server.nowhere.port", "Error\n", false},
		{"nosuch", "Error\n", false},
		{"west.port", "Error\n", false},
		{"server.west.port.x", "Error\n", false},
		{"compression.value", "Error\n", false},
		{"", "Error\n", false},
	}
	for _, tt := range tests {
		for _, format := range []Format{Text, Raw} {
			var out bytes.Buffer
			found, err := RenderSetting(&out, doc, tt.key, format)
			if out.String() != tt.want || found != tt.found || err != nil {
				t.Errorf("RenderSetting(%q) = %q, %t, %v, want %q, %t", tt.key, out.String(), found, err, tt.want, tt.found)
			}
		}
	}
}

func TestRenderSettingSubtree(t *testing.T) {
	t.Parallel()
	doc := document(t, `{"Response":{"server":{"a":{"port":1,"host":null},"b":{"port":2}}}}`)
	tests := []struct{ key, want string }{
		{"server", "a:\n  host: \n  port: 1\nb:\n  port: 2\n"},
		{"server.a", "host: \nport: 1\n"},
	}
	for _, tt := range tests {
		var out bytes.Buffer
		if found, err := RenderSetting(&out, doc, tt.key, Text); out.String() != tt.want || !found || err != nil {
			t.Errorf("RenderSetting(%q) = %q, %t, %v, want %q", tt.key, out.String(), found, err, tt.want)
		}
	}
}

func TestRenderSettingAsJSON(t *testing.T) {
	t.Parallel()
	doc := document(t, read(t, "render", "conf-get.raw"))
	doc.Object("Header")["Timestamp"] = "20261121123808"
	var out bytes.Buffer
	found, err := RenderSetting(&out, doc, "compression", JSON)
	if want := read(t, "conf-get-compression.json"); out.String() != want || !found || err != nil {
		t.Errorf("RenderSetting = %t, %v\n%s\nwant\n%s", found, err, out.String(), want)
	}

	out.Reset()
	found, err = RenderSetting(&out, doc, "nosuch", JSON)
	if found || err != nil || !strings.Contains(out.String(), `"Status": false`) || !strings.Contains(out.String(), `"Response": {}`) {
		t.Errorf("RenderSetting of an unknown key = %t, %v\n%s", found, err, out.String())
	}
}

func TestRenderChange(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"conf-set", "conf-set-bad"} {
		recorded := read(t, name+".json")
		doc := document(t, recorded)
		for ext, format := range map[string]Format{".json": JSON, ".text": Text} {
			var out bytes.Buffer
			if err := RenderChange(&out, doc, format); err != nil || out.String() != read(t, name+ext) {
				t.Errorf("RenderChange of %s%s = %v\n%s\nwant\n%s", name, ext, err, out.String(), read(t, name+ext))
			}
		}
	}
}

func TestRenderChangeThatNeedsARestart(t *testing.T) {
	t.Parallel()
	doc := document(t, `{"Outcome":{"Status":true},"Response":{"config_key":"host","status":"success_restart_required",
		"restart_required":true,"current_value":"localhost","requested_value":"127.0.0.1"}}`)
	const want = `Configuration change requires manual restart
   Parameter: host
   Current value: localhost (unchanged in running instance)
   Requested value: 127.0.0.1 (cannot be applied to live instance)
   Status: Requires full service restart
`
	var out bytes.Buffer
	if err := RenderChange(&out, doc, Text); err != nil || out.String() != want {
		t.Errorf("RenderChange = %v\n%s\nwant\n%s", err, out.String(), want)
	}
}

func FuzzRender(f *testing.F) {
	f.Add([]byte(`{"Header":{"Command":8},"Outcome":{"Status":true},"Response":{"Servers":[{"Backups":[{"Valid":1}]},7]}}`))
	f.Add([]byte(`{"Header":{"Command":18},"Outcome":{"Status":true},"Response":{"StartHiLSN":-1,"Compression":99999999999999999999}}`))
	f.Add([]byte(`{"Header":{"Command":22},"Outcome":{"Status":true},"Response":{"log_level":{"string_value":[]}}}`))
	f.Fuzz(func(t *testing.T, in []byte) {
		doc, err := mgmt.Decode(in)
		if err != nil {
			return
		}
		for _, format := range []Format{Text, JSON, Raw} {
			var out bytes.Buffer
			if err := Render(&out, doc, format); err != nil || !bytes.HasSuffix(out.Bytes(), []byte("\n")) {
				t.Fatalf("Render in format %d = %v, %q", format, err, out.String())
			}
			if _, err := RenderSetting(&out, doc, "server.a", format); err != nil {
				t.Fatal(err)
			}
			if err := RenderChange(&out, doc, format); err != nil {
				t.Fatal(err)
			}
		}
		for _, columns := range []int{80, 20} {
			if line := widest(table(t, doc, columns)); utf8.RuneCountInString(line) > columns {
				t.Fatalf("a line is longer than %d: %q", columns, line)
			}
		}
	})
}
