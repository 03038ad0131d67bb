package supervisor

import (
	"cmp"
	"crypto/fips140"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/pgmoneta/pgmoneta-go/internal/config"
	"github.com/pgmoneta/pgmoneta-go/internal/job"
	"github.com/pgmoneta/pgmoneta-go/internal/logging"
	"github.com/pgmoneta/pgmoneta-go/internal/metrics"
	"github.com/pgmoneta/pgmoneta-go/internal/repo"
	"github.com/pgmoneta/pgmoneta-go/internal/shmem"
	"github.com/pgmoneta/pgmoneta-go/internal/storage"
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
		Now:         time.Now(),
		FIPS:        fips140.Enabled(),
		Reload:      metrics.Reload{At: time.Unix(0, s.reloaded.Load()), Good: !s.reloadBad.Load()},
		Log:         metrics.LogCounts{Info: count(0), Warn: count(1), Error: count(2), Fatal: count(3)},
		Retention:   metricsRetention(c.Main.Retention),
		Compression: c.Main.Compression.Code(),
	}
	m := s.measured.Load()
	if m == nil {
		m = &measure{}
	}
	snap.Storage = m.storage
	if f := s.forecast.Load(); f != nil {
		snap.Storage.Forecast = *f
	}
	snap.Requests = s.storageRequests()
	jobs := s.jobSnapshots()
	for _, v := range s.servers {
		sv := s.serverSnapshot(c, v, snap.Now)
		size := m.servers[v.name]
		sv.Workspace, sv.Shipping, sv.TotalBytes, sv.UsedBytes = size.workspace, size.shipping, max(sv.TotalBytes, size.total), size.own
		sv.Progress, sv.Running = progressOf(v, jobs)
		snap.Servers = append(snap.Servers, sv)
	}
	for name, cert := range s.listeners.allCertificates() {
		snap.Certificate = append(snap.Certificate, metrics.Certificate{Listener: name, NotAfter: cert.notAfter()})
	}
	slices.SortFunc(snap.Certificate, func(a, b metrics.Certificate) int { return strings.Compare(a.Listener, b.Listener) })
	return snap
}

// progressOf tells how far the job of a server is, and which run. Some run beside the job that is meant.
func progressOf(v *server, jobs []shmem.JobSnapshot) (p metrics.Progress, running []string) {
	p.Workflow, p.Phase = "Backup", "Unknown" // what pgmoneta 0.22 says of an idle server
	for _, j := range jobs {
		if j.ServerIndex != v.index {
			continue
		}
		kind := job.KindOf(j.Kind)
		running = append(running, string(kind))
		if kind.Beside() && (len(running) > 1 || kind.Quiet()) {
			continue
		}
		p = metrics.Progress{Workflow: workflow(kind), Phase: cmp.Or(j.Phase, "Unknown"), Done: j.DoneBytes, Total: j.TotalBytes, Elapsed: max(j.UpdatedAt.Sub(j.StartedAt), 0)}
	}
	slices.Sort(running)
	return p, running
}

// workflow returns the word of pgmoneta 0.22 for a job.
func workflow(kind job.Kind) string {
	switch kind {
	case job.Backup:
		return "Backup"
	case job.Restore, job.Rehearse:
		return "Restore"
	case job.Verify:
		return "Verify"
	case job.Delete:
		return "Delete backup"
	}
	return "Unknown"
}

var levels = [...]slog.Level{logging.LevelInfo, logging.LevelWarn, logging.LevelError, logging.LevelFatal}

func metricsRetention(r config.Retention) metrics.Retention {
	return metrics.Retention{Days: r.Days, Weeks: r.Weeks, Months: r.Months, Years: r.Years}
}

// lifeless is how long a WAL worker may give no sign of life, of which it gives one each second.
const lifeless = 15 * time.Second

