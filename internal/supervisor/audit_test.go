package supervisor

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/pgmoneta/pgmoneta-go/internal/mgmt"
)

// TestAuditBehindATornLine appends where a full disk has left half a line.
func TestAuditBehindATornLine(t *testing.T) {
	t.Parallel()
	a := audit{path: filepath.Join(t.TempDir(), "audit")}
	if err := a.check(); err != nil {
		t.Fatal(err)
	}
	write := func() {
		t.Helper()
		if err := a.write(mgmt.Record{Command: "delete"}); err != nil {
			t.Fatal(err)
		}
	}
	write()
	whole, err := os.ReadFile(a.path)
	if err != nil {
		t.Fatal(err)
	}
	half := whole[:len(whole)/2]
	if err := os.WriteFile(a.path, append(whole[:len(whole):len(whole)], half...), 0o600); err != nil {
		t.Fatal(err)
	}
	write()
	write()
	want := string(whole) + string(half) + "\n" + string(whole) + string(whole)
	if got, err := os.ReadFile(a.path); err != nil || string(got) != want {
		t.Errorf("the file holds %q, %v\nwant %q", got, err, want)
	}
}
