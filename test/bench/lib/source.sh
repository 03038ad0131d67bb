# What is measured in bench.sh: the server, pgmoneta, and pgBackRest beside it. Sourced, never run; needs test/demo/lib.sh and
# measure.sh.

readonly server=bench

# make_source SCALE: PostgreSQL with pgbench's tables, and a role with the rights of every backup_source.
make_source() {
	free_port && port=$chosen_port
	new_server "$home/source" "$port"
	# archive_mode is for pgBackRest. Only while it backs up is it given the segments.
	cat >>"$home/source/postgresql.conf" <<-CONF
		shared_buffers = '1GB'
		max_wal_size = '8GB'
		checkpoint_timeout = '1h'
		autovacuum = off
		wal_compression = off
		summarize_wal = on
		archive_mode = on
		archive_command = 'true'
	CONF
	start_server "$home/source" "$home/log/source.log"
	password=$(od -An -N16 -tx1 /dev/urandom | tr -d ' \n')
	sql "$port" -c "CREATE ROLE repl LOGIN REPLICATION PASSWORD '$password'" \
		-c 'GRANT pg_read_all_settings, pg_read_server_files TO repl' \
		-c 'GRANT EXECUTE ON FUNCTION pg_backup_start(text, boolean), pg_backup_stop(boolean), pg_ls_dir(text, boolean, boolean),
			pg_stat_file(text, boolean), pg_read_binary_file(text, bigint, bigint, boolean) TO repl'
	(as "$clients/pgbench" -h "$home/run" -p "$port" -U postgres -i -q -s "$1" postgres) >"$home/log/pgbench.log" 2>&1 || die "pgbench -i: $(tail -n 3 "$home/log/pgbench.log")"
	sql "$port" -c CHECKPOINT
	data_bytes=$(size_of "$home/source/base" "$home/source/global")
	printf '127.0.0.1:*:*:repl:%s\n' "$password" >"$home/conf/pgpass"
	chmod 600 "$home/conf/pgpass"
	own "$home/conf/pgpass"
}

# make_daemon: what pgmoneta needs before its first start.
make_daemon() {
	our_conf auto zstd 3
	(as "$home/bin/pgmoneta-admin" master-key -g) >"$home/log/admin.log" 2>&1 || die "pgmoneta-admin master-key: $(cat "$home/log/admin.log")"
	printf '%s\n%s\n' "$password" "$password" | (as "$home/bin/pgmoneta-admin" -f "$home/conf/pgmoneta_users.conf" -U repl user add) >"$home/log/admin.log" 2>&1 ||
		die "pgmoneta-admin user add: $(cat "$home/log/admin.log")"
}

# our_conf SOURCE CODEC LEVEL: writes pgmoneta.conf.
our_conf() {
	cat >"$home/conf/pgmoneta.conf" <<-CONF
		[pgmoneta]
		host = 127.0.0.1
		base_dir = $home/repo
		unix_socket_dir = $home/run
		backup_source = $1
		compression = $2
		compression_level = $3
		create_slot = yes
		rehearse_bindir = $pgbin
		log_type = file
		log_path = $home/log/pgmoneta.log

		[$server]
		host = 127.0.0.1
		port = $port
		user = repl
		wal_slot = pgmoneta
	CONF
	own "$home/conf/pgmoneta.conf"
}

# configure SOURCE CODEC LEVEL: tells the daemon that runs.
configure() {
	our_conf "$@"
	cli conf reload >"$home/log/reload.out" 2>&1 || die "conf reload: $(cat "$home/log/reload.out")"
}

# up: starts the daemon and records the time until its first answer.
up() {
	local start deadline=$((SECONDS + 30))
	start=$(now)
	start_daemon
	until cli ping >/dev/null 2>&1; do
		[ "$SECONDS" -lt "$deadline" ] || die "pgmoneta does not answer; $(daemon_trouble)"
	done
	record start "$(elapsed "$start")"
	await 120 "streaming" caught_up pgmoneta || die "pgmoneta does not catch up; $(daemon_trouble)"
}

down() { end_process "$home/run/daemon.pid" TERM; }

# ours KEY COMMAND...: measures pgmoneta-cli with the daemon behind it.
ours() {
	local key=$1
	shift
	measure "$key" "$home/run/daemon.pid" "$home/bin/pgmoneta-cli" -c "$home/conf/pgmoneta.conf" "$@"
}

