package supervisor

import (
	"context"
	"sync"
	"time"

	"github.com/pgmoneta/pgmoneta-go/internal/job"
	"github.com/pgmoneta/pgmoneta-go/internal/metrics"
	"github.com/pgmoneta/pgmoneta-go/internal/mgmt"
	"github.com/pgmoneta/pgmoneta-go/internal/repo"
)

// A holeBoard is which holes each server's WAL had when somebody last looked,
// for the metrics page, which must not wait for disks.
type holeBoard struct {
	mu   sync.Mutex
	gaps map[string]metrics.Gaps // by server
	list map[string][]repo.Hole  // the same holes
}

func (b *holeBoard) set(server string, holes []repo.Hole) {
	g := metrics.Gaps{Count: len(holes)}
	for _, h := range holes {
		g.Bytes += uint64(h.To - h.From)
		if h.NoticedAt.After(g.Last) {
			g.Last = h.NoticedAt
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.gaps == nil {
		b.gaps, b.list = map[string]metrics.Gaps{}, map[string][]repo.Hole{}
	}
	b.gaps[server], b.list[server] = g, holes
}

func (b *holeBoard) of(server string) (metrics.Gaps, []repo.Hole) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.gaps[server], b.list[server]
}

// holesInterval is how soon a hole shows that a WAL worker recorded.
const holesInterval = 10 * time.Second

// watchHoles keeps the board up to date until ctx ends.
func (s *Supervisor) watchHoles(ctx context.Context, v *server) {
	t := time.NewTicker(holesInterval)
	defer t.Stop()
	for {
		s.countHoles(ctx, v)
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
	}
}

// countHoles looks at once. The number of before stays when that fails: refresh
// reports a repository that cannot be read.
func (s *Supervisor) countHoles(ctx context.Context, v *server) {
	if holes, err := v.repo.Holes(ctx); err == nil {
		s.holes.set(v.name, holes)
	}
}

// walCheck checks the archived WAL of a server. It runs beside a backup.
func (h handler) walCheck(_ context.Context, req *mgmt.Request, v *server) (mgmt.Response, error) {
	result, err := h.job(v, job.CheckWAL, job.Spec{Quick: req.Args.Bool("Quick")})
	if err != nil {
		return nil, err
	}
	h.countHoles(h.ctx, v)
	return mgmt.AnswerWALCheck(v.name, result.WAL)
}

// holeStatus adds the recorded holes of a server.
func (h handler) holeStatus(ctx context.Context, d mgmt.Document, v *server) error {
	holes, err := v.repo.Holes(ctx)
	if err != nil {
		return err
	}
	d["Holes"], d["FirstHole"] = len(holes), ""
	if len(holes) > 0 {
		d["FirstHole"] = holes[0].String()
	}
	return nil
}
