package job

import (
	"time"

	"github.com/pgmoneta/pgmoneta-go/internal/repo"
)

// A Policy says what the retention keeps, by the calendar of the machine.
type Policy struct {
	Days, Weeks, Months, Years int
	Count, Min                 int
	Window                     time.Duration
	WALAll                     bool
	Delay                      time.Duration // how long deleted backups wait in the trash
}

// A RetentionReport is what the retention decided and, if it was not only asked, did.
// Sizes are bytes.
type RetentionReport struct {
	Decisions   []Decision
	Trash       []Waiting
	Segments    int      // of WAL that go
	WALKept     string   // why none of it goes; empty if all that stays is needed
	Refused     []string // deletions that the policy wanted and that must not be
	BackupBytes int64
	WALBytes    int64
	Before      Window
	After       Window
	Delayed     time.Duration // how long a backup that goes waits in the trash; 0 for none
}

// A Waiting is what becomes of a backup in the trash. Times are zero when they are not known.
type Waiting struct {
	Backup    repo.Label
	DeletedAt time.Time
	Until     time.Time
	Purge     bool // it goes for good
}

// Purges returns how many backups in the trash go for good.
func (r *RetentionReport) Purges() int {
	n := 0
	for _, w := range r.Trash {
		if w.Purge {
			n++
		}
	}
	return n
}

// Deletes returns how many backups go.
func (r *RetentionReport) Deletes() int {
	n := 0
	for _, d := range r.Decisions {
		if !d.Keep {
			n++
		}
	}
	return n
}

// A Decision is what becomes of a backup, and why.
type Decision struct {
	Backup  repo.Label
	Keep    bool
	Reasons []string
}

// A Window is the time that can be restored to up to now, zero for none.
type Window struct {
	From   time.Time
	Backup repo.Label
}
