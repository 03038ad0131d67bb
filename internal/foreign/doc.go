// Package foreign reads repositories of C pgmoneta 0.22, which lie where this program
// keeps its own: the backups below backup/ that have a backup.info, and the WAL that
// lies flat in wal/.
//
//	backup/<label>/backup.info       facts, as lines KEY=value
//	backup/<label>/backup.sha512     SHA-512 of every stored file; without it a backup is not valid
//	backup/<label>/data/             the data directory, each file with the suffixes below
//	backup/<label>/data/backup_manifest  PostgreSQL's own manifest, plain
//	backup/<label>/tblspc_<name>/    a tablespace; data/pg_tblspc/<oid> is a link to it
//	wal/<segment>                    WAL, with the suffixes below
//	wal/<timeline>.history           timeline histories, plain
//
// # Terms
//
// A stored file is a file of the repository, and its plain bytes are what PostgreSQL had.
// Its name is the plain name, then the suffix of a codec (.gz, .zstd, .lz4, .bz2 or none), then
// .aes if it is sealed. A stored file may be a link to the same file of an older backup; links
// are absolute and lead to where the repository was then. The chain of an incremental backup are
// its parents up to a full one; what it has as INCREMENTAL.<name> is laid over theirs.
//
// # Guarantees
//
// Plain bytes are compared with PostgreSQL's manifest: a reader ends with [io.EOF] only if their
// size and SHA-512 are as recorded, for every file of a chain that is read for one. What is
// sealed is authenticated before its last byte is given away. Memory depends neither on the size
// of a file nor on that of the database, but for some bytes per changed file and member of a chain.
//
// A link is followed by the part of it that is below backup/, so that a repository can be moved; nothing
// outside of the repository is ever read, whatever a link or a manifest says.
//
// One backup.info that cannot be read hides no other backup. What it lacks is taken from
// backup_label, PostgreSQL's manifest and the data itself if those are whole.
//
// [Repository.Delete] gives what other backups share with the deleted one to them before it removes
// anything: a hard link takes the place of each link in one step. A backup then disappears in one step too.
//
// A label with a manifest of ours is no backup of C pgmoneta's, whatever lies beside it: package adopt has made it one of
// ours, and [Repository.Settle] removes the rest as soon as no chain leads through it.
//
// # Not guaranteed
//
// The format binds no file to its place: a sealed file that was exchanged for another one of the
// same key is found by PostgreSQL's manifest, which is not sealed itself. WAL has no recorded hashes: a
// segment must have the right size, and what .gz, .zstd, .bz2 and .aes protect is checked. An .lz4
// has no end and no checksum; it is its size alone that shows a truncation.
//
// A backup with incremental children is not deleted before those are, or are ours. What
// remains of a rollup that C pgmoneta did not finish (.tmp_<label>) is left alone.
package foreign
