package main

import "github.com/pgmoneta/pgmoneta-go/internal/version"

const usage = `pgmoneta-wal ` + version.Version + `
  Passes WAL between an archive of pgmoneta and PostgreSQL

Usage:
  pgmoneta-wal get  [ OPTIONS ] SERVER FILE TARGET
  pgmoneta-wal push [ OPTIONS ] SERVER PATH
  pgmoneta-wal check [ -c CONFIG_FILE ] SERVER FILE

  In postgresql.conf:
    restore_command = 'pgmoneta-wal get -c /etc/pgmoneta/pgmoneta.conf primary %f %p'
    archive_command = 'pgmoneta-wal push -c /etc/pgmoneta/pgmoneta.conf primary %p'

  SERVER is the section of pgmoneta.conf. Of the configuration only base_dir,
  compression and compression_level are used. No daemon and no connection is
  needed; run it as the user of the daemon.

Options of both:
  -c, --config CONFIG_FILE   default /etc/pgmoneta/pgmoneta.conf
  -V, --version              print the version
  -?, --help                 print this help

get: deliver FILE, a segment or a history file of any timeline, as TARGET
  --partial        when the segment is still being received, deliver what has
                   come of it, filled up with zeros: a recovery then ends at the
                   last received byte and not at the end of the last segment
  --prefetch N     prepare the N segments that follow, on all CPUs, so that they
                   are there when they are asked for; default twice the number
                   of CPUs, at most 4 GiB; 0 prepares none
  --end-at-hole    when a segment is missing in the middle of the archive, let
                   recovery end there

  TARGET appears whole and checked, or not at all. Segments are prepared in
  pg_wal/pgmoneta-prefetch by a process that ends by itself, a second after it
  has nothing to do, or a minute after it began. Where PostgreSQL is process 1,
  as in a container without an init, use --prefetch 0: it takes any process that
  dies below it for one of its own.

  Exit status:
    0     delivered
    1     not in the archive: PostgreSQL takes it for the archive's end
    200   anything else: damaged, a hole, wrong configuration, no permission,
          disk full. PostgreSQL stops and does not end recovery too early. A
          hole is no error for a standby, which can ask its primary, and where
          pg_wal has the segment.

push: archive PATH, a segment, a partial one or a history file
  --max-queue BYTES   complain on every file while more than this waits in
                      pg_wal to be archived; K, M, G and T may follow the number
  --drop-when-full    beyond --max-queue, report segments as archived that are
                      not. THIS MAKES A HOLE: no recovery goes past it until the
                      next full backup. Without it no segment is ever given up,
                      and pg_wal grows for as long as archiving fails

  A file that is archived already, by a push or by the receiver, is compared.
  The receiver may stream from the same server at the same time.

  Exit status:
    0     the file is in the archive, on stable storage
    1     not now, such as disk full or locked: PostgreSQL tries again
    200   refused: other content under the same name, WAL of another cluster,
          no WAL at all, wrong configuration. PostgreSQL tries again too, but
          somebody has to act

check: tell by the status of get whether it could deliver FILE. That it can be
opened is found out, its content is not read: for one who sets restore_command up

Messages go to standard error, one line each, and from there to the log of the
server.
`
