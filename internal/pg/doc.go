// Package pg holds the small vocabulary of PostgreSQL that every other package
// speaks: positions in WAL, timelines, segments, server versions and the text
// files a data directory carries about them.
//
// # Terms
//
// An [LSN] is a byte position in WAL. A [Timeline] is a branch of history; the
// same LSN can exist on several timelines with different bytes. A segment is
// the file of [SegmentSize] bytes that holds a range of one timeline's LSNs,
// named by [SegmentName]. A [History] is the content of a timeline history
// file: the ancestors of a timeline and where each one was left.
//
// # Guarantees
//
// Everything here is a value or a pure function: no I/O, no clock, safe for
// concurrent use. Parsers of outside text return errors that quote the
// offending text and never panic.
package pg
