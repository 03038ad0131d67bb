package repo

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/pgmoneta/pgmoneta-go/internal/durable"
	"github.com/pgmoneta/pgmoneta-go/internal/pg"
	"github.com/pgmoneta/pgmoneta-go/internal/walpage"
)

// OwnerHole is the owner of stages in which holes are recorded.
const OwnerHole = "hole"

// A Cause says how a hole came to be.
type Cause string

// Causes of holes. Others may be found in a repository and are shown as they are.
const (
	CauseRemoved  Cause = "removed by server" // before it was received
	CauseSlotLost Cause = "slot lost"
	CauseMissing  Cause = "segment missing" // between others that are stored
	CauseDamaged  Cause = "damaged"         // stored, but not what was written
	CauseDropped  Cause = "dropped"         // by archive_command, because too much waited
	CauseUnknown  Cause = "unknown"         // the object that says so cannot be read
)

// A Hole is a range of WAL that the archive does not have, or not whole. It is
// kept as the object
//
//	hole/<timeline>/<from>-<to>
//
// with 8, 16 and 16 upper-case hexadecimal digits, whose content is JSON. The name
// alone says where the hole is: a damaged object hides nothing.
type Hole struct {
	Timeline  pg.Timeline `json:"timeline"`
	From      pg.LSN      `json:"from_lsn"` // first byte that is missing
	To        pg.LSN      `json:"to_lsn"`   // first byte that is not missing any more
	Cause     Cause       `json:"cause"`
	NoticedAt time.Time   `json:"noticed_at"` // UTC
	By        string      `json:"by"`         // who noticed, such as "wal check"

	Err error `json:"-"` // why the object cannot be read; only the range is known then
}

// String returns the range and the cause.
func (h Hole) String() string {
	return fmt.Sprintf("timeline %d from %s to %s: %s", h.Timeline, h.From, h.To, h.Cause)
}

const holePrefix = "hole"

func (h Hole) object() string {
	return fmt.Sprintf("%s/%08X/%016X-%016X", holePrefix, uint32(h.Timeline), uint64(h.From), uint64(h.To))
}

func (h Hole) check() error {
	if h.Timeline == 0 || h.From >= h.To {
		return fmt.Errorf("timeline %d from %s to %s is no range of WAL", h.Timeline, h.From, h.To)
	}
	return nil
}

// parseHoleName returns the range that the name of an object stands for.
func parseHoleName(name string) (Hole, bool) {
	rest, ok := strings.CutPrefix(name, holePrefix+"/")
	if !ok || len(rest) != 8+1+16+1+16 {
		return Hole{}, false
	}
	tli, errTLI := strconv.ParseUint(rest[:8], 16, 32)
	from, errFrom := strconv.ParseUint(rest[9:25], 16, 64)
	to, errTo := strconv.ParseUint(rest[26:], 16, 64)
	if errors.Join(errTLI, errFrom, errTo) != nil {
		return Hole{}, false
	}
	h := Hole{Timeline: pg.Timeline(tli), From: pg.LSN(from), To: pg.LSN(to)}
	return h, h.check() == nil && h.object() == name
}

// parseHole reads the content of the object that records h.
func parseHole(h Hole, content []byte) (Hole, error) {
	var got Hole
	if err := json.Unmarshal(content, &got); err != nil {
		return Hole{}, fmt.Errorf("%s: %w", h.object(), err)
	}
	if got.Timeline != h.Timeline || got.From != h.From || got.To != h.To {
		return Hole{}, fmt.Errorf("%s: its content is about %s", h.object(), got)
	}
	return got, nil
}

const holeLimit = 64 << 10

// Holes returns the recorded holes by timeline and position. One whose object
// cannot be read is among them, with [CauseUnknown] and its error.
func (r *Repository) Holes(ctx context.Context) ([]Hole, error) {
	objects, err := r.engine.List(ctx, holePrefix)
	if err != nil {
		return nil, err
	}
	var list []Hole
	for _, o := range objects {
		named, ok := parseHoleName(o.Name)
		if !ok {
			continue // not ours
		}
		h, err := r.readHole(ctx, named)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			continue // filled while we look
		case ctx.Err() != nil:
			return nil, context.Cause(ctx)
		case err != nil:
			h, h.Cause, h.Err = named, CauseUnknown, err
		}
		list = append(list, h)
	}
	slices.SortFunc(list, func(a, b Hole) int {
		return cmp.Or(cmp.Compare(a.Timeline, b.Timeline), cmp.Compare(a.From, b.From), cmp.Compare(a.To, b.To))
	})
	return list, nil
}

