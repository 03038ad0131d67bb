# What demo.sh, stop.sh and test/bench share. Sourced, never run.
#
# A private directory ($home) holds everything: servers, repository, programs, logs. It is recognised by its file
# .pgmoneta-private, so that nothing else is ever removed. As root everything runs as user postgres, because
# neither PostgreSQL nor pgmoneta runs as root.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
account=$(id -un)
if [ "$EUID" -eq 0 ]; then account=postgres; fi

die() {
	printf '\nFAILED: %s\n' "$*" >&2
	exit 1
}

now() { printf '%s\n' "$EPOCHREALTIME"; }

# since START: seconds with one digit.
since() { awk -v a="$1" -v b="$EPOCHREALTIME" 'BEGIN { printf "%.1f", b - a }'; }

# human BYTES
human() { awk -v n="$1" 'BEGIN { split("B kB MB GB TB", u, " "); i = 1; while (n >= 1024 && i < 5) { n /= 1024; i++ } printf (i == 1 ? "%d %s" : "%.1f %s"), n, u[i] }'; }

# size_of PATH...: bytes of the files below.
size_of() { { du -sb --total "$@" 2>/dev/null || true; } | awk 'END { printf "%.0f", $1 }'; }

# as COMMAND...: runs a command as the account, in an environment that nothing of the caller's changes. The process keeps
# its id, so that what is started in the background can be waited for.
as() {
	local env=(env -i "PATH=$home/bin:/usr/local/bin:/usr/bin:/bin" "HOME=$home/home" LC_ALL=C TZ=UTC)
	cd "$home" || return 1
	if [ "$EUID" -eq 0 ]; then
		exec setpriv --reuid="$account" --regid="$(id -gn "$account")" --init-groups "${env[@]}" "$@"
	fi
	exec "${env[@]}" "$@"
}

# make_home DIR: the private directory, empty.
make_home() {
	home=$1
	if [ "$EUID" -eq 0 ]; then
		getent passwd postgres >/dev/null || die "user postgres is missing; mend: test/install/postgres.sh 17"
	fi
	[ "${#home}" -le 70 ] || die "$home is too long a name: the path of a Unix socket in it must have less than 108 bytes"
	[ ! -e "$home" ] || [ -e "$home/.pgmoneta-private" ] || die "$home exists and is not ours: name another directory"
	mkdir -p "$home"
	: >"$home/.pgmoneta-private"
	mkdir -p "$home"/{bin,conf,home,log,run,repo}
	chmod 755 "$home"
	chmod 700 "$home"/{conf,home,repo,run}
	own "$home"
}

own() { if [ "$EUID" -eq 0 ]; then chown -R "$account:" "$1"; fi; }

# remove_home DIR: only what make_home made.
remove_home() {
	[ -e "$1" ] || return 0
	[ -e "$1/.pgmoneta-private" ] || die "$1 is not ours: nothing was removed"
	rm -rf "${1:?}"
}

# install_programs: copies our programs to where the account can run them.
install_programs() {
	local program
	for program in pgmoneta pgmoneta-cli pgmoneta-admin pgmoneta-config pgmoneta-wal; do
		[ -x "$root/bin/$program" ] || die "$root/bin/$program is missing; mend: make build"
		install -m 755 "$root/bin/$program" "$home/bin/$program"
	done
}

# free_port: a port of 127.0.0.1 that nobody listens on, below those the system gives to clients.
free_port() {
	local port try
	for try in {1..200}; do
		port=$((20000 + RANDOM % 12000))
		case " ${taken_ports:-} " in *" $port "*) continue ;; esac
		if ! (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then
			taken_ports="${taken_ports:-} $port"
			chosen_port=$port
			return 0
		fi
	done
	die "no free port on 127.0.0.1"
}

# await SECONDS WHAT COMMAND...: polls a command until it succeeds.
await() {
	local deadline=$((SECONDS + $1)) what=$2
	shift 2
	until "$@" >/dev/null 2>&1; do
		[ "$SECONDS" -lt "$deadline" ] || return 1
		sleep 0.02
	done
}

