package e2e

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/pgmoneta/pgmoneta-go/internal/durable"
	"github.com/pgmoneta/pgmoneta-go/internal/pg"
	"github.com/pgmoneta/pgmoneta-go/internal/repo"
	"github.com/pgmoneta/pgmoneta-go/test/pgtest"
)

// follows prepares a stopped server to be a standby of another. Once it is primary itself, its commits wait for its
// standby: what is acknowledged survives the primary.
func follows(t *testing.T, s, primary *pgtest.Server) {
	t.Helper()
	auto, signal := filepath.Join(s.DataDir, "postgresql.auto.conf"), filepath.Join(s.DataDir, "standby.signal")
	conninfo := fmt.Sprintf("primary_conninfo = '%s application_name=standby'\nsynchronous_standby_names = 'standby'\n", primary.ReplDSN())
	for path, content := range map[string]string{auto: conninfo, signal: ""} {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	pgtest.Own(t, s.DataDir)
}

// remade makes a dead server anew as a standby of another, in its old place and on its old port.
func remade(t *testing.T, s, primary *pgtest.Server) {
	t.Helper()
	if err := os.RemoveAll(s.DataDir); err != nil {
		t.Fatal(err)
	}
	pgtest.RunTool(t, s, pgtest.Tool(t, s.Major, "pg_basebackup"), "-D", s.DataDir, "-X", "stream", "-c", "fast", "--no-sync", "-d", primary.ReplDSN())
	follows(t, s, primary)
	s.Restart(t)
}

// newClusterDaemon starts a daemon whose only section, cluster, names two servers. pgmoneta-cli has a configuration of
// its own, which says where the daemon is.
func newClusterDaemon(t *testing.T, a, b *pgtest.Server) *daemon {
	t.Helper()
	bin, err := programs()
	if err != nil {
		t.Fatal(err)
	}
	d := &daemon{dir: t.TempDir(), bin: bin, exited: make(chan struct{})}
	d.write(t, "pgmoneta.conf", "unix_socket_dir = "+d.dir+"\n")
	d.write(t, "pgpass", "*:*:*:"+pgtest.ReplUser+":"+pgtest.ReplPassword+"\n")
	d.write(t, "cluster.conf", fmt.Sprintf(`[pgmoneta]
host = 127.0.0.1
base_dir = %[1]s/base
unix_socket_dir = %[1]s
log_type = file
log_level = debug
log_path = %[1]s/log
passfile = %[1]s/pgpass
create_slot = yes

[cluster]
host = %[2]s,%[3]s
port = %[4]d,%[5]d
user = %[6]s
wal_slot = pgmoneta
`, d.dir, a.Host, b.Host, a.Port, b.Port, pgtest.ReplUser))
	pgtest.Own(t, d.dir)
	d.cmd = d.command(t, "cluster.conf")
	if err := d.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { _ = d.cmd.Wait(); close(d.exited) }()
	t.Cleanup(func() {
		d.kill()
		if t.Failed() {
			log, _ := os.ReadFile(d.path("log"))
			t.Logf("log of the daemon:\n%s", tail(log, 8000))
		}
	})
	waitFor(t, 20*time.Second, "the daemon to answer", func() error {
		if out, code := d.cli(t, "ping"); code != 0 {
			return fmt.Errorf("ping exits with %d: %s", code, out)
		}
		return nil
	})
	return d
}

// waitTimeline waits until WAL of a timeline is being received.
func (d *daemon) waitTimeline(t *testing.T, name string, timeline int) {
	t.Helper()
	waitFor(t, 30*time.Second, fmt.Sprintf("WAL of timeline %d", timeline), func() error {
		if s := d.status(t, name); s["WalStreaming"] != true || s["Timeline"] != float64(timeline) {
			return fmt.Errorf("streaming %v, timeline %v: %v", s["WalStreaming"], s["Timeline"], s["LastError"])
		}
		return nil
	})
}

// waitFlushed waits until everything that a server has flushed by now is on the daemon's disk.
func (d *daemon) waitFlushed(t *testing.T, name string, s *pgtest.Server) {
	t.Helper()
	end, err := pg.ParseLSN(s.QueryString(t, "SELECT pg_current_wal_flush_lsn()"))
	if err != nil {
		t.Fatal(err)
	}
	waitFor(t, time.Minute, "all WAL", func() error {
		flushed, err := pg.ParseLSN(fmt.Sprint(d.status(t, name)["FlushedLSN"]))
		if err == nil && flushed < end {
			err = fmt.Errorf("flushed %s, want %s", flushed, end)
		}
		return err
	})
}

// checkTimelines checks that no hole is recorded, that the segments of each timeline from the first one received follow
// one another, and that each timeline begins in the very segment in which the one before it ended.
func (d *daemon) checkTimelines(t *testing.T, name string, last pg.Timeline, size pg.SegmentSize) {
	t.Helper()
	ctx := context.Background()
	r, err := repo.Open(durable.OS{}, d.path("base"), name)
	if err != nil {
		t.Fatal(err)
	}
	if holes, err := r.Holes(ctx); err != nil || len(holes) > 0 {
		t.Errorf("holes %v, %v", holes, err)
	}
	listing, err := r.ListWAL(ctx)
	if err != nil {
		t.Fatal(err)
	}
	complete, partial, err := r.Received()
	if err != nil {
		t.Fatal(err)
	}
	history, err := r.History(ctx, last)
	if err != nil {
		t.Fatal(err)
	}
	var tli pg.Timeline
	var next pg.LSN
	for _, segment := range slices.Sorted(slices.Values(slices.Concat(listing.Segments, complete, partial))) {
		on, at, err := pg.ParseSegmentName(segment, size)
		if err != nil {
			t.Fatal(err)
		}
		switch {
		case tli == on && at != next:
			t.Errorf("timeline %d: no WAL between %s and %s", tli, next, at)
		case tli != 0 && tli != on:
			end, _ := history.End(tli)
			if on != tli+1 || next < end || at != size.Start(end) {
				t.Errorf("timeline %d is there to %s and ended at %s; timeline %d is there from %s", tli, next, end, on, at)
			}
		}
		tli, next = on, at+pg.LSN(size)
	}
	if tli != last {
		t.Errorf("the last timeline received is %d, want %d", tli, last)
	}
	t.Logf("%d segments, partial %v", len(listing.Segments), partial)
}

// Two servers take turns as primary of a cluster: under load the primary is
// killed, the standby promoted, the old primary made anew as its standby. The
// daemon, which was told of both once, follows every time. It begins on timeline
// 1 and ends on one that needs a letter in hexadecimal.
func TestPromotionsInTurnLoseNothing(t *testing.T) {
	t.Parallel()
	rounds, timeline := 5, 1
	if long() {
		rounds = 20
	}
	primary := pgtest.Start(t, pgtest.Options{WALSegmentSize: 1, Settings: map[string]string{"wal_keep_size": "256MB"}})
	standby := primary.Standby(t, "")
	d := newClusterDaemon(t, primary, standby)
	d.waitTimeline(t, "cluster", timeline)
	d.must(t, "backup", "cluster")

	// Quick promotions without load: the daemon may see several at once.
	standby.Kill(t)
	for ; timeline < 7; timeline++ {
		primary.Stop(t, pgtest.Fast)
		follows(t, primary, standby)
		primary.Restart(t)
		primary.Promote(t)
	}
	remade(t, standby, primary)
	d.waitTimeline(t, "cluster", timeline)

	load := pgtest.StartLoad(t, primary, 4)
	worker := d.worker(t, "cluster")
	var early usage
	for round := range rounds {
		load.WaitFor(t, 100)
		primary.Kill(t)
		standby.Promote(t)
		timeline++
		load.Redirect(standby)
		remade(t, primary, standby) // commits wait for it
		primary, standby = standby, primary
		d.waitTimeline(t, "cluster", timeline)
		if round == 0 {
			early = usageOf(t, worker)
		}
	}
	load.WaitFor(t, 100)
	acked := load.Stop()

	stayedFlat(t, worker, early) // the same process: it was never started again
	d.waitFlushed(t, "cluster", primary)
	d.checkTimelines(t, "cluster", pg.Timeline(timeline), 1<<20)
	if missing := acked.Missing(t, primary); len(missing) > 0 {
		t.Errorf("%d of %d acknowledged rows are missing on the surviving server: %s", len(missing), len(acked), missing[0])
	}
	pgtest.EqualContent(t, primary, d.restored(t, primary.Major, "cluster", "latest"))
	t.Logf("%d rows acknowledged, timeline %d", len(acked), timeline)
}
