package wal

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/pgmoneta/pgmoneta-go/internal/pg"
	"github.com/pgmoneta/pgmoneta-go/internal/repo"
	"github.com/pgmoneta/pgmoneta-go/test/pgtest"
)

// pgReceivewal receives beside us, with a slot of its own, until stop is called. It returns its directory.
func pgReceivewal(t *testing.T, s *pgtest.Server) (dir string, stop func()) {
	t.Helper()
	dir = t.TempDir()
	pgtest.Own(t, dir)
	program, args := pgtest.Tool(t, 18, "pg_receivewal"), []string{"-D", dir, "-S", "pg_receivewal", "-d", s.ReplDSN() + " application_name=pg_receivewal"}
	pgtest.RunTool(t, s, program, append(args, "--create-slot")...)
	cmd := pgtest.Command(t, dir, program, args...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		_ = cmd.Process.Signal(syscall.SIGINT)
		if err := cmd.Wait(); err != nil {
			t.Errorf("pg_receivewal: %v\n%s", err, out.Bytes())
		}
	}
	t.Cleanup(stop)
	return dir, stop
}

// segmentsIn lists the finished segments of a directory of pg_receivewal.
func segmentsIn(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		if pg.IsSegmentName(e.Name()) {
			names = append(names, e.Name())
		}
	}
	return names
}

// compareReceivers compares what we keep with a directory of pg_receivewal, up to
// a segment that both have. What the server wrote later by itself may have come
// to one of them before it was stopped, and not to the other.
func compareReceivers(t *testing.T, r *repo.Repository, dir, last string) {
	t.Helper()
	ctx := context.Background()
	listing, err := r.ListWAL(ctx)
	if err != nil {
		t.Fatal(err)
	}
	later := func(name string) bool { return name > last }
	names := slices.DeleteFunc(segmentsIn(t, dir), later)
	listing.Segments = slices.DeleteFunc(listing.Segments, later)
	// Our slot is older than its: we may have begun earlier.
	ours := listing.Segments[max(0, len(listing.Segments)-len(names)):]
	if len(names) == 0 || !slices.Equal(ours, names) {
		t.Fatalf("we keep\n%v\npg_receivewal keeps\n%v", listing.Segments, names)
	}
	for _, name := range names {
		if !bytes.Equal(receivedBytes(t, r, name), readFile(t, dir, name)) {
			t.Errorf("segment %s differs", name)
		}
	}
	history, err := r.HistoryContent(ctx, 2)
	if err != nil || !bytes.Equal(history, readFile(t, dir, pg.HistoryName(2))) {
		t.Errorf("the history of timeline 2 differs: %v", err)
	}
	h, err := r.History(ctx, 2)
	if err != nil {
		t.Fatal(err)
	}
	end, _ := h.End(1)
	short := pg.SegmentName(1, end, mib)
	n := pg.SegmentSize(mib).Offset(end)
	if ours, theirs := receivedBytes(t, r, short), readFile(t, dir, short+partialSuffix); !bytes.Equal(ours[:n], theirs[:n]) {
		t.Errorf("segment %s, in which timeline 1 ends at %s, differs", short, end)
	}
	t.Logf("%d segments and %d bytes of %s compared", len(names), n, short)
}

// readFile reads a file of pg_receivewal.
func readFile(t *testing.T, dir, name string) []byte {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		t.Fatal(err)
	}
	return content
}

// pg_receivewal and we receive the same WAL side by side, over a timeline
// switch. What both keep must be the same, bit for bit: the finished segments,
// the history, and the short segment in which the old timeline ended.
//
// PGMONETA_TEST_DIFFERENTIAL=1h keeps the load up for that long, half of it on each timeline.
func TestReceiverKeepsWhatPgReceivewalKeeps(t *testing.T) {
	half := differential(t) / 2
	pgtest.ForEach(t, func(t *testing.T, major int) {
		t.Parallel()
		primary := pgtest.Start(t, pgtest.Options{Major: major, WALSegmentSize: 1, Settings: map[string]string{"wal_keep_size": "256MB"}})
		standby := primary.Standby(t, "standby")
		r := newRepo(t)
		m, stop := receive(t, standby, r)
		m.wait(t, "the stream", func(m seen) bool { return m.tli == 1 })
		dir, stopPeer := pgReceivewal(t, standby)
		standby.WaitFor(t, "(SELECT count(*) FROM pg_stat_replication WHERE application_name IN ('pgmoneta', 'pg_receivewal') AND state = 'streaming') = 2")

		load := pgtest.StartLoad(t, primary, 4)
		load.WaitFor(t, 500)
		primary.Exec(t, "CREATE TABLE bulk AS SELECT i, md5(i::text) FROM generate_series(1, 100000) i")
		load.WaitFor(t, 100)
		keepUp(t, load, half)
		primary.Stop(t, pgtest.Fast)
		standby.Promote(t)
		load.Redirect(standby)
		m.wait(t, "timeline 2", func(m seen) bool { return m.tli == 2 })
		load.WaitFor(t, 500)
		standby.Exec(t, "CREATE TABLE more AS SELECT i, md5(i::text) FROM generate_series(1, 100000) i")
		load.WaitFor(t, 100)
		keepUp(t, load, half)
		load.Stop()
		last := standby.SwitchWAL(t)
		_, start, err := pg.ParseSegmentName(last, mib)
		if err != nil {
			t.Fatal(err)
		}
		m.wait(t, "the last segment", func(m seen) bool { return m.tli == 2 && m.stored >= start+mib })
		waitForFile(t, filepath.Join(dir, last))
		stop()
		stopPeer()
		compareReceivers(t, r, dir, last)
	})
}

// differential returns how long both receive beside each other, 0 for as short as can be.
func differential(t *testing.T) time.Duration {
	t.Helper()
	text := os.Getenv("PGMONETA_TEST_DIFFERENTIAL")
	if text == "" {
		return 0
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		t.Fatalf("PGMONETA_TEST_DIFFERENTIAL: %v", err)
	}
	return d
}

// keepUp makes sure that the load goes on for that long.
func keepUp(t *testing.T, load *pgtest.Load, d time.Duration) {
	t.Helper()
	for end := time.Now().Add(d); time.Now().Before(end); {
		load.WaitFor(t, 100)
	}
}

// waitForFile waits until a file is there.
func waitForFile(t *testing.T, path string) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		if _, err := os.Stat(path); err == nil {
			return
		} else if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
}
