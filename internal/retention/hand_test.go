package retention

import (
	"strings"
	"testing"
	"time"

	"github.com/pgmoneta/pgmoneta-go/internal/repo"
)

// What is deleted by hand may be what a rule keeps, but nothing that a promise rests on.
func TestDeletingByHandKeepsPromises(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
	list := days(time.UTC, now.AddDate(0, 0, -4), now) // 0 to 4, the last eleven hours ago
	list[1].Valid = false
	c := Catalogue{Backups: list, SegmentSize: segmentSize, Segments: segments(1, list[0].Start, position(now))}
	tests := []struct {
		name   string
		policy Policy
		gone   []int
		want   string // "" when it is allowed
	}{
		{"the oldest, although days keep it", Policy{Days: 30}, []int{0}, ""},
		{"all but one", Policy{Days: 30}, []int{0, 1, 2, 3}, ""},
		{"the newest, while there is an older one", Policy{}, []int{4}, ""},
		{"all", Policy{}, []int{0, 1, 2, 3, 4}, "0 of 4 valid backups"},
		{"all that are valid", Policy{}, []int{0, 2, 3, 4}, "0 of 4 valid backups"},
		{"too many", Policy{Min: 2}, []int{0, 2, 3}, "retention_min is 2"},
		{"one that is not valid", Policy{Min: 4}, []int{1}, ""},
		{"what the window is reached from", Policy{Window: 36 * time.Hour}, []int{0, 2}, "could not be restored"},
		{"what the window does not need", Policy{Window: 36 * time.Hour}, []int{0, 3, 4}, ""},
	}
	for _, tt := range tests {
		var gone []repo.Label
		for _, i := range tt.gone {
			gone = append(gone, list[i].Label)
		}
		got := Guard(c, tt.policy, now, gone)
		if (got == "") != (tt.want == "") || !strings.Contains(got, tt.want) {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
	}
	// Where too little is left already, what does not count may go.
	c.Backups = list[:2]
	if got := Guard(c, Policy{Min: 3}, now, []repo.Label{list[1].Label}); got != "" {
		t.Errorf("an invalid backup beside the only valid one: %s", got)
	}
}
