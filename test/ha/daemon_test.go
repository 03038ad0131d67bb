//go:build ha

package ha

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pgmoneta/pgmoneta-go/internal/durable"
	"github.com/pgmoneta/pgmoneta-go/internal/pg"
	"github.com/pgmoneta/pgmoneta-go/internal/repo"
	"github.com/pgmoneta/pgmoneta-go/test/pgtest"
)

// A daemon is a running pgmoneta.
type daemon struct {
	dir      string
	programs string
}

// startDaemon receives from the cluster twice: in the section hosts all members are named, and the primary is looked
// for; in the section proxy there is one address, that of HAProxy.
func startDaemon(t *testing.T, c *cluster) *daemon {
	t.Helper()
	d := &daemon{dir: t.TempDir(), programs: os.Getenv(programsEnv)}
	var hosts, ports []string
	for _, n := range c.nodes {
		hosts, ports = append(hosts, n.address), append(ports, fmt.Sprint(n.port))
	}
	conf := fmt.Sprintf(`[pgmoneta]
host = 127.0.0.1
base_dir = %[1]s/base
unix_socket_dir = %[1]s
log_type = file
log_level = debug
log_path = %[1]s/log
passfile = %[1]s/pgpass

[hosts]
host = %[2]s
port = %[3]s
user = %[4]s
wal_slot = %[5]s

[proxy]
host = %[6]s
port = %[7]d
user = %[4]s
wal_slot = %[8]s
`, d.dir, strings.Join(hosts, ","), strings.Join(ports, ","), pgtest.ReplUser, slots()[0], c.proxy.SocketDir, c.proxy.Port, slots()[1])
	write(t, d.path("pgmoneta.conf"), conf)
	write(t, d.path("pgmoneta_cli.conf"), "unix_socket_dir = "+d.dir+"\n")
	write(t, d.path("pgpass"), "*:*:*:"+pgtest.ReplUser+":"+pgtest.ReplPassword+"\n")
	pgtest.Own(t, d.dir)
	t.Cleanup(func() {
		if t.Failed() {
			log, _ := os.ReadFile(d.path("log"))
			t.Logf("log of the daemon:\n%s", tail(log, 20000))
		}
	})
	c.start(t, pgtest.Command(t, d.dir, filepath.Join(d.programs, "pgmoneta"), "-c", d.path("pgmoneta.conf"),
		"-u", d.path("pgmoneta_users.conf"), "-A", d.path("pgmoneta_admins.conf")), d.path("output"))
	pgtest.WaitFor(t, 20*time.Second, "the daemon", func() error {
		_, err := d.cli(t, "ping")
		return err
	})
	return d
}

// sections are the server sections of the daemon.
func sections() []string { return []string{"hosts", "proxy"} }

func (d *daemon) path(name string) string { return filepath.Join(d.dir, name) }

// cli runs a command and returns its response.
func (d *daemon) cli(t *testing.T, args ...string) (map[string]any, error) {
	t.Helper()
	args = append([]string{"-c", d.path("pgmoneta_cli.conf"), "-F", "raw"}, args...)
	out, err := pgtest.Command(t, d.dir, filepath.Join(d.programs, "pgmoneta-cli"), args...).CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("pgmoneta-cli %s: %w\n%s", strings.Join(args, " "), err, out)
	}
	var doc struct{ Response map[string]any }
	if err := json.Unmarshal(out, &doc); err != nil {
		return nil, fmt.Errorf("%w in:\n%s", err, out)
	}
	return doc.Response, nil
}

func (d *daemon) must(t *testing.T, args ...string) map[string]any {
	t.Helper()
	response, err := d.cli(t, args...)
	if err != nil {
		t.Fatal(err)
	}
	return response
}

// status returns the details of one section.
func (d *daemon) status(t *testing.T, section string) map[string]any {
	t.Helper()
	for _, s := range d.must(t, "status", "details")["Servers"].([]any) {
		if s := s.(map[string]any); s["Server"] == section {
			return s
		}
	}
	t.Fatalf("section %s is not in the status", section)
	return nil
}

