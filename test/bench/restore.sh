# Part "restore" of bench.sh: restoring and verifying a full backup. Sourced, never run.

# empty_target: the empty directory.
empty_target() {
	rm -rf "${home:?}/restored"
	mkdir -m 700 "$home/restored"
	own "$home/restored"
}

restore_with() {
	empty_target
	case $1 in
	ours) ours restore.ours restore "$server" newest "$home/restored" ;;
	pgbackrest) measure restore.pgbackrest '' "$pgbackrest" "--config=$home/conf/pgbackrest.conf" "--stanza=$server" "--pg1-path=$home/restored" restore ;;
	tar) measure restore.tar '' sh -c 'tar -x --zstd -f "$1" -C "$2" && sync -f "$2"' tar "$home/packed/base.tar.zst" "$home/restored" ;;
	dd) measure restore.dd '' dd if=/dev/zero "of=$home/restored/zeros" bs=1M "count=$((data_bytes >> 20))" conv=fsync ;;
	combine) measure restore.combine '' "$pgbin/pg_combinebackup" -o "$home/restored" "$home/plain-0" "$home/plain-1" ;;
	esac
	record "restore.$1.bytes" "$(size_of "$home/restored")"
}

verify_with() {
	case $1 in
	ours) ours verify.ours verify "$server" newest "$home/restored" ;;
	pgbackrest) measure verify.pgbackrest '' "$pgbackrest" "--config=$home/conf/pgbackrest.conf" "--stanza=$server" verify ;;
	esac
}

# combined: a plain full and an incremental backup of it for pg_combinebackup.
combined() {
	basebackup restore.base "$home/plain-0" -Fp
	sql "$port" -c 'UPDATE pgbench_accounts SET abalance = abalance + 1 WHERE aid % 6100 = 0' -c CHECKPOINT
	basebackup restore.increment "$home/plain-1" -Fp "--incremental=$home/plain-0/backup_manifest"
}

measure_restore() {
	local round program programs=(ours pgbackrest tar dd)
	command -v zstd >/dev/null || die "tar needs zstd here; mend: apt-get install zstd"
	up
	configure files zstd 3
	our_backup restore.full.ours
	forget_rest
	rest_backup restore.full.pgbackrest --type=full --compress-type=zst --compress-level=3
	basebackup restore.packed "$home/packed" -Ft --compress=client-zstd:3
	if [ "$full" = 1 ]; then
		combined
		programs+=(combine)
	fi
	for ((round = 1; round <= rounds; round++)); do
		note "round $round of $rounds: restore and verify"
		for program in $(in_turn "$round" "${programs[@]}"); do restore_with "$program"; done
		for program in $(in_turn "$round" ours pgbackrest); do verify_with "$program"; done
	done
	rm -rf "${home:?}"/{restored,packed,plain-0,plain-1}
	forget_ours
	forget_rest
	down
}

restore_table() {
	job_head 'restore of a full backup, zstd:3' /tar /pgBR
	job_row pgmoneta restore.ours restore.tar restore.pgbackrest
	job_row 'pgBackRest process-max=2' restore.pgbackrest restore.tar restore.pgbackrest
	job_row 'tar -x --zstd of a pg_basebackup, synced' restore.tar restore.tar restore.pgbackrest
	job_row 'dd of as many zeros, synced: the disk' restore.dd restore.tar restore.pgbackrest
	job_row 'pg_combinebackup, plain, 1 % changed' restore.combine restore.tar restore.pgbackrest
	printf 'pgmoneta restores %s MB per s\n' "$(quotient "$(quotient "$(median restore.ours.bytes)" 1e6 %f)" "$(median restore.ours.time)" %.0f)"
	job_head 'verify of it' '' /pgBR
	job_row pgmoneta verify.ours '' verify.pgbackrest
	job_row 'pgBackRest process-max=2' verify.pgbackrest '' verify.pgbackrest
}
