package console

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/pgmoneta/pgmoneta-go/doc/schema/schematest"
	"github.com/pgmoneta/pgmoneta-go/internal/mgmt"
)

// TestAnswersAreAsTheSchemaSays holds what is printed in format JSON to the published schema: answers of a daemon to
// all commands, and those of C pgmoneta.
func TestAnswersAreAsTheSchemaSays(t *testing.T) {
	t.Parallel()
	var seen []string
	for _, dir := range []string{"table", "render"} {
		paths, err := filepath.Glob(filepath.Join("testdata", dir, "*.raw"))
		if err != nil || len(paths) < 15 {
			t.Fatalf("found %d recordings, %v", len(paths), err)
		}
		for _, path := range paths {
			doc := document(t, read(t, dir, filepath.Base(path)))
			doc.Object("Header")["Output"] = int64(mgmt.OutputJSON)
			number, _ := doc.Object("Header").Integer("Command")
			command := strings.ReplaceAll(mgmt.Command(number).String(), " ", "-")
			seen = append(seen, command)
			schematest.Check(t, command, render(t, doc, JSON))
		}
	}
	for _, command := range schematest.Commands(t) {
		// Files of single settings are looked at by the end-to-end test, and what is not possible answers alike.
		if !slices.Contains(seen, command) && !slices.Contains([]string{"conf-set", "decrypt", "encrypt", "decompress", "s3-restore"}, command) {
			t.Errorf("no recording shows an answer to %s", command)
		}
	}
}

func TestSchemaKnowsAllCommands(t *testing.T) {
	t.Parallel()
	described := schematest.Commands(t)
	for n := range 400 {
		if c := mgmt.Command(n); c.Known() && !slices.Contains(described, strings.ReplaceAll(c.String(), " ", "-")) {
			t.Errorf("the schema does not describe the answer to %s", c)
		}
	}
}
