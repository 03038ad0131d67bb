package worker

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/pgmoneta/pgmoneta-go/internal/durable"
	"github.com/pgmoneta/pgmoneta-go/internal/job"
	"github.com/pgmoneta/pgmoneta-go/internal/pg"
	"github.com/pgmoneta/pgmoneta-go/internal/rehearse"
	"github.com/pgmoneta/pgmoneta-go/internal/repo"
	"github.com/pgmoneta/pgmoneta-go/internal/shmem"
	"github.com/pgmoneta/pgmoneta-go/internal/wal"
)

// receive is the work of a WAL worker.
func (w *worker) receive(ctx context.Context) error {
	defer beside(ctx, w.sweep)()
	m := newMonitor(w.segment.ServerSlot(w.ServerSlot))
	stop := m.beat(ctx)
	defer stop()
	r := &wal.Receiver{
		Params: w.Params(), Repo: w.repo, FS: durable.OS{}, Slot: w.Slot, CreateSlot: w.CreateSlot,
		Codec: w.Codec, Level: w.Level, FlushInterval: w.WALFlushInterval, Always: w.WALAlways, MaxAge: w.WALMaxAge,
		ShipPlain: w.ShipPlain, ShipTo: w.ShipTo,
		PassHoles: w.OnGap == job.GapBackup || w.OnGap == job.GapContinue, Monitor: m, Log: w.log,
	}
	if w.FillFrom != "" {
		r.Filler = &wal.Filler{Repo: w.repo, Dir: w.FillFrom, Codec: w.Codec, Level: w.Level, Log: w.log}
		defer beside(ctx, r.Filler.Run)()
	}
	return r.Run(ctx)
}

// beside does something while WAL is received, until stop is called.
func beside(ctx context.Context, do func(context.Context)) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	wg.Go(func() { do(ctx) })
	return func() { cancel(); wg.Wait() }
}

// sweep removes what jobs of an earlier life left, unless a job is running now. That may
// take minutes, for a rehearsal left a whole cluster, and commits may be waiting for us.
func (w *worker) sweep(ctx context.Context) {
	lock, err := w.repo.Lock()
	if errors.As(err, new(*durable.LockedError)) {
		return
	}
	if err == nil {
		defer func() { _ = lock.Release() }()
		err = errors.Join(w.repo.ForgetUnfinished(ctx, time.Now().Add(-repo.KeepUnfinished)), w.repo.Sweep(ctx))
	}
	if err == nil && w.Rehearsal.Scratch != "" {
		err = rehearse.Clear(ctx, w.Rehearsal.Scratch)
	}
	if err != nil && ctx.Err() == nil {
		// Leftovers take space and do no other harm; WAL comes first.
		w.log.Warn("leftovers of earlier jobs stay", "err", err)
	}
}

// monitor publishes what a receiver does in the server's slot.
type monitor struct {
	slot *shmem.Server

	mu   sync.Mutex // guards what several goroutines of the receiver report
	size pg.SegmentSize
	file string
}

// newMonitor clears what an earlier worker of the slot left behind.
func newMonitor(slot *shmem.Server) *monitor {
	for _, c := range []shmem.Counter{slot.WrittenLSN, slot.ServerLSN, slot.FlushedLSN, slot.StoredLSN} {
		c.Store(0)
	}
	slot.Streaming.Store(0)
	slot.FlushLagSince.Store(0)
	slot.StoreQueue.Store(0)
	slot.ShipQueue.Store(0)
	slot.ShipLagSince.Store(0)
	return &monitor{slot: slot}
}

const heartbeat = time.Second

// beat shows that the process lives, until stop is called.
func (m *monitor) beat(ctx context.Context) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	wg.Go(func() {
		t := time.NewTicker(heartbeat)
		defer t.Stop()
		for {
			m.slot.Heartbeat.StoreTime(time.Now())
			select {
			case <-ctx.Done():
				return
			case <-t.C:
			}
		}
	})
	return func() { cancel(); wg.Wait() }
}