func (s *Supervisor) serverSnapshot(c *config.Config, v *server, now time.Time) metrics.Server {
	snap := v.slot.Snapshot()
	// A worker that is stopped, or stuck, says that it streams until it goes on.
	snap.Streaming = snap.Streaming && now.Sub(snap.Heartbeat) < lifeless
	m := metrics.Server{
		Name: v.name, Online: snap.Streaming, Primary: snap.Primary, Valid: snap.ServerVersion != 0,
		Checksums: snap.Checksums, Summarize: snap.Summarize, Timeline: uint32(snap.Timeline), WAL: walSnapshot(snap),
	}
	gaps, holes := s.holes.of(v.name)
	m.WAL.Gaps, m.CatalogProblem = gaps, v.unreadable.Load()
	if list := v.timelines.Load(); list != nil {
		m.Timelines = *list
	}
	v.tally.show(&m)
	sc, ok := c.Server(v.name)
	if ok {
		m.Workers, m.Retention = c.Workers(sc), metricsRetention(c.Retention(sc))
		m.WAL.Slot, m.WAL.Shipping = sc.WALSlot, sc.WALShipping != ""
	}
	if kind := v.busy.Load(); kind != nil {
		m.Active = metrics.Active{Backup: *kind == job.Backup, Restore: *kind == job.Restore, Delete: *kind == job.Delete, Archive: *kind == job.Archive, Retention: *kind == job.Retention}
	}
	if list := v.catalog.Load(); list != nil {
		m.BackupBytes = backupBytes(*list)
		m.Recovery = recovery(*list, holes, snap, now)
		m.Backups = make([]metrics.Backup, 0, len(*list))
		for _, b := range *list {
			m.Backups = append(m.Backups, backupSnapshot(b))
			if b.Err == nil && b.Summary.Type == repo.Full {
				m.LastFull = b.Summary.EndedAt
			}
			if b.Err == nil && b.Summary.Type == repo.Incremental {
				m.LastIncremental = b.Summary.EndedAt
			}
		}
		if last := newestValid(*list); ok && last != nil {
			m.BackupDue = backupDue(v.name, sc.Schedule, sc.ScheduleJitter, last.Label.Time())
		}
	}
	if last := v.verified.Load(); last != nil {
		r := last.result
		m.Verified = &metrics.Verified{At: r.At, Files: r.Files, BadFiles: r.BadFiles, Good: r.Good()}
	}
	if u := v.usage.Load(); u != nil {
		m.Usage = &metrics.Usage{Logical: uint64(u.Logical), Stored: uint64(u.Stored), Shared: uint64(u.Shared), Dead: uint64(u.Dead)}
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

// storageRequests tells how the storage engine did, for all processes and servers.
func (s *Supervisor) storageRequests() (list []metrics.StorageRequests) {
	for o := range storage.Operation(storage.Operations) {
		elapsed, failed := s.Segment.Requests(int(o))
		list = append(list, metrics.StorageRequests{Engine: config.StorageLocal.String(), Operation: o.String(), Failed: failed, Elapsed: distribution(elapsed)})
	}
	return list
}

func distribution(d shmem.Distribution) metrics.Distribution {
	m := metrics.Distribution{Sum: d.Sum}
	for i, n := range d.Counts {
		m.Buckets = append(m.Buckets, metrics.Bucket{Bound: d.Bound(i), Count: n})
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
		Flushes: distribution(snap.Flushes), StoreQueue: max(snap.StoreQueue, 0),
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
		Label: string(b.Label), Valid: b.Err == nil, Keep: b.Keep, Base: max(s.StoppedAt.Sub(s.StartedAt), 0), Incremental: s.Type == repo.Incremental,
		Major: s.PostgreSQL.Major(), Minor: s.PostgreSQL.Minor(), Elapsed: s.EndedAt.Sub(s.StartedAt),
		StoredBytes: uint64(s.Stored), RestoreBytes: uint64(s.Logical),
		StartLSN: uint64(s.Start), CheckpointLSN: uint64(s.Checkpoint), EndLSN: uint64(s.End),
		StartTimeline: uint32(s.StartTLI), EndTimeline: uint32(s.EndTLI),
	}
}
