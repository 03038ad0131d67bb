package backup

import (
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"github.com/pgmoneta/pgmoneta-go/internal/container"
	"github.com/pgmoneta/pgmoneta-go/test/pgtest"
)

// Blocks that PostgreSQL copies as they are, into files of other names, are not stored again. Those that it logs on
// the way get another LSN each, so that the pages differ, and are.
func TestBlocksCopiedAsTheyAreAreNotStoredAgain(t *testing.T) {
	t.Parallel()
	s := pgtest.Start(t, pgtest.Options{Major: 17, Settings: map[string]string{"autovacuum": "off"}})
	s.Tablespace(t, "other")
	psql := func(database, sql string) string {
		t.Helper()
		out, err := exec.Command(pgtest.Tool(t, s.Major, "psql"), "-X", "-A", "-t", "-c", sql, s.DSN(database)).CombinedOutput()
		if err != nil {
			t.Fatalf("%s: %v: %s", sql, err, out)
		}
		return strings.TrimSpace(string(out))
	}
	bytes := func(database, sql string) int64 {
		t.Helper()
		n, err := strconv.ParseInt(psql(database, "SELECT "+sql), 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	// pageLSN is that of the table's first page.
	pageLSN := func(database string) string {
		t.Helper()
		return psql(database, "SELECT pg_read_binary_file(pg_relation_filepath('big'), 0, 8)")
	}
	s.Exec(t, "CREATE DATABASE first")
	psql("first", "CREATE TABLE big AS SELECT i, md5(i::text) AS a, md5((-i)::text) AS b FROM generate_series(1, 100000) i")
	psql("first", "CREATE INDEX way ON big (i)")
	psql("first", "VACUUM FREEZE")
	s.Exec(t, "CHECKPOINT")

	o := bed(t, s, t.TempDir())
	o.Codec = container.None
	stored := func() int64 {
		t.Helper()
		summary, err := Run(t.Context(), o)
		if err != nil {
			t.Fatal(err)
		}
		return summary.Stored
	}
	stored()
	database, table := bytes("first", "pg_database_size('first')"), bytes("first", "pg_table_size('big')")
	for _, tt := range []struct {
		in, sql string
		look    string // database in which the copy is
		size    int64
		found   bool
	}{
		{"postgres", "SELECT", "first", database, true},
		{"postgres", "ALTER DATABASE first SET TABLESPACE other", "first", database, true},
		{"postgres", "CREATE DATABASE second TEMPLATE first STRATEGY file_copy", "second", database, true},
		{"postgres", "CREATE DATABASE third TEMPLATE first STRATEGY wal_log", "third", database, false},
		{"first", "ALTER TABLE big SET TABLESPACE pg_default", "first", table, false},
		{"first", "VACUUM (FULL, FREEZE) big", "first", table, false},
		{"first", "CLUSTER big USING way", "first", table, false},
	} {
		before := pageLSN("first")
		psql(tt.in, tt.sql)
		n, same := stored(), pageLSN(tt.look) == before
		t.Logf("%s: %d bytes stored of %d, the LSN of a page is the same: %t", tt.sql, n, tt.size, same)
		if same != tt.found || tt.found && n > tt.size/4 || !tt.found && n < tt.size*9/10 {
			t.Errorf("%s: %d bytes were stored of %d, found again: %t, the LSN of a page is the same: %t", tt.sql, n, tt.size, tt.found, same)
		}
	}
}
