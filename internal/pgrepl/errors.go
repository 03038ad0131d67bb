package pgrepl

import (
	"errors"
	"io"
	"net"

	"github.com/jackc/pgx/v5/pgconn"
)

// SQLSTATE codes callers branch on; see PostgreSQL documentation, "PostgreSQL Error Codes".
const (
	CodeUndefinedFile     = "58P01" // the requested WAL segment has been removed
	CodeUndefinedSlot     = "42704" // the slot does not exist
	CodeDuplicate         = "42710" // the slot exists already
	CodeObjectInUse       = "55006" // the slot is active for another process
	CodeNotInState        = "55000" // among others: the slot is invalidated
	CodeDataCorruption    = "XX001" // page checksum failures in a base backup
	CodeInvalidValue      = "22023" // among others: an uploaded manifest of another history
	CodeSyntax            = "42601" // among others: a compression method the server was built without
	CodeProtocolViolation = "08P01" // among others: a pooler does not know a parameter
	CodeNoPrivilege       = "42501" // the user may not do this
)

// Code returns the SQLSTATE of a server's error, or "" if err is none.
func Code(err error) string {
	var e *pgconn.PgError
	if errors.As(err, &e) {
		return e.Code
	}
	return ""
}

// IsTransient reports whether trying again later may succeed without anybody
// doing anything: the network, a server that starts, stops or is full.
func IsTransient(err error) bool {
	var netErr net.Error
	if errors.As(err, &netErr) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, net.ErrClosed) {
		return true
	}
	switch code := Code(err); {
	case len(code) != 5:
		return false
	case code[:2] == "08", code[:2] == "53", code[:2] == "57", code == CodeObjectInUse:
		return true
	}
	return false
}
