package main

import (
	"fmt"
	"strings"

	"github.com/pgmoneta/pgmoneta-go/internal/version"
)

const optionHelp = `
Options:
  -c, --config FILE      configuration: pgmoneta_cli.conf or the daemon's pgmoneta.conf
  -F, --format FORMAT    text, json or raw
  -s, --sort ORDER       asc or desc, for list-backup
      --cascade          also the backups it is based on, for retain and expunge
      --force            also backups that are retained, or that the retention would keep from going, for delete
      --allow-corrupt    keep a backup whose pages have wrong checksums, marked
      --plain            do not encrypt the archive of an encrypted repository
      --quick            read no content, for wal check
      --offline          without a daemon, for wal check, restore and archive; FILE is the daemon's pgmoneta.conf
      --no-wait          error "busy" instead of waiting while the server has another job
      --save             write the setting into the file as well, for conf set; the former file is kept
      --all              all jobs that are remembered, for jobs
  -v, --verbose          end with Success (0) or Error (<code>)
  -V, --version          print the version
  -?, --help             print this

For restore:
      --dry-run          say what would be done, how long it takes and what stands in its way; change nothing
      --exact            <directory> is the data directory itself, empty or missing; without it one is made in it
      --delta            <directory> is a data directory: write only what differs, remove what does not belong
      --wal HOW          command: restore_command fetches WAL (the default where it works); copy: all to pg_wal
      --waldir DIR       make pg_wal a link to DIR
      --tablespace WHICH=DIR    where a tablespace goes, by name, OID or path; may be repeated
      --tablespaces-in-place    tablespaces go where they were on the server
      --owner USER[:GROUP]      give the files to another user; root only
      --workers N        how many frames are written at once; default as configured
      --max-rate BYTES   write at most so much per second; k, m or g may follow

  -h, --host HOST        a daemon on another machine: its host,
  -p, --port PORT        its management port,
  -U, --user NAME        an administrator,
  -P, --password TEXT    whose password everybody on this machine sees: better PGMONETA_PASSWORD, or be asked
  -L, --logfile FILE     accepted and not used: everything is reported on standard error
  -C, --compress CODEC   none, gz, zstd, lz4 or bz2: how request and response travel; what compress does
  -E, --encrypt CIPHER   none, aes256 (aes), aes192 or aes128: the same, and what encrypt does; needs the daemon's master key

A backup is a label or one of oldest, newest, latest. A position is a comma-separated list of latest (all WAL there
is), current or immediate, name=X, xid=X, lsn=X, time=X, inclusive=X, timeline=X, action=X, primary, replica.

Exit status: 0 success, 1 usage or no connection, 2 the daemon refused or failed, 130 interrupted.
`

func usage() string {
	return fmt.Sprintf("pgmoneta-cli %s: commands for a running pgmoneta\n\nUsage: pgmoneta-cli [options] <command>\n\n%s%s",
		version.Version, formHelp(forms()), optionHelp)
}

func formHelp(list []form) string {
	var b strings.Builder
	for _, f := range list {
		fmt.Fprintf(&b, "  pgmoneta-cli %s\n        %s\n", strings.TrimSpace(f.name()+" "+f.args), f.help)
	}
	return b.String()
}
