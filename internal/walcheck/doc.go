// Package walcheck proves that the archive of one server's WAL has no hole and
// holds what its names say.
//
// # Terms
//
// The archive is what is stored, the complete segments in the receive directory
// that wait to be stored, and the bytes of those being received. A path is what a
// recovery along the history of one timeline reads: segments of its ancestors up
// to where each was left, then its own. A finding is something that stands
// in the way of a recovery. A hole is a range of WAL that is missing or damaged;
// package repo keeps the record of those that somebody noticed.
//
// # What is checked
//
//  1. Every timeline has its history, and all histories agree about their ancestors.
//  2. The path of every timeline is continuous from the first segment on it that
//     the archive has. A new timeline therefore begins with the segment that holds
//     the position where the former was left.
//  3. Every segment is a whole container of the right plain length.
//  4. In deep mode every frame has its hash, and every page the header of its
//     place: system identifier, position, timeline. The quick mode reads no content.
//  5. No hole is recorded.
//
// # Guarantees
//
// Nothing is changed unless [Options.Record] is set. Then, when [Check] returns
// without error, every missing or damaged range in its report is recorded, and a
// recorded hole whose range a deep check finds whole is not recorded any more.
//
// The archive may grow meanwhile, and segments may move from the receive
// directory to the store: that is no finding. Memory is a frame per worker and
// about a hundred bytes per segment.
//
// # Not guaranteed
//
// Records are not read. An archive that begins late or ends early has no hole:
// whether a backup has the WAL it needs is the question of package verify.
package walcheck
