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

// past moves a position over the recorded holes it lies in: nobody has that WAL
// any more, and asking for it again would only be refused again.
func past(at position, holes []repo.Hole, size pg.SegmentSize) position {
	for moved := true; moved; {
		moved = false
		for _, h := range holes {
			if h.Timeline == at.tli && size.Start(h.From) <= at.lsn && at.lsn < size.Start(h.To) {
				at.lsn, moved = size.Start(h.To), true
			}
		}
	}
	return at
}

// jump records that WAL is gone and makes the next session begin after it. It
// returns an error when the hole must not, or cannot, be passed.
func (r *Receiver) jump(ctx context.Context, gone *RemovedError) error {
	if !r.PassHoles {
		return gone
	}
	conn, err := pgrepl.Connect(ctx, r.Params)
	if err != nil {
		return errors.Join(gone, err)
	}
	defer conn.Close()
	to, err := r.oldest(ctx, conn, gone)
	if err != nil {
		return errors.Join(gone, err)
	}
	from, err := r.received(gone, to.size)
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
	// Durable before the first byte after it, so that no archive ever looks
	// continuous where it is not.
	h := repo.Hole{Timeline: gone.Timeline, From: from, To: to.lsn, Cause: cause, NoticedAt: time.Now().UTC(), By: "wal receiver"}
	if err := r.Repo.RecordHole(ctx, h); err != nil {
		return errors.Join(gone, err)
	}
	r.Log.Error("hole in WAL recorded, going on after it: backups before it can be restored up to it only, take a full backup",
		"timeline", h.Timeline, "from", h.From, "to", h.To, "cause", string(h.Cause))
	return nil
}

// received returns where what is here ends: in the partial segment in which the
// missing WAL begins, or at its start.
func (r *Receiver) received(gone *RemovedError, size pg.SegmentSize) (pg.LSN, error) {
	start := size.Start(gone.Need)
	end, err := r.Repo.PartialEnd(pg.SegmentName(gone.Timeline, start, size), start, size)
	if errors.Is(err, fs.ErrNotExist) {
		return gone.Need, nil
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
func (r *Receiver) oldest(ctx context.Context, conn *pgrepl.Conn, gone *RemovedError) (offer, error) {
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
	// A slot that reserves WAL from behind the hole keeps it from its segment on.
	if slot.Restart > gone.Need {
		o.lsn = size.Start(slot.Restart)
	}
	return o, nil
}
