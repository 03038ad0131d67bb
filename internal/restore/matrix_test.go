package restore

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pgmoneta/pgmoneta-go/test/pgtest"
)

// A branchPoint is a moment of which every kind of target is known. The mark before it
// is committed, the next one is its own transaction, and the one after that comes later.
type branchPoint struct {
	targets          map[string]string // by kind
	before, included string            // marks there are without and with its transaction
	all              string            // and at the end of the timeline
}

// point commits marks from+1 to from+3 on a server that has those up to from.
func (b *bed) point(s *pgtest.Server, from int) branchPoint {
	b.t.Helper()
	s.Exec(b.t, fmt.Sprintf("INSERT INTO marks VALUES (%d)", from+1))
	ctx := context.Background()
	conn := s.Conn(b.t)
	var xid, lsn, at string
	must := func(err error) {
		b.t.Helper()
		if err != nil {
			b.t.Fatal(err)
		}
	}
	tx, err := conn.Begin(ctx)
	must(err)
	must(tx.QueryRow(ctx, fmt.Sprintf("INSERT INTO marks VALUES (%d) RETURNING pg_current_xact_id()::text", from+2)).Scan(&xid))
	// The next record is the commit, unless a checkpoint or another process is in between.
	must(tx.QueryRow(ctx, "SELECT pg_current_wal_insert_lsn()::text").Scan(&lsn))
	must(tx.Commit(ctx))
	must(conn.QueryRow(ctx, "SELECT to_char(pg_xact_commit_timestamp('"+xid+"'::xid) AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS.US') || '+00'").Scan(&at))
	name := fmt.Sprintf("point %d", from)
	s.Exec(b.t, "SELECT pg_create_restore_point('"+name+"')")
	s.Exec(b.t, fmt.Sprintf("INSERT INTO marks VALUES (%d)", from+3))
	return branchPoint{
		targets: map[string]string{"latest": "latest", "immediate": "immediate", "name": "name=" + name, "xid": "xid=" + xid, "lsn": "lsn=" + lsn, "time": "time=" + at},
		before:  count(from + 1), included: count(from + 2), all: count(from + 3),
	}
}

// count lists the marks up to n.
func count(n int) string {
	words := make([]string, n+1)
	for i := range words {
		words[i] = fmt.Sprint(i)
	}
	return strings.Join(words, " ")
}

// A matrix is an archive of two timelines with one backup on the first and a point on each.
type matrix struct {
	*bed
	label   string
	command *Command
	points  map[string]branchPoint // by the word behind timeline=
}

func newMatrix(t *testing.T, major int) *matrix {
	t.Helper()
	primary := pgtest.Start(t, pgtest.Options{Major: major, WALSegmentSize: 1, Settings: map[string]string{"wal_keep_size": "256MB", "track_commit_timestamp": "on"}})
	primary.Exec(t, "CREATE TABLE marks (n int); INSERT INTO marks VALUES (0)")
	standby := primary.Standby(t, "standby")
	m := &matrix{bed: newBed(t, standby)}
	m.label = string(m.backup().Label)
	first := m.point(primary, 0)
	primary.Stop(t, pgtest.Fast) // waits until the standby has everything
	standby.Promote(t)
	m.wait("timeline 2", func() bool { return m.watch.timeline.Load() == 2 })
	second := m.point(standby, 3)
	m.received()
	m.points = map[string]branchPoint{"latest": second, "current": first, "2": second}
	m.command = m.program()
	return m
}

// program builds the program that restore_command runs, and lets the user of servers
// read the archive.
func (m *matrix) program() *Command {
	m.t.Helper()
	dir := m.t.TempDir()
	build := exec.Command("go", "build", "-o", dir, "../../cmd/"+WALProgram)
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		m.t.Fatalf("%v\n%s", err, out)
	}
	conf := filepath.Join(dir, "pgmoneta.conf")
	text := fmt.Sprintf("[pgmoneta]\nhost = localhost\nbase_dir = %s\nunix_socket_dir = %s\n\n[primary]\nhost = localhost\nport = 5432\nuser = repl\nwal_slot = repl\n",
		filepath.Dir(m.repo.Dir()), dir)
	if err := os.WriteFile(conf, []byte(text), 0o644); err != nil {
		m.t.Fatal(err)
	}
	pgtest.Own(m.t, dir)
	pgtest.Own(m.t, filepath.Dir(m.repo.Dir()))
	c := FindCommand(filepath.Join(dir, "pgmoneta"), conf)
	if c == nil {
		m.t.Fatal("the program was built and is not found")
	}
	return c
}

