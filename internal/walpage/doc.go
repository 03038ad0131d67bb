// Package walpage reads the headers of WAL pages and segments and tells whether a
// segment is the one its name says.
//
// # Terms
//
// A segment consists of pages of the server's WAL block size, usually 8 KiB. Each
// page begins with a [Header], that of a segment's first page is longer and
// names the cluster. A page that was never used is all zeros.
//
// # Guarantees
//
// [CheckSegment] accepts a segment only if it has the right length, begins with a
// header of the right cluster, segment size and position, and every page after
// that carries the same magic, its own position and a timeline between that of
// the page before and the segment's. Between pages in use there are no empty ones.
//
// Nothing here panics on outside input; memory is one page, and for [Stops] what the
// caller has.
//
// # Not guaranteed
//
// Of records [Stops] reads what a recovery can end at, and checks no checksum. Their bytes
// are proved by the hashes of the container that holds them, and by their own
// checksums when PostgreSQL reads them.
//
// See src/include/access/xlog_internal.h and PostgreSQL documentation, "WAL Internals".
package walpage
