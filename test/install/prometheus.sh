#!/usr/bin/env bash
#
# prometheus.sh makes Prometheus and Alertmanager of Debian bookworm available to the tests.
#
#   prometheus.sh   install what is missing and print "prometheus /path", "promtool /path", "prometheus-alertmanager /path",
#                   and "templates /path": Alertmanager runs where copies of the files in there are
#
# They live in the directory "prometheus" of the cache of postgres.sh and are made the same way: unpacked with their
# libraries, libc included, below one directory, bound to them by patchelf, and renamed when it is complete. The host
# is not touched.

set -euo pipefail

# The functions of postgres.sh without its last line, which runs it.
# shellcheck source=postgres.sh
source <(head -n -1 "$(dirname "$0")/postgres.sh")

say() { printf 'prometheus.sh: %s\n' "$*" >&2; }

programs=(prometheus promtool prometheus-alertmanager)

# install_prometheus: runs with the lock held.
install_prometheus() {
	local tmp root final=$cache/prometheus
	[ ! -e "$final/usr/lib/default.tmpl" ] || return 0
	need dpkg-deb dpkg
	refresh_lists
	tmp=$(mktemp -d "$cache/build.XXXXXX")
	chmod 755 "$tmp"
	root=$tmp/root
	say "fetching Prometheus and Alertmanager from Debian bookworm"
	(
		find_patchelf "$tmp"
		apt_state "$tmp/apt" bookworm
		unpack "$tmp/apt" "$root" prometheus prometheus-alertmanager
		bind "$root" "$final" "${programs[@]/#/$root/usr/bin/}"
	)
	# Debian's Alertmanager reads its templates from a fixed place. A path of the same length makes that its directory.
	sed -i 's|/usr/share/prometheus/alertmanager|.//./././././././././././././././.|g' "$root/usr/bin/prometheus-alertmanager"
	find "$root" -name '*.tmpl' -exec mv {} "$root/usr/lib/" ';'
	rm -rf "${root:?}"/{etc,var,bin,sbin} "${root:?}"/usr/{share,sbin}
	run_unbound "$root" "$root/usr/bin/prometheus" --version >&2 || die "Prometheus of Debian bookworm does not run here" "run this command again"
	publish "$root" "$final"
	rm -rf "$tmp"
	check_reachable "$final/usr/bin/prometheus"
}

main_prometheus() {
	cache=$(cache_dir)
	[ -e "$cache/prometheus/usr/lib/default.tmpl" ] || locked install_prometheus
	local program
	for program in "${programs[@]}"; do
		printf '%s %s\n' "$program" "$cache/prometheus/usr/bin/$program"
	done
	printf 'templates %s\n' "$cache/prometheus/usr/lib"
}

main_prometheus
