package rehearse

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/pgmoneta/pgmoneta-go/internal/pgrepl"
	"github.com/pgmoneta/pgmoneta-go/internal/repo"
)

// A Check is a query to a database of the restored cluster. It passes when the first
// column of the first row is true.
type Check struct {
	Database string
	Query    string
}

// maxLine bounds a line of a file of checks, in bytes.
const maxLine = 64 << 10

// ParseChecks reads an operator's checks, one on a line: the database, a colon, and
// the query. Empty lines and those that begin with # are passed over.
func ParseChecks(name string, in io.Reader) ([]Check, error) {
	var list []Check
	var problems []error
	s := bufio.NewScanner(in)
	s.Buffer(nil, maxLine)
	number := 0
	for s.Scan() {
		number++
		line := strings.TrimSpace(s.Text())
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		database, query, ok := strings.Cut(line, ":")
		database, query = strings.TrimSpace(database), strings.TrimSpace(query)
		if !ok || database == "" || query == "" {
			problems = append(problems, fmt.Errorf("%s:%d: want DATABASE: QUERY, such as app: SELECT count(*) > 0 FROM orders", name, number))
			continue
		}
		list = append(list, Check{database, query})
	}
	if err := s.Err(); err != nil {
		problems = append(problems, fmt.Errorf("%s:%d: %w", name, number+1, err))
	}
	return list, errors.Join(problems...)
}

// An examiner asks the restored cluster.
type examiner struct {
	*cluster
	user    string // superuser of the cluster
	workers int

	mu     sync.Mutex // guards checks
	checks []repo.RehearsalCheck
}

// maxChecks bounds the failed checks that are recorded.
const maxChecks = 200

func (e *examiner) add(c repo.RehearsalCheck) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.checks) < maxChecks {
		e.checks = append(e.checks, c)
	}
}

// superuser returns the name of the role that initdb made.
func (c *cluster) superuser(ctx context.Context, user string) (string, error) {
	return c.one(ctx, user, maintenance, "SELECT rolname FROM pg_roles WHERE oid = 10")
}

// one returns the first column of the first row of a query.
func (c *cluster) one(ctx context.Context, user, database, query string) (string, error) {
	rows, err := c.rows(ctx, user, database, query)
	if err != nil {
		return "", err
	}
	if len(rows) == 0 || len(rows[0]) == 0 {
		return "", errors.New("the query returned no row")
	}
	return rows[0][0], nil
}

func (c *cluster) rows(ctx context.Context, user, database, query string) ([][]string, error) {
	conn, err := c.connect(ctx, user, database)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	return conn.Query(ctx, query)
}

// operator runs an operator's checks one after the other.
func (e *examiner) operator(ctx context.Context, list []Check) {
	for _, check := range list {
		began := time.Now()
		result := repo.RehearsalCheck{Database: check.Database, Name: check.Query}
		value, err := e.one(ctx, e.user, check.Database, check.Query)
		switch {
		case err != nil:
			result.Problem = err.Error()
		case value != "t":
			result.Problem = fmt.Sprintf("it returned %q, not true", value)
		}
		result.Elapsed = time.Since(began)
		e.add(result)
	}
}

// amcheck checks every table and index of every database, as pg_amcheck does. See
// "amcheck" in PostgreSQL's manual.
func (e *examiner) amcheck(ctx context.Context) error {
	databases, err := e.rows(ctx, e.user, maintenance, "SELECT datname FROM pg_database WHERE datallowconn ORDER BY 1")
	if err != nil {
		return err
	}
	for _, row := range databases {
		began := time.Now()
		result := repo.RehearsalCheck{Database: row[0], Name: "amcheck"}
		n, failed, err := e.relations(ctx, row[0])
		switch {
		case err != nil:
			result.Problem = err.Error()
		case n < 0:
			result.Note = "the extension amcheck is not installed with these programs: tables and indexes were not read"
		case failed > 0:
			result.Problem = fmt.Sprintf("%d of %d tables and indexes are damaged", failed, n)
		default:
			result.Note = fmt.Sprintf("%d tables and indexes", n)
		}
		result.Elapsed = time.Since(began)
		e.add(result)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
	}
	return nil
}

