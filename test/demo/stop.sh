#!/usr/bin/env bash
#
# stop.sh ends what demo.sh started and removes its directory, $PGMONETA_DEMO_DIR or /tmp/pgmoneta-demo-<user>.

set -euo pipefail

. "$(dirname "$0")/lib.sh"

home=${PGMONETA_DEMO_DIR:-/tmp/pgmoneta-demo-$(id -un)}

[ -e "$home" ] || {
	[ "${1:-}" = --quiet ] || printf 'There is no demonstration in %s.\n' "$home"
	exit 0
}
[ -e "$home/.pgmoneta-private" ] || die "$home is not a directory of the demonstration: nothing was done"

pgbin=$(cat "$home/run/pgbin" 2>/dev/null || true)
end_process "$home/run/load.pid" INT
end_process "$home/run/daemon.pid" TERM
if [ -n "$pgbin" ]; then
	for data in "$home"/source "$home"/restored/*; do stop_server "$data"; done
fi
remove_home "$home"
[ "${1:-}" = --quiet ] || printf 'The demonstration was stopped and %s removed.\n' "$home"
