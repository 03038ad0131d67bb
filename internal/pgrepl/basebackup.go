package pgrepl

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/pgmoneta/pgmoneta-go/internal/pg"
)

// BaseBackupOptions are the options of BASE_BACKUP. WAL is never included: it
// is streamed and stored by its own worker. Manifest checksums are CRC-32C.
type BaseBackupOptions struct {
	Label   string
	MaxRate int // kilobytes per second, 0 = unlimited; the server accepts 32 to 1048576

	// Incremental asks for what has changed since the backup whose manifest was given
	// to [Conn.UploadManifest]. It needs [IncrementalMajor].
	Incremental bool

	// Compression is a method of the server, "gzip", "lz4" or "zstd", in which the
	// archives then come; empty for none. It needs [CompressionMajor].
	Compression string
	Level       int // of the method
}

// CompressionMajor is the first version whose BASE_BACKUP can compress.
const CompressionMajor = 15

// command spells the options for the server: a list in parentheses from 15 on,
// words in a fixed order before.
func (o BaseBackupOptions) command(v pg.Version) string {
	label := quoteLiteral(o.Label)
	if v.Major() < 15 {
		rate := ""
		if o.MaxRate > 0 {
			rate = fmt.Sprintf(" MAX_RATE %d", o.MaxRate)
		}
		return "BASE_BACKUP LABEL " + label + " PROGRESS FAST NOWAIT" + rate + " MANIFEST 'yes' MANIFEST_CHECKSUMS 'CRC32C'"
	}
	options := []string{"LABEL " + label, "PROGRESS true", "CHECKPOINT 'fast'", "WAIT false", "MANIFEST 'yes'", "MANIFEST_CHECKSUMS 'CRC32C'"}
	if o.MaxRate > 0 {
		options = append(options, fmt.Sprintf("MAX_RATE %d", o.MaxRate))
	}
	if o.Incremental {
		options = append(options, "INCREMENTAL true")
	}
	if o.Compression != "" {
		options = append(options, "COMPRESSION "+quoteLiteral(o.Compression), fmt.Sprintf("COMPRESSION_DETAIL 'level=%d'", o.Level))
	}
	return "BASE_BACKUP (" + strings.Join(options, ", ") + ")"
}

// A BackupTablespace is a row of the server's list.
type BackupTablespace struct {
	OID      uint32 // 0 for the data directory itself
	Location string // on the server
	Bytes    int64  // the server's estimate
}

// A BaseBackup receives a base backup: archive after archive with
// [BaseBackup.NextArchive], then [BaseBackup.Manifest], then
// [BaseBackup.Finish]. It reads no byte twice and keeps none.
type BaseBackup struct {
	Start       pg.LSN // redo point
	Timeline    pg.Timeline
	Tablespaces []BackupTablespace

	c      *Conn
	in     *messageReader
	ctx    context.Context // of the whole backup, because io.Reader takes none
	stop   func() bool     // ends the watch of the context
	typed  bool            // 15+: one COPY of typed messages
	next   int             // before 15: archives begun
	state  copyState
	result [][]byte // the last row outside COPY
}

type copyState int

const (
	inArchive copyState = iota // data of an archive
	atArchive                  // the next archive was announced
	inManifest
	outside // no COPY is open
	done    // ReadyForQuery has arrived
)

