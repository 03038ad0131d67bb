#!/usr/bin/env bash
#
# bench.sh measures pgmoneta beside pg_basebackup, pg_receivewal and pgBackRest: same server, same data, same run, in turn
# and backwards in every second round (A B B A), medians of the rounds. It prints tables; BENCH_OUT names a file that gets
# them too. The programs beside it are fetched by test/install/postgres.sh.
#
#   BENCH_ONLY      parts, in words: backup restore recovery wal (default: all)
#   BENCH_FULL      1: all codecs with all sources, and pg_combinebackup; twice as long
#   BENCH_SCALE     pgbench scale, 200 is about 3 GB (default 200); 5 is for trying out
#   BENCH_ROUNDS    rounds of each measurement (default 3)
#   BENCH_SECONDS   length of each pgbench run, after 6 s that do not count (default 10)
#   BENCH_CATCHUP   MB of WAL that the receivers catch up with (default 1024)
#   BENCH_REPLAY    MB of WAL that follow the backup in part recovery (default 2048)
#   BENCH_DIR       private directory, on the disk to be measured (default /tmp/pgmoneta-bench-<user>); it needs
#                   five times the data and 10 GB
#   BENCH_OUT       file for the tables
#
# backup.sh, restore.sh, recovery.sh and wal.sh are the parts; lib/measure.sh has what a number is, lib/source.sh the programs.
#
# CPU seconds are those of the tool's processes (of pgmoneta the daemon's, its WAL receiver included) and, apart, those of
# PostgreSQL's. Peak memory is the sum of the tool's processes. Everything is removed at the end, however it ends. Wall
# times on a shared machine are noisy: read the ratios.

# shellcheck source-path=SCRIPTDIR
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)

. "$here/../demo/lib.sh"
. "$here/lib/measure.sh"
. "$here/lib/source.sh"

readonly scale=${BENCH_SCALE:-200} rounds=${BENCH_ROUNDS:-3} seconds=${BENCH_SECONDS:-10} catchup=${BENCH_CATCHUP:-1024} replay=${BENCH_REPLAY:-2048}
readonly parts=${BENCH_ONLY:-backup restore recovery wal} full=${BENCH_FULL:-0} out=${BENCH_OUT:-}
hz=$(getconf CLK_TCK)

. "$here/backup.sh"
. "$here/restore.sh"
. "$here/recovery.sh"
. "$here/wal.sh"

cleanup() {
	local status=$?
	trap - EXIT
	rm -f "$home/run/watch"
	end_process "$home/run/command.pid" TERM
	end_process "$home/run/peer.pid" INT
	end_process "$home/run/daemon.pid" TERM
	stop_server "$home/source"
	wait
	remove_home "$home"
	exit "$status"
}

head_of_tables() {
	printf 'pgmoneta %s, PostgreSQL %s, %s, %s CPUs, %s\n' "$("$home/bin/pgmoneta-cli" -V | awk '{ print $2 }')" \
		"$("$pgbin/postgres" --version | awk '{ print $3 }')" "$("$pgbackrest" version)" "$(nproc)" "$(date -u +%F)"
	printf 'pgbench scale %s: %s of data; medians of %s rounds, in turn\ncolumns that begin with / divide the time by that of the program named; ratio is pgmoneta / peer\n' "$scale" "$(human "$data_bytes")" "$rounds"
	printf 'load of the machine before it began: %s; all of it took %s min\n' "$foreign_load" "$(quotient "$SECONDS" 60 %.0f)"
}

programs_table() {
	local program
	printf '\n%s\n' '--- other'
	printf '%-48s %14s\n' 'start of the daemon to its first answer, ms' "$(show start 0.001 %.0f)"
	for program in pgmoneta pgmoneta-cli pgmoneta-admin pgmoneta-config pgmoneta-wal; do
		printf '%-48s %14s\n' "size of $program, MB" "$(quotient "$(stat -c %s "$home/bin/$program")" 1e6 %.1f)"
	done
}

foreign_load=$(cut -d ' ' -f 1 /proc/loadavg)
for part in $parts; do
	case $part in backup | restore | recovery | wal) ;; *) die "no such part: $part; BENCH_ONLY takes backup, restore, recovery, wal" ;; esac
done
find_postgres 17
make_home "${BENCH_DIR:-/tmp/pgmoneta-bench-$(id -un)}"
[ ! -e "$home/source" ] || die "$home is in use by another run"
trap cleanup EXIT
install_programs
: >"$home/log/results"
note "PostgreSQL with pgbench scale $scale"
make_source "$scale"
make_daemon
find_pgbackrest

for part in $parts; do "measure_$part"; done

{
	head_of_tables
	for part in $parts; do "${part}_table"; done
	programs_table
} >"$home/log/table"
cat "$home/log/table"
if [ -n "$out" ]; then cp "$home/log/table" "$out"; fi
