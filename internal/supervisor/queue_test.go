package supervisor

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/pgmoneta/pgmoneta-go/internal/config"
	"github.com/pgmoneta/pgmoneta-go/internal/ipc"
	"github.com/pgmoneta/pgmoneta-go/internal/job"
	"github.com/pgmoneta/pgmoneta-go/internal/logging"
	"github.com/pgmoneta/pgmoneta-go/internal/mgmt"
	"github.com/pgmoneta/pgmoneta-go/internal/shmem"
	"github.com/pgmoneta/pgmoneta-go/test/pgtest"
)

func TestQueueKeepsOrderAndIsBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		v, b := &server{name: "a", log: slog.New(slog.DiscardHandler)}, &book{}
		if err := v.queue.acquire(t.Context(), v, b.enter(record{Server: v.name, Kind: job.Backup}, ""), true); err != nil {
			t.Fatal(err)
		}
		order := make(chan int, maxQueued)
		entries := make([]*entry, maxQueued)
		for i := range entries {
			entries[i] = b.enter(record{Server: v.name, Kind: job.Verify}, fmt.Sprint("ticket ", i))
			go func() {
				err := v.queue.acquire(t.Context(), v, entries[i], true)
				if i == 3 && errors.Is(err, errNotWanted) {
					return
				}
				if err != nil {
					t.Errorf("job %d: %v", i, err)
				}
				order <- i
				v.queue.release()
			}()
			synctest.Wait()
		}
		var busy *busyError
		for _, wait := range []bool{true, false} {
			if err := v.queue.acquire(t.Context(), v, b.enter(record{Server: v.name, Kind: job.Backup}, ""), wait); !errors.As(err, &busy) {
				t.Errorf("a job beyond the bound, wait %t: %v, want busy", wait, err)
			}
		}
		if _, known := b.unqueue("b", b.find("a", "ticket 3")); known {
			t.Error("a job of one server was cancelled as one of another")
		}
		if running, known := b.unqueue("a", b.find("a", "ticket 3")); running || !known {
			t.Errorf("unqueue: running %t, known %t", running, known)
		}
		synctest.Wait()
		v.queue.release()
		last := -1
		for range maxQueued - 1 {
			got := <-order
			if got <= last || got == 3 {
				t.Errorf("job %d after %d", got, last)
			}
			last = got
		}
		synctest.Wait()
		if v.queue.held || len(v.queue.waiting) > 0 {
			t.Errorf("held %t, %d wait after the last", v.queue.held, len(v.queue.waiting))
		}
	})
}

func TestHistoryIsKeptAndBounded(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	v := &server{name: "a"}
	var first book
	if damaged, err := first.load(dir); damaged != 0 || err != nil {
		t.Fatalf("load of nothing: %d, %v", damaged, err)
	}
	for range maxHistory + 10 {
		first.past = append(first.past[max(0, len(first.past)+1-maxHistory):], first.enter(record{Server: v.name, Kind: job.Backup}, "").record)
	}
	clear(first.open)
	if err := first.leave(first.enter(record{Kind: job.Compress, File: "/file"}, ""), job.Result{}, nil); err != nil { // of a file
		t.Fatal(err)
	}
	e := first.enter(record{Server: v.name, Kind: job.Delete}, "")
	first.begin(e)
	if err := first.leave(e, job.Result{}, errors.New("no such\nbackup")); err != nil {
		t.Fatal(err)
	}
	busy := first.enter(record{Server: v.name, Kind: job.Delete}, "")
	if err := first.leave(busy, job.Result{}, fmt.Errorf("backup: %w", &busyError{})); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, historyName)
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, append(content, "{torn"...), 0o600); err != nil {
		t.Fatal(err)
	}
	var second book
	if damaged, err := second.load(dir); damaged != 1 || err != nil {
		t.Errorf("load: %d lines damaged, %v, want 1", damaged, err)
	}
	list := second.list()
	if len(list) != maxHistory {
		t.Fatalf("%d jobs are remembered, want %d", len(list), maxHistory)
	}
	if last := list[len(list)-1]; last.ID != e.ID || last.State != stateFailed || last.Error != "no such\nbackup" {
		t.Errorf("the last job is %+v", last)
	}
	if next := second.enter(record{Server: v.name, Kind: job.Backup}, ""); next.ID <= e.ID {
		t.Errorf("job %d after %d", next.ID, e.ID)
	}
}

// TestJobsThatOnlyLookDoNotFillTheHistory has one that fails every few minutes.
func TestJobsThatOnlyLookDoNotFillTheHistory(t *testing.T) {
	t.Parallel()
	var b book
	a, other := &server{name: "a"}, &server{name: "b"}
	end := func(v *server, kind job.Kind, err error) {
		t.Helper()
		if err := b.leave(b.enter(record{Server: v.name, Kind: kind}, ""), job.Result{}, err); err != nil {
			t.Fatal(err)
		}
	}
	end(a, job.Backup, nil)
	for range 2 * maxHistory {
		end(a, job.PlanRetention, errors.New("wrong key"))
		end(other, job.PlanRetention, errors.New("wrong key"))
		end(a, job.Usage, nil)
	}
	end(a, job.PlanRetention, errors.New("disk"))
	end(a, job.Verify, errors.New("disk"))
	end(a, job.Verify, errors.New("disk"))
	var got []string
	for _, r := range b.list() {
		got = append(got, r.Server+" "+string(r.Kind)+" "+r.Error)
	}
	if want := "[a backup  a retentionplan wrong key b retentionplan wrong key a retentionplan disk a verify disk a verify disk]"; fmt.Sprint(got) != want {
		t.Errorf("remembered are %d jobs, %.300s\nwant %s", len(got), got, want)
	}
}