# our_backup KEY [BASE]: records too what the repository grew by.
our_backup() {
	local key=$1 repo=$home/repo/$server before
	shift
	before=$(size_of "$repo/pack" "$repo/backup")
	ours "$key" backup "$server" "$@"
	record "$key.stored" "$(($(size_of "$repo/pack" "$repo/backup") - before))"
}

# forget_ours: deletes all backups. Otherwise the next one would store nothing.
forget_ours() {
	local label
	for label in "$home/repo/$server/backup"/*; do
		[ ! -e "$label" ] || cli delete --force "$server" "${label##*/}" >"$home/log/delete.out" 2>&1 || die "delete: $(tail -n 5 "$home/log/delete.out")"
	done
	[ -z "$(find "$home/repo/$server/pack" -type f 2>/dev/null | head -n 1)" ] || die "packs are left after the last backup was deleted"
}

# lag APPLICATION: bytes of WAL that are flushed on the server and not by the receiver.
lag() {
	sql "$port" -c "SELECT coalesce(pg_wal_lsn_diff(pg_current_wal_flush_lsn(), max(flush_lsn)), -1)::bigint
		FROM pg_stat_replication WHERE application_name = '$1' AND state = 'streaming'"
}

caught_up() { [ "$(lag "$1")" = 0 ]; }

# ---------------------------------------------------------------------------------------------------------------------

# basebackup KEY DIR OPTION...: pg_basebackup; what it stored is counted without WAL, which pgmoneta has anyway.
basebackup() {
	local key=$1 dir=$2
	shift 2
	measure "$key" '' env PGPASSFILE="$home/conf/pgpass" "$pgbin/pg_basebackup" -h 127.0.0.1 -p "$port" -U repl -w -D "$dir" --checkpoint=fast "$@"
	rm -rf "$dir"/pg_wal.tar*
	record "$key.stored" "$(size_of "$dir")"
}

# find_pgbackrest: sets pgbackrest, its program.
find_pgbackrest() {
	pgbackrest=$("$root/test/install/postgres.sh" --peer pgbackrest | cut -d ' ' -f 2-)
	[ -x "$pgbackrest" ] || die "pgBackRest could not be installed; mend: test/install/postgres.sh --peer pgbackrest"
	mkdir -p "$home"/pgbackrest/{repo,lock,spool,log}
	cat >"$home/conf/pgbackrest.conf" <<-CONF
		[global]
		repo1-path=$home/pgbackrest/repo
		lock-path=$home/pgbackrest/lock
		spool-path=$home/pgbackrest/spool
		log-path=$home/pgbackrest/log
		log-level-file=off
		log-level-console=warn
		process-max=2
		start-fast=y
		expire-auto=n
		repo1-retention-full=9999999

		[$server]
		pg1-path=$home/source
		pg1-port=$port
		pg1-socket-path=$home/run
		pg1-user=postgres
	CONF
	own "$home/pgbackrest"
	own "$home/conf/pgbackrest.conf"
}

# rest COMMAND...: pgBackRest outside the measurements.
rest() { (as "$pgbackrest" "--config=$home/conf/pgbackrest.conf" "--stanza=$server" "$@") >"$home/log/pgbackrest.out" 2>&1 || die "pgbackrest $1: $(tail -n 5 "$home/log/pgbackrest.out")"; }

# archive_with COMMAND: sets archive_command.
archive_with() { sql "$port" -c "ALTER SYSTEM SET archive_command = '$1'" -c 'SELECT pg_reload_conf()' >/dev/null; }

# forget_rest: an empty repository of pgBackRest, into which the server does not archive.
forget_rest() {
	archive_with true
	await 30 "archiving to end" archiver_idle || die "the archiver does not come to rest"
	rm -rf "${home:?}/pgbackrest/repo"
	mkdir "$home/pgbackrest/repo"
	own "$home/pgbackrest/repo"
	rest stanza-create
}

archiver_idle() { [ -z "$(find "$home/source/pg_wal/archive_status" -name '*.ready' | head -n 1)" ]; }

# rest_backup KEY OPTION...: while it runs, the server archives into it; that is the server's CPU time.
rest_backup() {
	local key=$1 before
	shift
	archive_with "$pgbackrest --config=$home/conf/pgbackrest.conf --stanza=$server archive-push %p"
	before=$(size_of "$home/pgbackrest/repo/backup")
	measure "$key" '' "$pgbackrest" "--config=$home/conf/pgbackrest.conf" "--stanza=$server" "$@" backup
	record "$key.stored" "$(($(size_of "$home/pgbackrest/repo/backup") - before))"
	archive_with true
}
