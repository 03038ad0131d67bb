#!/usr/bin/env bash
#
# bench.sh measures pgmoneta beside PostgreSQL's own pg_basebackup and pg_receivewal: same server, same data, same run, in
# turn (A B A B A B), medians of the rounds. It prints one table; BENCH_OUT names a file that gets it too.
#
#   BENCH_SCALE     pgbench scale, 200 is about 3 GB (default 200)
#   BENCH_ROUNDS    rounds of each measurement (default 3)
#   BENCH_SECONDS   length of each pgbench run (default 20)
#   BENCH_DIR       private directory, on the disk to be measured (default /tmp/pgmoneta-bench-<user>)
#   BENCH_OUT       file for the table
#
# Everything is removed at the end, however it ends. Wall times on a shared machine are noisy: read the ratios.

set -euo pipefail

. "$(dirname "$0")/../demo/lib.sh"

readonly scale=${BENCH_SCALE:-200} rounds=${BENCH_ROUNDS:-3} seconds=${BENCH_SECONDS:-20} out=${BENCH_OUT:-}
readonly server=bench patience=12

note() { printf '%s %s\n' "$(date +%T)" "$*" >&2; }

# median NUMBER...
median() { printf '%s\n' "$@" | sort -g | awk '{ v[NR] = $1 } END { if (NR) print (NR % 2) ? v[(NR + 1) / 2] : (v[NR / 2] + v[NR / 2 + 1]) / 2 }'; }

elapsed() { awk -v a="$1" -v b="$EPOCHREALTIME" 'BEGIN { printf "%.3f", b - a }'; }

quotient() { awk -v a="$1" -v b="$2" -v f="${3:-%.2f}" 'BEGIN { if (b > 0) printf f, a / b; else printf "-" }'; }

# watch_memory: keeps the highest VmHWM of every kind of process of ours in $home/log/memory, as "kind kB".
watch_memory() {
	local pid title peak key
	declare -A highest=()
	while [ -e "$home/run/watch" ]; do
		for pid in $(pgrep -U "$account" -x 'pgmoneta|wal|backup|restore|verify|delete' 2>/dev/null || true) $(pgrep -U "$account" -f '^pgmoneta: ' 2>/dev/null || true); do
			case $(readlink "/proc/$pid/exe" 2>/dev/null) in "$home/bin/pgmoneta"*) ;; *) continue ;; esac
			title=$(tr '\0' ' ' <"/proc/$pid/cmdline" 2>/dev/null) || continue
			peak=$(awk '/^VmHWM/ { print $2 }' "/proc/$pid/status" 2>/dev/null) || continue
			case $title in
			*': wal '*) key=wal ;;
			*': backup '*) key=backup ;;
			*': restore '*) key=restore ;;
			*': verify '*) key=verify ;;
			*': delete '*) key=delete ;;
			*) key=supervisor ;;
			esac
			if [ "${peak:-0}" -gt "${highest[$key]:-0}" ]; then
				highest[$key]=$peak
				for key in "${!highest[@]}"; do printf '%s %s\n' "$key" "${highest[$key]}"; done >"$home/log/memory"
			fi
		done
		sleep 0.05
	done
}

memory_of() { awk -v k="$1" '$1 == k { print $2 * 1024 }' "$home/log/memory"; }

# up: starts the daemon and appends the time until its first answer to startups.
up() {
	local start deadline=$((SECONDS + 30))
	start=$(now)
	start_daemon
	until cli ping >/dev/null 2>&1; do
		[ "$SECONDS" -lt "$deadline" ] || die "pgmoneta does not answer; $(daemon_trouble)"
	done
	startups+=("$(elapsed "$start")")
	await 120 "streaming" caught_up pgmoneta || die "pgmoneta does not catch up; $(daemon_trouble)"
}

down() { end_process "$home/run/daemon.pid" TERM; }

# lag APPLICATION: bytes of WAL that are flushed on the server and not by the receiver.
lag() {
	sql "$port" -c "SELECT coalesce(pg_wal_lsn_diff(pg_current_wal_flush_lsn(), max(flush_lsn)), -1)::bigint
		FROM pg_stat_replication WHERE application_name = '$1' AND state = 'streaming'"
}

