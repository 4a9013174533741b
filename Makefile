# The commands people type. `make` alone lists them.

SHELL := bash -o pipefail
.DEFAULT_GOAL := help
export PYTHONDONTWRITEBYTECODE := 1

# Outside the checkout, where tests/setup keeps its tools too: a new clone does not build the AWS SDK again.
cache := $(or $(FIREBREAK_CACHE),$(or $(XDG_CACHE_HOME),$(HOME)/.cache)/firebreak)
export CARGO_TARGET_DIR ?= $(cache)/target

# Cargo's, for `make bench`. An optimized build of the AWS SDK takes a long time.
PROFILE ?= dev

CONTROL_PLANE = $(shell tests/setup control-plane)
EMULATOR = $(shell tests/setup emulator)
CARGO_DENY = $(shell tests/setup cargo-deny)

# What `make generate` writes.
GENERATED = crds/manifests docs/actions.md docs/api.md docs/iam-policy.json

.PHONY: help
help: ## List these commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: tools
tools: ## Get the control plane and the AWS emulator that the tests run on (once per machine, about 5 minutes)
	@tests/setup control-plane emulator > /dev/null

.PHONY: demo
demo: tools ## Contain an instance and a user, on a control plane and an AWS emulator of its own; KEEP=1 leaves it up
	cargo build --locked --quiet --workspace --bins
	@KEEP=$(KEEP) $(CARGO_TARGET_DIR)/debug/demo

.PHONY: test
test: tools ## Run all tests
	cd tests/emulator && PYTHONPATH=$(EMULATOR)/site python3 -m unittest test_corrections
	cargo test --locked --workspace

.PHONY: lint
lint: ## Check format, lints, dependencies, the chart, and that generated files are fresh
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets -- -D warnings
	$(CARGO_DENY)/bin/cargo-deny --locked check bans licenses sources
	$(CONTROL_PLANE)/bin/helm lint --strict charts/firebreak
	$(CONTROL_PLANE)/bin/helm template firebreak charts/firebreak --namespace firebreak > /dev/null
	$(MAKE) generate
	git diff --exit-code -- $(GENERATED)
	@! git ls-files --others --exclude-standard -- $(GENERATED) | grep . || (echo "lint: commit these generated files" && false)

.PHONY: advisories
advisories: ## Check the dependencies for known vulnerabilities (fetches a git repository)
	$(CARGO_DENY)/bin/cargo-deny --locked check advisories

.PHONY: generate
generate: ## Write the files that are made from code: CRDs, docs/actions.md, docs/api.md, docs/iam-policy.json
	cargo build --locked --quiet --workspace --bins
	$(CARGO_TARGET_DIR)/debug/firebreak-crdgen .
	$(CARGO_TARGET_DIR)/debug/firebreak-controller iam-policy > docs/iam-policy.json.new
	mv docs/iam-policy.json.new docs/iam-policy.json
	$(CARGO_TARGET_DIR)/debug/firebreak-controller actions > docs/actions.md.new
	mv docs/actions.md.new docs/actions.md

.PHONY: bench
bench: tools ## Measure how fast attackers are cut off, next to a sequential script; PROFILE=release for an optimized build
	cargo build --locked --quiet --profile $(PROFILE) --workspace --bins
	@$(CARGO_TARGET_DIR)/$(PROFILE:dev=debug)/bench
