# Part "wal" of bench.sh: what a receiver costs the primary, how fast it catches up, how fast segments come out again.
# Sourced, never run.

# Every load runs before it is measured, for longer than the 5 s in which pgmoneta looks whether commits wait for it.
readonly patience=12 warm=6

# bench_load SECONDS OPTION...: pgbench on all tables.
bench_load() {
	local length=$1
	shift
	(as "$clients/pgbench" -h "$home/run" -p "$port" -U postgres -n -c 4 -j 2 -T "$length" "$@" postgres) >"$home/log/pgbench.log" 2>&1 ||
		die "pgbench: $(tail -n 5 "$home/log/pgbench.log")"
}

# sample_lag APPLICATION FROM: what of the WAL after FROM the receiver has not reported as flushed, five times a second into
# $home/log/lags, while the load runs.
sample_lag() {
	sql "$port" <<-SQL 2>/dev/null | grep -E '^[0-9]+$' >"$home/log/lags" || true
		SELECT pg_wal_lsn_diff(pg_current_wal_flush_lsn(), greatest(max(flush_lsn), '$2'))::bigint FROM pg_stat_replication
		WHERE application_name = '$1' AND state = 'streaming' \watch i=0.2 c=$((seconds * 5))
	SQL
}

# load KEY [APPLICATION PIDFILE]: one run of pgbench beside a receiver, whose process PIDFILE names.
load() {
	local key=$1 app=${2:-} worker=${3:-} first last bytes before start sampler=
	sql "$port" -c CHECKPOINT
	bench_load "$warm"
	rm -rf "${home:?}/latency"
	mkdir "$home/latency"
	own "$home/latency"
	first=$(sql "$port" -c 'SELECT pg_current_wal_lsn()') before=$(process "$worker")
	if [ -n "$app" ]; then
		sample_lag "$app" "$first" &
		sampler=$!
	fi
	bench_load "$seconds" -l "--log-prefix=$home/latency/l"
	start=$(now)
	last=$(sql "$port" -c 'SELECT pg_current_wal_lsn()')
	bytes=$(sql "$port" -c "SELECT pg_wal_lsn_diff('$last', '$first')")
	record "$key.tps" "$(awk '/^tps/ { print $3 }' "$home/log/pgbench.log")"
	record "$key.wal" "$(quotient "$bytes" "$seconds" %.0f)"
	latencies "$key"
	[ -n "$app" ] || return 0
	record "$key.cpu" "$(awk -v a="$before" -v b="$(process "$worker")" -v n="$bytes" 'BEGIN { printf "%.3f", (b - a) / n * 1e9 }')"
	record "$key.peak" "$(memory "$(cat "$worker")")"
	if await "$patience" "catching up" caught_up "$app"; then record "$key.catch" "$(elapsed "$start")"; else record "$key.catch" "$patience"; fi
	wait "$sampler"
	record "$key.lag" "$(sort -g "$home/log/lags" | tail -n 1)"
}

# latencies KEY: percentiles of the third field of pgbench's log, microseconds.
latencies() {
	local percent
	cat "$home/latency"/l* | awk '{ print $3 }' | sort -g >"$home/log/latencies"
	for percent in 50 99; do
		record "$1.p$percent" "$(awk -v p="$percent" '{ v[NR] = $1 } END { n = int((NR * p + 99) / 100); print v[n] }' "$home/log/latencies")"
	done
	rm -rf "${home:?}/latency"
}

# peer_up [OPTION...]: starts pg_receivewal.
peer_up() {
	mkdir -p "$home/peer-wal"
	own "$home/peer-wal"
	(as PGPASSFILE="$home/conf/pgpass" "$pgbin/pg_receivewal" -h 127.0.0.1 -p "$port" -U repl -w -D "$home/peer-wal" --slot peer "$@") >"$home/log/receivewal.log" 2>&1 &
	printf '%s\n' "$!" >"$home/run/peer.pid"
}

peer_down() { end_process "$home/run/peer.pid" INT; }

streams() { [ -n "$(sql "$port" -c "SELECT 1 FROM pg_stat_replication WHERE application_name = '$1' AND state = 'streaming'")" ]; }

synchronous() {
	sql "$port" -c "ALTER SYSTEM SET synchronous_standby_names = '$1'" -c 'SELECT pg_reload_conf()' >/dev/null
	[ -z "$1" ] || await 10 "commits to wait" commits_wait || die "no commit waits for $1"
}