caught_up() { [ "$(lag "$1")" = 0 ]; }

# our_backup: appends the time of one backup to ours_s and what it stored to ours_size.
our_backup() {
	local start before
	before=$(size_of "$home/repo/$server/pack")
	start=$(now)
	cli backup "$server" >"$home/log/backup.out" 2>&1 || die "backup: $(tail -n 5 "$home/log/backup.out"); $(daemon_trouble)"
	ours_s+=("$(elapsed "$start")")
	ours_size+=("$(($(size_of "$home/repo/$server/pack") - ${before:-0}))")
}

their_backup() {
	local start dir=$home/peer
	start=$(now)
	(as PGPASSFILE="$home/conf/pgpass" "$pgbin/pg_basebackup" -h 127.0.0.1 -p "$port" -U repl -w -D "$dir" -Ft --compress=client-zstd:3 --checkpoint=fast) >"$home/log/basebackup.log" 2>&1 ||
		die "pg_basebackup: $(tail -n 5 "$home/log/basebackup.log")"
	theirs_s+=("$(elapsed "$start")")
	rm -f "$dir"/pg_wal.tar* # ours has the WAL anyway, in another place
	theirs_size+=("$(size_of "$dir")")
	rm -rf "${dir:?}"
}

restore() {
	local start dir=$home/restored
	mkdir -p "$dir" && own "$dir"
	start=$(now)
	cli restore "$server" newest "$dir" >"$home/log/restore.out" 2>&1 || die "restore: $(tail -n 5 "$home/log/restore.out"); $(daemon_trouble)"
	restore_s+=("$(elapsed "$start")")
	restored_bytes=$(size_of "$dir")
	rm -rf "${dir:?}"
}

# load NAME [APPLICATION]: one pgbench run; appends to tps_NAME, wal_NAME (bytes/s), lag_NAME and catch_NAME.
load() {
	local name=$1 app=${2:-} first last start
	sql "$port" -c CHECKPOINT
	first=$(sql "$port" -c 'SELECT pg_current_wal_lsn()')
	(as "$clients/pgbench" -h "$home/run" -p "$port" -U postgres -n -c 4 -j 2 -T "$seconds" postgres) >"$home/log/pgbench.log" 2>&1 ||
		die "pgbench: $(tail -n 5 "$home/log/pgbench.log")"
	start=$(now)
	declare -n tps=tps_$name wal=wal_$name
	if [ -n "$app" ]; then
		declare -n lags=lag_$name catches=catch_$name
		lags+=("$(lag "$app")")
		if await "$patience" "catching up" caught_up "$app"; then catches+=("$(elapsed "$start")"); else catches+=("$patience"); fi
	fi
	last=$(sql "$port" -c 'SELECT pg_current_wal_lsn()')
	tps+=("$(awk '/^tps/ { print $3 }' "$home/log/pgbench.log")")
	wal+=("$(quotient "$(sql "$port" -c "SELECT pg_wal_lsn_diff('$last', '$first')")" "$seconds" %.0f)")
}

# peer_load NAME [OPTION...]: the same with pg_receivewal.
peer_load() {
	local name=$1
	shift
	mkdir -p "$home/peer-wal" && own "$home/peer-wal"
	(as PGPASSFILE="$home/conf/pgpass" "$pgbin/pg_receivewal" -h 127.0.0.1 -p "$port" -U repl -w -D "$home/peer-wal" --slot peer "$@") >"$home/log/receivewal.log" 2>&1 &
	printf '%s\n' "$!" >"$home/run/peer.pid"
	await 60 "pg_receivewal" streams pg_receivewal || die "pg_receivewal: $(tail -n 5 "$home/log/receivewal.log")"
	load "$name" pg_receivewal
	end_process "$home/run/peer.pid" INT
	rm -rf "${home:?}/peer-wal"
}

streams() { [ -n "$(sql "$port" -c "SELECT 1 FROM pg_stat_replication WHERE application_name = '$1' AND state = 'streaming'")" ]; }

synchronous() {
	sql "$port" -c "ALTER SYSTEM SET synchronous_standby_names = '$1'" -c 'SELECT pg_reload_conf()' >/dev/null
	sleep 6 # pgmoneta looks every 5 s whether commits wait for it
}

