// Package wal receives write-ahead log from one PostgreSQL server and keeps it
// as segments of the server's repository.
//
// # Terms
//
// A position is a timeline and an LSN; the same LSN can exist on several
// timelines. A segment is being received in the directory receive/ under its
// name and the suffix ".partial"; complete and durable it loses the suffix; at
// last it is stored in the repository as a container and leaves receive/.
// Written bytes were handed to the operating system, flushed ones are on
// stable storage.
//
// # Guarantees
//
// The flushed LSN reported to the server never passes a byte for which
// fdatasync has not returned. Compressing and storing never delay it.
//
// A segment without ".partial" is complete, and its name survives power loss.
// After a crash, receiving continues at the start of the first incomplete
// segment; the server still has it, because it is told only flushed positions.
//
// At a timeline switch the last, short segment of the old timeline stays
// ".partial", and the history file of the new timeline is stored before its
// first byte is.
//
// # Not guaranteed
//
// A segment may be received twice. WAL that the server removed before it was
// received, and that no other member of the cluster has, is lost. It is never
// skipped in silence: it is a [*RemovedError], and is passed only when
// [Receiver.PassHoles] allows it and the hole is recorded in the repository
// before the first byte after it is received. A [Filler] can give it from what
// another program has archived, before that and later.
package wal
