package main

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/pgmoneta/pgmoneta-go/internal/cmdline"
	"github.com/pgmoneta/pgmoneta-go/internal/cmdline/cmdlinetest"
	"github.com/pgmoneta/pgmoneta-go/internal/config"
	"github.com/pgmoneta/pgmoneta-go/internal/version"
)

var _ = flag.Bool("update", false, "rewrite the manual page")

func TestManualPageIsCurrent(t *testing.T) {
	t.Parallel()
	cmdlinetest.ManualPage(t, commandLine().Manual(version.Version))
}

// TestManualPageOfTheConfiguration makes the page of the texts of the manual, which is where they are kept, and holds
// both to the keys that are read.
func TestManualPageOfTheConfiguration(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile(filepath.Join("..", "..", "doc", "MANUAL.md"))
	if err != nil {
		t.Fatal(err)
	}
	manual := string(text)
	mainKeys, mainNames := keyTable(t, manual, "### 4.1 ")
	serverKeys, serverNames := keyTable(t, manual, "### 4.2 ")
	idle := idleKeys(t, manual)
	compareKeys(t, "[pgmoneta]", config.MainKeys(), mainNames, idle)
	compareKeys(t, "a server section", config.ServerKeys(), serverNames, idle)

	cmdlinetest.ManualPage(t, &cmdline.Page{
		Name: "pgmoneta.conf", Section: 5, About: "configuration of pgmoneta", Version: version.Version,
		Parts: []cmdline.Part{
			{Title: "Description", Text: `The daemon reads ` + "`/etc/pgmoneta/pgmoneta.conf`" + `, or the file of its option -c. It has a section [pgmoneta], and one
section for each PostgreSQL server, whose name becomes a directory and a word of the command line. A line is a key, an equals sign and
a value; # and ; begin a comment. An unknown key is an error, and "pgmoneta-cli conf check" reports everything that is wrong with a file.

Keys marked **reload** can be changed while the daemon runs, with "pgmoneta-cli conf reload" or SIGHUP. Those marked **worker**
then start the WAL worker of that server again. All others need a restart. Sections that are named by number are those of the manual.`},
			{Title: "Example", Literal: true, Text: section(t, manual, "## 4. ", "```ini\n", "```")},
			{Title: "Section [pgmoneta]", Entries: mainKeys},
			{Title: "Sections of servers", Entries: serverKeys},
			{Title: "Keys without effect", Text: "They are checked and kept, so that a configuration of C pgmoneta 0.22 loads.\n\n" + strings.Join(idle, ", ") + "."},
			{Title: "Files", Entries: []cmdline.Entry{{Name: "/etc/pgmoneta/pgmoneta.conf", Help: "looked for after the directory that PGMONETA_CONFIG_DIR names"}}},
		},
		SeeAlso: []string{"pgmoneta(1)", "pgmoneta-cli(1)", "pgmoneta-admin(1)", "pgmoneta-config(1)"},
	})
}

// section returns what stands between two texts after a heading.
func section(t *testing.T, text, heading, from, to string) string {
	t.Helper()
	_, rest, found := strings.Cut(text, "\n"+heading)
	_, rest, begun := strings.Cut(rest, from)
	rest, _, ended := strings.Cut(rest, to)
	if !found || !begun || !ended {
		t.Fatalf("MANUAL.md: nothing between %q and %q after %q", from, to, heading)
	}
	return rest
}

// keyTable returns the rows of the table after a heading, and the keys they name.
func keyTable(t *testing.T, manual, heading string) (rows []cmdline.Entry, names []string) {
	t.Helper()
	for line := range strings.Lines(section(t, manual, heading, "|---|---|---|\n", "\n\n")) {
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), " | ")
		if len(cells) != 3 {
			t.Fatalf("MANUAL.md: %d cells: %s", len(cells), line)
		}
		keys := strings.Split(strings.ReplaceAll(strings.TrimSpace(cells[0]), "`", ""), ", ")
		names = append(names, keys...)
		help := strings.TrimSpace(cells[2])
		if value := strings.TrimSpace(cells[1]); value == "required" {
			help = "Required. " + help
		} else {
			help = fmt.Sprintf("%s Default: %s.", withStop(help), value)
		}
		rows = append(rows, cmdline.Entry{Name: strings.Join(keys, ", "), Help: strings.TrimSpace(help)})
	}
	return rows, names
}

func withStop(text string) string {
	if text == "" || strings.HasSuffix(text, ".") || strings.HasSuffix(text, "**") {
		return text
	}
	return text + "."
}

// idleKeys returns the keys that do nothing yet, some of them with an asterisk at the end.
func idleKeys(t *testing.T, manual string) []string {
	t.Helper()
	parts := strings.Split(section(t, manual, "### 4.3 ", "\n", "###"), "`")
	var names []string
	for i := 1; i < len(parts); i += 2 {
		names = append(names, parts[i])
	}
	return names
}

// compareKeys reports keys that the manual does not know, and those that nobody reads.
func compareKeys(t *testing.T, where string, read, told, idle []string) {
	t.Helper()
	isIdle := func(key string) bool {
		return slices.ContainsFunc(idle, func(name string) bool {
			prefix, many := strings.CutSuffix(name, "*")
			return key == name || many && strings.HasPrefix(key, prefix)
		})
	}
	for _, key := range read {
		if !slices.Contains(told, key) && !isIdle(key) {
			t.Errorf("MANUAL.md does not tell about %s of %s", key, where)
		}
	}
	for _, key := range told {
		if !slices.Contains(read, key) {
			t.Errorf("MANUAL.md tells about %s of %s, which is no key", key, where)
		}
	}
}