cleanup() {
	local status=$?
	trap - EXIT
	rm -f "$home/run/watch"
	end_process "$home/run/peer.pid" INT
	end_process "$home/run/daemon.pid" TERM
	stop_server "$home/source"
	wait
	remove_home "$home"
	exit "$status"
}

# ---------------------------------------------------------------------------------------------------------------------

foreign_load=$(cut -d ' ' -f 1 /proc/loadavg)
find_postgres 17
make_home "${BENCH_DIR:-/tmp/pgmoneta-bench-$(id -un)}"
[ ! -e "$home/source" ] || die "$home is in use by another run"
trap cleanup EXIT
install_programs
free_port && port=$chosen_port
startups=() ours_s=() ours_size=() theirs_s=() theirs_size=() restore_s=()
for name in none ours theirs sync_ours sync_theirs; do
	for what in tps wal lag catch; do declare -a "${what}_$name=()"; done
done

note "PostgreSQL with pgbench scale $scale"
new_server "$home/source" "$port"
cat >>"$home/source/postgresql.conf" <<-CONF
	shared_buffers = '1GB'
	max_wal_size = '8GB'
	checkpoint_timeout = '1h'
	autovacuum = off
	wal_compression = off
CONF
start_server "$home/source" "$home/log/source.log"
password=$(od -An -N16 -tx1 /dev/urandom | tr -d ' \n')
sql "$port" -c "CREATE ROLE repl LOGIN REPLICATION PASSWORD '$password'"
(as "$clients/pgbench" -h "$home/run" -p "$port" -U postgres -i -q -s "$scale" postgres) >"$home/log/pgbench.log" 2>&1 || die "pgbench -i: $(tail -n 3 "$home/log/pgbench.log")"
sql "$port" -c CHECKPOINT -c "SELECT pg_create_physical_replication_slot('peer', true)" >/dev/null
data_bytes=$(size_of "$home/source/base" "$home/source/global")

printf '127.0.0.1:*:*:repl:%s\n' "$password" >"$home/conf/pgpass"
chmod 600 "$home/conf/pgpass"
cat >"$home/conf/pgmoneta.conf" <<-CONF
	[pgmoneta]
	host = 127.0.0.1
	base_dir = $home/repo
	unix_socket_dir = $home/run
	compression = zstd
	compression_level = 3
	create_slot = yes
	log_type = file
	log_path = $home/log/pgmoneta.log

	[$server]
	host = 127.0.0.1
	port = $port
	user = repl
	wal_slot = pgmoneta
CONF
own "$home/conf"
(as "$home/bin/pgmoneta-admin" master-key -g) >"$home/log/admin.log" 2>&1 || die "pgmoneta-admin master-key: $(cat "$home/log/admin.log")"
printf '%s\n%s\n' "$password" "$password" | (as "$home/bin/pgmoneta-admin" -f "$home/conf/pgmoneta_users.conf" -U repl user add) >"$home/log/admin.log" 2>&1 ||
	die "pgmoneta-admin user add: $(cat "$home/log/admin.log")"

: >"$home/run/watch"
watch_memory &

note "daemon"
up
for ((round = 1; round <= rounds; round++)); do
	note "round $round of $rounds: backup"
	our_backup
	their_backup
done
for ((round = 1; round <= rounds; round++)); do
	note "round $round of $rounds: restore"
	restore
done
down
for ((round = 1; round <= rounds; round++)); do
	note "round $round of $rounds: WAL"
	load none
	up
	load ours pgmoneta
	synchronous pgmoneta
	load sync_ours pgmoneta
	synchronous ''
	down
	peer_load theirs
	synchronous pg_receivewal
	peer_load sync_theirs --synchronous
	synchronous ''
done
rm -f "$home/run/watch"

# ---------------------------------------------------------------------------------------------------------------------

# row WHAT OURS PEER RATIO
row() { printf '%-44s %14s %14s %8s\n' "$@"; }

# number WHAT FORMAT OURS PEER: a row with its ratio.
number() { row "$1" "$(printf "$2" "$3")" "$(printf "$2" "$4")" "$(quotient "$3" "$4")"; }

spread() { printf '%s\n' "$@" | sort -g | awk 'NR == 1 { a = $1 } { b = $1 } END { printf "%.1f to %.1f", a, b }'; }

