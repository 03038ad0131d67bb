package supervisor

import (
	"context"
	"fmt"
	"time"

	"github.com/pgmoneta/pgmoneta-go/internal/config"
)

// States of the file system below base_dir, as status shows them.
const (
	spaceOK       = "ok"
	spaceLow      = "low"
	spaceCritical = "critical" // no more base backups; WAL goes on
)

func spaceState(c *config.Config, free, total uint64) string {
	switch {
	case c.Main.SpaceCritical.Reached(free, total):
		return spaceCritical
	case c.Main.SpaceLow.Reached(free, total):
		return spaceLow
	}
	return spaceOK
}

// A fullError refuses a backup that would take the space that WAL needs.
type fullError struct {
	dir  string
	free uint64
}

func (e *fullError) Error() string {
	return fmt.Sprintf("only %d MiB are free in %s, which space_critical leaves to WAL: free space, or delete backups that are not needed", e.free>>20, e.dir)
}

// roomForBackup refuses base backups while space is critical.
func (s *Supervisor) roomForBackup() error {
	c := s.config.Load()
	if c.Main.SpaceCritical == (config.Space{}) {
		return nil
	}
	free, total, err := space(c.Main.BaseDir)
	if err != nil {
		return err
	}
	if spaceState(c, free, total) == spaceCritical {
		return &fullError{c.Main.BaseDir, free}
	}
	return nil
}

// watchSpace says when space gets low, and when it is enough again, until ctx ends.
func (s *Supervisor) watchSpace(ctx context.Context) {
	t := time.NewTicker(spaceInterval)
	defer t.Stop()
	before := spaceOK
	for {
		c := s.config.Load()
		free, total, err := space(c.Main.BaseDir)
		if now := spaceState(c, free, total); err == nil && now != before {
			before = now
			switch now {
			case spaceCritical:
				s.Log.Error("space is critical: no more base backups, WAL goes on", "file", c.Main.BaseDir, "free", free, "total", total)
			case spaceLow:
				s.Log.Warn("space is low", "file", c.Main.BaseDir, "free", free, "total", total)
			default:
				s.Log.Info("space is enough again", "file", c.Main.BaseDir, "free", free, "total", total)
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
	}
}
