package pgtest

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// DSN returns the connection string of the superuser to one database, over the Unix socket. libpq and pgx read it.
func (s *Server) DSN(database string) string {
	return fmt.Sprintf("host=%s port=%d user=postgres dbname=%s sslmode=disable", s.SocketDir, s.Port, database)
}

// ReplDSN returns the connection string of [ReplUser] to the database postgres, over TCP with its password.
// With " replication=true" behind it, it opens a replication connection.
func (s *Server) ReplDSN() string {
	return fmt.Sprintf("host=%s port=%d user=%s password=%s dbname=postgres sslmode=disable", s.Host, s.Port, ReplUser, ReplPassword)
}

// Conn returns a connection of the superuser to the database postgres. It is closed at the end of the test.
func (s *Server) Conn(t testing.TB) *pgx.Conn {
	t.Helper()
	ctx, cancel := queryContext()
	defer cancel()
	conn, err := pgx.Connect(ctx, s.DSN("postgres"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_ = conn.Close(ctx) // the server may be gone
	})
	return conn
}

// Exec runs SQL, one or more statements, as superuser in the database postgres. Statements sent together are one
// transaction, except those that begin and commit by themselves.
func (s *Server) Exec(t testing.TB, sql string) {
	t.Helper()
	if err := s.do("postgres", func(ctx context.Context, conn *pgx.Conn) error {
		_, err := conn.PgConn().Exec(ctx, sql).ReadAll()
		return err
	}); err != nil {
		t.Fatalf("%s: %v", abbreviate(sql), err)
	}
}

// QueryString runs SQL as superuser in the database postgres and returns the first column of the first row of the last
// statement as text, whatever its type. NULL is the empty string.
func (s *Server) QueryString(t testing.TB, sql string) string {
	t.Helper()
	text, err := s.query(sql)
	if err != nil {
		t.Fatalf("%s: %v", abbreviate(sql), err)
	}
	return text
}

func (s *Server) query(sql string) (text string, err error) {
	err = s.do("postgres", func(ctx context.Context, conn *pgx.Conn) error {
		text, err = queryText(ctx, conn, sql)
		return err
	})
	return text, err
}

// do runs f with a connection of its own.
func (s *Server) do(database string, f func(ctx context.Context, conn *pgx.Conn) error) error {
	ctx, cancel := queryContext()
	defer cancel()
	conn, err := pgx.Connect(ctx, s.DSN(database))
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	return f(ctx, conn)
}

// queryContext is not the context of the test, which has ended when cleanups run.
func queryContext() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), queryTimeout)
}

func queryText(ctx context.Context, conn *pgx.Conn, sql string) (string, error) {
	results, err := conn.PgConn().Exec(ctx, sql).ReadAll()
	if err != nil {
		return "", err
	}
	if len(results) == 0 || len(results[len(results)-1].Rows) == 0 {
		return "", pgx.ErrNoRows
	}
	return string(results[len(results)-1].Rows[0][0]), nil
}

func abbreviate(sql string) string {
	const limit = 200
	if len(sql) > limit {
		return sql[:limit] + "..."
	}
	return sql
}

// SwitchWAL ends the current WAL segment and returns its name. The segment is never empty: a restore point is written
// first.
func (s *Server) SwitchWAL(t testing.TB) string {
	t.Helper()
	s.Exec(t, "select pg_create_restore_point('pgtest')")
	// A position on a segment boundary has the name of the segment that ends there.
	return s.QueryString(t, "select pg_walfile_name(pg_switch_wal())")
}

// Tablespace creates a tablespace in a new directory and returns the directory.
func (s *Server) Tablespace(t testing.TB, name string) string {
	t.Helper()
	dir := filepath.Join(s.base, "tablespace-"+name)
	if err := s.account.mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	s.Exec(t, fmt.Sprintf("create tablespace %s location '%s'", pgx.Identifier{name}.Sanitize(), dir))
	return dir
}