table() {
	local a b
	printf 'pgmoneta %s beside PostgreSQL %s, %s CPUs, %s\n' "$("$home/bin/pgmoneta-cli" -V | awk '{ print $2 }')" \
		"$("$pgbin/postgres" --version | awk '{ print $3 }')" "$(nproc)" "$(date -u +%F)"
	printf 'pgbench scale %s: %s of data; medians of %s rounds, in turn; ratio = pgmoneta / peer\n' "$scale" "$(human "$data_bytes")" "$rounds"
	printf 'load of the machine before it began: %s\n\n' "$foreign_load"
	row '' pgmoneta peer ratio
	printf '%s\n' '--- full backup; peer: pg_basebackup -Ft --compress=client-zstd:3'
	a=$(median "${ours_s[@]}") b=$(median "${theirs_s[@]}")
	number 'time, s' %.1f "$a" "$b"
	row '  fastest to slowest, s' "$(spread "${ours_s[@]}")" "$(spread "${theirs_s[@]}")" ''
	number 'rate, MB of data per s' %.0f "$(quotient "$data_bytes" "$a" %f | awk '{ print $1 / 1e6 }')" "$(quotient "$data_bytes" "$b" %f | awk '{ print $1 / 1e6 }')"
	number 'stored without WAL, MB' %.1f "$(median "${ours_size[@]}" | awk '{ print $1 / 1e6 }')" "$(median "${theirs_size[@]}" | awk '{ print $1 / 1e6 }')"
	printf '%s\n' '--- restore of it'
	a=$(median "${restore_s[@]}")
	row 'time, s' "$(printf %.1f "$a")" '' ''
	row 'rate, MB of data per s' "$(quotient "$restored_bytes" "$a" %f | awk '{ printf "%.0f", $1 / 1e6 }')" '' ''
	printf '%s\n' "--- WAL under pgbench -c 4 -T $seconds; peer: pg_receivewal, which does not compress"
	row 'transactions per s without any receiver' "$(printf %.0f "$(median "${tps_none[@]}")")" '' ''
	number 'transactions per s, asynchronous' %.0f "$(median "${tps_ours[@]}")" "$(median "${tps_theirs[@]}")"
	number 'WAL, MB per s' %.1f "$(median "${wal_ours[@]}" | awk '{ print $1 / 1e6 }')" "$(median "${wal_theirs[@]}" | awk '{ print $1 / 1e6 }')"
	number 'not reported flushed at the end, kB' %.0f "$(median "${lag_ours[@]}" | awk '{ print $1 / 1024 }')" "$(median "${lag_theirs[@]}" | awk '{ print $1 / 1024 }')"
	row "time until it is, s ($patience = gave up)" "$(printf %.2f "$(median "${catch_ours[@]}")")" "$(printf %.2f "$(median "${catch_theirs[@]}")")" ''
	printf '%s\n' '--- the same, named in synchronous_standby_names; peer: pg_receivewal --synchronous'
	number 'transactions per s' %.0f "$(median "${tps_sync_ours[@]}")" "$(median "${tps_sync_theirs[@]}")"
	number 'WAL, MB per s' %.1f "$(median "${wal_sync_ours[@]}" | awk '{ print $1 / 1e6 }')" "$(median "${wal_sync_theirs[@]}" | awk '{ print $1 / 1e6 }')"
	printf '%s\n' '--- peak resident memory, MB'
	for a in supervisor wal backup restore; do
		b=$(memory_of "$a")
		row "$a" "$(if [ -n "$b" ]; then quotient "$b" 1000000 %.1f; else printf '%s' -; fi)" '' ''
	done
	printf '%s\n' '--- other'
	row 'start of the daemon to its first answer, ms' "$(median "${startups[@]}" | awk '{ printf "%.0f", $1 * 1000 }')" '' ''
	for a in pgmoneta pgmoneta-cli pgmoneta-admin; do
		row "size of $a, MB" "$(quotient "$(stat -c %s "$home/bin/$a")" 1000000 %.1f)" '' ''
	done
}

table >"$home/log/table"
cat "$home/log/table"
if [ -n "$out" ]; then cat "$home/log/table" >"$out"; fi