func (r *Repository) readHole(ctx context.Context, named Hole) (Hole, error) {
	content, err := r.ReadRecord(ctx, named.object(), holeLimit)
	if err != nil {
		return Hole{}, err
	}
	return parseHole(named, content)
}

// RecordHole records a hole. It is there, durably, when nil is returned; one of
// the same range that was recorded before stays as it is. Any process may call
// it at any time: it needs no other lock.
func (r *Repository) RecordHole(ctx context.Context, h Hole) error {
	if err := h.check(); err != nil {
		return fmt.Errorf("server %q: record hole: %w", r.server, err)
	}
	h.NoticedAt = h.NoticedAt.UTC()
	content, err := json.Marshal(h)
	if err != nil {
		return err
	}
	return r.changeHoles(ctx, func() error {
		// The lock is ours, so nobody's stage is open: what is there was left by a crash.
		if err := r.engine.Sweep(ctx, OwnerHole); err != nil {
			return err
		}
		err := r.PutRecord(ctx, OwnerHole, h.object(), append(content, '\n'))
		if err != nil && !errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("server %q: record hole %s: %w", r.server, h, err)
		}
		return nil
	})
}

// An OpenHoleError reports a recorded hole whose WAL is not all there.
type OpenHoleError struct {
	Server  string
	Hole    Hole
	Segment string // the first that is missing or damaged
	Err     error
}

func (e *OpenHoleError) Error() string {
	return fmt.Sprintf("server %q: the hole on timeline %d from %s to %s stays: WAL segment %s: %v",
		e.Server, e.Hole.Timeline, e.Hole.From, e.Hole.To, e.Segment, e.Err)
}

func (e *OpenHoleError) Unwrap() error { return e.Err }

// FillHole removes the record of a hole whose range is stored again. It reads and
// checks all of it first; an [*OpenHoleError] tells what still stands in the way.
// A hole that is not recorded is no error.
//
// Where the hole's timeline was left inside a segment, the copy at the beginning
// of the next timeline serves as well.
func (r *Repository) FillHole(ctx context.Context, h Hole, size pg.SegmentSize) error {
	if err := h.check(); err != nil {
		return fmt.Errorf("server %q: fill hole: %w", r.server, err)
	}
	p, err := r.prover(ctx, size)
	if err != nil {
		return err
	}
	for at := size.Start(h.From); at < h.To; at += pg.LSN(size) {
		if err := p.prove(ctx, h, at); err != nil {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			return &OpenHoleError{Server: r.server, Hole: h, Segment: pg.SegmentName(h.Timeline, at, size), Err: err}
		}
		if at+pg.LSN(size) < at { // past the largest LSN
			break
		}
	}
	return r.changeHoles(ctx, func() error { return r.engine.Delete(ctx, h.object()) })
}

// FillHolesAround removes the records of the holes that the stored segment of that
// name was the last to fill. Other holes stay, and are no error.
func (r *Repository) FillHolesAround(ctx context.Context, segment string, size pg.SegmentSize) error {
	tli, start, err := pg.ParseSegmentName(segment, size)
	if err != nil {
		return err
	}
	holes, err := r.Holes(ctx)
	if err != nil {
		return err
	}
	for _, h := range holes {
		if h.Timeline != tli || h.To <= start || h.From >= start+pg.LSN(size) || !r.hasAll(ctx, h, size) {
			continue
		}
		var still *OpenHoleError
		if err := r.FillHole(ctx, h, size); err != nil && !errors.As(err, &still) {
			return err
		}
	}
	return nil
}

// hasAll reports whether every segment of a hole is stored under its own name. It
// saves reading all of a long hole again for each segment that comes.
func (r *Repository) hasAll(ctx context.Context, h Hole, size pg.SegmentSize) bool {
	for at := size.Start(h.From); at < h.To; at += pg.LSN(size) {
		if ok, err := r.HasSegment(ctx, pg.SegmentName(h.Timeline, at, size)); !ok || err != nil {
			return false
		}
		if at+pg.LSN(size) < at { // past the largest LSN
			break
		}
	}
	return true
}

