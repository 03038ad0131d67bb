package e2e

import (
	"encoding/json"
	"os"
	"strings"
	"testing"

	"github.com/pgmoneta/pgmoneta-go/doc/schema/schematest"
	"github.com/pgmoneta/pgmoneta-go/test/pgtest"
)

// everything is a command of every kind, in an order in which they have something to tell. "!" begins one that is refused.
func everything(d *daemon) []string {
	return []string{
		"ping", "list-backup primary", "schedule", "jobs",
		"backup primary", "backup primary newest", "annotate primary newest add ticket a-comment", "retain primary oldest",
		"list-backup primary", "info primary newest", "expunge primary oldest", "status", "status details",
		"verify primary newest /tmp all", "wal check primary", "repo check primary", "repo stats primary",
		"restore --dry-run primary newest " + d.path("restored"), "!restore --dry-run primary newest name=nowhere " + d.path("restored"),
		"restore primary newest current " + d.path("restored"), "archive primary newest " + d.dir, "rehearse primary",
		"retention --dry-run", "retention primary", "schedule", "jobs", "progress primary backup", "cancel primary",
		"mode primary offline", "!backup primary", "mode primary online",
		"conf ls", "conf get", "conf get base_dir", "conf get compression", "conf get server", "conf set log_level info", "!conf set nosuch 1", "conf set host localhost", "conf set server.primary.max_rate 40000",
		"conf set log_level debug --save", "conf rollback", "conf reload", "conf check", "clear prometheus",
		"!info primary nosuch", "!list-backup nosuch", "compress " + d.path("note"), "decompress " + d.path("note.zstd"), "--encrypt aes256 encrypt " + d.path("note"), "decrypt " + d.path("note.aes"), "!decrypt " + d.path("nosuch.aes"),
		"!s3 ls primary", "!s3 restore primary p " + d.dir, "wal check primary --offline",
		"delete primary oldest", "list-backup primary", "status details", "retention --dry-run", "undelete primary newest", "!undelete primary newest",
		"!delete primary oldest newest", "delete --force primary oldest newest", "status details", "shutdown",
	}
}

// TestEveryAnswerIsAsTheSchemaSays asks a daemon with a real server everything there is, and holds the answers to the
// published schema.
func TestEveryAnswerIsAsTheSchemaSays(t *testing.T) {
	t.Parallel()
	s := pgtest.Start(t, pgtest.Options{})
	d := rehearsing(t, s)
	conf, err := os.ReadFile(d.path("pgmoneta.conf"))
	if err != nil {
		t.Fatal(err)
	}
	d.write(t, "pgmoneta.conf", string(conf)+"schedule = full: \"CRON_TZ=Europe/Berlin 0 1 * * 0\", incremental: \"0 1 * * 1-6\"\ndelete_delay = 1d\n")
	d.write(t, "note", "to be compressed and encrypted")
	pgtest.Own(t, d.dir)
	d.mustAdmin(t, "master-key", "-P", "passphrase of the test")
	d.must(t, "conf", "reload")
	seen := map[string]bool{}
	for _, line := range everything(d) {
		line, refused := strings.CutPrefix(line, "!")
		out, code := d.cli(t, append([]string{"-F", "json"}, strings.Fields(line)...)...)
		if (code == 2) != refused || code == 1 {
			t.Errorf("%s exits with %d:\n%s", line, code, out)
		}
		command := commandOf(t, out, line)
		seen[command] = true
		schematest.Check(t, command, out)
	}
	for _, command := range schematest.Commands(t) {
		if !seen[command] {
			t.Errorf("nobody asked for %s", command)
		}
	}
}

// commandOf returns what the header of an answer calls the command. The answers about one setting have its number.
func commandOf(t *testing.T, answer, line string) string {
	t.Helper()
	var doc struct{ Header struct{ Command any } }
	if err := json.Unmarshal([]byte(answer), &doc); err != nil {
		t.Fatalf("%s: %v in:\n%s", line, err, answer)
	}
	word, ok := doc.Header.Command.(string)
	if !ok {
		word = strings.Join(strings.Fields(line)[:2], " ")
	}
	return strings.ReplaceAll(word, " ", "-")
}
