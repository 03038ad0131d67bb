# Builds, tests and installs pgmoneta. "make" alone lists the targets.
#
# Tests use real PostgreSQL servers. test/install/postgres.sh fetches what is missing into a cache directory outside
# this tree (test/install/postgres.sh --cache-dir prints it); a server that cannot be had is a failure, never a skip.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c

PREFIX ?= /usr/local
DESTDIR ?=
FUZZTIME ?= 60s

bindir := $(DESTDIR)$(PREFIX)/bin
mandir := $(DESTDIR)$(PREFIX)/share/man
sharedir := $(DESTDIR)$(PREFIX)/share
exampledir := $(DESTDIR)$(PREFIX)/share/doc/pgmoneta/examples

postgres := test/install/postgres.sh
export PATH := $(PATH):$(shell test/install/postgres.sh --cache-dir)/tools/usr/bin

.PHONY: help build tools test test-all test-race test-ha disk-test observability-test bench fuzz lint man install demo demo-stop clean

help: ## print this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-18s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

build: ## build static binaries of all programs into bin/
	CGO_ENABLED=0 go build -trimpath -o bin/ ./cmd/...

test: tools ## run all tests against PostgreSQL 15 and 17
	$(postgres) 15 17
	PGMONETA_TEST_PG="15 17" go test -count=1 -timeout 14m ./...

test-all: tools ## run all tests, long ones too, against PostgreSQL 14 to 18; those without a server also under the race detector
	$(postgres)
	CGO_ENABLED=1 go test -race -count=1 -timeout 60m $$(go list -f '{{.ImportPath}} {{.TestImports}} {{.XTestImports}}' ./... | grep -v /test/pgtest | cut -d ' ' -f 1)
	PGMONETA_TEST_PG=all PGMONETA_TEST_LONG=1 go test -count=1 -timeout 60m ./...

test-race: tools ## run all tests under the race detector against PostgreSQL 15 and 17; needs gcc
	$(postgres) 15 17
	CGO_ENABLED=1 PGMONETA_TEST_PG="15 17" go test -race -count=1 -timeout 40m ./...

test-ha: ## follow a cluster of Patroni, etcd and HAProxy through kill, switchover and network cut; as root in namespaces of its own
	$(postgres) 17
	test/install/ha.sh
	go vet -tags ha ./test/ha
	PGMONETA_TEST_PG=17 go test -tags ha -count=1 -v -timeout 10m ./test/ha

disk-test: ## let the file system below a daemon fail; as root, on a loop device
	$(postgres) 17
	go vet -tags disk ./test/e2e ./internal/durable
	go test -tags disk -run BarrierTells -count=1 -v ./internal/durable
	PGMONETA_TEST_PG=17 go test -tags disk -run ReadOnlyFileSystem -count=1 -v -timeout 10m ./test/e2e

observability-test: tools ## check the alert rules, then stop a WAL worker and see Prometheus and Alertmanager tell about it
	$(postgres) 17
	go vet -tags observability ./test/e2e
	PGMONETA_TEST_PG=17 go test -tags observability -run Observability -count=1 -v -timeout 10m ./test/e2e

tools:
	@$(postgres) --tools

bench: build tools ## measure beside PostgreSQL's own tools and pgBackRest; test/bench/bench.sh tells what can be chosen
	test/bench/bench.sh

fuzz: ## run every fuzz target of the tree for FUZZTIME (60s), one after the other
	@targets=$$(go test -list '^Fuzz' ./... | awk '/^Fuzz/ { f[n++] = $$1 } /^ok/ { for (i = 0; i < n; i++) print $$2, f[i]; n = 0 }'); \
	[ -n "$$targets" ] || { echo "no fuzz targets"; exit 1; }; \
	printf 'fuzz targets:\n%s\n' "$$targets"; \
	while read -r package target; do \
		echo "== $$package $$target $(FUZZTIME)"; \
		go test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) "$$package" </dev/null; \
	done <<<"$$targets"

lint: ## gofmt, go vet, staticcheck, govulncheck
	test/install/lint.sh

man: ## make the manual pages in doc/man anew, from the tables of the programs and from doc/MANUAL.md
	go test -run ManualPage ./cmd/... -update

install: build ## install programs, manual pages, shell completion and example configuration below $(DESTDIR)$(PREFIX)
	install -d "$(bindir)"
	install -m 755 bin/* "$(bindir)"
	@for page in $(wildcard doc/man/*.[1-8]); do \
		install -D -v -m 644 "$$page" "$(mandir)/man$${page##*.}/$${page##*/}"; \
	done
	@install -d "$(sharedir)/bash-completion/completions" "$(sharedir)/zsh/site-functions" "$(sharedir)/fish/vendor_completions.d"
	@for program in $(notdir $(wildcard cmd/*)); do \
		sed "s/@NAME@/$$program/g" internal/cmdline/completion.bash >"$(sharedir)/bash-completion/completions/$$program"; \
		sed "s/@NAME@/$$program/g" internal/cmdline/completion.zsh >"$(sharedir)/zsh/site-functions/_$$program"; \
		sed "s/@NAME@/$$program/g" internal/cmdline/completion.fish >"$(sharedir)/fish/vendor_completions.d/$$program.fish"; \
	done
	@install -D -v -m 644 doc/schema/pgmoneta-cli.schema.json "$(sharedir)/doc/pgmoneta/pgmoneta-cli.schema.json"
	@for example in $(wildcard doc/etc/*); do \
		install -D -v -m 644 "$$example" "$(exampledir)/$${example##*/}"; \
	done

demo: build ## start a demonstration: servers, load, pgmoneta
	test/demo/demo.sh

demo-stop: ## end the demonstration and remove what it made
	test/demo/stop.sh

clean: ## remove what was built; the cache of servers stays
	rm -rf bin