// BaseBackup starts a base backup with a fast checkpoint. The connection is of
// no further use after an error.
func (c *Conn) BaseBackup(ctx context.Context, o BaseBackupOptions) (*BaseBackup, error) {
	if err := c.settle(ctx); err != nil {
		return nil, c.wrap("BASE_BACKUP", err)
	}
	c.conn.Frontend().Send(&pgproto3.Query{String: o.command(c.version)})
	if err := c.conn.Frontend().Flush(); err != nil {
		return nil, c.wrap("BASE_BACKUP", err)
	}
	in, err := c.takeOver()
	if err != nil {
		return nil, c.wrap("BASE_BACKUP", err)
	}
	b := &BaseBackup{c: c, in: in, ctx: ctx, typed: c.version.Major() >= 15, state: outside}
	// One watcher for the whole backup: one per message would cost more than the message.
	b.stop = context.AfterFunc(ctx, func() { _ = c.conn.Conn().SetDeadline(time.Unix(1, 0)) })
	var tables [][][][]byte
	for {
		msg, err := b.receive()
		if err != nil {
			return nil, err
		}
		switch m := msg.(type) {
		case *pgproto3.RowDescription:
			tables = append(tables, nil)
		case *pgproto3.DataRow:
			if len(tables) == 0 {
				return nil, c.wrap("BASE_BACKUP", errors.New("a row without a description"))
			}
			tables[len(tables)-1] = append(tables[len(tables)-1], cloneRow(m.Values))
		case *pgproto3.CopyOutResponse:
			b.state = inArchive
			if !b.typed {
				b.state = atArchive
			}
			return b, b.header(tables)
		case *pgproto3.ReadyForQuery:
			return nil, c.wrap("BASE_BACKUP", errors.New("the server sent no data"))
		}
	}
}

func cloneRow(row [][]byte) [][]byte {
	out := make([][]byte, len(row))
	for i, v := range row {
		out[i] = append([]byte(nil), v...)
	}
	return out
}

func (b *BaseBackup) header(tables [][][][]byte) error {
	if len(tables) < 2 || len(tables[0]) != 1 {
		return b.c.wrap("BASE_BACKUP", fmt.Errorf("%d result sets before the data, want 2", len(tables)))
	}
	var err error
	if b.Start, b.Timeline, err = parsePosition(tables[0][0]); err != nil {
		return b.c.wrap("BASE_BACKUP", err)
	}
	for _, row := range tables[1] {
		if len(row) < 3 {
			return b.c.wrap("BASE_BACKUP", fmt.Errorf("tablespace row of %d columns", len(row)))
		}
		oid, _ := strconv.ParseUint(string(row[0]), 10, 32) // NULL for the data directory
		kib, _ := strconv.ParseInt(string(row[2]), 10, 64)
		b.Tablespaces = append(b.Tablespaces, BackupTablespace{OID: uint32(oid), Location: string(row[1]), Bytes: kib << 10})
	}
	return nil
}

func parsePosition(row [][]byte) (pg.LSN, pg.Timeline, error) {
	if len(row) < 2 {
		return 0, 0, fmt.Errorf("position row of %d columns", len(row))
	}
	lsn, err := pg.ParseLSN(string(row[0]))
	if err != nil {
		return 0, 0, err
	}
	tli, err := strconv.ParseUint(string(row[1]), 10, 32)
	return lsn, pg.Timeline(tli), err
}

// receive returns the next message that matters; errors of the server are errors.
func (b *BaseBackup) receive() (pgproto3.BackendMessage, error) {
	for {
		msg, err := b.in.next()
		if err != nil {
			return nil, b.failed(err)
		}
		switch m := msg.(type) {
		case *pgproto3.ErrorResponse:
			return nil, b.c.wrap("BASE_BACKUP", serverError(m))
		case *pgproto3.NoticeResponse, *pgproto3.ParameterStatus:
		default:
			return msg, nil
		}
	}
}

func (b *BaseBackup) failed(err error) error {
	if b.ctx.Err() != nil {
		err = context.Cause(b.ctx)
	}
	return b.c.wrap("BASE_BACKUP", err)
}

func serverError(m *pgproto3.ErrorResponse) error { return pgconn.ErrorResponseToPgError(m) }

// advance reads one message and moves the state.
func (b *BaseBackup) advance() error {
	msg, err := b.receive()
	if err != nil {
		return err
	}
	switch m := msg.(type) {
	case *pgproto3.CopyData:
		return b.copyData()
	case *pgproto3.CopyOutResponse: // before 15: the next archive, or the manifest
		b.state = atArchive
		if b.next == len(b.Tablespaces) {
			b.state = inManifest
		}
	case *pgproto3.CopyDone:
		b.state = outside
	case *pgproto3.DataRow:
		b.result = cloneRow(m.Values)
	case *pgproto3.ReadyForQuery:
		b.state = done
	}
	return nil
}

