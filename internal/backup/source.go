package backup

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/pgmoneta/pgmoneta-go/internal/datadir"
	"github.com/pgmoneta/pgmoneta-go/internal/pg"
	"github.com/pgmoneta/pgmoneta-go/internal/pgrepl"
)

// A Source says how a backup reads the data directory.
type Source string

// Sources.
const (
	Auto   Source = "auto"   // Files when that is possible, else Stream
	Stream Source = "stream" // BASE_BACKUP over the replication connection
	Files  Source = "files"  // the data directory itself, on this machine
	SQL    Source = "sql"    // pg_read_binary_file over several connections
)

// A SourceError reports that the data directory cannot be read as it was asked for.
type SourceError struct {
	Source Source
	Err    error
}

func (e *SourceError) Error() string {
	return fmt.Sprintf("backup_source = %s cannot be used: %v", e.Source, e.Err)
}

func (e *SourceError) Unwrap() error { return e.Err }

// A reading is a data directory that is read without BASE_BACKUP, and the plain
// connection whose session is the backup for the server.
type reading struct {
	tree datadir.Tree
	conn *pgrepl.Conn
}

func (r *reading) close() {
	_ = r.tree.Close()
	r.conn.Close() // an unfinished backup of the session ends with it
}

// openReading opens the source, nil for BASE_BACKUP.
func (j *job) openReading(ctx context.Context) (*reading, error) {
	// Only the server knows which blocks changed since the base.
	if j.Source == "" || j.Source == Stream || j.summary.Overlaid {
		return nil, nil
	}
	r, err := j.tryReading(ctx)
	if err == nil {
		j.Log.Info("reading the data directory", "label", string(j.summary.Label), "source", r.source())
		return r, nil
	}
	if j.Source == Auto && ctx.Err() == nil {
		j.Log.Debug("the data directory is received over the replication connection", "label", string(j.summary.Label), "why", err)
		return nil, nil
	}
	return nil, &SourceError{Source: j.Source, Err: err}
}

func (r *reading) source() Source {
	if _, ok := r.tree.(*datadir.SQL); ok {
		return SQL
	}
	return Files
}

func (j *job) tryReading(ctx context.Context) (*reading, error) {
	conn, err := pgrepl.ConnectSQL(ctx, j.Params)
	if err != nil {
		return nil, err
	}
	r := &reading{conn: conn}
	if err = j.mayBegin(ctx, conn); err == nil {
		if j.Source == SQL {
			r.tree, err = datadir.OpenSQL(ctx, j.Params, max(j.Workers, 2))
		} else {
			r.tree, err = j.openLocal(ctx, conn)
		}
	}
	if err != nil {
		conn.Close()
		return nil, err
	}
	return r, nil
}

// functions that a reading calls, by the version from which on they have that name.
func functions(major int) (start, stop string) {
	if major < 15 {
		return "pg_start_backup(text,boolean,boolean)", "pg_stop_backup(boolean,boolean)"
	}
	return "pg_backup_start(text,boolean)", "pg_backup_stop(boolean)"
}

// mayBegin checks the rights that are needed.
func (j *job) mayBegin(ctx context.Context, conn *pgrepl.Conn) error {
	start, stop := functions(conn.Version().Major())
	needed := []string{start, stop}
	if j.Source == SQL {
		needed = append(needed, "pg_ls_dir(text,boolean,boolean)", "pg_stat_file(text,boolean)", "pg_read_binary_file(text,bigint,bigint,boolean)")
	}
	for _, f := range needed {
		rows, err := conn.Query(ctx, "SELECT has_function_privilege('"+f+"', 'EXECUTE')")
		if err != nil {
			return err
		}
		if rows[0][0] != "t" {
			return fmt.Errorf("user %q may not call it: GRANT EXECUTE ON FUNCTION %s TO %s", j.Params.User, f, j.Params.User)
		}
	}
	return nil
}

// openLocal opens the server's data directory if it is on this machine. That the
// path exists here proves little: a copy of the server may be there.
func (j *job) openLocal(ctx context.Context, conn *pgrepl.Conn) (datadir.Tree, error) {
	dir, err := conn.Show(ctx, "data_directory")
	if err != nil {
		return nil, err
	}
	if err := j.sameServer(ctx, conn, dir); err != nil {
		return nil, err
	}
	tree, err := datadir.OpenLocal(dir)
	if err != nil {
		return nil, err
	}
	control, err := datadir.ReadControl(ctx, tree)
	if err == nil && strconv.FormatUint(control.System, 10) != j.summary.System {
		err = fmt.Errorf("%s is of system %d, the server is %s", dir, control.System, j.summary.System)
	}
	if err != nil {
		return nil, errors.Join(err, tree.Close())
	}
	return tree, nil
}

