# Part "recovery" of bench.sh: how long until PostgreSQL answers again. Restore with the WAL that follows, a restore over a data
# directory, and what a rehearsal says of it. Sourced, never run.

# replayed BYTES: has the server write so much WAL: updates of a quarter of the rows, again and again.
replayed() {
	local bytes=$1 begin rows=$((scale * 25000)) n=0
	begin=$(sql "$port" -c 'SELECT pg_current_wal_insert_lsn()')
	until [ "$(sql "$port" -c "SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '$begin') >= $bytes")" = t ]; do
		sql "$port" -c "UPDATE pgbench_accounts SET abalance = abalance + 1 WHERE aid <= $rows AND aid % 10 = $((n % 10))"
		n=$((n + 1))
	done
	sql "$port" -c 'SELECT pg_switch_wal()' >/dev/null
	await 300 "streaming" caught_up pgmoneta || die "pgmoneta does not catch up; $(daemon_trouble)"
	await 300 "archiving" archiver_idle || die "the archiver does not come to rest"
	record ready.wal "$(sql "$port" -c "SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '$begin')")"
}

recovered() { [ "$(sql "$second_port" -c 'SELECT pg_is_in_recovery()')" = f ]; }

# ready PROGRAM: from the command to the first connection after all WAL, in an empty directory.
ready() {
	local key=ready.$1 restored_dir=$home/restored begin
	empty_target
	case $1 in
	ours)
		ours "$key.restore" restore --exact "$server" newest latest "$home/restored/data"
		restored_dir=$home/restored/data
		;;
	pgbackrest) measure "$key.restore" '' "$pgbackrest" "--config=$home/conf/pgbackrest.conf" "--stanza=$server" "--pg1-path=$home/restored" restore ;;
	esac
	begin=$EPOCHREALTIME
	start_server "$restored_dir" "$home/log/restored.log" "-p $second_port -c archive_mode=off"
	await 600 "the end of recovery" recovered || die "$1: recovery does not end: $(tail -n 5 "$home/log/restored.log")"
	record "$key.start.time" "$(elapsed "$begin")"
	record "$key.time" "$(awk -v k="$key" '$1 == k ".restore.time" { a = $2 } $1 == k ".start.time" { b = $2 } END { print a + b }' "$home/log/results")"
	[ "$(sql "$second_port" -c 'SELECT sum(abalance) FROM pgbench_accounts')" = "$total" ] || die "$1: the restored server does not have what the source has"
	stop_server "$restored_dir"
}

# over PROGRAM HOW: a restore over the data directory of the backup before.
over() {
	case $1 in
	ours)
		ours "over.$2.ours" restore --delta "$server" newest "$home/ours/data"
		record "over.$2.read" "$(awk '/ReadSize/ { print $2 * ($2 ~ /kB/ ? 1e3 : $2 ~ /MB/ ? 1e6 : $2 ~ /GB/ ? 1e9 : 1) }' "$home/log/command.out")"
		;;
	pgbackrest) measure "over.$2.pgbackrest" '' "$pgbackrest" "--config=$home/conf/pgbackrest.conf" "--stanza=$server" "--pg1-path=$home/theirs" --delta restore ;;
	esac
}

# both_backups: ours a full one, which stores what changed, and theirs one that does.
both_backups() {
	our_backup over.backup
	rest_backup over.backup --type=incr --compress-type=zst --compress-level=3 --repo1-bundle --repo1-block
}

# overs: both programs' directories follow the server, a change at a time.
overs() {
	local round how program
	mkdir -m 700 "$home/ours" "$home/theirs"
	own "$home/ours"
	own "$home/theirs"
	both_backups
	cli restore --exact "$server" newest "$home/ours/data" >"$home/log/command.out" 2>&1 || die "restore: $(tail -n 5 "$home/log/command.out")"
	rest "--pg1-path=$home/theirs" restore
	for ((round = 1; round <= rounds; round++)); do
		for how in scattered clustered; do
			note "round $round of $rounds: restore over a data directory, $how"
			change "$how" $((round + 2 * rounds))
			both_backups
			for program in $(in_turn "$round" ours pgbackrest); do over "$program" "$how"; done
		done
	done
	rm -rf "${home:?}"/{ours,theirs}
}

# rehearsed: what a rehearsal says, beside a clock that watches its server from outside.
rehearsed() {
	local start scratch=$home/repo/$server/tmp/rehearsal
	start=$EPOCHREALTIME
	cli rehearse "$server" newest >"$home/log/rehearse.out" 2>&1 &
	until grep -qs ready "$scratch"/*/postmaster.pid; do
		kill -0 "$!" 2>/dev/null || break
		sleep 0.01
	done
	record rehearse.clock "$(elapsed "$start")"
	wait "$!" || die "rehearse: $(tail -n 20 "$home/log/rehearse.out")"
	record rehearse.rto "$(awk '/^ *RTO:/ { print $2; exit }' "$home/log/rehearse.out")"
}

measure_recovery() {
	local round program
	free_port && second_port=$chosen_port
	up
	configure files zstd 3
	our_backup ready.backup
	forget_rest
	archive_with "$pgbackrest --config=$home/conf/pgbackrest.conf --stanza=$server archive-push %p"
	measure ready.backup '' "$pgbackrest" "--config=$home/conf/pgbackrest.conf" "--stanza=$server" --type=full --compress-type=zst --compress-level=3 --repo1-bundle --repo1-block backup
	note "$replay MB of WAL"
	replayed $((replay << 20))
	total=$(sql "$port" -c 'SELECT sum(abalance) FROM pgbench_accounts')
	for ((round = 1; round <= rounds; round++)); do
		note "round $round of $rounds: restore until the server answers"
		for program in $(in_turn "$round" ours pgbackrest); do ready "$program"; done
		note "round $round of $rounds: rehearsal"
		rehearsed
	done
	rm -rf "${home:?}/restored"
	overs
	forget_ours
	forget_rest
	down
}

recovery_table() {
	local how
	job_head "until the server answers: a full backup and $(human "$(median ready.wal)") of WAL" '' /pgBR
	job_row pgmoneta ready.ours '' ready.pgbackrest
	job_row '  of it restore' ready.ours.restore '' ready.pgbackrest.restore
	job_row '  of it recovery' ready.ours.start '' ready.pgbackrest.start
	job_row 'pgBackRest process-max=2' ready.pgbackrest '' ready.pgbackrest
	job_row '  of it restore' ready.pgbackrest.restore '' ready.pgbackrest.restore
	job_row '  of it recovery' ready.pgbackrest.start '' ready.pgbackrest.start
	printf 'a rehearsal says %s s until then, a clock beside it %s s: %s\n' "$(show rehearse.rto 1 %.2f)" "$(show rehearse.clock 1 %.2f)" "$(quotient "$(median rehearse.rto)" "$(median rehearse.clock)" %.3f)"
	for how in scattered clustered; do
		job_head "restore over the data directory of the backup before, 1 % changed, $how" '' /pgBR
		job_row 'pgmoneta --delta' "over.$how.ours" '' "over.$how.pgbackrest"
		job_row 'pgBackRest --delta' "over.$how.pgbackrest" '' "over.$how.pgbackrest"
		printf 'pgmoneta reads %s of its repository\n' "$(human "$(median "over.$how.read")")"
	done
}
