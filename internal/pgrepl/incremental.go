package pgrepl

import (
	"context"
	"encoding/hex"
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
	rows, err := c.Query(ctx, fmt.Sprintf("SELECT encode(pg_read_binary_file(%s, %d, %d, true), 'hex')", quoteLiteral(path), offset, length))
	if err != nil || len(rows) == 0 {
		return nil, err
	}
	content, err := hex.DecodeString(rows[0][0])
	return content, c.wrap("pg_read_binary_file", err)
}