// Standby makes a streaming standby of this server by pg_basebackup and starts it. If slot is not empty, a physical
// slot of that name is created where it is missing, and slot is also its application_name, as synchronous_standby_names
// wants it; else the application_name is "standby".
func (s *Server) Standby(t testing.TB, slot string) *Server {
	t.Helper()
	standby := newServer(t, s.Major, s.timeout)
	standby.DataDir = filepath.Join(standby.base, "data")
	args := []string{"-D", standby.DataDir, "-X", "stream", "-c", "fast", "-d", s.ReplDSN()}
	if slot != "" {
		s.createSlot(t, slot)
		args = append(args, "-S", slot)
	}
	for from, to := range s.tablespacesBelow(t, standby.base) {
		args = append(args, "-T", from+"="+to)
	}
	if _, err := s.account.run(standby.base, Tool(t, s.Major, "pg_basebackup"), args...); err != nil {
		t.Fatalf("make a standby: %v", err)
	}
	if err := standby.follow(s, slot); err != nil {
		t.Fatalf("make a standby: %v", err)
	}
	standby.mustStart(t)
	return standby
}

// follow makes a base backup a standby. pg_basebackup -R would do it, but that of 18 writes connection options which
// the libpq of 14 and 16 does not know.
func (s *Server) follow(primary *Server, slot string) error {
	settings := formatSettings(map[string]string{
		"primary_conninfo":  primary.ReplDSN() + " application_name=" + cmp.Or(slot, "standby"),
		"primary_slot_name": slot,
	})
	if err := appendFile(filepath.Join(s.DataDir, "postgresql.auto.conf"), settings); err != nil {
		return err
	}
	signal := filepath.Join(s.DataDir, "standby.signal")
	if err := os.WriteFile(signal, nil, 0o600); err != nil {
		return err
	}
	return s.account.own(signal)
}

func (s *Server) createSlot(t testing.TB, slot string) {
	t.Helper()
	name := strings.ReplaceAll(slot, "'", "''")
	s.Exec(t, fmt.Sprintf("select pg_create_physical_replication_slot('%[1]s', true) where not exists "+
		"(select from pg_replication_slots where slot_name = '%[1]s')", name))
}

// tablespacesBelow maps the directories of this server's tablespaces to new ones below base.
func (s *Server) tablespacesBelow(t testing.TB, base string) map[string]string {
	t.Helper()
	moved := map[string]string{}
	dirs := s.QueryString(t, "select string_agg(pg_tablespace_location(oid), E'\\n') from pg_tablespace where spcname !~ '^pg_'")
	for _, dir := range strings.FieldsFunc(dirs, func(r rune) bool { return r == '\n' }) {
		moved[dir] = filepath.Join(base, filepath.Base(dir))
	}
	return moved
}

// Promote ends the recovery of a standby, or of a server paused at its target, and waits until it accepts writes.
func (s *Server) Promote(t testing.TB) {
	t.Helper()
	if got := s.QueryString(t, "select pg_promote(true, 60)"); got != "t" {
		t.Fatalf("pg_promote on port %d = %s: not promoted within a minute", s.Port, got)
	}
}

// CatchUp waits until this standby has replayed what the other server has flushed by now.
func (s *Server) CatchUp(t testing.TB, from *Server) {
	t.Helper()
	target := from.QueryString(t, "select case when pg_is_in_recovery() then pg_last_wal_receive_lsn() else pg_current_wal_flush_lsn() end")
	s.WaitFor(t, fmt.Sprintf("pg_last_wal_replay_lsn() >= '%s'", target))
}

// WaitFor waits up to a minute until the SQL condition is true on the server. On failure it says what it was last.
func (s *Server) WaitFor(t testing.TB, condition string) {
	t.Helper()
	var got string
	var err error
	if !waitUntil(time.Minute, func() bool {
		got, err = s.query("select " + condition)
		return err == nil && got == "t"
	}) {
		t.Fatalf("port %d: %s is not true after a minute: last %q, %v", s.Port, condition, got, err)
	}
}
