// Package restore turns a backup and archived WAL back into a data directory
// that PostgreSQL can be started on.
//
// # Terms
//
// A position says where recovery is to end; [ParsePosition] reads it and
// [Target] holds it. A plan says everything a restore will do: which backup,
// which WAL, where to. The target directory is <directory>/<server>-<label>, or the
// directory itself when that was asked for; a tablespace goes beside it, with
// -tblspc_<name> behind its name, or where it is sent.
//
// # How
//
//  1. [MakePlan] only reads. What cannot work is refused here: no backup before
//     the target, a hole in WAL, a target that WAL does not hold, an occupied
//     directory, no space. [Preview] tells all of it and what is in the way.
//  2. [Run] marks the directory with the file .pgmoneta-restore and writes all
//     files, each frame of each pack being read once and checked by its hash.
//     Where files are already, a frame that is found in them is not read.
//  3. The backup's WAL and timeline histories are written to pg_wal, recovery
//     settings to postgresql.auto.conf, and PostgreSQL's own backup_manifest back to
//     its place. Later WAL is written too, or fetched by restore_command.
//  4. Everything is synced, then the marker is exchanged for global/pg_control.
//
// # Guarantees
//
// PostgreSQL does not start without global/pg_control, so that a restore that
// was interrupted, at whatever moment, cannot be mistaken for a finished one. At
// every moment of it either the marker or global/pg_control exists. A failed
// restore removes what it wrote; one that was killed is recognised by its marker
// and goes on with what of it is right.
//
// A directory that holds anything else is never touched, unless it is a data directory
// and the restore is one over it. That leaves no file that is not in the backup,
// and touches none while a server runs. Whatever a manifest says, nothing is
// written outside the target, tablespace and WAL directories.
//
// The result passes pg_verifybackup before it is started.
//
// # Not guaranteed
//
// A transaction or a restore point is looked for in 16 GiB of WAL; whether it is
// further away is found out by PostgreSQL, which ends with an error when it is not.
// Prepared transactions are not told apart. Files
// belong to the user that restores, unless that is root and names another.
package restore
