package supervisor

import (
	"log/slog"
	"time"

	"github.com/pgmoneta/pgmoneta-go/internal/config"
	"github.com/pgmoneta/pgmoneta-go/internal/job"
	"github.com/pgmoneta/pgmoneta-go/internal/logging"
	"github.com/pgmoneta/pgmoneta-go/internal/metrics"
	"github.com/pgmoneta/pgmoneta-go/internal/repo"
	"github.com/pgmoneta/pgmoneta-go/internal/shmem"
	"github.com/pgmoneta/pgmoneta-go/internal/version"
)

// Snapshot implements [metrics.Source]. It reads the shared segment and the
// catalog as last read from disk; nothing in it waits.
func (s *Supervisor) Snapshot() metrics.Snapshot {
	c := s.config.Load()
	count := func(level int) uint64 {
		return s.Segment.LogCounter(levels[level]).Load()
	}
	snap := metrics.Snapshot{
		Version:     version.Version,
		Log:         metrics.LogCounts{Info: count(0), Warn: count(1), Error: count(2), Fatal: count(3)},
		Retention:   metricsRetention(c.Main.Retention),
		Compression: c.Main.Compression.Code(),
	}
	for _, v := range s.servers {
		sv := s.serverSnapshot(c, v)
		snap.Storage.Used += sv.TotalBytes
		snap.Servers = append(snap.Servers, sv)
	}
	// A file system that does not answer shows as zero free space.
	snap.Storage.Free, snap.Storage.Total, _ = space(c.Main.BaseDir)
	return snap
}

var levels = [...]slog.Level{logging.LevelInfo, logging.LevelWarn, logging.LevelError, logging.LevelFatal}

func metricsRetention(r config.Retention) metrics.Retention {
	return metrics.Retention{Days: r.Days, Weeks: r.Weeks, Months: r.Months, Years: r.Years}
}

func (s *Supervisor) serverSnapshot(c *config.Config, v *server) metrics.Server {
	snap := v.slot.Snapshot()
	m := metrics.Server{
		Name: v.name, Online: snap.Streaming, Primary: snap.Primary, Valid: snap.ServerVersion != 0,
		Checksums: snap.Checksums, Timeline: uint32(snap.Timeline), WAL: walSnapshot(snap),
	}
	m.WAL.Gaps = s.holes.of(v.name)
	if sc, ok := c.Server(v.name); ok {
		m.Workers, m.Retention = c.Workers(sc), metricsRetention(c.Retention(sc))
		m.WAL.Slot, m.WAL.Shipping = sc.WALSlot, sc.WALShipping != ""
	}
	if kind := v.busy.Load(); kind != nil {
		m.Active = metrics.Active{Backup: *kind == job.Backup, Restore: *kind == job.Restore, Delete: *kind == job.Delete, Retention: *kind == job.Retention}
	}
	if list := v.catalog.Load(); list != nil {
		m.BackupBytes = backupBytes(*list)
		for _, b := range *list {
			m.Backups = append(m.Backups, backupSnapshot(b))
			if b.Err == nil && b.Summary.Type == repo.Full {
				m.LastFull = b.Summary.EndedAt
			}
		}
	}
	if last := v.rehearsed.Load(); last != nil {
		h := last.result
		m.Rehearsal = &metrics.Rehearsal{At: h.At, Proven: h.Proven(), Started: h.Started, RTO: h.RTO, Restore: h.Restore, RestoreBytes: uint64(h.RestoreBytes),
			Replay: h.Replay, ReplayBytes: uint64(h.ReplayTo - h.ReplayFrom)}
	}
	m.TotalBytes = m.BackupBytes + m.WAL.Bytes
	v.mu.Lock()
	defer v.mu.Unlock()
	m.Failures = map[string]uint64{}
	for reason, n := range v.failures {
		m.Failures[reason] = n
	}
	return m
}

func walSnapshot(snap shmem.ServerSnapshot) metrics.WAL {
	w := metrics.WAL{
		Streaming: snap.Streaming, File: snap.CurrentSegment,
		Written: snap.WrittenLSN, Flushed: snap.FlushedLSN, Stored: snap.StoredLSN, Server: snap.ServerLSN,
		LastReceived: snap.LastMessage, ReceivedBytes: snap.ReceivedBytes,
		Restarts: snap.Restarts, Reconnects: snap.Reconnects, Errors: snap.Errors,
		Segments: snap.WALFiles, Bytes: snap.WALBytes,
		SlotState: snap.SlotState, SlotRetained: snap.SlotRetained,
		ShipLagSegments: snap.ShipQueue, ShipLagBytes: uint64(snap.ShipQueue) * snap.SegmentSize,
	}
	if snap.ServerLSN > snap.FlushedLSN {
		w.LagBytes = snap.ServerLSN - snap.FlushedLSN
	}
	if !snap.FlushLagSince.IsZero() {
		w.LagSeconds = max(time.Since(snap.FlushLagSince).Seconds(), 0)
	}
	if !snap.ShipLagSince.IsZero() {
		w.ShipLagSeconds = max(time.Since(snap.ShipLagSince).Seconds(), 0)
	}
	return w
}

func backupSnapshot(b repo.Backup) metrics.Backup {
	s := b.Summary
	return metrics.Backup{
		Label: string(b.Label), Valid: b.Err == nil, Keep: b.Keep, Incremental: s.Type == repo.Incremental,
		Major: s.PostgreSQL.Major(), Minor: s.PostgreSQL.Minor(), Elapsed: s.EndedAt.Sub(s.StartedAt),
		StoredBytes: uint64(s.Stored), RestoreBytes: uint64(s.Logical),
		StartLSN: uint64(s.Start), CheckpointLSN: uint64(s.Checkpoint), EndLSN: uint64(s.End),
		StartTimeline: uint32(s.StartTLI), EndTimeline: uint32(s.EndTLI),
	}
}
