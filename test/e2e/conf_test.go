package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pgmoneta/pgmoneta-go/test/pgtest"
)

func TestSettingsAreSavedAndBroughtBack(t *testing.T) {
	t.Parallel()
	s := pgtest.Start(t, pgtest.Options{})
	d := newDaemon(t, map[string]*pgtest.Server{"primary": s})
	before, err := os.ReadFile(d.path("pgmoneta.conf"))
	if err != nil {
		t.Fatal(err)
	}
	if out, code := d.cli(t, "conf", "rollback"); code != 2 || !strings.Contains(out, "4304") {
		t.Errorf("rollback without a former file: exit %d\n%s", code, out)
	}
	for _, setting := range [][]string{{"log_level", "warn"}, {"server.primary.max_rate", "1234567"}} {
		if out, code := d.cli(t, "conf", "set", setting[0], setting[1], "--save"); code != 0 {
			t.Fatalf("conf set %v --save: exit %d\n%s", setting, code, out)
		}
	}
	if out, code := d.cli(t, "conf", "set", "log_level", "loud", "--save"); code != 2 {
		t.Errorf("a value that makes no sense is saved: exit %d\n%s", code, out)
	}
	d.effects(t) // what was saved outlasts a reload
	if got := fmt.Sprint(d.must(t, "conf", "get")["log_level"]); !strings.Contains(got, "warn") {
		t.Errorf("log_level is %s after conf set --save and reload", got)
	}
	saved, err := os.ReadFile(d.path("pgmoneta.conf"))
	want := strings.Replace(string(before), "log_level = debug", "log_level = warn", 1) + "max_rate = 1234567\n"
	if err != nil || string(saved) != want {
		t.Errorf("the file is, %v,\n%s\nwant\n%s", err, saved, want)
	}
	if kept, _ := filepath.Glob(d.path("pgmoneta.conf.2*")); len(kept) != 2 {
		t.Errorf("former files: %v, want two", kept)
	}
	// A daemon that was killed in the middle of another one.
	if err := os.Link(d.path("pgmoneta.conf"), d.path("pgmoneta.conf.20990101T000000.000000Z")); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		d.must(t, "conf", "rollback")
	}
	if got, err := os.ReadFile(d.path("pgmoneta.conf")); err != nil || string(got) != string(before) {
		t.Errorf("after two rollbacks, %v:\n%s", err, got)
	}
	if got := fmt.Sprint(d.must(t, "conf", "get")["log_level"]); !strings.Contains(got, "debug") {
		t.Errorf("log_level is %s after the rollback", got)
	}
}

func TestConfCheckReportsEveryProblemWithItsLine(t *testing.T) {
	t.Parallel()
	s := pgtest.Start(t, pgtest.Options{})
	d := prepareDaemon(t, map[string]*pgtest.Server{"primary": s})
	if out, code := d.cli(t, "conf", "check"); code != 0 {
		t.Errorf("a file without problems: exit %d\n%s", code, out)
	}
	d.edit(t, "log_level = debug", "log_level = loud\nnonsense = 1")
	d.edit(t, "user = ", "port = x\nuser = ")
	out, code := d.cli(t, "conf", "check")
	for _, want := range []string{"pgmoneta.conf:7: ", "log_level = loud", "pgmoneta.conf:8: ", "nonsense", "port"} {
		if !strings.Contains(out, want) {
			t.Errorf("the report lacks %q", want)
		}
	}
	if code != 2 || t.Failed() {
		t.Errorf("exit %d\n%s", code, out)
	}
}