// A prover checks stored segments of a hole.
type prover struct {
	repo      *Repository
	system    uint64
	size      pg.SegmentSize
	histories []pg.History
}

func (r *Repository) prover(ctx context.Context, size pg.SegmentSize) (*prover, error) {
	p := &prover{repo: r, size: size}
	var err error
	if p.system, err = r.SystemIdentifier(ctx); err != nil {
		return nil, err
	}
	listing, err := r.ListWAL(ctx)
	if err != nil {
		return nil, err
	}
	for _, tli := range listing.Histories {
		// One that cannot be read only means fewer copies to look at.
		if h, err := r.History(ctx, tli); err == nil {
			p.histories = append(p.histories, h)
		}
	}
	return p, nil
}

// prove checks that the bytes of h in the segment at start are stored. The error
// is about the hole's own timeline.
func (p *prover) prove(ctx context.Context, h Hole, start pg.LSN) error {
	own := p.segment(ctx, h.Timeline, start)
	if own == nil || ctx.Err() != nil {
		return own
	}
	end := min(h.To, start+pg.LSN(p.size)) // of the bytes of h in this segment
	for _, history := range p.histories {
		left, ok := history.End(h.Timeline)
		if !ok || left < end || left >= start+pg.LSN(p.size) {
			continue // the timeline after that one repeats too little, or nothing
		}
		if copied := history.SegmentTimeline(start, p.size); p.segment(ctx, copied, start) == nil {
			return nil
		}
	}
	return own
}

func (p *prover) segment(ctx context.Context, tli pg.Timeline, start pg.LSN) error {
	want := walpage.Want{System: p.system, Timeline: tli, Start: start, Size: p.size}
	return p.repo.CheckSegment(ctx, pg.SegmentName(tli, start, p.size), want)
}

// CheckSegment reads a stored segment and compares its length, the hash of every
// frame and the header of every page. A missing one is [fs.ErrNotExist]; damage
// is a [*container.DamagedError], a [*walpage.LengthError] or a [*walpage.PageError].
func (r *Repository) CheckSegment(ctx context.Context, name string, want walpage.Want) error {
	seg, err := r.OpenSegment(ctx, name)
	if err != nil {
		return err
	}
	defer func() { _ = seg.Close() }()
	if seg.Plain() != int64(want.Size) {
		return &walpage.LengthError{Have: seg.Plain(), Want: int64(want.Size)}
	}
	stream := seg.Stream()
	defer func() { _ = stream.Close() }()
	return walpage.CheckSegment(contextReader{ctx, stream}, want)
}

// A contextReader ends when its context does.
type contextReader struct {
	ctx context.Context // io.Reader has no other place for it
	r   io.Reader
}

func (c contextReader) Read(p []byte) (int, error) {
	if c.ctx.Err() != nil {
		return 0, context.Cause(c.ctx)
	}
	return c.r.Read(p)
}

// SystemIdentifier returns the system identifier of the cluster that the
// repository belongs to, 0 before [Repository.Bind].
func (r *Repository) SystemIdentifier(ctx context.Context) (uint64, error) {
	f, err := r.Format(ctx)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	n, err := strconv.ParseUint(f.System, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("server %q: %s: system identifier %q is no number", r.server, filepath.Join(r.dir, "format"), f.System)
	}
	return n, nil
}

// holePatience is how long to wait for another process that records a hole or
// rotates keys, which takes it a few milliseconds.
const holePatience = 10 * time.Second

// changeHoles calls change while no other process changes holes.
func (r *Repository) changeHoles(ctx context.Context, change func() error) error {
	return r.locked(ctx, "hole.lock", change)
}

// locked calls change while holding a lock of the repository.
func (r *Repository) locked(ctx context.Context, name string, change func() error) error {
	lock, err := r.waitLock(ctx, name)
	if err != nil {
		return fmt.Errorf("server %q: %w", r.server, err)
	}
	err = change()
	return errors.Join(err, lock.Release())
}

// waitLock takes a lock of the repository, waiting a while for another holder.
func (r *Repository) waitLock(ctx context.Context, name string) (*durable.Lock, error) {
	deadline := time.Now().Add(holePatience)
	for {
		lock, err := durable.TryLock(filepath.Join(r.dir, name))
		var locked *durable.LockedError
		if !errors.As(err, &locked) || time.Now().After(deadline) {
			return lock, err
		}
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-time.After(5 * time.Millisecond):
		}
	}
}
