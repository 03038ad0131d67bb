// Package backup takes base backups of one PostgreSQL server into its repository.
//
// # How
//
//  1. The server is asked for a base backup over a replication connection.
//  2. One goroutine reads the tar stream and cuts it into frames, several
//     encode them, one writes them into packs in order. Every byte is read,
//     copied, hashed, compressed and written once.
//  3. PostgreSQL's manifest is compared with what arrived, file by file.
//  4. Packs are made durable and visible.
//  5. All WAL from the start to the end of the backup is awaited in the
//     repository, and checked.
//  6. The manifest is written. From this moment the backup exists.
//
// # Guarantees
//
// A backup that is listed has all its data and WAL on stable storage, compared
// with the checksums of the server. A failure or crash before step 6 leaves
// nothing that is listed; what it leaves is swept by the next job.
//
// Memory is bounded: a fixed number of frame buffers, and 8 bytes per file.
package backup