commits_wait() { [ -n "$(sql "$port" -c "SELECT 1 FROM pg_stat_replication WHERE sync_state = 'sync'")" ]; }

# under_load none|ours|peer: the load beside that receiver, asynchronous and synchronous.
under_load() {
	case $1 in
	none) load load.none ;;
	ours)
		up
		load load.ours pgmoneta "$home/run/daemon.pid"
		synchronous pgmoneta
		load sync.ours pgmoneta "$home/run/daemon.pid"
		synchronous ''
		down
		;;
	peer)
		new_slot
		peer_load load.peer "" --status-interval=1
		peer_load sync.peer pg_receivewal --synchronous
		synchronous ''
		drop_slot
		;;
	esac
}

# peer_load KEY SYNCHRONOUS OPTION...
peer_load() {
	local key=$1 waits=$2
	shift 2
	peer_up "$@"
	await 60 "pg_receivewal" streams pg_receivewal || die "pg_receivewal: $(tail -n 5 "$home/log/receivewal.log")"
	synchronous "$waits"
	load "$key" pg_receivewal "$home/run/peer.pid"
	peer_down
	rm -rf "${home:?}/peer-wal"
}

new_slot() { sql "$port" -c "SELECT pg_create_physical_replication_slot('peer', true)" >/dev/null; }

drop_slot() { sql "$port" -c "SELECT pg_drop_replication_slot('peer')" >/dev/null; }

# ---------------------------------------------------------------------------------------------------------------------

# write_wal: about BENCH_CATCHUP MB of WAL of rows such as pgbench's; sets target, its end, and last_segment, the last
# one that is full.
write_wal() {
	sql "$port" -c 'CREATE TABLE filler (aid int, bid int, abalance int, filler char(84))' \
		-c "INSERT INTO filler SELECT n, n / 100000, (random() * 10000)::int, md5(n::text) FROM generate_series(1, $catchup * 6300) n" -c 'DROP TABLE filler'
	target=$(sql "$port" -c 'SELECT pg_switch_wal()')
	last_segment=$(sql "$port" -c "SELECT pg_walfile_name('$target')")
}

flushed_to_target() { [ "$(sql "$port" -c "SELECT max(flush_lsn) >= '$target' FROM pg_stat_replication WHERE application_name = 'pgmoneta'")" = t ]; }

# catch_up RECEIVER: from its start until it has the target on disk. pg_receivewal tells so by the segment's final name.
catch_up() {
	local start
	sync
	start=$(now)
	case $1 in
	ours)
		start_daemon
		await 300 "catching up" flushed_to_target || die "pgmoneta does not catch up; $(daemon_trouble)"
		record catchup.ours "$(quotient "$behind" "$(elapsed "$start")" %.0f)"
		await 300 "storing" test -e "$(stored_segment "$last_segment")" || die "$last_segment is not stored; $(daemon_trouble)"
		record catchup.ours.cpu "$(quotient "$(process "$home/run/daemon.pid")" "$behind" %.12f)"
		down
		;;
	peer)
		peer_up
		await 300 "catching up" test -e "$home/peer-wal/$last_segment" || die "pg_receivewal: $(tail -n 5 "$home/log/receivewal.log")"
		record catchup.peer "$(quotient "$behind" "$(elapsed "$start")" %.0f)"
		record catchup.peer.cpu "$(quotient "$(process "$home/run/peer.pid")" "$behind" %.12f)"
		peer_down
		;;
	esac
}

stored_segment() { printf '%s\n' "$home/repo/$server/wal/${1:0:8}/$1"; }

# fall_behind ROUND: both receivers are down while WAL is written, then they catch up one after the other.
fall_behind() {
	local receiver first behind
	up
	down
	new_slot
	first=$(sql "$port" -c 'SELECT pg_current_wal_lsn()')
	write_wal
	behind=$(sql "$port" -c "SELECT pg_wal_lsn_diff('$target', '$first')")
	record catchup.bytes "$behind"
	for receiver in $(in_turn "$1" ours peer); do catch_up "$receiver"; done
	drop_slot
}