# find_postgres MAJOR: sets pgbin, the directory of the server's programs, and clients, one that has all client tools.
find_postgres() {
	pgbin=$("$root/test/install/postgres.sh" "$1" | cut -d ' ' -f 2-)
	[ -x "$pgbin/postgres" ] || die "PostgreSQL $1 could not be installed; mend: test/install/postgres.sh $1"
	set_clients
}

set_clients() {
	clients=$pgbin
	if [ ! -x "$clients/psql" ]; then
		clients=$("$root/test/install/postgres.sh" 17 | cut -d ' ' -f 2-)
	fi
}

# sql PORT [OPTION...]: psql as superuser over the private socket; commands on stdin or with -c.
sql() {
	local port=$1
	shift
	(as "$clients/psql" -X -q -A -t -v ON_ERROR_STOP=1 -h "$home/run" -p "$port" -U postgres -d postgres "$@")
}

# new_server DIR PORT: initdb with data checksums, a password for TCP, trust over the private socket.
new_server() {
	local data=$1 port=$2
	(as "$pgbin/initdb" -D "$data" -U postgres -k -E UTF8 --locale=C --no-instructions -A trust) >"$home/log/initdb.log" 2>&1 ||
		die "initdb: $(tail -n 5 "$home/log/initdb.log")"
	cat >>"$data/postgresql.conf" <<-CONF

		listen_addresses = '127.0.0.1'
		port = $port
		unix_socket_directories = '$home/run'
		log_line_prefix = '%m [%p] '
	CONF
	cat >"$data/pg_hba.conf" <<-CONF
		local all         all                  trust
		host  all         repl  127.0.0.1/32   scram-sha-256
		host  replication repl  127.0.0.1/32   scram-sha-256
	CONF
}

# start_server DIR LOG [OPTIONS]
start_server() {
	(as "$pgbin/pg_ctl" -D "$1" -l "$2" -w -t 60 -s ${3:+-o "$3"} start) </dev/null >/dev/null 2>&1 ||
		die "PostgreSQL did not start in $1: $(tail -n 8 "$2")"
}

stop_server() {
	if [ -e "$1/postmaster.pid" ]; then
		(as "$pgbin/pg_ctl" -D "$1" -m immediate -w -t 30 -s stop) >/dev/null 2>&1 || true
	fi
}

# is_ours PID: whether the process runs a program of the private directory or of our PostgreSQL in it.
is_ours() {
	local args
	[ -n "${1:-}" ] && [ -r "/proc/$1/cmdline" ] || return 1
	args=$(tr '\0' ' ' <"/proc/$1/cmdline" 2>/dev/null) || return 1
	case "$args $(readlink "/proc/$1/exe" 2>/dev/null)" in *"$home"*) return 0 ;; *) return 1 ;; esac
}

# end_process PIDFILE SIGNAL: ends a process of ours and waits for it.
end_process() {
	local pid
	[ -s "$1" ] || return 0
	pid=$(cat "$1")
	if is_ours "$pid"; then
		kill "-$2" "$pid" 2>/dev/null || true
		await 20 "end of $pid" not_running "$pid" || kill -KILL "$pid" 2>/dev/null || true
	fi
	rm -f "$1"
}

not_running() { ! kill -0 "$1" 2>/dev/null || [ "$(awk '/^State/ { print $2 }' "/proc/$1/status" 2>/dev/null)" = Z ]; }

cli() { (as "$home/bin/pgmoneta-cli" -c "$home/conf/pgmoneta.conf" "$@"); }

# start_daemon: runs pgmoneta in the background.
start_daemon() {
	(as "$home/bin/pgmoneta" -c "$home/conf/pgmoneta.conf" -u "$home/conf/pgmoneta_users.conf" -A "$home/conf/pgmoneta_admins.conf") </dev/null >"$home/log/pgmoneta.out" 2>&1 &
	printf '%s\n' "$!" >"$home/run/daemon.pid"
}

# daemon_trouble: what it said last.
daemon_trouble() {
	printf 'the end of its log:\n'
	tail -n 12 "$home/log/pgmoneta.out" "$home/log/pgmoneta.log" 2>/dev/null || true
}