// streams returns nil when WAL of a timeline is being received.
func (d *daemon) streams(t *testing.T, section string, timeline int) error {
	t.Helper()
	s := d.status(t, section)
	if s["WalStreaming"] != true || s["Timeline"] != float64(timeline) {
		return fmt.Errorf("section %s: streaming %v, timeline %v, want %d: %v", section, s["WalStreaming"], s["Timeline"], timeline, s["LastError"])
	}
	return nil
}

// waitFlushed waits until everything up to a position is on the daemon's disk.
func (d *daemon) waitFlushed(t *testing.T, section string, end pg.LSN) {
	t.Helper()
	pgtest.WaitFor(t, time.Minute, "WAL of section "+section, func() error {
		flushed, err := pg.ParseLSN(fmt.Sprint(d.status(t, section)["FlushedLSN"]))
		if err == nil && flushed < end {
			err = fmt.Errorf("flushed %s, want %s", flushed, end)
		}
		return err
	})
}

// checkArchive checks that no hole is recorded, that the segments of each timeline follow one another, and that each
// timeline begins in the very segment in which the one before it ended.
func (d *daemon) checkArchive(t *testing.T, section string, timelines int) {
	t.Helper()
	ctx := context.Background()
	r, err := repo.Open(durable.OS{}, d.path("base"), section)
	if err != nil {
		t.Fatal(err)
	}
	if holes, err := r.Holes(ctx); err != nil || len(holes) > 0 {
		t.Errorf("section %s: holes %v, %v", section, holes, err)
	}
	listing, err := r.ListWAL(ctx)
	if err != nil {
		t.Fatal(err)
	}
	complete, partial, err := r.Received()
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("section %s: %d segments, partial %v", section, len(listing.Segments), partial)
	first, next := spans(t, append(append(listing.Segments, complete...), partial...))
	history, err := r.History(ctx, pg.Timeline(timelines))
	if err != nil {
		t.Fatal(err)
	}
	for tli := range next {
		begin, ok := history.End(tli)
		if !ok {
			t.Errorf("section %s: the history of timeline %d does not contain timeline %d", section, timelines, tli)
		}
		if tli == pg.Timeline(timelines) {
			continue
		}
		after, start, _ := history.Next(tli)
		if start != begin || next[tli] < begin || first[after] != pg.SegmentSize(segments).Start(begin) {
			t.Errorf("section %s: timeline %d is there to %s and ended at %s, timeline %d is there from %s", section, tli, next[tli], begin, after, first[after])
		}
	}
	// On a slow machine the cluster may have left timeline 1 before the daemon was there; from then on none is missing.
	oldest := timelines - len(next) + 1
	if _, ok := next[pg.Timeline(oldest)]; !ok || len(next) <= len(faults()) {
		t.Errorf("section %s: the timelines received are %v, want all up to %d", section, slices.Sorted(maps.Keys(next)), timelines)
	}
}

// spans returns for each timeline where its first segment begins and where its last ends.
func spans(t *testing.T, names []string) (first, next map[pg.Timeline]pg.LSN) {
	t.Helper()
	first, next = map[pg.Timeline]pg.LSN{}, map[pg.Timeline]pg.LSN{}
	slices.Sort(names)
	for _, name := range names {
		tli, at, err := pg.ParseSegmentName(name, segments)
		if err != nil {
			t.Fatal(err)
		}
		if _, ok := first[tli]; !ok {
			first[tli] = at
		} else if next[tli] != at {
			t.Errorf("timeline %d: no WAL between %s and %s", tli, next[tli], at)
		}
		next[tli] = at + segments
	}
	return first, next
}

// restored restores a backup to the end of the WAL there is and starts it.
func (d *daemon) restored(t *testing.T, section, label string) *pgtest.Server {
	t.Helper()
	target := filepath.Join(t.TempDir(), "restore")
	if err := os.Mkdir(target, 0o700); err != nil {
		t.Fatal(err)
	}
	pgtest.Own(t, target)
	response := d.must(t, "restore", section, label, "latest", target)
	return pgtest.OpenDir(t, major, response["Directory"].(string), pgtest.Options{})
}
