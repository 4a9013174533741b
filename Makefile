# The commands people type. `make` alone lists them.

SHELL := bash -o pipefail
.DEFAULT_GOAL := help
export PYTHONDONTWRITEBYTECODE := 1

CONTROL_PLANE = $(shell tests/setup control-plane)
EMULATOR = $(shell tests/setup emulator)
CARGO_DENY = $(shell tests/setup cargo-deny)

# What `make generate` writes.
GENERATED = crds/manifests

.PHONY: help
help: ## List these commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: tools
tools: ## Get the control plane and the AWS emulator that the tests run on (once per machine, about 5 minutes)
	@tests/setup control-plane emulator

.PHONY: test
test: tools ## Run all tests
	cargo test --locked --workspace
	cd tests/emulator && PYTHONPATH=$(EMULATOR)/site python3 -m unittest test_corrections

.PHONY: lint
lint: ## Check format, lints, dependencies, the chart, and that generated files are fresh
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets -- -D warnings
	$(CARGO_DENY)/bin/cargo-deny --locked check bans licenses sources
	$(CONTROL_PLANE)/bin/helm lint --strict charts/firebreak
	$(CONTROL_PLANE)/bin/helm template firebreak charts/firebreak --namespace firebreak > /dev/null
	$(MAKE) generate
	git diff --exit-code -- $(GENERATED)

.PHONY: advisories
advisories: ## Check the dependencies for known vulnerabilities (fetches a git repository)
	$(CARGO_DENY)/bin/cargo-deny --locked check advisories

.PHONY: generate
generate: ## Write the files that are made from code
	@echo "nothing is generated yet"

.PHONY: demo
demo: tools ## Contain an instance and a user on a control plane and an AWS emulator of its own
	@echo "no demo yet"

.PHONY: bench
bench: tools ## Measure how fast attackers are cut off
	@echo "no benchmark yet"
