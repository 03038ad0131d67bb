package e2e

import (
	"encoding/json"
	"os"
	"strings"
	"testing"

	"github.com/pgmoneta/pgmoneta-go/internal/mgmt"
	"github.com/pgmoneta/pgmoneta-go/test/pgtest"
)

func TestAuditTellsWhoChangedWhat(t *testing.T) {
	t.Parallel()
	s := pgtest.Start(t, pgtest.Options{})
	d := prepareDaemon(t, map[string]*pgtest.Server{"primary": s})
	d.edit(t, "log_type = file", "audit_path = "+d.path("audit")+"\nlog_type = file")
	d.start(t)
	d.waitStreaming(t, "primary")
	d.must(t, "backup", "primary")
	d.must(t, "list-backup", "primary")
	_, _ = d.cli(t, "delete", "primary", "20000101000000")
	_, _ = d.cli(t, "conf", "set", "s3_secret_access_key", "hunter2hunter2")
	_, _ = d.cli(t, "conf", "set", "log_level", "info")
	(&client{daemon: d}).call(t, mgmt.Compress, mgmt.Document{"SourceFile": "/nowhere/file"})

	content, err := os.ReadFile(d.path("audit"))
	if err != nil {
		t.Fatal(err)
	}
	type line struct {
		Command string
		Args    map[string]any
		Done    bool
		Code    int
		UID     *int
		PID     int
	}
	var got []line
	for text := range strings.Lines(string(content)) {
		var l line
		if err := json.Unmarshal([]byte(text), &l); err != nil {
			t.Fatalf("%v in %s", err, text)
		}
		got = append(got, l)
	}
	want := []struct {
		command string
		done    bool
		code    int
	}{{"backup", true, 0}, {"delete", false, 505}, {"conf set", false, 2707}, {"conf set", true, 0}, {"compress", false, 1700}}
	if len(got) != len(want) {
		t.Fatalf("%d lines, want %d:\n%s", len(got), len(want), content)
	}
	for i, w := range want {
		if g := got[i]; g.Command != w.command || g.Done != w.done || g.Code != w.code || g.PID == 0 || g.UID == nil {
			t.Errorf("line %d is %+v, want %+v", i, g, w)
		}
	}
	if got[0].Args["Server"] != "primary" || got[4].Args["SourceFile"] != "/nowhere/file" {
		t.Errorf("the backup was of %v, the compression of %v", got[0].Args, got[4].Args)
	}
	log, err := os.ReadFile(d.path("log"))
	if err != nil || strings.Contains(string(content)+string(log), "hunter2") {
		t.Errorf("a secret is in the audit or the log (%v):\n%s", err, content)
	}
}
