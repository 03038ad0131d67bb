// Package adopt takes over backups of C pgmoneta: it makes each a full backup of ours, with the same label
// and the same facts, so that those it is based on can be deleted.
//
// # How
//
// Those that need others go first: they are read through them. For each:
//
//  1. It is read through its chain and stored as any backup of ours is. Frames that are stored already, for the
//     newest backup of ours or for one that was just taken over, are referred to.
//  2. It is read a second time, and must be what was stored, frame by frame and file by file.
//  3. Every frame is read back from the packs and compared with its hash; one that several refer to, once.
//  4. WAL that lies in the backup and nowhere else is compared with the SHA-512 that C pgmoneta recorded, and
//     copied to where it keeps the rest. All WAL from the start of the backup to its end is read.
//  5. Keep flag and comments become its first note.
//  6. Our manifest is written, in one step. From this moment the backup is ours.
//  7. What C pgmoneta wrote of it is removed, after what others share with it has become theirs, and as
//     soon as it is part of no other one's chain.
//
// # Guarantees
//
// Nothing that a listed backup needs is removed at any moment. After a crash at any moment each backup is listed
// once, as theirs up to step 6 and as ours from it on, and is whole; repeating the call, or a sweep, finishes
// the work. What fails before that step leaves the backup as it was, and of what was done for it only copies of WAL.
//
// Memory is bounded as that of a backup is.
//
// # What is proven
//
// PostgreSQL's manifests have a SHA-512 of each file that was sent, whole files and files of changed
// blocks, and none of what those make together. Each of the two readings compares every file of the chain that
// it uses with its SHA-512, and puts the blocks together anew. What is stored is what both have found:
// memory or a disk would have to fail twice in the same way. It is what a restore of the chain
// writes, because both read the same [repo.Tree].
//
// # Not guaranteed
//
// That a backup takes less room than before: a whole one takes what its first parent took, unless it shares
// that with others of ours.
package adopt
