#!/usr/bin/env bash
#
# demo.sh shows the whole of pgmoneta on a PostgreSQL server of its own: WAL streaming, a backup under load, a disaster,
# a restore to the moment before it, and the proof that nothing that was committed then is missing.
#
# Everything lies in one private directory, $PGMONETA_DEMO_DIR or /tmp/pgmoneta-demo-<user>; servers and daemon go on
# running in it until stop.sh. As root all of it runs as user postgres. PGMONETA_DEMO_PGBIN names the programs
# of another PostgreSQL than 17, PGMONETA_DEMO_SCALE the size (10, about 150 MB).
#
# Exit status 0 means that the restored data are exactly those of the recorded moment.

set -euo pipefail

. "$(dirname "$0")/lib.sh"

readonly scale=${PGMONETA_DEMO_SCALE:-10}
readonly server=demo
bold='' plain=''
if [ -t 1 ]; then bold=$'\e[1m' plain=$'\e[0m'; fi
began=$(now)
steps=0

step() {
	steps=$((steps + 1))
	printf '\n%s%d. %s%s\n' "$bold" "$steps" "$*" "$plain"
}

say() { printf '   %s\n' "$*"; }

# typed COMMAND: the command as a person would type it.
typed() { printf '   $ %s\n' "$*"; }

indent() { sed 's/^/     /'; }

# show ARGUMENT...: runs pgmoneta-cli, shows command and output, fails with it.
show() {
	local words='' word out status=0
	for word in "$@"; do
		case $word in *' '*) words="$words '$word'" ;; *) words="$words $word" ;; esac
	done
	typed "pgmoneta-cli -c $home/conf/pgmoneta.conf$words"
	out=$(cli "$@" 2>&1) || status=$?
	printf '%s\n' "$out" >"$home/log/last.out"
	if [ "$status" -ne 0 ]; then
		printf '%s\n' "$out" | indent
		die "pgmoneta-cli $1 ended with status $status; $(daemon_trouble)"
	fi
}

# response: the part of the last output that answers.
response() { sed '1,/^Response/d' "$home/log/last.out"; }

# lines PATTERN: those of the response that matter here.
lines() { response | grep -E "$1" | indent || true; }

field() { response | sed -nE "s/^ *(- )?$1: (.*)$/\\2/p" | head -n 1; }

# The fingerprint of a table: rows, and a checksum over the md5 of every row that does not depend on their order.
fingerprints() {
	local table
	for table in pgbench_accounts pgbench_branches pgbench_tellers pgbench_history ledger; do
		printf "SELECT '%s', count(*), md5(coalesce(sum(('x' || left(md5(t::text), 16))::bit(64)::bigint::numeric), 0)::text) FROM %s t;\n" "$table" "$table"
	done
}

start_load() {
	if [ -x "$clients/pgbench" ]; then
		(as "$clients/pgbench" -h "$home/run" -p "$port" -U postgres -n -c 4 -j 2 -T 600 postgres) </dev/null >"$home/log/load.log" 2>&1 &
	else
		load_loop </dev/null >"$home/log/load.log" 2>&1 &
	fi
	printf '%s\n' "$!" >"$home/run/load.pid"
}

load_loop() {
	while :; do
		printf 'UPDATE pgbench_accounts SET abalance = abalance + 1 WHERE aid = %d; INSERT INTO pgbench_history VALUES (1, 1, %d, 1, now());\n' "$RANDOM" "$RANDOM"
	done | (as "$clients/psql" -X -q -h "$home/run" -p "$port" -U postgres -d postgres "# $home")
}

# stop_load waits until no statement of it is under way any more.
stop_load() {
	local pid
	pid=$(cat "$home/run/load.pid")
	kill -INT "$pid" 2>/dev/null || true
	wait "$pid" 2>/dev/null || true
	rm -f "$home/run/load.pid"
	await 20 "end of the load" idle || die "statements of the load are still running"
}

