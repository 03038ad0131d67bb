package retention

import (
	"slices"
	"time"

	"github.com/pgmoneta/pgmoneta-go/internal/repo"
)

// Guard says which promise of a policy the deletion of some backups would break, and
// nothing else; empty if none. Somebody who deletes by hand may delete what a rule keeps,
// but not without saying so the newest valid backups, nor what the window is reached from.
func Guard(c Catalogue, p Policy, now time.Time, gone []repo.Label) string {
	d := newDecider(c, p, now)
	for _, b := range d.Backups {
		if !slices.Contains(gone, b.Label) {
			d.keep(b, "nobody deletes it")
		}
	}
	return d.broken()
}
