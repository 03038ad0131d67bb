package pgrepl

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/pgmoneta/pgmoneta-go/internal/pg"
)

// IncrementalMajor is the first major version whose servers make incremental backups.
const IncrementalMajor = 17

// UploadManifest gives the server the backup_manifest of the backup on which a
// BASE_BACKUP with [BaseBackupOptions.Incremental] over the same connection is based.
func (c *Conn) UploadManifest(ctx context.Context, manifest io.Reader) error {
	_, err := c.conn.CopyFrom(ctx, manifest, "UPLOAD_MANIFEST")
	return c.wrap("UPLOAD_MANIFEST", err)
}

// BlockSize returns the server's block_size in bytes.
func (c *Conn) BlockSize(ctx context.Context) (int64, error) {
	text, err := c.Show(ctx, "block_size")
	if err != nil {
		return 0, err
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err == nil && (n < 1<<10 || n > 32<<10 || n&(n-1) != 0) {
		err = fmt.Errorf("block_size is %d", n)
	}
	return n, c.wrap("SHOW block_size", err)
}

// Checksums reports whether the server writes checksums into pages.
func (c *Conn) Checksums(ctx context.Context) (bool, error) {
	text, err := c.Show(ctx, "data_checksums")
	return text == "on", err
}

// RelationSegment returns the size of a full file of a relation in bytes: 1 GiB unless
// PostgreSQL was built otherwise.
func (c *Conn) RelationSegment(ctx context.Context) (int64, error) {
	const setting = "segment_size"
	text, err := c.Show(ctx, setting)
	if err != nil {
		return 0, err
	}
	for i, unit := range []string{"kB", "MB", "GB", "TB"} {
		if digits, ok := strings.CutSuffix(text, unit); ok {
			n, err := strconv.ParseInt(digits, 10, 32)
			return n << (10 * (i + 1)), c.wrap("SHOW "+setting, err)
		}
	}
	return 0, c.wrap("SHOW "+setting, fmt.Errorf("%q is no size", text))
}

// OldestSummary returns where the WAL summaries of a timeline begin, and whether there
// are any. It needs a plain connection and the right to call
// pg_available_wal_summaries.
func (c *Conn) OldestSummary(ctx context.Context, tli pg.Timeline) (pg.LSN, bool, error) {
	rows, err := c.Query(ctx, fmt.Sprintf("SELECT min(start_lsn) FROM pg_available_wal_summaries() WHERE tli = %d", tli))
	if err != nil || len(rows) == 0 || rows[0][0] == "" {
		return 0, false, err
	}
	lsn, err := pg.ParseLSN(rows[0][0])
	return lsn, err == nil, c.wrap("pg_available_wal_summaries", err)
}

// ReadFile reads up to length bytes of a file below the data directory. They are
// fewer where the file ends, and none when it is missing. It needs a plain connection and
// the rights of pg_read_server_files and on pg_read_binary_file.
func (c *Conn) ReadFile(ctx context.Context, path string, offset, length int64) ([]byte, error) {
	rows, err := c.QueryBytes(ctx, "SELECT pg_read_binary_file($1, $2::bigint, $3::bigint, true)", path, strconv.FormatInt(offset, 10), strconv.FormatInt(length, 10))
	if err != nil || len(rows) == 0 {
		return nil, err
	}
	return rows[0][0], nil
}

// A PageRun is a run of pages of a file below the data directory.
type PageRun struct {
	Path  string
	First int64 // block
	Pages int
}

// pageLSNs reads the first 8 bytes of pages of size $4: their LSN.
const pageLSNs = `SELECT pg_read_binary_file(r.path, (r.first + g.i) * $4::bigint, 8, true)
	FROM unnest(string_to_array($1, chr(10)), string_to_array($2, ',')::bigint[], string_to_array($3, ',')::int[])
		WITH ORDINALITY AS r(path, first, pages, n), generate_series(0, r.pages - 1) AS g(i)
	ORDER BY r.n, g.i`

// PageLSNs returns, for each page of each run, the position after the last change that
// was logged; 0 where the file is missing or ends before. Nothing else of the pages leaves the server. It needs
// what [Conn.ReadFile] needs.
func (c *Conn) PageLSNs(ctx context.Context, runs []PageRun, pageSize int64) ([][]pg.LSN, error) {
	var paths, first, pages []string
	for _, r := range runs {
		paths = append(paths, r.Path)
		first = append(first, strconv.FormatInt(r.First, 10))
		pages = append(pages, strconv.Itoa(r.Pages))
	}
	rows, err := c.QueryBytes(ctx, pageLSNs, strings.Join(paths, "\n"), strings.Join(first, ","), strings.Join(pages, ","), strconv.FormatInt(pageSize, 10))
	if err != nil {
		return nil, err
	}
	found := make([][]pg.LSN, len(runs))
	for i, r := range runs {
		if len(rows) < r.Pages {
			return nil, c.wrap("pg_read_binary_file", fmt.Errorf("the server did not answer for every page of %s", r.Path))
		}
		for _, row := range rows[:r.Pages] {
			found[i] = append(found[i], pg.PageLSN(row[0]))
		}
		rows = rows[r.Pages:]
	}
	return found, nil
}
