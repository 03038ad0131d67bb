package pgtest

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"testing"

	"github.com/jackc/pgx/v5"
)

// userTables lists what ContentHash looks at: permanent tables and materialized views of users, and large objects.
// Sequences are left out, because WAL logs them ahead of use; so are unlogged tables, which recovery empties.
const userTables = `
select n.nspname, c.relname
from pg_class c join pg_namespace n on n.oid = c.relnamespace
where c.relkind in ('r', 'm') and c.relpersistence = 'p'
  and (n.nspname not in ('pg_catalog', 'information_schema', 'pg_toast') or c.oid = 'pg_largeobject'::regclass)
order by 1, 2`

// rowHash sums a hash of each row, so the order of rows does not matter but their number does.
const rowHash = `
select count(*) || ' rows, md5 ' ||
  md5(coalesce(sum(('x' || substr(h, 1, 16))::bit(64)::bigint::numeric), 0) || ' ' ||
      coalesce(sum(('x' || substr(h, 17))::bit(64)::bigint::numeric), 0))
from (select md5(pgtest_row::text) as h from %s pgtest_row) hashes`

// ContentHash returns for each table of each database, as "database.schema.table", its number of rows and a hash of
// them that does not depend on their order. Databases that allow no connections and templates are left out.
func ContentHash(t testing.TB, s *Server) map[string]string {
	t.Helper()
	content := map[string]string{}
	databases, err := s.column("postgres", "select datname from pg_database where datallowconn and not datistemplate")
	if err != nil {
		t.Fatalf("list databases: %v", err)
	}
	for _, database := range databases {
		if err := s.hashDatabase(database, content); err != nil {
			t.Fatalf("hash database %s: %v", database, err)
		}
	}
	return content
}

type table struct{ Schema, Name string }

func (s *Server) column(database, sql string) (values []string, err error) {
	err = s.do(database, func(ctx context.Context, conn *pgx.Conn) error {
		rows, err := conn.Query(ctx, sql)
		if err != nil {
			return err
		}
		values, err = pgx.CollectRows(rows, pgx.RowTo[string])
		return err
	})
	return values, err
}

func (s *Server) hashDatabase(database string, content map[string]string) error {
	return s.do(database, func(ctx context.Context, conn *pgx.Conn) error {
		rows, err := conn.Query(ctx, userTables)
		if err != nil {
			return err
		}
		tables, err := pgx.CollectRows(rows, pgx.RowToStructByPos[table])
		if err != nil {
			return err
		}
		for _, table := range tables {
			name := pgx.Identifier{table.Schema, table.Name}.Sanitize()
			hash, err := queryText(ctx, conn, fmt.Sprintf(rowHash, name))
			if err != nil {
				return fmt.Errorf("table %s: %w", name, err)
			}
			content[database+"."+table.Schema+"."+table.Name] = hash
		}
		return nil
	})
}

// EqualContent fails the test if two servers do not hold the same tables with the same rows, and names the tables.
func EqualContent(t testing.TB, a, b *Server) {
	t.Helper()
	for _, difference := range contentDifferences(ContentHash(t, a), ContentHash(t, b)) {
		t.Errorf("ports %d and %d differ: %s", a.Port, b.Port, difference)
	}
}

func contentDifferences(a, b map[string]string) []string {
	all := maps.Clone(a)
	maps.Copy(all, b)
	var differences []string
	for _, table := range slices.Sorted(maps.Keys(all)) {
		if a[table] != b[table] {
			differences = append(differences, fmt.Sprintf("%s: %q and %q", table, a[table], b[table]))
		}
	}
	return differences
}
