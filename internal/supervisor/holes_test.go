package supervisor

import (
	"context"
	"errors"
	"testing"

	"github.com/pgmoneta/pgmoneta-go/internal/job"
	"github.com/pgmoneta/pgmoneta-go/internal/mgmt"
	"github.com/pgmoneta/pgmoneta-go/internal/shmem"
)

func TestOneWALCheckPerServerBesideItsJob(t *testing.T) {
	seg, err := shmem.Create(shmem.Capacity{Servers: 2, Jobs: 4})
	if err != nil {
		t.Fatal(err)
	}
	defer seg.Close()
	s := &Supervisor{Options: Options{Segment: seg}, ctx: context.Background(), jobs: map[int]*running{}}
	a, b := &server{name: "a"}, &server{name: "b", index: 1}
	for _, j := range []struct {
		v    *server
		kind job.Kind
	}{{a, job.Backup}, {a, job.CheckWAL}, {b, job.CheckWAL}} {
		if _, _, err := s.reserve(j.v, j.kind, 1); err != nil {
			t.Fatalf("%s of %s: %v", j.kind, j.v.name, err)
		}
	}
	_, _, err = s.reserve(a, job.CheckWAL, 1)
	var busy *busyError
	if !errors.As(err, &busy) {
		t.Fatalf("a second check of one server: %v", err)
	}
	var refused *mgmt.Error
	if err := protocolError(&mgmt.Request{Command: mgmt.WALCheck}, "wal check", err); !errors.As(err, &refused) || refused.Code != mgmt.CodeWALCheckBusy {
		t.Errorf("it is refused with %v", err)
	}
}
