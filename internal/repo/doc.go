// Package repo gives the objects of one server's repository their meaning:
// which backups exist, what they consist of, which packs they refer to, and
// which WAL is stored.
//
// # Layout
//
//	format                          repository id, system identifier, format version (JSON)
//	key/<n>/<w>                     key n of the repository, wrapped by a master key (JSON)
//	backup/<label>/manifest         our description of one backup; writing it is the commit
//	backup/<label>/backup_manifest  PostgreSQL's own manifest, byte for byte
//	pack/<label>/<n>                frames of file data, about 64 MiB each
//	pack/<label>/<n>.<g>            generation g of that pack, from 2, without frames no backup needs
//	wal/<timeline>/<segment>        one finished WAL segment
//	wal/<timeline>.history          timeline history, as the server sent it
//	hole/<timeline>/<from>-<to>     WAL that is missing, and why
//	damaged/<object>                an object that was found damaged
//	unfinished/<label>              a backup that was begun and is not listed
//
// All but format, keys, histories, holes and damage are containers (package container); a
// sealed repository has containers for those too. Beside the
// objects, on the local disk only, lie receive/ (segments being streamed),
// tmp/ (unfinished objects) and lock (taken by the job that changes backups).
//
// What another program keeps in the same directory is no object; a [Foreign] reads it.
//
// # Terms
//
// A backup is a [Label] with a manifest. Its manifest lists every file with its
// [Extent]s: runs of plain bytes in packs, of this backup or of any earlier
// one. A pack no manifest refers to is dead.
//
// # Guarantees
//
// A backup is listed if and only if its manifest object exists, and that is
// written last. Deleting a backup removes its manifest first and then only
// packs to which no other manifest refers, so a crash in between leaves dead
// packs, never a listed backup that lacks one. [Repository.Sweep] removes them.
//
// What lies in receive/ is written through [Repository.ReceiveFS] and read through
// [Repository.OpenReceived], as journals when the repository is sealed.
//
// Once [Repository.UseKeys] asks for a cipher, no object but format and keys is
// written plain: when an object cannot be sealed, it is not written. Objects that are
// not encrypted are refused beside sealed ones, unless a key says that both may be there.
//
// What was found damaged is remembered until it is whole or gone; a new backup
// does not refer to it. [Repository.Check] proves that every listed backup has
// what it refers to.
//
// One unreadable manifest does not hide the other backups; it is listed with
// its error, and nothing is collected while it is there.
//
// # Not guaranteed
//
// Bytes of a pack that no backup uses stay while one uses another part of it, until
// [Repository.Compact] makes a new generation of the pack. Objects are never replaced.
package repo
