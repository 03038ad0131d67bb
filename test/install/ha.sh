#!/usr/bin/env bash
#
# ha.sh makes a high-availability stack available to the tests: Patroni, etcd and HAProxy of Debian trixie.
#
#   ha.sh   install what is missing and print "python3 /path", "patroni /path", "patronictl /path", "etcd /path", "haproxy /path"
#
# It lives in the directory "ha" of the cache of postgres.sh and is made the same way: unpacked with all its libraries,
# Python and libc included, below one directory, bound to them by patchelf, and renamed when it is complete. The host
# is not touched.

set -euo pipefail

# The functions of postgres.sh without its last line, which runs it.
# shellcheck source=postgres.sh
source <(head -n -1 "$(dirname "$0")/postgres.sh")

say() { printf 'ha.sh: %s\n' "$*" >&2; }

# python_packages DIR PACKAGE...: the Python packages that these bring along.
python_packages() {
	local APT_CONFIG=$1/apt.conf
	shift
	export APT_CONFIG
	apt-get -qq -s install "$@" </dev/null | sed -nE 's/^Inst (python3[^ ]*|patroni) .*/\1/p'
}

# install_ha: runs with the lock held.
install_ha() {
	local tmp root final=$cache/ha python
	[ ! -x "$final/usr/bin/patroni" ] || return 0
	need dpkg-deb dpkg
	refresh_lists
	tmp=$(mktemp -d "$cache/build.XXXXXX")
	chmod 755 "$tmp"
	root=$tmp/root
	say "fetching Patroni, etcd and HAProxy from Debian trixie"
	(
		find_patchelf "$tmp"
		apt_state "$tmp/apt" trixie
		mapfile -t python < <(python_packages "$tmp/apt" patroni python3-etcd python3-psycopg2)
		unpack "$tmp/apt" "$root" "${python[@]}" etcd-server haproxy
		bind "$root" "$final" "$root"/usr/bin/python3.* "$root"/usr/bin/etcd "$root"/usr/sbin/haproxy
	)
	rm -rf "${root:?}"/{etc,var,bin,sbin} "${root:?}"/usr/lib/systemd
	run_unbound "$root" "$root/usr/bin/python3" "$root/usr/bin/patroni" --version >&2 || die "Patroni of Debian trixie does not run here" "run this command again"
	publish "$root" "$final"
	rm -rf "$tmp"
	check_reachable "$final/usr/bin/patroni"
}

main_ha() {
	cache=$(cache_dir)
	[ -x "$cache/ha/usr/bin/patroni" ] || locked install_ha
	local program
	for program in bin/python3 bin/patroni bin/patronictl bin/etcd sbin/haproxy; do
		printf '%s %s\n' "${program#*/}" "$cache/ha/usr/$program"
	done
}

main_ha