idle() {
	[ "$(sql "$port" -c "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' AND datname = 'postgres' AND state <> 'idle' AND pid <> pg_backend_pid()")" = 0 ]
}

writing() { [ "$(transactions)" -gt 100 ]; }

transactions() { sql "$port" -c 'SELECT count(*) FROM pgbench_history'; }

# received LSN: whether pgmoneta has acknowledged everything up to there.
received() {
	[ "$(sql "$port" -c "SELECT coalesce(max(flush_lsn), '0/0') >= '$1' FROM pg_stat_replication WHERE application_name = 'pgmoneta'")" = t ]
}

# settled: the restored server has reached its target: it was promoted, or waits there.
settled() {
	[ "$(sql "$restored_port" -c "SELECT NOT pg_is_in_recovery() OR pg_get_wal_replay_pause_state() = 'paused'")" = t ]
}

on_exit() {
	local status=$?
	if [ "$status" -ne 0 ] && [ -n "${home:-}" ]; then
		printf '\nThe demonstration failed. Logs are in %s/log; "make demo-stop" removes everything.\n' "$home" >&2
		if [ -s "$home/run/load.pid" ]; then kill "$(cat "$home/run/load.pid")" 2>/dev/null || true; fi
	fi
}

PGMONETA_DEMO_DIR=${PGMONETA_DEMO_DIR:-/tmp/pgmoneta-demo-$(id -un)} "$(dirname "$0")/stop.sh" --quiet

if [ -n "${PGMONETA_DEMO_PGBIN:-}" ]; then
	pgbin=$PGMONETA_DEMO_PGBIN
	[ -x "$pgbin/postgres" ] || die "PGMONETA_DEMO_PGBIN=$pgbin has no program postgres"
	set_clients
else
	find_postgres 17
fi
make_home "${PGMONETA_DEMO_DIR:-/tmp/pgmoneta-demo-$(id -un)}"
trap on_exit EXIT
install_programs
printf '%s\n' "$pgbin" >"$home/run/pgbin"
free_port && port=$chosen_port
free_port && metrics_port=$chosen_port
free_port && restored_port=$chosen_port

printf 'pgmoneta: a demonstration in %s' "$home"
[ "$EUID" -ne 0 ] || printf ', everything as user %s' "$account"
printf '\n'

# ---------------------------------------------------------------------------------------------------------------------

step "A PostgreSQL server with data"
t=$(now)
new_server "$home/source" "$port"
start_server "$home/source" "$home/log/source.log"
mkdir "$home/tablespace" && own "$home/tablespace"
password=$(od -An -N16 -tx1 /dev/urandom | tr -d ' \n')
sql "$port" <<-SQL
	CREATE ROLE repl LOGIN REPLICATION PASSWORD '$password';
	CREATE TABLESPACE archive LOCATION '$home/tablespace';
	CREATE TABLE ledger TABLESPACE archive AS SELECT i AS id, md5(i::text) AS note FROM generate_series(1, 50000) i;
SQL
if [ -x "$clients/pgbench" ]; then
	(as "$clients/pgbench" -h "$home/run" -p "$port" -U postgres -i -q -s "$scale" postgres) >"$home/log/load.log" 2>&1 || die "pgbench -i: $(tail -n 3 "$home/log/load.log")"
else
	sql "$port" <<-SQL
		CREATE TABLE pgbench_branches AS SELECT i AS bid, 0 AS bbalance FROM generate_series(1, $scale) i;
		CREATE TABLE pgbench_tellers AS SELECT i AS tid, 0 AS tbalance FROM generate_series(1, $scale * 10) i;
		CREATE TABLE pgbench_accounts AS SELECT i AS aid, 0 AS abalance FROM generate_series(1, $scale * 100000) i;
		CREATE INDEX ON pgbench_accounts (aid);
		CREATE TABLE pgbench_history (tid int, bid int, aid int, delta int, mtime timestamp);
	SQL
fi
say "PostgreSQL $(sql "$port" -c 'SHOW server_version' | cut -d ' ' -f 1) on 127.0.0.1 port $port, $(human "$(size_of "$home/source" "$home/tablespace")"), one tablespace ($(since "$t") s)"
say "Role repl has LOGIN and REPLICATION and nothing else."

step "The password, encrypted with a master key"
typed "pgmoneta-admin master-key -g"
(as "$home/bin/pgmoneta-admin" master-key -g) >"$home/log/admin.log" 2>&1 || die "pgmoneta-admin master-key: $(cat "$home/log/admin.log")"
typed "pgmoneta-admin -f $home/conf/pgmoneta_users.conf -U repl user add"
printf '%s\n%s\n' "$password" "$password" |
	(as "$home/bin/pgmoneta-admin" -f "$home/conf/pgmoneta_users.conf" -U repl user add) >"$home/log/admin.log" 2>&1 ||
	die "pgmoneta-admin user add: $(cat "$home/log/admin.log")"
sed 's/\(:.\{12\}\).*/\1.../' "$home/conf/pgmoneta_users.conf" | indent

step "The configuration"
cat >"$home/conf/pgmoneta.conf" <<-CONF
	[pgmoneta]
	host = 127.0.0.1
	metrics = $metrics_port
	base_dir = $home/repo
	unix_socket_dir = $home/run
	compression = zstd
	create_slot = yes
	log_type = file
	log_path = $home/log/pgmoneta.log
	rehearse_bindir = $pgbin

	[$server]
	host = 127.0.0.1
	port = $port
	user = repl
	wal_slot = pgmoneta
CONF
own "$home/conf"
typed "cat $home/conf/pgmoneta.conf"
indent <"$home/conf/pgmoneta.conf"

step "The daemon starts and receives WAL"
typed "pgmoneta -c $home/conf/pgmoneta.conf -u $home/conf/pgmoneta_users.conf -A $home/conf/pgmoneta_admins.conf"
t=$(now)
start_daemon
await 30 "first answer" cli ping || die "pgmoneta does not answer; $(daemon_trouble)"
say "It answered after $(since "$t") s."
show ping
lines 'Status:|ServerVersion'
await 30 "streaming" received 0/1 || die "pgmoneta does not stream WAL; $(daemon_trouble)"
typed "ps, the process titles"
for p in $(pgrep -U "$account" -f "^pgmoneta: |$home/bin/pgmoneta " || true); do
	case $(readlink "/proc/$p/exe") in "$home"/*) ;; *) continue ;; esac
	args=$(tr '\0' ' ' <"/proc/$p/cmdline" 2>/dev/null) || continue
	printf '%s %s\n' "$p" "$args"
done | sort -n | indent

step "A backup, while clients write"
start_load
await 20 "first transactions" writing || die "the load does not run: $(tail -n 3 "$home/log/load.log")"
before=$(transactions)
t=$(now)
show backup "$server"
took=$(since "$t")
lines 'Backup:|BackupSize|RestoreSize|Compression|Valid'
label=$(field Backup)
[ -n "$label" ] || die "the backup has no label"
say "$took s, while $(($(transactions) - before)) transactions were committed. Stored: $(human "$(size_of "$home/repo/$server/pack")") of packs."
show list-backup "$server"
lines 'Backup: [0-9]|Valid'
grep -q "$label" "$home/log/last.out" || die "the backup $label is not listed"

step "The moment to come back to"
sleep 2
stop_load
sql "$port" >"$home/log/before.txt" <<-SQL
	BEGIN ISOLATION LEVEL REPEATABLE READ;
	$(fingerprints)
	COMMIT;
SQL
IFS='|' read -r moment lsn < <(sql "$port" -c "SELECT to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS.US') || '+00', pg_current_wal_lsn()")
say "Nobody writes at this moment: what is committed is exactly this."
indent <"$home/log/before.txt"
say "Time $moment, WAL position $lsn"
sleep 0.2

step "Life goes on, and then somebody drops a table"
start_load
sleep 3
typed "psql -c 'DROP TABLE pgbench_accounts, pgbench_history'"
stop_load
after=$(transactions)
sql "$port" -c 'DROP TABLE pgbench_accounts, pgbench_history'
sql "$port" -c 'UPDATE ledger SET note = NULL'
disaster=$(sql "$port" -c 'SELECT pg_current_wal_flush_lsn()')
say "$after transactions in all were committed before that; the damage is done at $disaster."
t=$(now)
await 20 "WAL of the disaster" received "$disaster" || die "pgmoneta has not acknowledged $disaster; $(daemon_trouble)"
say "pgmoneta has made all of it durable ($(since "$t") s later); it has no mercy on mistakes."

step "Restore to $moment"
mkdir -p "$home/restored" && own "$home/restored"
t=$(now)
show restore "$server" newest "time=$moment,action=promote" "$home/restored"
took=$(since "$t")
lines '^ *(Backup|RestoreSize|Directory|Supply|Segments|WALEnd): '
data=$(find "$home/restored" -mindepth 1 -maxdepth 2 -name PG_VERSION -printf '%h\n' | head -n 1)
[ -n "$data" ] || die "no data directory was restored below $home/restored"
bytes=$(size_of "$home/restored")
say "$(human "$bytes") in $took s: $data"
grep -hE '^(restore_command|recovery_target)' "$data"/postgresql*.conf | indent || true

step "The restored server starts"
typed "pg_ctl -D $data -o '-p $restored_port' start"
t=$(now)
start_server "$data" "$home/log/restored.log" "-p $restored_port -k $home/run -c listen_addresses=127.0.0.1"
await 60 "recovery" settled || die "recovery has not reached its target; $(tail -n 12 "$home/log/restored.log")"
say "It recovered WAL up to the moment in $(since "$t") s."
grep -hE 'recovery stopping|last completed transaction|selected new timeline|archive recovery complete|pausing' "$home/log/restored.log" | indent || true

step "Is it all there?"
sql "$restored_port" >"$home/log/after.txt" <<-SQL
	BEGIN ISOLATION LEVEL REPEATABLE READ;
	$(fingerprints)
	COMMIT;
SQL
printf '     %-18s %12s %12s  %s\n' table 'rows then' 'rows now' 'checksum'
while IFS='|' read -r table rows sum <&3 && IFS='|' read -r _ rows_now sum_now <&4; do
	verdict=different
	if [ "$rows|$sum" = "$rows_now|$sum_now" ]; then verdict=same; fi
	printf '     %-18s %12s %12s  %s\n' "$table" "$rows" "$rows_now" "$verdict"
done 3<"$home/log/before.txt" 4<"$home/log/after.txt"
cmp -s "$home/log/before.txt" "$home/log/after.txt" ||
	die "the restored data are not those of $moment: compare $home/log/before.txt and $home/log/after.txt"
say "Every row that was committed at $moment is there, and nothing that came later."

step "The same every night, by itself: a rehearsal"
say "The newest backup is restored to the end of the WAL in a scratch directory, PostgreSQL is started on it,"
say "every table and index is checked, and all of it is removed again."
show rehearse "$server"
lines '^ *(Proven|RTO|RestoreTime|ReplayTo|LastCommit|NumberOfChecks|FailedChecks): '

# ---------------------------------------------------------------------------------------------------------------------

if [ "$EUID" -eq 0 ]; then me="runuser -u $account -- "; else me=''; fi
cat <<-TEXT

	${bold}Done in $(since "$began") s.${plain} Daemon, source and restored server are running. Look around:

	   ${me}$home/bin/pgmoneta-cli -c $home/conf/pgmoneta.conf status
	   ${me}$home/bin/pgmoneta-cli -c $home/conf/pgmoneta.conf list-backup $server
	   ${me}$home/bin/pgmoneta-cli -c $home/conf/pgmoneta.conf verify $server newest $home/restored all
	   ps -ww -U $account -o pid,ppid,rss,args | grep '[p]gmoneta'
	   curl -s http://127.0.0.1:$metrics_port/metrics | grep '^pgmoneta_wal'
	   ${me}$clients/psql -h $home/run -p $port -U postgres             (the source)
	   ${me}$clients/psql -h $home/run -p $restored_port -U postgres             (the restored server)
	   tail -f $home/log/pgmoneta.log
	   find $home/repo/$server

	   make demo-stop             ends it and removes everything
TEXT
