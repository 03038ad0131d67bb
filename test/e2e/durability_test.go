package e2e

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/pgmoneta/pgmoneta-go/internal/pg"
	"github.com/pgmoneta/pgmoneta-go/test/pgtest"
)

// restored restores the newest backup to a position and starts the result.
func (d *daemon) restored(t *testing.T, major int, server, position string) *pgtest.Server {
	t.Helper()
	target := filepath.Join(t.TempDir(), "restore")
	if err := os.Mkdir(target, 0o700); err != nil {
		t.Fatal(err)
	}
	pgtest.Own(t, target)
	args := []string{"restore", server, "newest"}
	if position != "" {
		args = append(args, position)
	}
	resp := d.must(t, append(args, target)...)
	return pgtest.OpenDir(t, major, resp["Directory"].(string), pgtest.Options{})
}

// The daemon is the synchronous standby of a server under load while it is killed
// at random moments, worker or supervisor. Then the server is gone for good, and
// the restored one must have every row whose commit was acknowledged.
func TestSynchronousStandbyLosesNoAcknowledgedRow(t *testing.T) {
	t.Parallel()
	duration := 15 * time.Second
	if long() {
		duration = 2 * time.Minute
	}
	major := pgtest.Newest(t)
	s := pgtest.Start(t, pgtest.Options{Major: major, WALSegmentSize: 1})
	d := newDaemon(t, map[string]*pgtest.Server{"primary": s})
	d.waitStreaming(t, "primary")
	d.must(t, "backup", "primary")
	s.Exec(t, "ALTER SYSTEM SET synchronous_standby_names = 'pgmoneta'")
	s.Exec(t, "SELECT pg_reload_conf()")
	load := pgtest.StartLoad(t, s, 4)
	load.WaitFor(t, 50)
	kills := 0
	for end := time.Now().Add(duration); time.Now().Before(end); kills++ {
		time.Sleep(rand.N(3 * time.Second)) // the random moment is the point
		if rand.N(3) == 0 {
			d.kill()
			d.start(t)
		} else if pid := d.worker(t, "primary"); pid != 0 {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
		load.WaitFor(t, 20) // commits go on
	}
	s.Kill(t) // in the middle of the load: what is acknowledged now is all there is
	acked := load.Stop()
	t.Logf("%d rows acknowledged, %d kills", len(acked), kills)
	copy := d.restored(t, major, "primary", "latest")
	if missing := acked.Missing(t, copy); len(missing) > 0 {
		t.Errorf("%d acknowledged rows are missing after %d kills: %s", len(missing), kills, strings.Join(missing[:min(5, len(missing))], "; "))
	}
}

// Many segments, as in a day of WAL: memory and descriptors of the worker stay
// flat, and the whole is restorable.
func TestManySegmentsKeepTheWorkerSmall(t *testing.T) {
	t.Parallel()
	switches := 200
	if long() {
		switches = 2000
	}
	s := pgtest.Start(t, pgtest.Options{Major: pgtest.Newest(t), WALSegmentSize: 1})
	d := newDaemon(t, map[string]*pgtest.Server{"primary": s})
	d.waitStreaming(t, "primary")
	d.must(t, "backup", "primary")
	s.Exec(t, "CREATE TABLE marker (i int)")
	pid := d.worker(t, "primary")
	var early usage
	for i := range switches {
		s.Exec(t, fmt.Sprintf("INSERT INTO marker VALUES (%d)", i))
		s.Exec(t, "SELECT pg_switch_wal()")
		if i == switches/4 {
			early = usageOf(t, pid)
		}
	}
	end := lsn(t, s.QueryString(t, "SELECT pg_current_wal_flush_lsn()"))
	waitFor(t, time.Minute, "all WAL to be flushed", func() error {
		if flushed := lsn(t, d.status(t, "primary")["FlushedLSN"].(string)); flushed < end {
			return fmt.Errorf("flushed to %s of %s", flushed, end)
		}
		return nil
	})
	stayedFlat(t, pid, early)
	copy := d.restored(t, s.Major, "primary", "latest")
	if n := copy.QueryString(t, "SELECT count(*) FROM marker"); n != strconv.Itoa(switches) {
		t.Errorf("%s of %d rows are in the restored server", n, switches)
	}
}

func lsn(t *testing.T, text string) pg.LSN {
	t.Helper()
	l, err := pg.ParseLSN(text)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

type usage struct {
	peak  int // KiB, VmHWM
	files int
}

// stayedFlat fails the test if a process holds clearly more than early. What it
// has open for a moment, to store a segment or to look at the server, is closed
// again within the time given; what leaked is not.
func stayedFlat(t *testing.T, pid int, early usage) {
	t.Helper()
	waitFor(t, 20*time.Second, "the worker to hold no more than before", func() error {
		late := usageOf(t, pid)
		if late.files > early.files+2 || late.peak > early.peak+early.peak/2 {
			return fmt.Errorf("it grew from %+v to %+v", early, late)
		}
		return nil
	})
	t.Logf("early %+v, at the end %+v", early, usageOf(t, pid))
}

func usageOf(t *testing.T, pid int) usage {
	t.Helper()
	var u usage
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range strings.Split(string(status), "\n") {
		if rest, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			u.peak, _ = strconv.Atoi(strings.Fields(rest)[0])
		}
	}
	fds, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil {
		t.Fatal(err)
	}
	u.files = len(fds)
	return u
}
