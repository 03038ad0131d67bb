package supervisor

import (
	"context"
	"errors"
	"log/slog"
	"testing"

	"github.com/pgmoneta/pgmoneta-go/internal/config"
	"github.com/pgmoneta/pgmoneta-go/internal/ipc"
	"github.com/pgmoneta/pgmoneta-go/internal/job"
	"github.com/pgmoneta/pgmoneta-go/internal/logging"
	"github.com/pgmoneta/pgmoneta-go/internal/shmem"
)

func TestJobsAreNiceAndWALIsNot(t *testing.T) {
	c, err := config.ParseBytes("pgmoneta.conf", []byte("[pgmoneta]\nhost = *\nbase_dir = /b\nunix_socket_dir = /s\njob_nice = 7\n"+
		"[primary]\nhost = h\nport = 1\nuser = u\n"), func(string) (string, bool) { return "", false })
	if err != nil {
		t.Fatal(err)
	}
	seg, err := shmem.Create(shmem.Capacity{Servers: 1, Jobs: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer seg.Close()
	log := &logging.Log{Logger: slog.New(slog.DiscardHandler)}
	for kind, want := range map[job.Kind]int{job.Receive: 0, job.Backup: 7, job.Restore: 7, job.Verify: 7} {
		refused, got := errors.New("refused"), -1
		s := &Supervisor{ctx: context.Background(), Options: Options{Segment: seg, Log: log, Start: func(spec ipc.Spec) (Child, error) {
			got = spec.Nice
			return nil, refused
		}}}
		s.config.Store(c)
		start, err := s.start(&server{name: "primary"}, kind)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.launch(start, ""); !errors.Is(err, refused) || got != want {
			t.Errorf("%s: nice %d, want %d (%v)", kind, got, want, err)
		}
	}
}
