package restore

import (
	"bytes"
	"context"
	"fmt"
	"runtime"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/pgmoneta/pgmoneta-go/internal/pg"
	"github.com/pgmoneta/pgmoneta-go/internal/walpage"
)

const (
	// searchLimit is how much WAL is read to find a transaction or a restore point:
	// some ten seconds. What is not found in it may still be there.
	searchLimit = 16 << 30
	// searchMemory bounds the segments that are held at once.
	searchMemory = 256 << 20
	// quietSegments is how many segments with transactions, from the end of WAL, are
	// looked at for one that is late enough: the order of their ends is not exactly
	// that of their times.
	quietSegments = 4
)

// occurs refuses a time after the last transaction, and a transaction or restore point
// that WAL does not have or that comes before the end of the backup. PostgreSQL
// would replay everything and then not start.
func (m *planner) occurs(ctx context.Context) error {
	switch m.Target.Kind {
	case TargetTime, TargetXID, TargetName:
	default:
		return nil
	}
	b, t := m.plan.Backup, m.Target
	s := search{planner: m, size: int(b.SegmentSize)}
	known, err := s.run(ctx)
	if err != nil || !known || s.found >= b.End || s.found != 0 && t.Kind == TargetTime {
		return err
	}
	latest := Point{b.Label, "latest"}
	switch {
	case t.Kind == TargetTime && s.last.IsZero():
		return &TargetError{Server: m.repo.Server(), Label: b.Label, Target: t, Before: latest,
			Why: "no transaction ended in the archived WAL after it: wait until more has arrived"}
	case t.Kind == TargetTime:
		return &TargetError{Server: m.repo.Server(), Label: b.Label, Target: t, Before: latest,
			Why: fmt.Sprintf("the last transaction in the archived WAL of timeline %d ended at %s, before it: wait until more has arrived",
				m.plan.Timeline, s.last.UTC().Format("2006-01-02 15:04:05.999999Z07:00"))}
	case s.found != 0:
		return m.unreachable(b, "it is at %s, before the end of the backup at %s: choose an older backup", s.found, b.End)
	}
	return &TargetError{Server: m.repo.Server(), Label: b.Label, Target: t, Before: latest,
		Why: fmt.Sprintf("it is not in the archived WAL of timeline %d from %s to %s: look at its spelling, at the timeline, or choose an older backup",
			m.plan.Timeline, m.plan.WALStart, m.plan.WALEnd)}
}

// A search looks for the target from the end of WAL to its beginning.
type search struct {
	*planner
	size  int       // of a segment
	found pg.LSN    // of the record recovery would end at; 0 for none
	last  time.Time // at which a transaction ended
	with  int       // segments that had transactions
	// prepared tells that a prepared transaction ended, whose number is not known.
	prepared bool
}

// run reports whether it is known that there is no more than what was found.
func (s *search) run(ctx context.Context) (known bool, err error) {
	batch := max(1, min(runtime.GOMAXPROCS(0), searchMemory/s.size))
	var next []byte // beginning of the segment behind the batch
	todo, read := s.plan.Needed, 0
	for len(todo) > 0 {
		if read += batch * s.size; read > searchLimit {
			return false, nil
		}
		part := todo[max(0, len(todo)-batch):]
		todo = todo[:len(todo)-len(part)]
		contents, err := s.load(ctx, part)
		if err != nil {
			return false, err
		}
		for i, c := range slices.Backward(contents) {
			// WAL may end inside a record, and recovery then ends before that.
			if !s.look(part[i], c, next) && part[i].Name != s.plan.Needed[len(s.plan.Needed)-1].Name {
				return false, nil
			}
			next = slices.Clone(c[:min(len(c), 64<<10)])
			if s.found != 0 || s.Target.Kind == TargetTime && s.with >= quietSegments {
				return true, nil
			}
		}
	}
	return !s.prepared || s.Target.Kind != TargetXID, nil
}

// load reads segments side by side.
func (s *search) load(ctx context.Context, part []Segment) ([][]byte, error) {
	contents := make([][]byte, len(part))
	source := walSource{repo: s.repo, size: s.plan.Backup.SegmentSize}
	if s.plan.Foreign {
		tree, err := s.repo.Foreign().Open(ctx, s.plan.Backup.Label)
		if err != nil {
			return nil, err
		}
		defer func() { _ = tree.Close() }()
		source.tree = tree
	}
	g, ctx := errgroup.WithContext(ctx)
	for i, segment := range part {
		g.Go(func() error {
			var b bytes.Buffer
			b.Grow(s.size)
			_, err := source.segment(ctx, segment, &b)
			contents[i] = b.Bytes()
			return err
		})
	}
	return contents, g.Wait()
}

// look looks at one segment.
func (s *search) look(segment Segment, content, next []byte) (read bool) {
	ended := false
	read = walpage.Stops(content, next, func(stop walpage.Stop) {
		if stop.LSN >= segment.End {
			return // written after the timeline was left
		}
		if stop.Name == "" {
			ended, s.prepared = true, s.prepared || stop.XID == 0
			if stop.Time.After(s.last) {
				s.last = stop.Time
			}
		}
		// Recovery ends at the first of several restore points of a name.
		if s.hits(stop) && (s.found == 0 || s.Target.Kind != TargetTime) {
			s.found = stop.LSN
		}
	})
	if ended {
		s.with++
	}
	return read
}

// hits reports whether recovery would end at a record.
func (s *search) hits(stop walpage.Stop) bool {
	switch t := s.Target; t.Kind {
	case TargetName:
		return stop.Name == t.Name
	case TargetXID:
		return stop.XID != 0 && uint64(stop.XID) == t.XID&0xFFFFFFFF
	case TargetTime:
		return stop.Name == "" && (stop.Time.After(t.Time) || t.Exclusive && stop.Time.Equal(t.Time))
	}
	return false
}
