package expire

import (
	"testing"
	"time"

	"github.com/pgmoneta/pgmoneta-go/internal/repo"
	"github.com/pgmoneta/pgmoneta-go/internal/retention"
	"github.com/pgmoneta/pgmoneta-go/internal/verify"
)

// TestBackupBroughtBackAtTheLastMoment brings a backup back when the round that deletes it
// for good has decided, and has its WAL on its list too: both stay. The next round, which
// nobody disturbs, deletes it.
func TestBackupBroughtBackAtTheLastMoment(t *testing.T) {
	t.Parallel()
	m := newMonth(t)
	p := retention.Policy{Days: 1, Window: 30 * time.Minute, Delay: time.Hour}
	for n := range 3 {
		m.hour(n+1, p)
	}
	list, err := m.repo.Backups(t.Context())
	if err != nil || len(list) != 3 {
		t.Fatalf("%d backups, %v", len(list), err)
	}
	label := list[0].Label
	lock, err := m.repo.Lock()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = lock.Release() }()
	if _, err := m.repo.Trash(t.Context(), m.clock, false, label); err != nil {
		t.Fatal(err)
	}
	at := m.clock.Add(2 * time.Hour)
	o := Options{Repo: m.repo, Policy: p, Now: func() time.Time { return at }}
	asked := 0
	o.Progress = func(phase string, _, _ int64) {
		if phase != "Delete backup" {
			return
		}
		if asked++; asked == 1 {
			if _, err := m.repo.Undelete(t.Context(), string(label)); err != nil {
				t.Error(err)
			}
		}
	}
	if plan, err := Look(t.Context(), o); err != nil || len(plan.Purge()) != 1 || len(plan.WAL) == 0 {
		t.Fatalf("looking says %+v and %d segments, %v", plan.Trash, len(plan.WAL), err)
	}
	got, err := Run(t.Context(), o)
	if err != nil || asked != 1 || len(got.Purge()) > 0 {
		t.Errorf("after %d attempts: %+v, %v", asked, got.Trash, err)
	}
	m.whole(label)
	if _, err := m.repo.Trash(t.Context(), at.Add(-2*time.Hour), false, label); err != nil {
		t.Fatal(err)
	}
	if got, err := Run(t.Context(), o); err != nil || len(got.Purge()) != 1 || len(got.WAL) == 0 {
		t.Errorf("undisturbed: %+v and %d segments, %v", got.Trash, len(got.WAL), err)
	}
	for _, b := range list[1:] {
		m.whole(b.Label)
	}
}

// whole verifies a backup with the WAL that it needs.
func (m *month) whole(l repo.Label) {
	m.t.Helper()
	if report, err := verify.Backup(m.t.Context(), m.repo, l, verify.Options{}); err != nil || len(report.Problems) > 0 {
		m.t.Errorf("backup %s: %v, %v", l, report.Problems, err)
	}
}
