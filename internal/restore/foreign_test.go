package restore

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/pgmoneta/pgmoneta-go/internal/durable"
	"github.com/pgmoneta/pgmoneta-go/internal/foreign"
	"github.com/pgmoneta/pgmoneta-go/internal/pg"
)

// A segment that C pgmoneta had begun to receive ends where its bytes end, also when our own
// archive goes on with the next one.
func TestPartialSegmentOfCPgmonetaIsNotTakenForAWholeOne(t *testing.T) {
	f := newFixture(t)
	f.plainBackup(summary(first, 1, 3, 4))
	f.segments(1, 3, 4)
	f.segments(1, 6, 7)
	left := make([]byte, mib)
	copy(left, walText(1, 5)[:mib/2])
	f.must(os.WriteFile(filepath.Join(f.Dir(), "wal", f.name(1, 5)+".partial"), left, 0o600))
	theirs, err := foreign.Open(durable.OS{}, f.Repository, nil)
	f.must(err)
	t.Cleanup(func() { _ = theirs.Close() })
	f.UseForeign(theirs)
	_, err = MakePlan(context.Background(), f.Repository, Options{Backup: first, Target: Target{Kind: TargetLatest}, Directory: t.TempDir()})
	var hole *HoleError
	if !errors.As(err, &hole) || hole.From != pg.LSN(5*mib+mib/2) {
		t.Errorf("error %v, want a hole from the middle of segment 5", err)
	}
}
