package wal

import (
	"context"
	"errors"
	"io/fs"
	"time"

	"github.com/pgmoneta/pgmoneta-go/internal/pg"
	"github.com/pgmoneta/pgmoneta-go/internal/pgrepl"
	"github.com/pgmoneta/pgmoneta-go/internal/repo"
)

// past moves a position over the recorded holes it lies in: nobody had that WAL
// any more, and asking for it again would only be refused again. What is missing
// or damaged for another reason may still be on the server.
func past(at position, holes []repo.Hole, size pg.SegmentSize) position {
	for moved := true; moved; {
		moved = false
		for _, h := range holes {
			refused := h.Cause == repo.CauseRemoved || h.Cause == repo.CauseSlotLost
			if refused && h.Timeline == at.tli && size.Start(h.From) <= at.lsn && at.lsn < size.Start(h.To) {
				at.lsn, moved = size.Start(h.To), true
			}
		}
	}
	return at
}

// bridge deals with WAL that the server no longer has. Another member of the
// cluster may still have it; if none has, the hole is recorded and the next
// session begins after it. An error means that neither was possible or allowed.
func (r *Receiver) bridge(ctx context.Context, gone *RemovedError) error {
	to, err := r.oldest(ctx, gone)
	if err != nil {
		return errors.Join(gone, err)
	}
	for _, m := range r.members() {
		// What the others keep is not ours to reserve: no slot.
		err := r.session(ctx, source{params: m, until: to.lsn})
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if errors.Is(err, errReached) {
			r.Log.Warn("filled from another member of the cluster", "host", m.Host, "port", m.Port, "timeline", gone.Timeline, "from", gone.Need, "to", to.lsn)
			return nil
		}
		r.Log.Debug("member of the cluster does not have it either", "host", m.Host, "port", m.Port, "err", err)
	}
	return r.jump(ctx, gone, to)
}

// members are the hosts of the cluster, each on its own. One alone has been
// asked already.
func (r *Receiver) members() []pgrepl.Params {
	if len(r.Params.Others) == 0 {
		return nil
	}
	var list []pgrepl.Params
	for _, a := range append([]pgrepl.Address{{Host: r.Params.Host, Port: r.Params.Port}}, r.Params.Others...) {
		p := r.Params
		p.Host, p.Port, p.Others, p.Target = a.Host, a.Port, nil, pgrepl.Any
		list = append(list, p)
	}
	return list
}

// jump records that WAL is gone, so that the next session begins after it.
func (r *Receiver) jump(ctx context.Context, gone *RemovedError, to offer) error {
	from, err := r.received(ctx, gone, to.size)
	if err != nil {
		return errors.Join(gone, err)
	}
	if to.lsn <= from {
		return gone // the server says it has it: a contradiction that time may resolve
	}
	cause := repo.CauseRemoved
	if to.lost {
		cause = repo.CauseSlotLost
	}
	h := repo.Hole{Timeline: gone.Timeline, From: from, To: to.lsn, Cause: cause, NoticedAt: time.Now().UTC(), By: "wal receiver"}
	filled, err := r.Filler.before(ctx, h, to.size)
	switch {
	case filled:
		return nil
	case err != nil:
		r.Log.Error("fill from the archive directory", "file", r.Filler.Dir, "err", err)
	}
	if !r.PassHoles {
		return gone
	}
	// Durable before the first byte after it, so that no archive ever looks
	// continuous where it is not.
	if err := r.Repo.RecordHole(ctx, h); err != nil {
		return errors.Join(gone, err)
	}
	r.Log.Error("hole in WAL recorded, going on after it: backups before it can be restored up to it only, take a full backup",
		"timeline", h.Timeline, "from", h.From, "to", h.To, "cause", string(h.Cause))
	return nil
}

// received returns where what is here ends: after what a member of the cluster
// could still give, in the partial segment where the missing WAL begins, or at
// its start.
func (r *Receiver) received(ctx context.Context, gone *RemovedError, size pg.SegmentSize) (pg.LSN, error) {
	complete, partial, stored, err := r.archive(ctx)
	if err != nil {
		return 0, err
	}
	start := size.Start(gone.Need)
	at, ok, err := resumeAt(append(stored, complete...), partial, size)
	if err != nil {
		return 0, err
	}
	if ok && at.tli == gone.Timeline {
		start = max(start, at.lsn)
	}
	end, err := r.Repo.PartialEnd(pg.SegmentName(gone.Timeline, start, size), start, size)
	if errors.Is(err, fs.ErrNotExist) {
		return start, nil
	}
	return max(end, start), err
}

// offer is where a server can go on.
type offer struct {
	lsn  pg.LSN // start of a segment
	size pg.SegmentSize
	lost bool // the slot had lost its WAL
}

// oldest finds the oldest WAL the server keeps for us: the slot's, or that of
// a new slot, or the present.
func (r *Receiver) oldest(ctx context.Context, gone *RemovedError) (offer, error) {
	conn, err := pgrepl.Connect(ctx, r.Params)
	if err != nil {
		return offer{}, err
	}
	defer conn.Close()
	size, err := conn.SegmentSize(ctx)
	if err != nil {
		return offer{}, err
	}
	system, err := conn.System(ctx)
	if err != nil {
		return offer{}, err
	}
	o := offer{lsn: size.Start(system.Flush), size: size}
	slot, err := r.slot(ctx, conn)
	if err != nil {
		return offer{}, err
	}
	if r.Slot != "" && slot.Restart == 0 {
		if o.lost = true; !r.CreateSlot {
			return offer{}, &SlotLostError{Server: r.Params.Server, Slot: r.Slot, Err: gone.Err}
		}
		if err := conn.DropSlot(ctx, r.Slot); err != nil {
			return offer{}, err
		}
		if slot, err = r.slot(ctx, conn); err != nil {
			return offer{}, err
		}
	}
	switch {
	case slot.Restart > gone.Need: // it keeps WAL from its segment on
		o.lsn = size.Start(slot.Restart)
	case slot.Restart != 0:
		// By its slot the server keeps what it has just refused. Whatever that is, it
		// is no reason to give WAL up.
		return offer{}, errors.New("the replication slot still reserves it")
	}
	return o, nil
}
