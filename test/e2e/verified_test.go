package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/pgmoneta/pgmoneta-go/test/pgtest"
)

// TestVerificationIsRemembered looks at what a verification came to after the daemon was
// started again: one that was good, and one that found damage.
func TestVerificationIsRemembered(t *testing.T) {
	t.Parallel()
	s := pgtest.Start(t, pgtest.Options{})
	d := newDaemon(t, map[string]*pgtest.Server{"primary": s})
	d.waitStreaming(t, "primary")
	label := d.must(t, "backup", "primary")["Backup"].(string)
	if got := d.status(t, "primary")["LastVerification"].(map[string]any); len(got) > 0 {
		t.Errorf("before the first: %v", got)
	}
	d.must(t, "verify", "primary", label, "/tmp")
	seen := func(good bool, value float64) {
		t.Helper()
		d.end()
		d.start(t)
		waitFor(t, 20*time.Second, "what the verification came to", func() error {
			got := d.status(t, "primary")["LastVerification"].(map[string]any)
			if files, _ := got["Files"].(float64); got["Good"] != good || got["Backup"] != label || files < 500 {
				return fmt.Errorf("status: %v", got)
			}
			row := d.must(t, "list-backup", "primary")["Backups"].([]any)[0].(map[string]any)["Verification"]
			if row.(map[string]any)["Good"] != good {
				return fmt.Errorf("list-backup: %v", row)
			}
			if n, err := sample(d.page(t), `pgmoneta_verify_good{server="primary"}`); err != nil || n != value {
				return fmt.Errorf("metrics: %v, %v", n, err)
			}
			return nil
		})
	}
	seen(true, 1)
	packs, err := filepath.Glob(filepath.Join(d.path("base"), "primary", "pack", label, "*"))
	if err != nil || len(packs) == 0 {
		t.Fatal(packs, err)
	}
	content, err := os.ReadFile(packs[0])
	if err != nil {
		t.Fatal(err)
	}
	content[len(content)/2] ^= 1
	if err := os.WriteFile(packs[0], content, 0o600); err != nil {
		t.Fatal(err)
	}
	if out, code := d.cli(t, "verify", "primary", label, "/tmp"); code != 2 {
		t.Errorf("verify of a damaged backup: %d\n%s", code, out)
	}
	seen(false, 0)
}
