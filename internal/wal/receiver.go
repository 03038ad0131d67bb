package wal

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"github.com/pgmoneta/pgmoneta-go/internal/container"
	"github.com/pgmoneta/pgmoneta-go/internal/durable"
	"github.com/pgmoneta/pgmoneta-go/internal/pg"
	"github.com/pgmoneta/pgmoneta-go/internal/pgrepl"
	"github.com/pgmoneta/pgmoneta-go/internal/repo"
)

// DefaultFlushInterval is how long received bytes may stay unflushed while the
// server waits for nobody.
const DefaultFlushInterval = 200 * time.Millisecond

// A Receiver receives the WAL of one server. Fill the fields, then call
// [Receiver.Run] once.
type Receiver struct {
	Params        pgrepl.Params
	Repo          *repo.Repository
	FS            durable.FS
	Slot          string // replication slot; empty for none
	CreateSlot    bool   // create the slot if it is missing
	Codec         container.Codec
	Level         int
	FlushInterval time.Duration // DefaultFlushInterval when 0
	Always        bool          // flush and acknowledge at once, whoever waits
	// MaxAge is the longest time WAL waits for its segment to fill. Then the server
	// is asked to switch to the next, so that what was received is stored and
	// shipped; 0 = never. The user needs EXECUTE on pg_switch_wal().
	MaxAge time.Duration
	// PassHoles makes the receiver go on after WAL that is gone for good, once the
	// hole is recorded. Otherwise it reports the hole and tries for ever.
	PassHoles bool
	// Filler is asked for WAL that the servers do not have any more; nil for none.
	// Somebody else runs it.
	Filler *Filler
	// ShipTo is a directory that gets a second copy of every stored segment; empty
	// for none. The copy is plain, but sealed when the repository is, unless ShipPlain is set.
	ShipTo    string
	ShipPlain bool
	Monitor   Monitor
	Log       *slog.Logger

	storer  *storer
	shipper *shipper     // nil for none
	eager   atomic.Bool  // the server may be waiting for our flush
	since   atomic.Int64 // when the first byte of the current segment arrived, Unix nanoseconds; 0 = none yet
}

// Run receives until ctx ends, connecting again whenever the connection is
// lost, and then returns nil. It returns an error only when it cannot work at
// all: another process receives for the same repository, or the disk refuses
// the receive directory.
//
// At the end everything received is flushed and reported; complete segments
// that are not stored yet stay in the receive directory for the next Run.
func (r *Receiver) Run(ctx context.Context) error {
	if r.FlushInterval == 0 {
		r.FlushInterval = DefaultFlushInterval
	}
	if r.Slot == "" {
		r.Log.Warn("no replication slot: the server may remove WAL before it was received; set wal_slot and create_slot = yes")
	}
	if err := durable.MkdirAll(r.FS, r.Repo.ReceiveDir()); err != nil {
		return err
	}
	lock, err := durable.TryLock(filepath.Join(r.Repo.ReceiveDir(), "lock"))
	if err != nil {
		return fmt.Errorf("server %q: another process receives its WAL: %w", r.Params.Server, err)
	}
	defer func() { _ = lock.Release() }()
	if err := r.begin(ctx); err != nil {
		return err
	}
	defer r.storer.close()
	defer r.shipper.close()
	r.reconnect(ctx)
	return nil
}

// begin clears leftovers, counts the archive and starts to store what is complete.
func (r *Receiver) begin(ctx context.Context) error {
	if err := r.Repo.Engine().Sweep(ctx, repo.OwnerWAL); err != nil {
		return err
	}
	if err := r.dropSpares(); err != nil {
		return err
	}
	listing, err := r.Repo.ListWAL(ctx)
	if err != nil {
		return err
	}
	r.Monitor.Archive(len(listing.Segments), listing.Bytes)
	complete, _, err := r.Repo.Received()
	if err != nil {
		return err
	}
	if r.ShipTo != "" {
		r.shipper = r.startShipper(ctx, r.ShipTo)
	}
	r.storer = r.startStorer(ctx, complete)
	return nil
}

// patience is the longest delay between two attempts. Where there are several
// hosts one of them is being promoted: its first seconds count. One host may
// stand for several too, as a proxy in front of a cluster does.
func (r *Receiver) patience() time.Duration {
	if len(r.Params.Others) > 0 {
		return 3 * time.Second
	}
	return 10 * time.Second
}

