# Part "backup" of bench.sh: first full backups, second ones after a change, incremental ones. Sourced, never run.

# A first full backup is program:source:codec:level.
backup_cases=(
	ours:stream:zstd:3 ours:files:zstd:3 ours:sql:zstd:3 basebackup::zstd:3 pgbackrest::zstd:3
	ours:files:zstd:1 pgbackrest::zstd:1
	ours:files:lz4:1 pgbackrest::lz4:1
)
backup_changes=(scattered clustered)
if [ "$full" = 1 ]; then
	backup_cases=()
	for codec in zstd:3 zstd:1 lz4:1 none:0; do
		backup_cases+=(ours:stream:$codec ours:files:$codec ours:sql:$codec basebackup::$codec pgbackrest::$codec)
	done
	backup_changes+=(rows)
fi

# first_full CASE: takes one and removes it.
first_full() {
	local program source codec level key=full.$1
	IFS=: read -r program source codec level <<<"$1"
	case $program in
	ours)
		configure "$source" "$codec" "$level"
		our_backup "$key"
		forget_ours
		;;
	basebackup)
		basebackup "$key" "$home/peer" -Ft "--compress=$(peer_codec "$codec" "$level")"
		rm -rf "${home:?}/peer"
		;;
	pgbackrest)
		forget_rest
		local options=(--type=full "--compress-type=${codec/zstd/zst}")
		[ "$codec" = none ] || options+=("--compress-level=$level")
		rest_backup "$key" "${options[@]}"
		;;
	esac
}

# peer_codec CODEC LEVEL: as pg_basebackup wants it.
peer_codec() {
	case $1 in
	none) printf none ;;
	*) printf 'client-%s:%s' "$1" "$2" ;;
	esac
}

# change HOW ROUND: one row on every hundredth page (a page has 61 rows), a run of a hundredth of the rows, or every
# hundredth row, which is on more than half of the pages. Its WAL is stored when this returns: storing it would slow the
# program that comes first.
change() {
	local where segment rows=$((scale * 100000))
	case $1 in
	scattered) where="aid % 6100 = $2" ;;
	clustered) where="aid BETWEEN $((rows / 10 * $2)) AND $((rows / 10 * $2 + rows / 100))" ;;
	rows) where="aid % 100 = $2" ;;
	esac
	sql "$port" -c "UPDATE pgbench_accounts SET abalance = abalance + 1 WHERE $where" -c CHECKPOINT
	segment=$(sql "$port" -c 'SELECT pg_walfile_name(pg_switch_wal())')
	await 300 "storing" test -e "$(stored_segment "$segment")" || die "$segment is not stored; $(daemon_trouble)"
}

# second_fulls: full backups, each after a change since the one before.
second_fulls() {
	local round how
	configure files zstd 3
	our_backup second.base
	for ((round = 1; round <= rounds; round++)); do
		for how in "${backup_changes[@]}"; do
			note "round $round of $rounds: second full backup, $how"
			change "$how" "$round"
			our_backup "second.$how"
		done
	done
	record second.manifest "$(stat -c %s "$(printf '%s\n' "$home/repo/$server/backup"/*/manifest | tail -n 1)")"
	forget_ours
}

incremental() {
	local key=incremental.$2.$1 last=$home/peer-$taken
	case $1 in
	ours) our_backup "$key" newest ;;
	basebackup)
		basebackup "$key" "$home/peer-$((taken + 1))" -Ft --compress=client-zstd:3 "--incremental=$last/backup_manifest"
		taken=$((taken + 1))
		;;
	pgbackrest) rest_backup "$key" --type=incr --compress-type=zst --compress-level=3 --repo1-bundle --repo1-block ;;
	esac
}

# summarized: the server has summarized WAL up to its last checkpoint. The program that comes first would wait for it.
summarized() {
	local redo='(SELECT redo_lsn FROM pg_control_checkpoint())'
	[ "$(sql "$port" -c "SELECT summarized_lsn >= $redo FROM pg_get_wal_summarizer_state()")" = t ]
}

# incrementals: each is based on the one before, of all programs after the same change.
incrementals() {
	local round how program taken=0
	configure stream zstd 3
	our_backup incremental.base.ours
	basebackup incremental.base.basebackup "$home/peer-0" -Ft --compress=client-zstd:3
	forget_rest
	rest_backup incremental.base.pgbackrest --type=full --compress-type=zst --compress-level=3 --repo1-bundle --repo1-block
	for ((round = 1; round <= rounds; round++)); do
		for how in "${backup_changes[@]}"; do
			note "round $round of $rounds: incremental backup, $how"
			change "$how" $((round + rounds))
			await 120 "the summary of WAL" summarized || die "the server summarizes no WAL"
			for program in $(in_turn "$round" ours basebackup pgbackrest); do incremental "$program" "$how"; done
		done
	done
	rm -rf "${home:?}"/peer-*
	forget_ours
	forget_rest
}

measure_backup() {
	local round case
	up
	for ((round = 1; round <= rounds; round++)); do
		for case in $(in_turn "$round" "${backup_cases[@]}"); do
			note "round $round of $rounds: full backup $case"
			first_full "$case"
		done
	done
	second_fulls
	incrementals
	down
}

# ---------------------------------------------------------------------------------------------------------------------

backup_table() {
	local codec how basebackup pgbackrest
	for codec in zstd:3 zstd:1 lz4:1 none:0; do
		basebackup=full.basebackup::$codec pgbackrest=full.pgbackrest::$codec
		[ -n "$(median "$pgbackrest.time")" ] || continue
		job_head "full backup, ${codec%:0}" /pg_bb /pgBR
		for how in stream files sql; do job_row "pgmoneta, $how" "full.ours:$how:$codec" "$basebackup" "$pgbackrest"; done
		job_row "pg_basebackup -Ft --compress=$(peer_codec "${codec%:*}" "${codec#*:}")" "$basebackup" "$basebackup" "$pgbackrest"
		job_row 'pgBackRest process-max=2' "$pgbackrest" "$basebackup" "$pgbackrest"
	done
	job_head 'second full backup of pgmoneta, files, zstd:3; beside first ones, its own and that of pgBackRest' /first /pgBR
	for how in scattered clustered rows; do job_row "1 % changed, $how" "second.$how" full.ours:files:zstd:3 full.pgbackrest::zstd:3; done
	printf 'manifest of the last: %s, %s MB per GB of data\n' "$(human "$(median second.manifest)")" "$(quotient "$(quotient "$(median second.manifest)" 1e6 %f)" "$(quotient "$data_bytes" 1e9 %f)")"
	for how in scattered clustered rows; do
		[ -n "$(median "incremental.$how.ours.time")" ] || continue
		job_head "incremental backup, zstd:3, 1 % changed, $how" /pg_bb /pgBR
		basebackup=incremental.$how.basebackup pgbackrest=incremental.$how.pgbackrest
		job_row 'pgmoneta' "incremental.$how.ours" "$basebackup" "$pgbackrest"
		job_row 'pg_basebackup --incremental' "$basebackup" "$basebackup" "$pgbackrest"
		job_row 'pgBackRest --type=incr, bundle, block' "$pgbackrest" "$basebackup" "$pgbackrest"
	done
	printf '%s\n' "scattered: a row on every 100th page; clustered: a run of 1 % of the rows; rows: every 100th row"
}
