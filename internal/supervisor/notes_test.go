package supervisor

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pgmoneta/pgmoneta-go/internal/mgmt"
	"github.com/pgmoneta/pgmoneta-go/test/pgtest"
)

// TestNotesThatCannotBeWrittenStopNothing has directories in the place of the files that the
// supervisor and jobs keep for themselves, so that neither reading nor replacing them works,
// as with a full disk: jobs go on, it is said, and only what has to outlive the daemon, a
// server's mode, is refused.
func TestNotesThatCannotBeWrittenStopNothing(t *testing.T) {
	s := pgtest.Start(t, pgtest.Options{})
	dir := t.TempDir()
	block := func(name string) {
		if err := os.MkdirAll(filepath.Join(dir, "base", name, "not empty"), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{historyName, trendName, "primary/" + calendarFile, "primary/restore.json"} {
		block(name)
	}
	stop := bed(t, s, dir, "verification = 1h")
	waitStreaming(t, dir)
	block("primary/" + modeFile)
	label := call(t, dir, mgmt.Backup, mgmt.Document{"Server": "primary"}).Text("Backup")
	call(t, dir, mgmt.Restore, mgmt.Document{"Server": "primary", "Backup": label, "Directory": filepath.Join(dir, "out")})
	if n, _ := call(t, dir, mgmt.Jobs, mgmt.Document{"Server": "primary"}).Integer("NumberOfJobs"); n != 2 {
		t.Errorf("%d jobs are listed, want 2", n)
	}
	c, err := mgmt.Dial(t.Context(), filepath.Join(dir, mgmt.SocketName))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	doc, err := c.Call(t.Context(), mgmt.Mode, mgmt.Document{"Server": "primary", "Action": "offline"})
	if err != nil || doc.Outcome().Code != mgmt.CodeModeFailed {
		t.Errorf("mode offline: %v, %v", doc.Outcome(), err)
	}
	if servers := call(t, dir, mgmt.StatusDetails, nil).List("Servers"); servers[0].(mgmt.Document).Text("Mode") != "online" {
		t.Error("the server is offline although that could not be remembered")
	}
	stop()
	log, err := os.ReadFile(filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"history of jobs not read whole", "history of jobs not written", "how space went before is not read whole", "how space goes cannot be noted",
		"it is not known what was done by the schedule", "what was done by the schedule cannot be noted"} {
		if !strings.Contains(string(log), want) {
			t.Errorf("the log does not say %q:\n%s", want, log)
		}
	}
}
