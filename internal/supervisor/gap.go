package supervisor

import (
	"context"
	"time"

	"github.com/pgmoneta/pgmoneta-go/internal/config"
	"github.com/pgmoneta/pgmoneta-go/internal/job"
	"github.com/pgmoneta/pgmoneta-go/internal/repo"
)

const (
	gapInterval = 5 * time.Second
	gapRetry    = time.Minute // after a backup that failed
)

// mendGap takes a full backup whenever no backup follows the newest hole in WAL of
// a server: until then no moment after the hole can be restored. What is needed
// is read from the repository each time, so that it survives a restart.
func (s *Supervisor) mendGap(ctx context.Context, v *server) {
	wait := gapInterval
	for {
		t := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			t.Stop()
			return
		case <-t.C:
		}
		wait = gapInterval
		if v.slot.Streaming.Load() != 1 || v.busy.Load() != nil {
			continue
		}
		hole, err := v.gap(ctx)
		if err == nil && hole == nil && s.wantsFirst(ctx, v) {
			v.log.Info("no valid backup yet, taking one", "setting", "backup_on_start")
			if err := s.done(v, job.Backup, job.Spec{}); err != nil {
				v.log.Error("first backup", "err", err)
				wait = gapRetry
			}
			continue
		}
		if err != nil || hole == nil {
			continue // an unreadable catalog is reported by refresh
		}
		if s.config.Load().Main.OnGap != config.OnGapBackup {
			continue
		}
		v.log.Warn("no backup after the hole in WAL, taking one", "timeline", hole.Timeline, "from", hole.From, "to", hole.To)
		if err := s.done(v, job.Backup, job.Spec{}); err != nil {
			v.log.Error("backup after the hole in WAL", "err", err)
			wait = gapRetry
		}
	}
}

// wantsFirst reports whether a server is to get its first backup.
func (s *Supervisor) wantsFirst(ctx context.Context, v *server) bool {
	c := s.config.Load()
	sc, ok := c.Server(v.name)
	if !ok || !c.BackupOnStart(sc) {
		return false
	}
	list, err := v.repo.Backups(ctx)
	return err == nil && newestValid(list) == nil
}

// newestValid returns the newest backup that can be restored, nil for none.
func newestValid(list []repo.Backup) *repo.Backup {
	for i := len(list) - 1; i >= 0; i-- {
		if list[i].Err == nil && list[i].Summary.CorruptPages == 0 {
			return &list[i]
		}
	}
	return nil
}

// done runs a job for nobody in particular.
func (s *Supervisor) done(v *server, kind job.Kind, spec job.Spec) error {
	_, err := handler{Supervisor: s, asking: asking{wait: true}}.job(v, kind, spec)
	return err
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
