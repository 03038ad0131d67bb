// Package backup takes base backups of one PostgreSQL server into its repository.
//
// # How
//
//  1. The server is asked for a base backup over a replication connection, or
//     told that its data directory will be read ([Source]).
//  2. One goroutine reads files and cuts them into frames, several encode them,
//     one writes them into packs in order. A frame that is stored already, for
//     the base or for this backup, is referred to and neither encoded nor
//     stored; its print tells.
//  3. PostgreSQL's manifest is compared with what arrived, file by file. Where
//     the data directory was read, pages are checked, and the manifest is ours.
//  4. Packs are made durable and visible, each while the next is written.
//  5. All WAL from the start to the end of the backup is awaited in the
//     repository, and checked.
//  6. The manifest is written. From this moment the backup exists.
//
// The base of a full backup is the newest one that can be trusted. That of an
// incremental backup is given; PostgreSQL 17 and later then send only blocks,
// which are laid over the extents of the base's files.
//
// A [Copier] stores backups that another program made in the same way, in step 2
// and 4; what it reads must be the same twice.
//
// # Guarantees
//
// A backup that is listed has all its data and WAL on stable storage, compared
// with the checksums of the server. A failure or crash before step 6 leaves
// nothing that is listed. Packs that were complete are found by the next backup,
// which removes what it does not need when it is done; all else is swept by the next job.
//
// A backup refers to data, never to a backup: whichever others are deleted, it
// restores. It never refers to what was found damaged, nor to data that is less
// protected than it is itself.
//
// Memory is bounded: a fixed number of frame buffers, 8 bytes per file, 26 to 32
// bytes per frame of the base and of this backup, and for blocks 16 bytes per
// file of the base.
//
// # Not guaranteed
//
// That the blocks a server sends are all that have changed: a sample of the
// others is compared, where the user may read files.
package backup
