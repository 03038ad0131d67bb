package walpage_test

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"testing"

	"github.com/pgmoneta/pgmoneta-go/internal/pg"
	"github.com/pgmoneta/pgmoneta-go/internal/walpage"
	"github.com/pgmoneta/pgmoneta-go/test/pgtest"
)

const mib = 1 << 20

func number(t *testing.T, s *pgtest.Server, sql string) uint64 {
	t.Helper()
	n, err := strconv.ParseUint(s.QueryString(t, sql), 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// finished returns the segments in pg_wal that lie before the server's position.
func finished(t *testing.T, s *pgtest.Server) []string {
	t.Helper()
	current := s.QueryString(t, "SELECT pg_walfile_name(pg_current_wal_insert_lsn())")
	entries, err := os.ReadDir(filepath.Join(s.DataDir, "pg_wal"))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		// A recycled file has a name further on.
		if name := e.Name(); pg.IsSegmentName(name) && name[8:] < current[8:] {
			names = append(names, name)
		}
	}
	return names
}

// check checks every finished segment of a server and returns the timelines that
// pages of each are of.
func check(t *testing.T, s *pgtest.Server) map[string][]pg.Timeline {
	t.Helper()
	system := number(t, s, "SELECT system_identifier FROM pg_control_system()")
	block := number(t, s, "SHOW wal_block_size")
	seen := map[string][]pg.Timeline{}
	for _, name := range finished(t, s) {
		tli, start, err := pg.ParseSegmentName(name, mib)
		if err != nil {
			t.Fatal(err)
		}
		content, err := os.ReadFile(filepath.Join(s.DataDir, "pg_wal", name))
		if err != nil {
			t.Fatal(err)
		}
		want := walpage.Want{System: system, Timeline: tli, Start: start, Size: mib}
		if err := walpage.CheckSegment(bytes.NewReader(content), want); err != nil {
			t.Errorf("segment %s: %v", name, err)
		}
		first, err := walpage.Parse(content)
		if err != nil || first.Major() != s.Major || uint64(first.BlockSize) != block || first.System != system {
			t.Errorf("segment %s begins with %+v, %v; the server is of version %d", name, first, err, s.Major)
		}
		for page := range slices.Chunk(content, int(block)) {
			h, err := walpage.Parse(page)
			if err == nil && h.Magic != 0 && !slices.Contains(seen[name], h.Timeline) {
				seen[name] = append(seen[name], h.Timeline)
			}
		}
		want.System++
		if err := walpage.CheckSegment(bytes.NewReader(content), want); err == nil {
			t.Errorf("segment %s passes for one of another cluster", name)
		}
	}
	return seen
}

func TestPagesOfRealServers(t *testing.T) {
	t.Parallel()
	pgtest.ForEach(t, func(t *testing.T, major int) {
		t.Parallel()
		s := pgtest.Start(t, pgtest.Options{Major: major, WALSegmentSize: 1, Settings: map[string]string{"wal_keep_size": "256MB"}})
		standby := s.Standby(t, "standby")
		s.Exec(t, "CREATE TABLE t AS SELECT i, repeat(md5(i::text), 30) FROM generate_series(1, 10000) i")
		s.SwitchWAL(t)
		s.Exec(t, "SELECT pg_switch_wal()")
		s.Kill(t) // what follows begins in the middle of a page
		s.Restart(t)
		s.Exec(t, "INSERT INTO t SELECT i, md5(i::text) FROM generate_series(1, 10000) i")
		s.SwitchWAL(t)
		// Long enough that the switch does not lie on a segment's first page.
		s.Exec(t, "INSERT INTO t SELECT i, md5(i::text) FROM generate_series(1, 4000) i")
		if n := len(check(t, s)); n < 4 {
			t.Errorf("only %d segments were checked", n)
		}

		standby.CatchUp(t, s)
		s.Stop(t, pgtest.Fast)
		standby.Promote(t)
		standby.Exec(t, "INSERT INTO t SELECT i, md5(i::text) FROM generate_series(1, 20000) i")
		standby.SwitchWAL(t)
		mixed := false
		for _, timelines := range check(t, standby) {
			mixed = mixed || slices.Equal(timelines, []pg.Timeline{1, 2})
		}
		if !mixed {
			t.Error("no segment has pages of both timelines")
		}
	})
}
