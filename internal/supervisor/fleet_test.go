package supervisor

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/pgmoneta/pgmoneta-go/internal/ipc"
	"github.com/pgmoneta/pgmoneta-go/internal/job"
	"github.com/pgmoneta/pgmoneta-go/internal/mgmt"
	"github.com/pgmoneta/pgmoneta-go/internal/repo"
	"github.com/pgmoneta/pgmoneta-go/internal/shmem"
)

func TestServerWithAJobIsNotRemoved(t *testing.T) {
	t.Parallel()
	seg, err := shmem.Create(shmem.Capacity{Servers: 2, Jobs: 2})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = seg.Close() })
	a, b := &server{name: "a"}, &server{name: "b"}
	s := &Supervisor{Options: Options{Segment: seg}, ctx: context.Background(), jobs: map[int]*running{}}
	i, slot, err := s.reserve(a, job.Backup, 1)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.forbidJobs([]*server{a, b}); err == nil || !strings.Contains(err.Error(), `server "a" cannot be removed during its backup`) {
		t.Errorf("forbidJobs during a backup: %v", err)
	}
	if b.gone {
		t.Error("a refused removal forbids jobs of another server")
	}
	s.release(i, slot)
	undo, err := s.forbidJobs([]*server{a})
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.reserve(a, job.Backup, 1); err == nil {
		t.Error("a server that is being removed begins a job")
	}
	undo()
	if _, _, err := s.reserve(a, job.Backup, 1); err != nil {
		t.Errorf("a job after the reload was refused: %v", err)
	}
}

func TestReceiverTurns(t *testing.T) {
	t.Parallel()
	var r receiver
	first, ok := r.begin(t.Context())
	if !ok {
		t.Fatal("the first turn did not begin")
	}
	r.setOffline(true)
	if first.Err() == nil {
		t.Error("the turn goes on while offline")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, ok := r.begin(ctx); ok {
		t.Error("a turn began while offline")
	}
	r.setOffline(false)
	r.setOffline(false)
	second, ok := r.begin(t.Context())
	if !ok || second.Err() != nil {
		t.Fatal("no turn after offline")
	}
	r.again()
	if second.Err() == nil {
		t.Error("the turn goes on although another was asked for")
	}
}

// TestModeThatHoldsIsRemembered has many requests for either mode at once: after a restart
// the server must be as the last of them left it.
func TestModeThatHoldsIsRemembered(t *testing.T) {
	t.Parallel()
	seg, err := shmem.Create(shmem.Capacity{Servers: 1, Jobs: 1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = seg.Close() })
	v, err := newServer(0, "primary", t.TempDir(), repo.Keys{}, nil, seg, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	v.slot.Streaming.Store(1)
	s := &Supervisor{ctx: t.Context()}
	for round := range 40 {
		var wg sync.WaitGroup
		for i := range 16 {
			action := []string{"offline", "online"}[i%2]
			wg.Go(func() {
				if _, err := (handler{Supervisor: s}).mode(t.Context(), &mgmt.Request{Command: mgmt.Mode, Args: mgmt.Document{"Action": action}}, v); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		_, err := os.Stat(v.modePath())
		if remembered := err == nil; remembered != (v.slot.Offline.Load() == 1) || remembered != v.receiver.offline {
			t.Fatalf("round %d: remembered as offline %t, shown as offline %d, held offline %t", round, remembered, v.slot.Offline.Load(), v.receiver.offline)
		}
	}
}

// TestServerThatJoinsAtTheEnd lets reloads add servers while the daemon ends.
func TestServerThatJoinsAtTheEnd(t *testing.T) {
	t.Parallel()
	const servers = 50
	s := notRunning(t, servers, 1, func(ipc.Spec) (Child, error) { return nil, errors.New("not here") })
	var cancel context.CancelFunc
	s.ctx, cancel = context.WithCancel(t.Context())
	c := s.config.Load()
	joined := make(chan struct{})
	go func() {
		defer close(joined)
		for i := range servers {
			part := *c
			part.Servers = c.Servers[:i+1]
			list, err := s.enlist(c, c.Servers[i:i+1])
			if err != nil {
				t.Error(err)
				return
			}
			s.exchange(&part, list, nil)
		}
	}()
	cancel()
	for ending := true; ending; {
		s.fleet.stopWatching()
		select {
		case <-joined:
			ending = false
		default:
		}
	}
	s.fleet.stopReceiving()
}
