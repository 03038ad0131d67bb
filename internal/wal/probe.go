package wal

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/pgmoneta/pgmoneta-go/internal/pg"
	"github.com/pgmoneta/pgmoneta-go/internal/pgrepl"
)

const (
	// probeInterval is how soon a change on the server is noticed.
	probeInterval = 5 * time.Second
	// probePatience is how long one look may take, connecting included. A server
	// that is slower than that, or a network that swallows everything, only means
	// that nothing is known: whether the stream is over is for its own limits to say.
	probePatience = 5 * time.Second
)

// A probe looks at the server beside a stream: whether commits may be waiting for
// our flush, whether it is still the member that is wanted, and how it sees our
// slot. What it finds out late costs latency, never durability.
type probe struct {
	r      *Receiver
	params pgrepl.Params
	target pgrepl.Target
	leave  context.CancelCauseFunc // ends the session
	conn   *pgrepl.Conn
	sql    bool // conn is a plain connection
	slot   string
	told   bool // that the server does not let us end segments
}

func (r *Receiver) newProbe(src source, stream *pgrepl.Conn, leave context.CancelCauseFunc) *probe {
	p := &probe{r: r, params: src.params, target: src.params.Target, leave: leave}
	// The very member the stream comes from.
	p.params.Host, p.params.Port = stream.Address().Host, stream.Address().Port
	p.params.Others, p.params.Target = nil, pgrepl.Any
	p.params.Application = "pgmoneta_probe"
	return p
}

// run probes until ctx ends.
func (p *probe) run(ctx context.Context) {
	defer p.close()
	for ctx.Err() == nil {
		p.turn(ctx)
		rest(ctx, probeInterval)
	}
}

// turn looks once, connecting first where that is needed.
func (p *probe) turn(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, probePatience)
	defer cancel()
	if p.conn == nil {
		p.connect(ctx)
	}
	if p.conn == nil {
		return
	}
	if err := p.look(ctx); err != nil {
		p.close()
	}
}

func (p *probe) close() {
	if p.conn != nil {
		p.conn.Close()
	}
	p.conn = nil
}

// connect prefers a plain connection, which takes no walsender from the server
// and can be asked about the slot.
func (p *probe) connect(ctx context.Context) {
	conn, err := pgrepl.ConnectSQL(ctx, p.params)
	if p.sql = err == nil; !p.sql {
		conn, err = pgrepl.Connect(ctx, p.params)
	}
	if err == nil {
		p.conn = conn
	}
}

func (p *probe) look(ctx context.Context) error {
	names, err := p.conn.Show(ctx, "synchronous_standby_names")
	if err != nil {
		return err
	}
	p.r.eager.Store(p.r.Always || names != "")
	standby, err := p.conn.Show(ctx, "in_hot_standby")
	if err != nil {
		return err
	}
	if standby == "on" && p.target == pgrepl.Primary {
		p.leave(fmt.Errorf("server %q: %s port %d is no primary any more, looking for the new one", p.r.Params.Server, p.params.Host, p.params.Port))
		return nil
	}
	if !p.sql {
		return nil
	}
	if standby == "off" && p.r.tooOld(time.Now()) {
		p.endSegment(ctx)
	}
	if p.r.Slot == "" {
		return nil
	}
	return p.lookAtSlot(ctx)
}

// age notes when a segment got its first byte.
func (r *Receiver) age(size pg.SegmentSize, before, written pg.LSN, now time.Time) {
	switch {
	case size.Offset(written) == 0:
		r.since.Store(0) // the segment is full, the next has nothing
	case size.Start(before) != size.Start(written) || r.since.Load() == 0:
		r.since.Store(now.UnixNano())
	}
}

func (r *Receiver) tooOld(now time.Time) bool {
	since := r.since.Load()
	return r.MaxAge > 0 && since != 0 && now.Sub(time.Unix(0, since)) > r.MaxAge
}

// endSegment asks the server to go on in the next segment.
func (p *probe) endSegment(ctx context.Context) {
	_, err := p.conn.Query(ctx, "SELECT pg_switch_wal()")
	if err == nil {
		p.r.Log.Info("segment ended early", "after", p.r.MaxAge)
		return
	}
	if !p.told && ctx.Err() == nil {
		p.told = true
		p.r.Log.Warn("wal_max_age has no effect: GRANT EXECUTE ON FUNCTION pg_switch_wal() TO "+p.params.User, "err", err)
	}
}

// lookAtSlot reports a slot that is at risk. Columns that only newer versions
// have are read through to_jsonb.
func (p *probe) lookAtSlot(ctx context.Context) error {
	rows, err := p.conn.Query(ctx, `SELECT s.wal_status,
		pg_wal_lsn_diff(CASE WHEN pg_is_in_recovery() THEN pg_last_wal_receive_lsn() ELSE pg_current_wal_lsn() END, s.restart_lsn)::bigint,
		s.safe_wal_size, to_jsonb(s) ->> 'invalidation_reason'
		FROM pg_replication_slots s WHERE s.slot_name = '`+p.r.Slot+`'`)
	if err != nil {
		return err
	}
	if len(rows) == 0 {
		p.tell("missing", 0, "create_slot = yes makes it anew; until then the server may remove WAL")
		return nil
	}
	state, why := rows[0][0], rows[0][3]
	retained, err := strconv.ParseInt(rows[0][1], 10, 64)
	if err != nil && rows[0][1] != "" {
		return errors.Join(errors.New("retained WAL of the slot"), err)
	}
	remedy := ""
	switch state {
	case "unreserved":
		remedy = "it will lose WAL at the next checkpoint: raise max_slot_wal_keep_size, or find out why receiving is slow"
	case "lost":
		remedy = "it has lost WAL (" + why + "): a hole follows when this stream ends"
	}
	p.tell(state, uint64(max(retained, 0)), remedy)
	return nil
}

// tell publishes the state and logs a change of it.
func (p *probe) tell(state string, retained uint64, remedy string) {
	p.r.Monitor.Slot(state, retained)
	if state == p.slot {
		return
	}
	p.slot = state
	if remedy != "" {
		p.r.Log.Error("replication slot is at risk", "slot", p.r.Slot, "state", state, "bytes", retained, "remedy", remedy)
	}
}