// reconnect runs sessions until ctx ends.
func (r *Receiver) reconnect(ctx context.Context) {
	backoff := newBackoff(r.patience())
	last := ""
	for ctx.Err() == nil {
		started := time.Now()
		err := r.session(ctx, r.source())
		if ctx.Err() != nil {
			r.Monitor.Disconnected(nil)
			return
		}
		r.Monitor.Disconnected(err)
		var gone *RemovedError
		if errors.As(err, &gone) {
			if err = r.bridge(ctx, gone); err == nil {
				continue
			}
		}
		// A repeating failure is logged when it starts and when it changes.
		if text := err.Error(); text != last {
			r.Log.Error("WAL stream ended, will connect again", "err", err)
			last = text
		}
		lasted := time.Since(started)
		if lasted > time.Minute {
			last = ""
		}
		// A session that worked for a while makes what ended it a new failure.
		if lasted > r.patience() {
			backoff = newBackoff(r.patience())
		}
		delay := backoff.delay()
		r.Monitor.Waiting(time.Now().Add(delay))
		rest(ctx, delay)
	}
}

// A source is where a session receives from.
type source struct {
	params pgrepl.Params
	slot   string
	until  pg.LSN // end there with errReached; 0 = never
}

// errReached ends a session that has received what it was for.
var errReached = errors.New("reached the end of what was wanted")

func (r *Receiver) source() source { return source{params: r.Params, slot: r.Slot} }

// session connects, finds where to begin, and streams timeline after timeline
// until the connection fails or ctx ends.
func (r *Receiver) session(parent context.Context, src source) error {
	ctx, leave := context.WithCancelCause(parent)
	defer leave(nil)
	conn, err := pgrepl.Connect(ctx, src.params)
	if err != nil {
		return err
	}
	defer conn.Close()
	system, err := conn.System(ctx)
	if err != nil {
		return err
	}
	if err := r.Repo.Bind(ctx, repo.OwnerWAL, system.ID); err != nil {
		return err
	}
	size, err := conn.SegmentSize(ctx)
	if err != nil {
		return err
	}
	interval, err := statusInterval(ctx, conn)
	if err != nil {
		return err
	}
	history, err := r.histories(ctx, conn, system.Timeline)
	if err != nil {
		return err
	}
	var slot pgrepl.Slot
	if src.slot != "" {
		if slot, err = r.slot(ctx, conn); err != nil {
			return err
		}
	}
	at, err := r.position(ctx, system, slot, history, size)
	if err != nil {
		return err
	}
	r.Monitor.Connected(r.describe(ctx, conn, system, size))

	probing, stop := context.WithCancel(ctx)
	probed := make(chan struct{})
	go func() { defer close(probed); r.newProbe(src, conn, leave).run(probing) }()
	defer func() { stop(); <-probed }()

	for {
		st := &stream{r: r, src: src, conn: conn, size: size, interval: interval, slot: slot}
		end, err := st.run(ctx, at)
		if err != nil {
			return err
		}
		r.Log.Info("timeline switch", "from", at.tli, "to", end.Next, "lsn", end.Begin)
		if _, err := r.histories(ctx, conn, end.Next); err != nil {
			return err
		}
		at = position{end.Next, size.Start(end.Begin)}
	}
}

func (r *Receiver) describe(ctx context.Context, conn *pgrepl.Conn, system pgrepl.System, size pg.SegmentSize) Connection {
	c := Connection{System: system.ID, Version: conn.Version(), SegmentSize: size}
	if v, err := conn.Show(ctx, "in_hot_standby"); err == nil {
		c.Primary = v == "off"
	}
	if v, err := conn.Show(ctx, "data_checksums"); err == nil {
		c.Checksums = v == "on"
	}
	if c.Version.Major() >= 17 {
		if v, err := conn.Show(ctx, "summarize_wal"); err == nil {
			c.Summarize = v == "on"
		}
	}
	return c
}

// statusInterval is how often positions are reported when nothing else happens:
// a third of the server's patience, at most 10 s.
func statusInterval(ctx context.Context, conn *pgrepl.Conn) (time.Duration, error) {
	text, err := conn.Show(ctx, "wal_sender_timeout")
	if err != nil {
		return 0, err
	}
	const most = 10 * time.Second
	// PostgreSQL prints "1min", "90s" or "1500ms"; Go reads all but "min" and "d".
	d, err := time.ParseDuration(strings.Replace(text, "min", "m", 1))
	if err != nil || d == 0 {
		return most, nil
	}
	return max(min(d/3, most), 100*time.Millisecond), nil
}