// copyData looks at the type of a message of the typed COPY. The bytes of
// archives and of the manifest stay with the reader until they are read.
func (b *BaseBackup) copyData() error {
	if !b.typed {
		return nil
	}
	kind, err := b.in.dataByte()
	if err != nil {
		return b.failed(err)
	}
	switch kind {
	case 'd':
		return nil
	case 'n': // archive name and tablespace location, both ended by NUL
		b.state = atArchive
	case 'm':
		b.state = inManifest
	case 'p': // progress in bytes; we count ourselves
	default:
		return b.c.wrap("BASE_BACKUP", fmt.Errorf("unknown message %q", kind))
	}
	if err := b.in.skipData(); err != nil {
		return b.failed(err)
	}
	return nil
}

// NextArchive skips the rest of the current archive and returns the tablespace
// of the next, whose tar bytes [BaseBackup.Read] then gives. It returns
// [io.EOF] after the last. Archives come in the order of Tablespaces.
func (b *BaseBackup) NextArchive() (BackupTablespace, error) {
	for {
		if err := b.in.skipData(); err != nil {
			return BackupTablespace{}, b.failed(err)
		}
		switch {
		case b.state == atArchive && b.next < len(b.Tablespaces):
			b.state = inArchive
			b.next++
			return b.Tablespaces[b.next-1], nil
		case b.state == atArchive:
			return BackupTablespace{}, b.c.wrap("BASE_BACKUP", errors.New("more archives than tablespaces"))
		case b.state == inManifest || b.state == done || b.state == outside && b.typed:
			if b.next < len(b.Tablespaces) {
				return BackupTablespace{}, b.c.wrap("BASE_BACKUP", fmt.Errorf("%d of %d archives arrived", b.next, len(b.Tablespaces)))
			}
			return BackupTablespace{}, io.EOF
		}
		if err := b.advance(); err != nil {
			return BackupTablespace{}, err
		}
	}
}

// Read reads the current archive, as a tar that may lack its final zero blocks.
func (b *BaseBackup) Read(p []byte) (int, error) { return b.read(p, inArchive) }

// Manifest returns a reader of backup_manifest; it is valid after NextArchive
// has returned [io.EOF].
func (b *BaseBackup) Manifest() io.Reader { return manifestReader{b} }

type manifestReader struct{ b *BaseBackup }

func (m manifestReader) Read(p []byte) (int, error) { return m.b.read(p, inManifest) }

func (b *BaseBackup) read(p []byte, in copyState) (int, error) {
	for b.in.data == 0 {
		if b.state != in {
			return 0, io.EOF
		}
		if err := b.advance(); err != nil {
			return 0, err
		}
	}
	n, err := b.in.Read(p)
	if err != nil {
		return n, b.failed(err)
	}
	return n, nil
}

// Finish reads the server's verdict and returns the end of the backup: the
// first position after the WAL it needs. Only then has the backup succeeded
// on the server's side.
//
// With an error of [CodeDataCorruption] all was sent, the position is valid, and the
// server found pages with wrong checksums.
func (b *BaseBackup) Finish() (end pg.LSN, tli pg.Timeline, err error) {
	var corrupt error
	for b.state != done {
		if err := b.in.skipData(); err != nil {
			return 0, 0, b.failed(err)
		}
		err := b.advance()
		if err != nil && (Code(err) != CodeDataCorruption || len(b.result) == 0) {
			return 0, 0, err
		}
		if err != nil {
			corrupt = err
		}
	}
	b.stop()
	end, tli, err = parsePosition(b.result)
	if err == nil {
		return end, tli, corrupt
	}
	return end, tli, b.c.wrap("end of BASE_BACKUP", err)
}