// targets lists the tables and B-tree indexes whose content is in the backup, largest first.
const targets = `SELECT c.oid, c.oid::regclass::text, c.relkind FROM pg_class c
	LEFT JOIN pg_index i ON i.indexrelid = c.oid LEFT JOIN pg_am a ON a.oid = c.relam
	WHERE c.relpersistence = 'p' AND (c.relkind IN ('r', 'm', 't') AND a.amname = 'heap'
		OR c.relkind = 'i' AND a.amname = 'btree' AND i.indisvalid AND i.indisready)
	ORDER BY c.relpages DESC`

// relations checks those of one database and returns how many there are, -1 without
// the extension, and how many are damaged.
func (e *examiner) relations(ctx context.Context, database string) (n, failed int, err error) {
	conn, err := e.connect(ctx, e.user, database)
	if err != nil {
		return 0, 0, err
	}
	defer conn.Close()
	available, err := conn.Query(ctx, "SELECT count(*) FROM pg_available_extensions WHERE name = 'amcheck'")
	if err != nil || available[0][0] == "0" {
		return -1, 0, err
	}
	// The cluster is thrown away: it may get an extension, and the newest version of it.
	if _, err := conn.Query(ctx, "CREATE EXTENSION IF NOT EXISTS amcheck; ALTER EXTENSION amcheck UPDATE"); err != nil {
		return 0, 0, err
	}
	schema, err := conn.Query(ctx, "SELECT quote_ident(n.nspname) FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace WHERE e.extname = 'amcheck'")
	if err != nil {
		return 0, 0, err
	}
	list, err := conn.Query(ctx, targets)
	if err != nil {
		return 0, 0, err
	}
	failed, err = e.check(ctx, database, schema[0][0], list)
	return len(list), failed, err
}

// check checks the relations of a database over several connections.
func (e *examiner) check(ctx context.Context, database, schema string, list [][]string) (int, error) {
	var next, failed atomic.Int64
	g, ctx := errgroup.WithContext(ctx)
	for range min(max(e.workers, 1), len(list)) {
		g.Go(func() error {
			conn, err := e.connect(ctx, e.user, database)
			if err != nil {
				return err
			}
			defer conn.Close()
			for i := next.Add(1) - 1; i < int64(len(list)); i = next.Add(1) - 1 {
				whole, err := e.relation(ctx, conn, database, schema, list[i])
				if err != nil {
					return err
				}
				if !whole {
					failed.Add(1)
				}
			}
			return nil
		})
	}
	err := g.Wait()
	return int(failed.Load()), err
}

// relation reports whether a table or index is whole. An error means that this could
// not be found out.
func (e *examiner) relation(ctx context.Context, conn *pgrepl.Conn, database, schema string, target []string) (bool, error) {
	began := time.Now()
	oid, name, kind := target[0], target[1], target[2]
	what, query := "table ", fmt.Sprintf("SELECT format('block %%s: %%s', blkno, msg) FROM %s.verify_heapam(%s, on_error_stop => true, check_toast => true) LIMIT 1", schema, oid)
	if kind == "i" {
		what, query = "index ", fmt.Sprintf("SELECT %s.bt_index_check(%s, true)", schema, oid)
	}
	rows, err := conn.Query(ctx, query)
	problem := ""
	switch {
	case ctx.Err() != nil:
		return false, context.Cause(ctx)
	case err != nil && conn.Closed():
		return false, fmt.Errorf("%s%s: %w", what, name, err)
	case err != nil:
		problem = err.Error()
	case kind != "i" && len(rows) > 0: // of an index it is always the same empty row
		problem = rows[0][0]
	default:
		return true, nil
	}
	e.add(repo.RehearsalCheck{Database: database, Name: what + name, Problem: problem, Elapsed: time.Since(began)})
	return false, nil
}
