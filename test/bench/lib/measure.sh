# Numbers of bench.sh: taking, keeping and printing them. Sourced, never run; needs test/demo/lib.sh.
#
# Every value of every round is a line "key value" of $home/log/results; what is printed are medians. The keys of one
# measurement begin alike: .time (s), .cpu (s of the tool), .server (s of PostgreSQL), .peak (bytes), .stored (bytes).

note() { printf '%s %s\n' "$(date +%T)" "$*" >&2; }

elapsed() { awk -v a="$1" -v b="$EPOCHREALTIME" 'BEGIN { printf "%.3f", b - a }'; }

# quotient A B [FORMAT]
quotient() { awk -v a="$1" -v b="$2" -v f="${3:-%.2f}" 'BEGIN { if (a != "" && b > 0) printf f, a / b; else printf "-" }'; }

record() { printf '%s %s\n' "$1" "$2" >>"$home/log/results"; }

values() { awk -v k="$1" '$1 == k { print $2 }' "$home/log/results" | sort -g; }

# median KEY: nothing when it was not measured.
median() { values "$1" | awk '{ v[NR] = $1 } END { if (NR) print (NR % 2) ? v[(NR + 1) / 2] : (v[NR / 2] + v[NR / 2 + 1]) / 2 }'; }

# show KEY [UNIT [FORMAT]]: the median in that unit, "-" when it was not measured.
show() { quotient "$(median "$1")" "${2:-1}" "${3:-%.1f}"; }

spread() { values "$1" | awk 'NR == 1 { a = $1 } { b = $1 } END { if (NR) printf "%.1f-%.1f", a, b; else printf "-" }'; }

# in_turn ROUND WORD...: the words, backwards in every second round: A B B A.
in_turn() {
	local round=$1
	shift
	if ((round % 2)); then printf '%s\n' "$@"; else printf '%s\n' "$@" | tac; fi
}

# tree ROOT...: "pid ticks" of all processes below the roots and of these; ticks with those of children that ended.
tree() {
	cat /proc/[0-9]*/stat 2>/dev/null | awk -v roots="$*" '
		BEGIN { n = split(roots, r, " "); for (i = 1; i <= n; i++) root[r[i]] = 1 }
		{ pid = $1; sub(/^.*\) /, ""); parent[pid] = $2; ticks[pid] = $12 + $13 + $14 + $15 }
		END {
			for (pid in parent) {
				for (p = pid; p + 0 > 1 && !(p in root); p = parent[p]);
				if (p in root) print pid, ticks[pid]
			}
		}' || true
}

# spent ROOT...: CPU seconds of the trees.
spent() { tree "$@" | awk -v hz="$hz" '{ n += $2 } END { printf "%.2f", n / hz }'; }

# memory ROOT...: bytes, the sum of the highest resident size of each process that lives. Shared pages count in each.
memory() {
	local pid files=()
	for pid in $(tree "$@" | cut -d ' ' -f 1); do files+=("/proc/$pid/status"); done
	{ cat "${files[@]}" 2>/dev/null || true; } | awk '/^VmHWM/ { n += $2 } END { printf "%.0f\n", n * 1024 }'
}

# watch_memory PIDFILE: the memory of that process and those below, five times a second into $home/log/peaks, for as long as
# the file $home/run/watch is there.
watch_memory() {
	while [ -e "$home/run/watch" ]; do
		memory "$(cat "$1" 2>/dev/null || true)" >>"$home/log/peaks"
		sleep 0.2
	done
}

# process FILE: what is spent so far by the process whose id is the file's first line; 0 without a file.
process() { if [ -s "${1:-}" ]; then spent "$(head -n 1 "$1")"; else printf 0; fi; }

# children_spent FILE: CPU seconds in the second line of what "times" printed.
children_spent() { awk 'NR == 2 { for (i = 1; i <= 2; i++) { split($i, t, /[ms]/); n += t[1] * 60 + t[2] } printf "%.2f", n }' "$1"; }

# timed COMMAND...: runs it as the account; its output, its time and its CPU time go to files.
timed() {
	local start=$EPOCHREALTIME status=0 pid
	as "$@" >"$home/log/command.out" 2>&1 &
	pid=$!
	printf '%s\n' "$pid" >"$home/run/command.pid"
	wait "$pid" || status=$?
	printf '%s %s\n' "$start" "$EPOCHREALTIME" >"$home/log/times"
	times >"$home/log/spent"
	return "$status"
}

# measure KEY PIDFILE COMMAND...: runs a command and records its time, CPU seconds and memory. PIDFILE names the process that
# works for it, "" when the command does so itself. What was written before is on disk first: nobody pays for another's pages.
measure() {
	local key=$1 worker=$2 before primary status=0
	shift 2
	sync
	primary=$(process "$home/source/postmaster.pid") before=$(process "$worker")
	: >"$home/log/peaks"
	: >"$home/run/watch"
	watch_memory "${worker:-$home/run/command.pid}" &
	(timed "$@") || status=$?
	rm -f "$home/run/watch" "$home/run/command.pid"
	wait "$!"
	[ "$status" = 0 ] || die "$key: $(tail -n 5 "$home/log/command.out"); $(daemon_trouble)"
	record "$key.time" "$(awk '{ printf "%.3f", $2 - $1 }' "$home/log/times")"
	record "$key.cpu" "$(awk -v a="$before" -v b="$(process "$worker")" -v c="$(children_spent "$home/log/spent")" 'BEGIN { print b - a + c }')"
	record "$key.server" "$(awk -v a="$primary" -v b="$(process "$home/source/postmaster.pid")" 'BEGIN { print b - a }')"
	record "$key.peak" "$(sort -g "$home/log/peaks" | tail -n 1)"
}

# ---------------------------------------------------------------------------------------------------------------------

# line WHAT TIME RANGE A B STORED CPU SERVER PEAK: one row of the tables of jobs.
line() { printf '%-44s %8s %11s %7s %7s %10s %7s %7s %8s\n' "$@"; }

# job_head TITLE A B: A and B name what the time is divided by.
job_head() {
	printf '\n%s\n' "--- $1"
	line '' 'time, s' 'range, s' "$2" "$3" 'stored MB' 'CPU s' 'server' 'peak MB'
}

# job_row WHAT KEY [KEY_A [KEY_B]]: nothing when KEY was not measured.
job_row() {
	local time
	time=$(median "$2.time")
	[ -n "$time" ] || return 0
	line "$1" "$(show "$2.time")" "$(spread "$2.time")" "$(quotient "$time" "$(median "${3:-}.time")")" "$(quotient "$time" "$(median "${4:-}.time")")" \
		"$(show "$2.stored" 1e6)" "$(show "$2.cpu" 1 %.2f)" "$(show "$2.server" 1 %.2f)" "$(show "$2.peak" 1e6)"
}

# pair WHAT KEY_OURS KEY_PEER [UNIT [FORMAT]]: one row of two columns and their ratio; nothing when neither was measured.
pair() {
	local ours peer
	ours=$(median "$2") peer=$(median "$3")
	[ -n "$ours$peer" ] || return 0
	printf '%-48s %14s %14s %8s\n' "$1" "$(quotient "$ours" "${4:-1}" "${5:-%.1f}")" "$(quotient "$peer" "${4:-1}" "${5:-%.1f}")" "$(quotient "$ours" "$peer")"
}

# pair_head TITLE
pair_head() {
	printf '\n%s\n' "--- $1"
	printf '%-48s %14s %14s %8s\n' '' pgmoneta peer ratio
}
