package supervisor

import (
	"context"
	"strings"
	"testing"

	"github.com/pgmoneta/pgmoneta-go/internal/job"
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
