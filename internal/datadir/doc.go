// Package datadir reads the data directory of a running server the way
// PostgreSQL's own base backup does.
//
// # Terms
//
// A [Tree] gives access to a data directory: through the file system when it is
// on this machine, or through SQL functions. [Walk] yields what belongs into a
// backup, and leaves out what PostgreSQL leaves out: WAL, temporary files and
// relations, contents of unlogged relations, and state that a start makes anew.
//
// # Guarantees
//
// Names come from the tree alone and never lead out of it. A file is read up to
// the size it had when it was listed; what it has lost since reads as zeros, which
// recovery repairs from WAL as it repairs pages that were written while they were
// read. A file that is gone is [fs.ErrNotExist]. global/pg_control comes last and
// is read until its checksum is right.
//
// # Not guaranteed
//
// What is read is no backup by itself: the caller reads between the functions
// pg_backup_start and pg_backup_stop, lists after the first, and keeps the WAL
// written in between. See PostgreSQL documentation, "Making a Base Backup Using
// the Low Level API".
package datadir