# deliver KEY COMMAND: gets every segment as a recovery does, one after the other through a shell; %f and %p as in
# restore_command, %s is the stored object.
deliver() {
	local key=$1 count start segment command
	count=$(wc -l <"$home/log/segments")
	while read -r segment; do
		command=${2//%f/$segment}
		command=${command//%s/$(stored_segment "$segment")}
		printf 'rm -f pg_wal/RECOVERYXLOG; sh -c "%s" || exit 1\n' "${command//%p/pg_wal/RECOVERYXLOG}"
	done <"$home/log/segments" >"$home/log/deliver"
	rm -rf "${home:?}/standby"
	mkdir -p "$home/standby/pg_wal"
	own "$home/standby"
	sync
	start=$(now)
	(as bash -c 'cd standby && . ../log/deliver') >"$home/log/deliver.out" 2>&1 || die "$key: $(tail -n 3 "$home/log/deliver.out")"
	record "$key" "$(quotient "$count" "$(elapsed "$start")")"
	await 90 "prefetching to end" prefetch_ended || die "a process that prefetches does not end"
	rm -rf "${home:?}/standby"
}

prefetch_ended() { ! pgrep -U "$account" -f "prefetch --config $home/" >/dev/null; }

# segments_out ROUND: the segments that both receivers have, in all ways.
segments_out() {
	local way zstd get="pgmoneta-wal get -c $home/conf/pgmoneta.conf"
	zstd=$(command -v zstd) || die "the program zstd is missing; mend: test/install/postgres.sh --tools"
	find "$home/peer-wal" -type f -regex '.*/[0-9A-F]*' -printf '%f\n' | sort | while read -r segment; do
		[ ! -e "$(stored_segment "$segment")" ] || printf '%s\n' "$segment"
	done >"$home/log/segments"
	for way in $(in_turn "$1" prefetch plain zstd cp); do
		case $way in
		prefetch) deliver get.prefetch "$get $server %f %p" ;;
		plain) deliver get.plain "$get --prefetch 0 $server %f %p" ;;
		zstd) deliver get.zstd "$zstd -q -d -o %p %s" ;;
		cp) deliver get.cp "cp $home/peer-wal/%f %p" ;;
		esac
	done
	rm -rf "${home:?}/peer-wal"
}

measure_wal() {
	local round receiver
	for ((round = 1; round <= rounds; round++)); do
		note "round $round of $rounds: WAL under load"
		for receiver in $(in_turn "$round" none ours peer); do under_load "$receiver"; done
	done
	for ((round = 1; round <= rounds; round++)); do
		note "round $round of $rounds: catching up and delivering"
		fall_behind "$round"
		segments_out "$round"
	done
}

# ---------------------------------------------------------------------------------------------------------------------

load_rows() {
	pair 'transactions per s' "$1.ours.tps" "$1.peer.tps" 1 %.0f
	pair 'commit latency p50, ms' "$1.ours.p50" "$1.peer.p50" 1000 %.2f
	pair 'commit latency p99, ms' "$1.ours.p99" "$1.peer.p99" 1000 %.2f
	pair 'WAL, MB per s' "$1.ours.wal" "$1.peer.wal" 1e6
	pair 'CPU s of the receiver per GB of WAL' "$1.ours.cpu" "$1.peer.cpu" 1 %.2f
	pair 'largest flush lag, MB' "$1.ours.lag" "$1.peer.lag" 1e6 %.2f
	pair "flushed after the end, s ($patience = gave up)" "$1.ours.catch" "$1.peer.catch" 1 %.2f
	pair 'memory of all processes, MB' "$1.ours.peak" "$1.peer.peak" 1e6
}

wal_table() {
	pair_head "WAL under pgbench -c 4 -T $seconds; peer: pg_receivewal --status-interval=1, which does not compress"
	printf 'without any receiver: %s transactions per s, p50 %s ms, p99 %s ms\n' "$(show load.none.tps 1 %.0f)" "$(show load.none.p50 1000 %.2f)" "$(show load.none.p99 1000 %.2f)"
	load_rows load
	pair_head 'the same, named in synchronous_standby_names; peer: pg_receivewal --synchronous'
	load_rows sync
	pair_head "catching up with $(show catchup.bytes 1e6 %.0f) MB of WAL, from the start of the program until all is flushed"
	pair 'MB per s' catchup.ours catchup.peer 1e6
	pair 'CPU s per GB, compressed and stored' catchup.ours.cpu catchup.peer.cpu 1e-9 %.2f
	pair_head 'segments per s through restore_command; peer: cp of plain segments'
	pair 'pgmoneta-wal get' get.prefetch get.cp
	pair 'pgmoneta-wal get --prefetch 0' get.plain get.cp
	pair 'zstd -d of the stored object' get.zstd get.cp
}