func FuzzHistory(f *testing.F) {
	for _, seed := range []string{"", "{}", `{"ID":1,"Server":"a","Kind":"backup","State":"done","Queued":"2026-11-21T10:00:00Z"}` + "\n", "{\"ID\":-1}\n\x00", `{"ID":1e300}`, "[[["} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, content []byte) {
		past, damaged := decodeHistory(content)
		if len(past)+damaged > strings.Count(string(content), "\n")+1 {
			t.Errorf("%d records and %d damaged lines", len(past), damaged)
		}
	})
}

func TestJobsWaitAndCanBeCancelled(t *testing.T) {
	s := pgtest.Start(t, pgtest.Options{})
	dir := t.TempDir()
	bed(t, s, dir)
	waitStreaming(t, dir)
	ctx := context.Background()
	outcomes := make(chan mgmt.Outcome, 4)
	for range 4 {
		go func() {
			c, err := mgmt.Dial(ctx, filepath.Join(dir, mgmt.SocketName))
			if err != nil {
				outcomes <- mgmt.Outcome{Message: err.Error()}
				return
			}
			defer c.Close()
			doc, _ := c.Call(ctx, mgmt.Backup, mgmt.Document{"Server": "primary"})
			outcomes <- doc.Outcome()
		}()
	}
	for range 4 {
		if err := (<-outcomes).Err(); err != nil {
			t.Errorf("a backup that had to wait: %v", err)
		}
	}
	jobs := call(t, dir, mgmt.Jobs, mgmt.Document{"Server": "primary"}).List("Jobs")
	if len(jobs) != 4 {
		t.Fatalf("%d jobs are listed, want 4", len(jobs))
	}
	for _, j := range jobs {
		if j := j.(mgmt.Document); j.Text("State") != "done" || j.Text("Backup") == "" || j.Text("Ended") == "" {
			t.Errorf("job %v", j)
		}
	}
	if resp := call(t, dir, mgmt.Progress, mgmt.Document{"Server": "primary", "Cancel": true}); resp["Cancelled"] != false {
		t.Errorf("cancel with nothing that runs: %v", resp)
	}
	for _, id := range []any{int64(99), "x"} {
		c, err := mgmt.Dial(ctx, filepath.Join(dir, mgmt.SocketName))
		if err != nil {
			t.Fatal(err)
		}
		doc, err := c.Call(ctx, mgmt.Progress, mgmt.Document{"Server": "primary", "Command": "backup", "Cancel": true, "Job": id})
		if err != nil || doc.Outcome().Code != mgmt.CodeProgressOther {
			t.Errorf("cancel of job %v: %v, %v", id, doc.Outcome(), err)
		}
		c.Close()
	}
}

// notRunning returns a supervisor of the servers s0, s1 and so on that nothing runs of.
func notRunning(t *testing.T, servers, jobs int, start func(ipc.Spec) (Child, error)) *Supervisor {
	t.Helper()
	dir := t.TempDir()
	text := "[pgmoneta]\nhost = localhost\nbase_dir = " + dir + "\nunix_socket_dir = " + dir + "\n"
	for i := range servers {
		text += fmt.Sprintf("[s%d]\nhost = localhost\nport = 5432\nuser = repl\nwal_slot = repl\n", i)
	}
	c, err := config.ParseBytes("pgmoneta.conf", []byte(text), os.LookupEnv)
	if err != nil {
		t.Fatal(err)
	}
	seg, err := shmem.Create(shmem.Capacity{Servers: servers, Jobs: jobs})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = seg.Close() })
	log, err := logging.Open(logging.Options{Kind: logging.File, Path: filepath.Join(dir, "log")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = log.Close() })
	s, err := New(Options{Config: c, Log: log, Segment: seg, Start: start})
	if err != nil {
		t.Fatal(err)
	}
	s.ctx = t.Context()
	return s
}

// TestManyServersLookOneAfterTheOther lets many more servers than there are slots for jobs
// find out what they take at one moment, as they do after a start.
func TestManyServersLookOneAfterTheOther(t *testing.T) {
	t.Parallel()
	const servers = 40
	began, gate := make(chan struct{}, servers), make(chan struct{})
	var running atomic.Int64
	start := func(ipc.Spec) (Child, error) {
		parent, file, err := ipc.Pair()
		if err != nil {
			return nil, err
		}
		conn, err := ipc.FromFile(file)
		if err != nil {
			return nil, err
		}
		child := &thread{conn: parent, done: make(chan struct{})}
		go func() {
			defer close(child.done)
			defer conn.Close()
			if _, err := conn.Receive(); err != nil {
				t.Error(err)
			}
			if n := running.Add(1); n > maxLooking {
				t.Errorf("%d look at once", n)
			}
			began <- struct{}{}
			<-gate
			running.Add(-1)
			child.err = conn.Send(job.KindResult, job.Result{})
		}()
		return child, nil
	}
	s := notRunning(t, servers, maxLooking+2, start)
	var wg sync.WaitGroup
	for i := range servers {
		v := &server{index: i, name: fmt.Sprintf("s%d", i), log: s.Log.Logger}
		wg.Go(func() {
			if _, err := s.runAsked(v, job.Usage, job.Spec{}, asking{}); err != nil {
				t.Errorf("server %s: %v", v.name, err)
			}
		})
	}
	for range maxLooking {
		<-began
	}
	if _, _, err := s.reserve(&server{name: "other"}, job.Backup, 1); err != nil {
		t.Errorf("a backup meanwhile: %v", err)
	}
	close(gate)
	wg.Wait()
}
