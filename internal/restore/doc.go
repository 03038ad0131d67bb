// Package restore turns a backup and archived WAL back into a data directory
// that PostgreSQL can be started on.
//
// # Terms
//
// A position says where recovery is to end; [ParsePosition] reads it and
// [Target] holds it. A plan says everything a restore will do: which backup,
// which WAL, where to. The target directory is <directory>/<server>-<label>; a
// tablespace goes beside it, to <directory>/<server>-<label>-tblspc_<name>.
//
// # How
//
//  1. [MakePlan] only reads. What cannot work is refused here: no backup before
//     the target, a hole in WAL, a target past the archive, an occupied
//     directory, no space.
//  2. [Run] marks the directory with the file .pgmoneta-restore and writes all
//     files, each frame of each pack being read once and checked by its hash.
//  3. WAL and timeline histories are written to pg_wal, recovery settings to
//     postgresql.auto.conf, and PostgreSQL's own backup_manifest back to its place.
//  4. Everything is synced, then the marker is exchanged for global/pg_control.
//
// # Guarantees
//
// PostgreSQL does not start without global/pg_control, so that a restore that
// was interrupted, at whatever moment, cannot be mistaken for a finished one. At
// every moment of it either the marker or global/pg_control exists. A failed
// restore removes what it wrote; one that was killed is recognised by its marker
// and done again from the beginning.
//
// A directory that holds anything else is never touched. Whatever a manifest
// says, nothing is written outside the target and tablespace directories.
//
// The result passes pg_verifybackup before it is started.
//
// # Not guaranteed
//
// Whether a target given by name, time or transaction occurs in the WAL is
// found out by PostgreSQL, which ends with an error when it does not. Files
// belong to the user that restores: run it as the user PostgreSQL runs as.
package restore