func (m *monitor) Connected(c wal.Connection) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.size = c.SegmentSize
	m.slot.SegmentSize.Store(uint64(c.SegmentSize))
	m.slot.ServerVersion.Store(uint64(c.Version))
	m.slot.Primary.Store(flag(c.Primary))
	m.slot.Checksums.Store(flag(c.Checksums))
	m.slot.Summarize.Store(flag(c.Summarize))
	m.slot.LastError.Store("")
}

func flag(b bool) int64 {
	if b {
		return 1
	}
	return 0
}

func (m *monitor) Streaming(tli pg.Timeline, from pg.LSN) {
	m.slot.Timeline.Store(uint64(tli))
	m.slot.WrittenLSN.Store(uint64(from))
	m.slot.FlushedLSN.Store(uint64(from))
	m.slot.FlushLagSince.Store(0)
	m.slot.NextAttempt.Store(0)
	m.slot.Streaming.Store(1)
}

func (m *monitor) Received(tli pg.Timeline, written, server pg.LSN, bytes int, at time.Time) {
	m.slot.WrittenLSN.Store(uint64(written))
	m.slot.ServerLSN.Store(uint64(server))
	m.slot.LastMessage.StoreTime(at)
	if bytes == 0 {
		return
	}
	m.slot.ReceivedBytes.Add(uint64(bytes))
	if m.slot.FlushLagSince.Load() == 0 {
		m.slot.FlushLagSince.StoreTime(at)
	}
	m.name(tli, written)
}

// name publishes the segment being filled when it changes.
func (m *monitor) name(tli pg.Timeline, written pg.LSN) {
	m.mu.Lock()
	defer m.mu.Unlock()
	name := pg.SegmentName(tli, written-1, m.size) + ".partial"
	if name != m.file {
		m.file = name
		m.slot.CurrentSegment.Store(name)
	}
}

func (m *monitor) Flushed(lsn pg.LSN, at time.Time, took time.Duration) {
	m.slot.Flushes.Add(took)
	m.slot.FlushedLSN.Store(uint64(lsn))
	m.slot.LastFlush.StoreTime(at)
	if uint64(lsn) >= m.slot.WrittenLSN.Load() {
		m.slot.FlushLagSince.Store(0)
	} else {
		m.slot.FlushLagSince.StoreTime(at)
	}
}

func (m *monitor) Queued(segments int) { m.slot.StoreQueue.Store(int64(segments)) }

func (m *monitor) Stored(_ pg.Timeline, end pg.LSN, bytes int64) {
	m.slot.StoredLSN.Store(uint64(end))
	if bytes == 0 {
		return // it was there already
	}
	m.slot.StoredSegments.Add(1)
	m.slot.StoredBytes.Add(uint64(bytes))
	m.slot.WALFiles.Add(1)
	m.slot.WALBytes.Add(uint64(bytes))
}

func (m *monitor) Shipped(_ pg.Timeline, end pg.LSN) { m.slot.ShippedLSN.Store(uint64(end)) }

func (m *monitor) Shipping(waiting int, since time.Time) {
	m.slot.ShipQueue.Store(int64(waiting))
	if since.IsZero() {
		m.slot.ShipLagSince.Store(0)
		return
	}
	m.slot.ShipLagSince.StoreTime(since)
}

func (m *monitor) Archive(segments int, bytes int64) {
	m.slot.WALFiles.Store(uint64(segments))
	m.slot.WALBytes.Store(uint64(bytes))
}

func (m *monitor) Slot(state string, retained uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if s, _ := m.slot.SlotState.Load(); s != state {
		m.slot.SlotState.Store(state)
	}
	m.slot.SlotRetained.Store(retained)
}

func (m *monitor) Waiting(until time.Time) { m.slot.NextAttempt.StoreTime(until) }

func (m *monitor) Failed(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.slot.Errors.Add(1)
	m.slot.LastError.Store(err.Error())
}

func (m *monitor) Disconnected(err error) {
	m.slot.Streaming.Store(0)
	if err != nil {
		m.slot.Reconnects.Add(1)
		m.Failed(err)
	}
}