// sameServer compares postmaster.pid in dir with what the server says of itself.
func (j *job) sameServer(ctx context.Context, conn *pgrepl.Conn, dir string) error {
	content, err := os.ReadFile(filepath.Join(dir, "postmaster.pid"))
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			err = fmt.Errorf("the server's data directory %s is not on this machine", dir)
		}
		return err
	}
	rows, err := conn.Query(ctx, "SELECT extract(epoch FROM pg_postmaster_start_time())::bigint, current_setting('port')")
	if err != nil {
		return err
	}
	started, err := strconv.ParseInt(rows[0][0], 10, 64)
	if err != nil {
		return err
	}
	// Lines: process, data directory, start time, port, ...
	lines := strings.Split(string(content), "\n")
	if len(lines) < 4 {
		return fmt.Errorf("postmaster.pid in %s is incomplete", dir)
	}
	begun, err := strconv.ParseInt(strings.TrimSpace(lines[2]), 10, 64)
	const slack = 60 // seconds between the two moments a starting server notes
	if err != nil || started < begun || started-begun > slack || strings.TrimSpace(lines[3]) != rows[0][1] {
		return fmt.Errorf("%s on this machine belongs to another server", dir)
	}
	return nil
}

// opensAhead is how many files are opened before they are needed, so that the disk
// or the server works on the next ones.
const opensAhead = 16

// An opened file, or the error of the walk.
type opened struct {
	file   datadir.File
	reader *datadir.Reader // nil for what is no regular file
	err    error
}

// open walks the tree in a goroutine of its own, which ends with ctx.
func (j *job) open(ctx context.Context, r *reading) <-chan opened {
	out := make(chan opened, opensAhead)
	send := func(o opened) error {
		select {
		case out <- o:
			return nil
		case <-ctx.Done():
			if o.reader != nil {
				_ = o.reader.Close()
			}
			return context.Cause(ctx)
		}
	}
	go func() {
		defer close(out)
		err := datadir.Walk(ctx, r.tree, j.summary.PostgreSQL, func(f datadir.File) error {
			o := opened{file: f}
			if f.Kind == datadir.Regular && f.Path != datadir.ControlFile {
				var err error
				if o.reader, err = datadir.Open(ctx, r.tree, f); errors.Is(err, fs.ErrNotExist) {
					return nil // dropped since it was listed; WAL says so too
				} else if err != nil {
					return err
				}
			}
			return send(o)
		})
		if err != nil {
			_ = send(opened{err: err})
		}
	}()
	return out
}

// begin starts the backup in the server and returns where its WAL begins.
func (r *reading) begin(ctx context.Context, label string) (pg.LSN, error) {
	statement := "SELECT pg_backup_start($1, true)::text"
	if r.conn.Version().Major() < 15 {
		statement = "SELECT pg_start_backup($1, true, false)::text"
	}
	rows, err := r.conn.QueryBytes(ctx, statement, label)
	if err != nil {
		return 0, err
	}
	return pg.ParseLSN(string(rows[0][0]))
}

// An ending is what the server says when the backup ends.
type ending struct {
	lsn   string
	label []byte // content of backup_label
}

// end ends the backup in the server.
func (r *reading) end(ctx context.Context) (ending, error) {
	statement := "SELECT lsn::text, labelfile FROM pg_backup_stop(false)"
	if r.conn.Version().Major() < 15 {
		statement = "SELECT lsn::text, labelfile FROM pg_stop_backup(false, false)"
	}
	rows, err := r.conn.QueryBytes(ctx, statement)
	if err != nil {
		return ending{}, err
	}
	if len(rows) != 1 || len(rows[0]) != 2 || !bytes.Contains(rows[0][1], []byte("START WAL LOCATION")) {
		return ending{}, errors.New("the server gave no backup_label")
	}
	return ending{lsn: string(rows[0][0]), label: rows[0][1]}, nil
}

// pages returns how pages are checked, nil when the server writes no checksums.
func (r *reading) pages(ctx context.Context) (*datadir.Pages, error) {
	rows, err := r.conn.Query(ctx, `SELECT current_setting('data_checksums'), current_setting('block_size'),
		(SELECT setting FROM pg_settings WHERE name = 'segment_size'), pg_is_in_recovery()`)
	if err != nil {
		return nil, err
	}
	if rows[0][0] != "on" {
		return nil, nil
	}
	size, err := strconv.Atoi(rows[0][1])
	segment, err2 := strconv.ParseInt(rows[0][2], 10, 64)
	return &datadir.Pages{BlockSize: size, SegmentOf: segment}, errors.Join(err, err2)
}

// total returns the size of all tablespaces, 0 when the server does not tell.
func (r *reading) total(ctx context.Context) int64 {
	rows, err := r.conn.Query(ctx, "SELECT sum(pg_tablespace_size(oid))::bigint FROM pg_tablespace")
	if err != nil {
		return 0
	}
	n, _ := strconv.ParseInt(rows[0][0], 10, 64)
	return n
}
