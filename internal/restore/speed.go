package restore

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/pgmoneta/pgmoneta-go/internal/durable"
	"github.com/pgmoneta/pgmoneta-go/internal/repo"
)

// speedFile is where the last restore from a repository leaves how fast it was. It
// is local, no object of the repository, and nothing is lost with it.
const speedFile = "restore.json"

// assumedSpeed is what is taken before there was a restore: what a disk of a small
// virtual machine writes.
const assumedSpeed = 200 << 20

// A speed is how fast a restore was.
type speed struct {
	Label    repo.Label    `json:"label"`
	Bytes    int64         `json:"bytes"`
	Elapsed  time.Duration `json:"nanoseconds"`
	Finished time.Time     `json:"finished"`
}

// recordSpeed remembers how fast a restore was, for the estimate of the next one.
// Of too short a time, and where the repository is not writable, nothing is remembered.
func recordSpeed(r *repo.Repository, s speed) {
	if s.Elapsed < time.Millisecond || s.Bytes <= 0 {
		return
	}
	b, err := json.Marshal(s)
	if err != nil {
		return
	}
	_ = durable.Replace(filepath.Join(r.Dir(), speedFile), append(b, '\n'))
}

// expectedSpeed returns the bytes per second to reckon with, and where they are from.
func expectedSpeed(r *repo.Repository) (bytes int64, from string) {
	var s speed
	b, err := os.ReadFile(filepath.Join(r.Dir(), speedFile))
	if err == nil {
		err = json.Unmarshal(b, &s)
	}
	if err != nil || s.Bytes <= 0 || s.Elapsed < time.Millisecond {
		return assumedSpeed, "assumed, because nothing was restored from this repository yet"
	}
	return max(1, int64(float64(s.Bytes)/s.Elapsed.Seconds())), fmt.Sprintf("the restore of backup %s, %s", s.Label, s.Finished.UTC().Format(time.RFC3339))
}