// histories stores the history files of tli and of its ancestors and returns
// that of tli.
func (r *Receiver) histories(ctx context.Context, conn *pgrepl.Conn, tli pg.Timeline) (pg.History, error) {
	if tli == 1 {
		return pg.History{Timeline: 1}, nil
	}
	content, err := conn.TimelineHistory(ctx, tli)
	if err != nil {
		return pg.History{}, err
	}
	h, err := pg.ParseHistory(tli, content)
	if err != nil {
		return pg.History{}, err
	}
	// It must be durable before the first byte of the new timeline: a segment
	// whose timeline nobody can explain is useless for recovery.
	if err := r.Repo.StoreHistory(ctx, tli, content); err != nil {
		return pg.History{}, err
	}
	r.shipper.stored()
	for _, a := range h.Ancestors {
		if err := r.ancestor(ctx, conn, a.Timeline); err != nil {
			return pg.History{}, err
		}
	}
	return h, nil
}

// ancestor stores the history of an older timeline if the server still has it.
func (r *Receiver) ancestor(ctx context.Context, conn *pgrepl.Conn, tli pg.Timeline) error {
	if tli == 1 {
		return nil
	}
	if _, err := r.Repo.HistoryContent(ctx, tli); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	content, err := conn.TimelineHistory(ctx, tli)
	if err != nil {
		// The newest file names all ancestors, so that this one is a convenience.
		r.Log.Warn("server has no history of an older timeline", "timeline", tli, "err", err)
		return context.Cause(ctx)
	}
	return r.Repo.StoreHistory(ctx, tli, content)
}

// slot makes sure the slot exists and returns what the server says about it.
func (r *Receiver) slot(ctx context.Context, conn *pgrepl.Conn) (pgrepl.Slot, error) {
	if r.Slot == "" {
		return pgrepl.Slot{}, nil
	}
	var sql *pgrepl.Conn
	if conn.Version().Major() < 15 {
		c, err := pgrepl.ConnectSQL(ctx, r.Params)
		if err != nil {
			return pgrepl.Slot{}, err
		}
		defer c.Close()
		sql = c
	}
	slot, err := conn.ReadSlot(ctx, r.Slot, sql)
	if err != nil || slot.Exists {
		return slot, err
	}
	if !r.CreateSlot {
		return pgrepl.Slot{}, &SlotMissingError{Server: r.Params.Server, Slot: r.Slot}
	}
	if err := conn.CreateSlot(ctx, r.Slot); err != nil {
		return pgrepl.Slot{}, err
	}
	r.Log.Info("created replication slot", "slot", r.Slot)
	return conn.ReadSlot(ctx, r.Slot, sql)
}

// position returns where to begin: the first incomplete segment of what is
// here, else the slot's restart LSN, else the server's current position.
func (r *Receiver) position(ctx context.Context, system pgrepl.System, slot pgrepl.Slot, h pg.History, size pg.SegmentSize) (position, error) {
	complete, partial, stored, err := r.archive(ctx)
	if err != nil {
		return position{}, err
	}
	// A session that ended between a segment's new name and the sync of that name
	// left it to us.
	if err := r.FS.SyncDir(r.Repo.ReceiveDir()); err != nil {
		return position{}, err
	}
	r.storer.addAll(complete)
	at, ok, err := resumeAt(append(stored, complete...), partial, size)
	if err != nil {
		return position{}, err
	}
	if ok {
		holes, err := r.Repo.Holes(ctx)
		if err != nil {
			return position{}, err
		}
		if h.At(slot.Restart) == at.tli {
			at = firstGap(at, slot.Restart, append(stored, complete...), size)
		}
		at = past(at, holes, size)
		if err := r.dropAhead(at, partial, size); err != nil {
			return position{}, err
		}
		return continueOn(r.Params.Server, at, h, size)
	}
	lsn := system.Flush
	if slot.Restart != 0 {
		lsn = slot.Restart
	}
	return position{h.At(lsn), size.Start(lsn)}, nil
}

// archive lists what is here. Segments move from the receive directory to the
// store meanwhile: looked at in this order, none is missed.
func (r *Receiver) archive(ctx context.Context) (complete, partial, stored []string, err error) {
	if complete, partial, err = r.Repo.Received(); err != nil {
		return nil, nil, nil, err
	}
	listing, err := r.Repo.ListWAL(ctx)
	return complete, partial, listing.Segments, err
}

// dropAhead removes partial segments of the timeline of at that begin after it.
// Nothing in them was ever reported as flushed, because what lies before them
// was not; after a power cut they may hold anything.
func (r *Receiver) dropAhead(at position, partial []string, size pg.SegmentSize) error {
	for _, name := range partial {
		tli, lsn, err := pg.ParseSegmentName(name, size)
		if err != nil {
			return err
		}
		if tli != at.tli || lsn <= at.lsn {
			continue
		}
		if err := r.FS.Remove(filepath.Join(r.Repo.ReceiveDir(), name+partialSuffix)); err != nil {
			return err
		}
	}
	return nil
}
