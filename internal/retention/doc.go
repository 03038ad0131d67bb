// Package retention decides which backups and which WAL of a server are not needed any
// more. It is a pure function: of what there is, a policy and a clock; it reads and
// changes nothing.
//
// # Terms
//
// The window is the time of which every moment is to stay restorable. A branch is a row
// of backups with unbroken WAL from the first to the last: holes and timelines that
// were left end it. A moment is reachable from any backup of its branch that had ended
// by then, because WAL leads from there on.
//
// # Guarantees
//
// A backup is deleted only when every rule lets it go. What is not understood stays:
// backups that cannot be read, notes that cannot be read, and all WAL while the WAL that
// a backup needs is not known.
//
// Whatever the policy says, [Decide] deletes nothing when the clock cannot be right, and
// nothing that would make a moment of the window unreachable, leave fewer valid backups
// than [Policy.Min], or leave none. It says so in [Plan.Refused].
//
// A second decision on what is left, at the same time, deletes nothing.
//
// # Not guaranteed
//
// A clock that was wrong while several backups were taken cannot be told from one that
// is right.
package retention