// A cell is one combination of the matrix.
type cell struct {
	kind, side, action, timeline string
}

func (c cell) String() string {
	return c.kind + " " + c.side + " " + c.action + " timeline " + c.timeline
}

func (c cell) position(p branchPoint) string {
	position := p.targets[c.kind] + ",timeline=" + c.timeline + ",action=" + c.action
	if c.side == "exclusive" {
		position += ",inclusive=off"
	}
	return position
}

// refused reports whether PostgreSQL would not take the combination for what it says.
func (c cell) refused() bool {
	sided := c.kind == "xid" || c.kind == "lsn" || c.kind == "time"
	return c.side == "exclusive" && !sided || c.kind == "latest" && c.action != "promote"
}

func (c cell) marks(p branchPoint) string {
	switch {
	case c.kind == "latest":
		return p.all
	case c.kind == "immediate":
		return count(0)
	case c.side == "exclusive":
		return p.before
	}
	return p.included
}

// Every kind of target, side, action and timeline. In the short form each pair of
// values occurs at least once.
func TestTargetMatrix(t *testing.T) {
	t.Parallel()
	long := os.Getenv("PGMONETA_TEST_LONG") == "1"
	majors := pgtest.Versions(t)
	if !long {
		majors = majors[len(majors)-1:]
	}
	for _, major := range majors {
		t.Run(fmt.Sprint(major), func(t *testing.T) {
			m := newMatrix(t, major)
			n := 0
			for k, kind := range []string{"latest", "immediate", "time", "lsn", "xid", "name"} {
				for s, side := range []string{"inclusive", "exclusive"} {
					for a, action := range []string{"pause", "promote", "shutdown"} {
						for l, timeline := range []string{"latest", "current", "2"} {
							c := cell{kind, side, action, timeline}
							if c.refused() {
								m.refuses(c)
								continue
							}
							if !long && (k+s+a+l)%3 != 0 {
								continue
							}
							supply := []Supply{CopySupply, CommandSupply}[n%2]
							n++
							t.Run(c.String(), func(t *testing.T) {
								t.Parallel()
								m.run(t, c, supply)
							})
						}
					}
				}
			}
		})
	}
}

func (m *matrix) refuses(c cell) {
	m.t.Helper()
	if _, err := ParsePosition(c.position(m.points[c.timeline])); !errors.As(err, new(*PositionError)) {
		m.t.Errorf("%s: %v; want a PositionError", c, err)
	}
}

// run restores to a cell, starts the result and looks at what it holds.
func (m *matrix) run(t *testing.T, c cell, supply Supply) {
	position := c.position(m.points[c.timeline])
	target, err := ParsePosition(position)
	if err != nil {
		t.Fatal(err)
	}
	plan, err := MakePlan(context.Background(), m.repo, Options{Backup: m.label, Target: target, Directory: t.TempDir(), WAL: supply, Command: m.command})
	if err != nil {
		t.Fatal(err)
	}
	if plan.Supply != supply {
		t.Errorf("WAL by %s, not %s: %s", plan.Supply, supply, plan.SupplyWhy)
	}
	if err := Run(context.Background(), plan, RunOptions{}); err != nil {
		t.Fatal(err)
	}
	pgtest.Own(t, plan.Directory)
	if c.action == "shutdown" {
		// One that does not reach its target ends with status 1.
		_, err := pgtest.TryOpenDir(t, m.server.Major, plan.Directory, pgtest.Options{})
		if err == nil || !strings.Contains(err.Error(), "exit status 0") {
			t.Fatalf("%s: the server did not shut down at the target: %v", position, err)
		}
		// It would do so again.
		appendText(t, filepath.Join(plan.Directory, autoConf), "recovery_target_action = 'pause'\n")
	}
	s := pgtest.OpenDir(t, m.server.Major, plan.Directory, pgtest.Options{})
	if got := marks(t, s); got != c.marks(m.points[c.timeline]) {
		t.Errorf("%s: marks %q, want %q", position, got, c.marks(m.points[c.timeline]))
	}
	paused := c.action != "promote"
	state := "SELECT pg_is_in_recovery()"
	if paused {
		state = "SELECT pg_is_in_recovery() AND pg_is_wal_replay_paused()"
	}
	if got := s.QueryString(t, state); got != map[bool]string{true: "t", false: "f"}[paused] {
		t.Errorf("%s: %s gives %s", position, state, got)
	}
	s.Stop(t, pgtest.Immediate)
}

func appendText(t *testing.T, path, text string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	if err == nil {
		_, err = f.WriteString(text)
		err = errors.Join(err, f.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
}
