# Atomix for Kubernetes. `make help` lists the targets.
#
# Settings, each an environment variable or `make NAME=value`:
#   NODES=2                 nodes of the cluster that `make cluster` and `make demo` start
#   CLUSTER=existing CONTEXT=name   use a cluster of yours instead (never by an exported KUBECONFIG alone)
#   IMAGE_REGISTRY=host/path        with CLUSTER=existing: push images there; or KIND=name: load them into kind
#   PART, ROWS, HISTORIES, MUTATIONS   what of `make chaos-operator` runs; scripts/chaos.sh explains them
#   ATOMIX_CACHE            where built tools and Rust artifacts are kept; default ~/.cache/atomix

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

export ATOMIX_CACHE ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/atomix
export CARGO_TARGET_DIR ?= $(ATOMIX_CACHE)/target
export NODES CLUSTER CONTEXT IMAGE_REGISTRY KIND PART ROWS HISTORIES MUTATIONS
NODES ?= 2

.PHONY: help
help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-15s %s\n", $$1, $$2}'

.PHONY: build
build: ## Build every program
	cargo build --workspace --bins

.PHONY: test
test: ## Pass all tests; starts and stops a cluster of its own
	@scripts/test.sh

.PHONY: unit
unit: ## Only the tests that need no cluster
	@scripts/test.sh unit

.PHONY: histories
histories: ## Record what clients are told under faults, and check that it is linearizable; DURATION=30 SEED=…
	@scripts/histories.sh

.PHONY: chaos-operator
chaos-operator: ## Test the operator for hours, and write docs/chaos-report.md; PART=models, matrices, upgrade, nodes or demo
	@scripts/chaos.sh

.PHONY: verify
verify: ## Check format, lints, generated files, licences; changes nothing
	@scripts/verify.sh

.PHONY: fix
fix: ## Repair what tools can repair
	cargo fmt --all
	cargo clippy --workspace --all-targets --fix --allow-dirty --allow-staged
	gofmt -w tests/cluster
	@$(MAKE) generate

.PHONY: generate
generate: ## Write the generated files: crds/ and deploy/kustomize/base (needs helm)
	cargo build --quiet --workspace --bin atomix-operator
	"$(CARGO_TARGET_DIR)/debug/atomix-operator" crds --output-dir crds
	@tests/cluster/cluster tools
	PATH="$$(tests/cluster/cluster tools --print-bin):$$PATH" scripts/chart.sh generate

.PHONY: audit
audit: ## Check dependencies against the advisory database (needs to fetch it)
	@scripts/tools.sh cargo-deny
	"$(ATOMIX_CACHE)/cargo-tools/bin/cargo-deny" check advisories

.PHONY: cluster
cluster: ## Start a real Kubernetes cluster on this machine (root); kubeconfig in .cluster/
	@[[ "$(CLUSTER)" != existing ]] || { echo "CLUSTER=existing has a cluster already; it is for make images, demo and demo-down" >&2; exit 1; }
	@tests/cluster/cluster up --kubeconfig .cluster/kubeconfig

.PHONY: cluster-down
cluster-down: ## Stop it and remove everything that it made
	@tests/cluster/cluster down

.PHONY: images
images: ## Build the images without Docker and load them into the cluster
	@scripts/images.sh

.PHONY: demo
demo: ## Show it all: cluster, chart, Store, Session, an application that counts through it all
	@scripts/demo.sh

.PHONY: demo-down
demo-down: ## Remove what the demo made, and its cluster
	@scripts/demo.sh down

.PHONY: bench
bench: ## Measure, and write docs/benchmarks.md
	@scripts/bench.sh
