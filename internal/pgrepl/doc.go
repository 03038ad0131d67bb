// Package pgrepl speaks to PostgreSQL servers: physical replication connections
// with their commands, and plain SQL connections for the few questions those
// cannot answer.
//
// It owns the quirks of the libraries below it (pgconn, pglogrepl) and the
// differences between server versions 14 to 18; nothing above sees either.
//
// # Guarantees
//
// Every call returns when its context ends, and the connection is then closed.
// Errors of the server keep their SQLSTATE (see [Code]); [IsTransient] tells
// those that waiting can mend. Nothing here retries.
//
// # Not guaranteed
//
// A [Conn] is used by one goroutine at a time, except [WALStream.SendStatus],
// which may run beside [WALStream.Receive].
//
// See PostgreSQL documentation, "Streaming Replication Protocol".
package pgrepl
