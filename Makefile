SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := build
.PHONY: build install packages demo screenshots test deps race unit integration lint fuzz bench soak bench-swarm clean help

GO       ?= go
FUZZTIME ?= 60s
SOAK     ?= 300
PREFIX   ?= /usr/local
DESTDIR  ?=
DEMO     ?=
BENCH    ?=
KILLS    ?= 200
HANDOVERS ?= 200
SWARM    ?=

VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
# A version that packages can have: they order 0.0.0~git… before any release.
PACKAGE_VERSION := $(shell git describe --tags --match 'v[0-9]*' 2>/dev/null | sed 's/^v//; s/-/+/' | grep . || echo '0.0.0~git$(shell git show -s --format=%cd --date=format:%Y%m%d%H%M%S 2>/dev/null || echo 0)')
# Run from its own module, so that go.mod has none of its hundred dependencies.
NFPM    ?= github.com/goreleaser/nfpm/v2/cmd/nfpm@v2.44.2
# Everything but what drives the built binary from outside.
UNIT     = $$($(GO) list ./... | grep -v '/integration\(/\|$$\)')
# Says aloud what was skipped; `go test` alone does not.
REPORT   = $(GO) run ./integration/testreport

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

build: ## the binary, in bin/
	CGO_ENABLED=0 $(GO) build -trimpath -buildvcs=false -ldflags '-s -w -X main.version=$(VERSION)' -o bin/dcfs ./cmd/dcfs

install: build ## the binary, below PREFIX
	install -D -m 0755 bin/dcfs $(DESTDIR)$(PREFIX)/bin/dcfs

packages: build ## .deb and .rpm for this machine's architecture, in bin/
	@mkdir -p bin/generated && rm -f bin/*.deb bin/*.rpm
	@for shell in bash zsh fish; do bin/dcfs completion $$shell >bin/generated/dcfs.$$shell; done
	@bin/dcfs man | gzip -9n >bin/generated/dcfs.8.gz
	@for kind in deb rpm; do ARCH=$$($(GO) env GOARCH) PACKAGE_VERSION='$(PACKAGE_VERSION)' \
		$(GO) run $(NFPM) package --config cmd/dcfs/packaging/nfpm.yaml --packager $$kind --target bin/; done

demo: build ## the whole story on this machine; DEMO='--nodes 8' passes flags on
	bin/dcfs demo $(DEMO)

test: deps race integration ## all tests, with what they need installed first

deps: ## what the tests need, through apt
	@integration/deps.sh

race: ## unit tests with the race detector, or without where there is no C compiler
	@if command -v gcc >/dev/null; then \
		CGO_ENABLED=1 $(GO) test -race -json -timeout 10m $(UNIT) | $(REPORT); \
		$(GO) test -json -timeout 10m -run '^TestEveryFault$$' ./cmd/internal/origin | $(REPORT); \
	else \
		echo "race: no gcc: unit tests run WITHOUT the race detector"; \
		$(MAKE) --no-print-directory unit; \
	fi

unit: ## unit tests, plain
	@$(GO) test -json -timeout 10m $(UNIT) | $(REPORT)

# One package at a time: they share two cores and measure progress.
integration: ## tests that drive the binary: namespaces, mounts, other clients
	@$(GO) test -json -count=1 -p 1 -timeout 25m ./integration/... | $(REPORT)

lint: ## gofmt, vet, staticcheck
	@unformatted=$$(gofmt -l .); if [ -n "$$unformatted" ]; then echo "gofmt: $$unformatted"; exit 1; fi
	$(GO) vet ./...
	$(GO) tool staticcheck ./...

fuzz: ## every fuzz target for FUZZTIME
	@for pkg in $$($(GO) list ./...); do \
		for target in $$($(GO) test -list '^Fuzz' "$$pkg" | grep '^Fuzz' || true); do \
			echo "== $$pkg $$target"; \
			$(GO) test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) "$$pkg"; \
		done; \
	done

bench: build ## every benchmark; BENCH='-only publish -full' passes flags on
	$(GO) test -run '^$$' -bench . -benchmem $(UNIT)
	$(GO) run ./integration/bench $(BENCH)

bench-swarm: build ## a swarm on shaped links beside other programs; SWARM='-cases 8x100 -tools dcfs' passes flags on
	$(GO) test ./integration/benchswarm -run '^$$' -bench . -benchtime 1x -timeout 0 -args -dcfs ../../bin/dcfs $(SWARM)

# A kill takes about three seconds. SOAK_SEED=N repeats a run.
soak: deps ## what needs many rounds: kills of a live swarm (SOAK=300), handovers under use, and a quarter as many other ends (HANDOVERS=200), kills of a serving process (KILLS=200)
	SOAK=$(SOAK) $(GO) test -count=1 -v -timeout 6h -run '^TestSoak$$' ./integration
	$(GO) test -count=1 -timeout 60m -v -run '^(TestHandovers|TestAtEnd.*)$$' ./integration -handovers $(HANDOVERS) | grep -v '^=== '
	DCFS_SOAK_FAULTS=1 $(GO) test -count=1 -timeout 60m -v -run '^TestDeployFaults$$' ./integration | grep -v '^=== '
	DCFS_SOAK_KILLS=$(KILLS) $(GO) test -count=1 -timeout 60m -v -run '^TestSurvive$$' ./integration

screenshots: deps ## the pictures of docs/pictures, from a real swarm in a real browser
	$(GO) test -count=1 -timeout 10m -v -run '^TestScreenshots$$' ./integration -screenshots $(CURDIR)/docs/pictures

clean: ## what make made
	rm -rf bin
