package restore

import (
	"context"
	"errors"
	"fmt"

	"github.com/pgmoneta/pgmoneta-go/internal/pg"
	"github.com/pgmoneta/pgmoneta-go/internal/repo"
)

// A Point is a backup and a position that it can be restored to. The zero Point is none.
type Point struct {
	Label    repo.Label
	Position string
}

func (p Point) String() string { return fmt.Sprintf("%q from backup %s", p.Position, p.Label) }

// instead names the nearest points in a message.
func instead(before, after Point) string {
	switch {
	case before == Point{} && after == Point{}:
		return ""
	case before == Point{}:
		return fmt.Sprintf("; the nearest after it is %s", after)
	case after == Point{}:
		return fmt.Sprintf("; the nearest before it is %s", before)
	}
	return fmt.Sprintf("; the nearest before it is %s, after it %s", before, after)
}

// nearest adds to a refusal the nearest points that can be reached. Where they
// cannot be found out the refusal stays as it is.
func (m *planner) nearest(ctx context.Context, refusal error) {
	var target *TargetError
	var hole *HoleError
	switch {
	case errors.As(refusal, &target) && target.Before != Point{}:
	case errors.As(refusal, &target):
		target.Before, target.After = m.around(ctx, func(s repo.Summary) bool { return m.afterTarget(s) })
	case errors.As(refusal, &hole):
		// A way round the hole is a backup that was begun behind it.
		_, hole.After = m.around(ctx, func(s repo.Summary) bool { return s.Start >= hole.To })
	}
}

// afterTarget reports whether a backup becomes consistent only after the target.
func (m *planner) afterTarget(s repo.Summary) bool {
	switch t := m.Target; t.Kind {
	case TargetLSN:
		return s.End > t.LSN
	case TargetTime:
		return s.StoppedAt.After(t.Time)
	}
	return false
}

// around returns the farthest point of the newest backup that is not beyond, and
// the first point of the oldest one that is.
func (m *planner) around(ctx context.Context, beyond func(repo.Summary) bool) (before, after Point) {
	list, err := m.repo.Backups(ctx)
	if err != nil {
		return before, after
	}
	for _, b := range list {
		if b.Err != nil {
			continue
		}
		h, err := m.follow(ctx, b.Summary)
		if err != nil {
			continue
		}
		p, ok := m.farthest(h, b.Summary)
		switch {
		case !ok:
		case !beyond(b.Summary):
			before = p
		case after == Point{}:
			after = Point{b.Label, "immediate"}
		}
	}
	return before, after
}

// farthest returns the last position along h that a backup is known to reach. ok is
// false when it cannot even become consistent.
func (m *planner) farthest(h pg.History, s repo.Summary) (p Point, ok bool) {
	a := *m.found
	a.size = s.SegmentSize
	_, end, gap, err := a.walk(h, s.Start, 0)
	if err != nil || end < s.End {
		return Point{}, false
	}
	t := m.Target
	switch {
	case t.Kind == TargetLSN && t.LSN >= s.End && t.LSN < end:
		return Point{s.Label, t.String()}, true
	case gap == nil && t.Kind == TargetTime && !m.afterTarget(s):
		return Point{s.Label, t.String()}, true
	case gap == nil:
		return Point{s.Label, "latest"}, true
	}
	return Point{s.Label, lastPosition(a.size, s, end)}, true
}

// lastPosition is the last position before the end of WAL at which a record is known
// to begin: one begins in every segment.
func lastPosition(size pg.SegmentSize, s repo.Summary, end pg.LSN) string {
	if last := size.Start(end - 1); last >= s.End {
		return "lsn=" + last.String()
	}
	return "immediate"
}
