#!/usr/bin/env bash
#
# lint.sh checks the whole tree: gofmt, go vet, staticcheck, govulncheck.
#
# staticcheck and govulncheck are installed once, at the versions below, into the cache directory of postgres.sh. They
# are no dependencies of the module: go.mod is not touched. Without the vulnerability database govulncheck cannot say
# anything; that is reported and is no failure.

set -euo pipefail

cd "$(dirname "$0")/../.."

tools=$(test/install/postgres.sh --cache-dir)/go-tools

# tool NAME MODULE VERSION: prints the path of the program, which has its final name only when it is complete.
tool() {
	local path=$tools/$1-$3 building
	if [ ! -x "$path" ]; then
		mkdir -p "$tools"
		building=$(mktemp -d "$tools/build.XXXXXX")
		GOBIN=$building go install "$2@$3" >&2 || {
			rm -rf "$building"
			printf 'lint.sh: %s is missing\n  mend: GOBIN=%s go install %s@%s\n' "$1" "$tools" "$2" "$3" >&2
			return 1
		}
		mv "$building/$1" "$path"
		rm -rf "$building"
	fi
	printf '%s\n' "$path"
}

step() { printf '== %s\n' "$*"; }

step gofmt
unformatted=$(gofmt -l .)
if [ -n "$unformatted" ]; then
	printf 'not formatted:\n%s\n' "$unformatted"
	exit 1
fi

step go vet
go vet ./...

step staticcheck
staticcheck=$(tool staticcheck honnef.co/go/tools/cmd/staticcheck v0.8.2)
"$staticcheck" ./...

step govulncheck
govulncheck=$(tool govulncheck golang.org/x/vuln/cmd/govulncheck v1.1.4)
if ! report=$("$govulncheck" ./... 2>&1); then
	case $report in
	*'fetching vulnerabilities:'*) printf 'NOT CHECKED: the vulnerability database cannot be reached from here\n%s\n' "$report" ;;
	*)
		printf '%s\n' "$report"
		exit 1
		;;
	esac
fi
