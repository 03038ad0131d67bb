// Package walfile passes files of WAL between the archive of one server and
// PostgreSQL: it is what restore_command and archive_command run. It needs
// neither the daemon nor a connection, only the repository's directory.
//
// # Terms
//
// The archive of a server is the WAL in its repository and the segments that
// the receiver has complete but not stored yet. A file is a segment, a partial
// segment, a backup history file or a timeline history file, and is named as in
// pg_wal. The target is where PostgreSQL wants it (%p). A hole is a missing
// segment with later ones in the archive, of its timeline or of one that
// continues it beyond that segment. The spool is a
// directory beside the target in which the next segments are prepared.
//
// # Guarantees
//
// The target is a whole, checked file or it is untouched. Every stored byte
// agreed with its hash, the size is the segment size, and the first page names
// this cluster, this size and this position.
//
// That a file is not in the archive is [ErrNotArchived]; any other error means
// that nobody knows, and recovery must stop rather than end early. A hole is a
// [*HoleError], and a segment that the retention removed, or that lies before what it
// removed, a [*RemovedError], unless PostgreSQL can get the segment elsewhere.
//
// A push returns nil only when the content is in the repository, on stable
// storage, and identical. Other content under the same name is a
// [*DifferentError], WAL of another cluster a [*ForeignError]; neither changes
// anything. Pushing works beside a receiver that stores the same segments.
//
// A segment is given up only on request, and never in silence: a [*DroppedError]
// means that its hole is recorded in the repository, or remembered beside the
// source, durably, until a later push can record it. Storing it later fills it.
//
// The spool only ever saves time. An entry has its final name when it is
// complete and checked, belongs to one repository and to one boot of the
// machine, and is checked again when it is taken. Nothing in the spool is needed.
//
// # Not guaranteed
//
// A delivered file is not synced. PostgreSQL reads it back at once, through the
// same page cache; when it keeps the file under its name in pg_wal it syncs it
// first (durable_rename in KeepFileRestoredFromArchive), and after a crash it
// asks for it again. Spool entries are not synced either: that is why those of
// an earlier boot are never used.
//
// A partial segment that is still being received is delivered as far as it goes
// and may be cut anywhere, as the end of any WAL may be.
//
// See PostgreSQL documentation, "Continuous Archiving and PITR".
package walfile
