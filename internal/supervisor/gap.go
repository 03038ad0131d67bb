package supervisor

import (
	"context"
	"sync"
	"time"

	"github.com/pgmoneta/pgmoneta-go/internal/config"
	"github.com/pgmoneta/pgmoneta-go/internal/job"
	"github.com/pgmoneta/pgmoneta-go/internal/repo"
)

const (
	gapInterval = 5 * time.Second
	gapRetry    = time.Minute // after a backup that failed
)

// mendGaps takes a full backup of every server whose newest hole in WAL no backup
// follows: until then no moment after the hole can be restored. What is needed
// is read from the repository each time, so that it survives a restart.
func (s *Supervisor) mendGaps(ctx context.Context) {
	var wg sync.WaitGroup
	defer wg.Wait()
	for _, v := range s.servers {
		wg.Go(func() { s.mendGap(ctx, v) })
	}
}

func (s *Supervisor) mendGap(ctx context.Context, v *server) {
	wait, said := gapInterval, ""
	for {
		t := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			t.Stop()
			return
		case <-t.C:
		}
		wait = gapInterval
		if s.config.Load().Main.OnGap != config.OnGapBackup || v.slot.Streaming.Load() != 1 || v.busy.Load() != nil {
			continue
		}
		hole, err := v.gap(ctx)
		if err != nil || hole == nil {
			continue // an unreadable catalog is reported by refresh
		}
		if said == "" {
			v.log.Warn("no backup after the hole in WAL, taking one", "timeline", hole.Timeline, "from", hole.From, "to", hole.To)
		}
		result, err := s.runJob(v, 0, job.Backup, job.Spec{})
		if err == nil && result.Failure != nil {
			err = result.Failure
		}
		if err == nil {
			said = ""
			continue
		}
		wait = gapRetry
		if err.Error() != said {
			said = err.Error()
			v.log.Error("backup after the hole in WAL, trying again", "every", gapRetry, "err", err)
		}
	}
}

// gap returns a hole that no backup follows, or nil.
func (v *server) gap(ctx context.Context) (*repo.Hole, error) {
	holes, err := v.repo.Holes(ctx)
	if err != nil || len(holes) == 0 {
		return nil, err
	}
	backups, err := v.repo.Backups(ctx)
	if err != nil {
		return nil, err
	}
	for i := range holes {
		if !followed(holes[i], backups) {
			return &holes[i], nil
		}
	}
	return nil, nil
}

// followed reports whether a backup begins after a hole.
func followed(h repo.Hole, backups []repo.Backup) bool {
	for _, b := range backups {
		if s := b.Summary; b.Err == nil && s.StartTLI >= h.Timeline && s.Start >= h.To {
			return true
		}
	}
	return false
}
