package console

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/pgmoneta/pgmoneta-go/internal/mgmt"
)

var update = flag.Bool("update", false, "rewrite the tables")

func table(t *testing.T, doc mgmt.Document, columns int) string {
	t.Helper()
	var out bytes.Buffer
	if err := RenderTable(&out, doc, columns); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

// widest returns the longest line.
func widest(text string) (longest string) {
	for line := range strings.Lines(text) {
		if line = strings.TrimSuffix(line, "\n"); utf8.RuneCountInString(line) > utf8.RuneCountInString(longest) {
			longest = line
		}
	}
	return longest
}

// TestTablesOfAllCommands shows what a daemon answered to every command, and what C pgmoneta did.
func TestTablesOfAllCommands(t *testing.T) {
	t.Parallel()
	for _, dir := range []string{"table", "render"} {
		paths, err := filepath.Glob(filepath.Join("testdata", dir, "*.raw"))
		if err != nil || len(paths) < 15 {
			t.Fatalf("found %d recordings, %v", len(paths), err)
		}
		for _, path := range paths {
			t.Run(filepath.Base(path), func(t *testing.T) {
				t.Parallel()
				doc := document(t, read(t, dir, filepath.Base(path)))
				got := table(t, doc, 80)
				golden := strings.TrimSuffix(path, ".raw") + ".table"
				if *update {
					if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
						t.Fatal(err)
					}
				}
				if want := read(t, dir, filepath.Base(golden)); got != want {
					t.Errorf("RenderTable:\n%s\nwant\n%s", got, want)
				}
				for _, columns := range []int{80, 60, 40, 20} {
					if line := widest(table(t, doc, columns)); utf8.RuneCountInString(line) > columns {
						t.Errorf("a line is longer than %d: %q", columns, line)
					}
				}
			})
		}
	}
}

func TestTableKeepsTerminalControlsAway(t *testing.T) {
	t.Parallel()
	doc := document(t, `{"Header":{"Command":2},"Outcome":{"Status":true},"Response":{"Server":"a\u001b[2J","Backups":[
		{"Backup":"20261121123716","Valid":0,"Comments":"k\u0007|v\r","Incremental":true,"IncrementalParent":"\u009b2J"}],"New\u001b":"x\ny\u001b"}}`)
	if got := table(t, doc, 80); strings.ContainsAny(got, "\x1b\x07\r\u009b") {
		t.Errorf("RenderTable: %q", got)
	}
}

func TestTableShowsWhatItDoesNotKnow(t *testing.T) {
	t.Parallel()
	doc := document(t, `{"Header":{"Command":999},"Outcome":{"Status":true},"Response":{"NumberOfThings":2,"OID":7,"log_level":{"string_value":"info","value":3},
		"Things":[{"Name":"a","Deep":{"More":[1,"two"]}},{"Name":"b"}],"Empty":{},"Texts":["x","y"]}}`)
	const want = `Number of things  2
OID               7
log_level         info

Texts:
  x
  y

Things:
Name  a

Deep:

More:
  1
  two

Name  b
`
	if got := table(t, doc, 80); got != want {
		t.Errorf("RenderTable:\n%s\nwant\n%s", got, want)
	}
}

func TestHumanUnits(t *testing.T) {
	t.Parallel()
	for in, want := range map[float64]string{0: "0 B", 999: "999 B", 1000: "1.0 kB", 1024: "1.0 kB", 1 << 30: "1.0 GB", 1288490188: "1.2 GB", 1 << 60: "1024.0 PB"} {
		if got := humanSize(in); got != want {
			t.Errorf("humanSize(%g) = %q, want %q", in, got, want)
		}
	}
	for in, want := range map[time.Duration]string{0: "0.0 s", 1234 * time.Millisecond: "1.2 s", 59 * time.Second: "59 s", 200 * time.Second: "3 min 20 s",
		5*time.Hour + 30*time.Minute: "5 h 30 min", 50 * time.Hour: "2 d 2 h"} {
		if got := humanDuration(in); got != want {
			t.Errorf("humanDuration(%s) = %q, want %q", in, got, want)
		}
	}
}
