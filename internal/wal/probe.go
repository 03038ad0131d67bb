package wal

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/pgmoneta/pgmoneta-go/internal/pgrepl"
)

// probeInterval is how soon a change on the server is noticed.
const probeInterval = 5 * time.Second

// A probe looks at the server beside a stream: whether commits may be waiting for
// our flush, whether it is still the member that is wanted, and how it sees our
// slot. What it finds out late costs latency, never durability.
type probe struct {
	r      *Receiver
	params pgrepl.Params
	leave  context.CancelCauseFunc // ends the session
	conn   *pgrepl.Conn
	sql    bool // conn is a plain connection
	slot   string
}

func (r *Receiver) newProbe(stream *pgrepl.Conn, leave context.CancelCauseFunc) *probe {
	p := &probe{r: r, params: r.Params, leave: leave}
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
		if p.conn == nil {
			p.connect(ctx)
		}
		if p.conn != nil {
			if err := p.look(ctx); err != nil {
				p.close()
			}
		}
		rest(ctx, probeInterval)
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
	if standby == "on" && p.r.Params.Target == pgrepl.Primary {
		p.leave(fmt.Errorf("server %q: %s port %d is no primary any more, looking for the new one", p.r.Params.Server, p.params.Host, p.params.Port))
		return nil
	}
	if !p.sql || p.r.Slot == "" {
		return nil
	}
	return p.lookAtSlot(ctx)
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
