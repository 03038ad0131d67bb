package datadir

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"strconv"
	"sync"
	"time"

	"github.com/pgmoneta/pgmoneta-go/internal/pgrepl"
)

// SQL is the [Tree] of a data directory read with functions of the server over
// several connections. The user needs EXECUTE on pg_ls_dir, pg_stat_file and
// pg_read_binary_file, or membership in pg_read_server_files. Permissions of files
// cannot be asked for; they are given as 0600 and 0700, links of tablespaces
// as the server resolves them.
type SQL struct {
	ctx    context.Context // of all that is read ahead
	cancel context.CancelFunc
	idle   chan *pgrepl.Conn // as many as there are, unless in use
	size   int
	ahead  sync.WaitGroup
}

// OpenSQL opens n connections. What is read ahead ends with ctx.
func OpenSQL(ctx context.Context, params pgrepl.Params, n int) (*SQL, error) {
	s := &SQL{idle: make(chan *pgrepl.Conn, n)}
	s.ctx, s.cancel = context.WithCancel(ctx)
	for range n {
		c, err := pgrepl.ConnectSQL(ctx, params)
		if err != nil {
			return nil, errors.Join(err, s.Close())
		}
		s.size++
		s.idle <- c
	}
	return s, nil
}

// query runs a statement on the next connection that is free.
func (s *SQL) query(ctx context.Context, statement string, params ...string) ([][][]byte, error) {
	select {
	case c := <-s.idle:
		defer func() { s.idle <- c }()
		return c.QueryBytes(ctx, statement, params...)
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

const listStatement = `SELECT f.name::text, s.size::text, extract(epoch FROM s.modification)::text, s.isdir::text,
	CASE WHEN $1 = 'pg_tblspc' AND f.name ~ '^[0-9]+$' THEN pg_tablespace_location(f.name::oid) END
	FROM pg_ls_dir($1, true, false) AS f(name), LATERAL pg_stat_file($1 || '/' || f.name, true) AS s
	WHERE s.size IS NOT NULL ORDER BY f.name COLLATE "C"`

// List implements [Tree].
func (s *SQL) List(ctx context.Context, dir string) ([]File, error) {
	rows, err := s.query(ctx, listStatement, dir)
	if err != nil {
		return nil, err
	}
	files := make([]File, 0, len(rows))
	for _, r := range rows {
		f := File{Path: path.Join(dir, string(r[0])), Mode: 0o600}
		seconds, _ := strconv.ParseFloat(string(r[2]), 64)
		f.ModTime = time.UnixMicro(int64(seconds * 1e6)).UTC()
		switch target := string(r[4]); {
		case target != "" && path.IsAbs(target):
			f.Kind, f.Link, f.Mode = Symlink, target, 0o777
		case string(r[3]) == "true":
			f.Kind, f.Mode = Directory, 0o700
		default:
			if f.Size, err = strconv.ParseInt(string(r[1]), 10, 64); err != nil {
				return nil, fmt.Errorf("size of %s: %w", f.Path, err)
			}
		}
		files = append(files, f)
	}
	return files, nil
}

// Open implements [Tree]. That the file is gone is found when it is read.
func (s *SQL) Open(_ context.Context, name string) (Handle, error) {
	return &sqlHandle{tree: s, name: name, chunks: map[int64]*chunk{}}, nil
}

// Close implements [Tree].
func (s *SQL) Close() error {
	s.cancel()
	s.ahead.Wait()
	for range s.size {
		(<-s.idle).Close()
	}
	return nil
}

// chunkSize is what one statement reads ahead.
const chunkSize = 1 << 20

// A chunk is a piece of a file that was asked for before it is needed.
type chunk struct {
	ready chan struct{} // closed when content and err are set
	bytes []byte
	err   error
}

type sqlHandle struct {
	tree   *SQL
	name   string
	chunks map[int64]*chunk // by number
}

const readStatement = `SELECT pg_read_binary_file($1, $2::bigint, $3::bigint, true)`

func (h *sqlHandle) read(ctx context.Context, offset, n int64) ([]byte, error) {
	rows, err := h.tree.query(ctx, readStatement, h.name, strconv.FormatInt(offset, 10), strconv.FormatInt(n, 10))
	switch {
	case err != nil:
		return nil, err
	case len(rows) != 1 || len(rows[0]) != 1:
		return nil, fmt.Errorf("read %s: the server gave no single value", h.name)
	case rows[0][0] == nil:
		return nil, &fs.PathError{Op: "read", Path: h.name, Err: fs.ErrNotExist}
	}
	return rows[0][0], nil
}

// Want implements [Handle].
func (h *sqlHandle) Want(offset, n int64) {
	for i := offset / chunkSize; i*chunkSize < offset+n; i++ {
		if h.chunks[i] != nil {
			continue
		}
		c := &chunk{ready: make(chan struct{})}
		h.chunks[i] = c
		length := min(chunkSize, offset+n-i*chunkSize)
		h.tree.ahead.Go(func() {
			defer close(c.ready)
			c.bytes, c.err = h.read(h.tree.ctx, i*chunkSize, length)
		})
	}
}

// ReadAt implements [io.ReaderAt]. What was read ahead is given once: who reads it
// again gets what the server has then.
func (h *sqlHandle) ReadAt(p []byte, offset int64) (int, error) {
	done := 0
	for done < len(p) {
		at := offset + int64(done)
		n, err := h.readSome(p[done:], at)
		done += n
		if err != nil {
			return done, err
		}
	}
	return done, nil
}

func (h *sqlHandle) readSome(p []byte, at int64) (int, error) {
	number := at / chunkSize
	c := h.chunks[number]
	if c == nil {
		b, err := h.read(h.tree.ctx, at, int64(len(p)))
		if err == nil && len(b) < len(p) {
			err = io.EOF
		}
		return copy(p, b), err
	}
	<-c.ready
	if c.err != nil {
		return 0, c.err
	}
	from := at - number*chunkSize
	if from >= int64(len(c.bytes)) {
		return 0, io.EOF
	}
	n := copy(p, c.bytes[from:])
	if from+int64(n) == int64(len(c.bytes)) {
		delete(h.chunks, number)
	}
	return n, nil
}

// Close implements [Handle].
func (h *sqlHandle) Close() error { return nil }
