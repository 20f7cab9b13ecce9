#!/usr/bin/env bash
# All tests: units and processes, the cluster tool, the chart, then the operator against a real API
# server and the whole story on a real cluster, both of an instance of their own that is removed
# afterwards.
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/steps.sh

export ATOMIX_CACHE=${ATOMIX_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/atomix}
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$ATOMIX_CACHE/target}
# The tests use a cluster of their own, also while a demo's runs.
export CLUSTER_NAME=${CLUSTER_NAME:-test-$(pwd | sha256sum | cut -c1-6)}
kubeconfig=$PWD/.cluster/$CLUSTER_NAME.kubeconfig
cluster_started=no

clean_up() {
    local status=$?
    if [[ $cluster_started == yes ]]; then
        tests/cluster/cluster down
    fi
    print_steps
    exit "$status"
}
trap clean_up EXIT

build_everything() {
    cargo build --locked --workspace --all-targets
}

find_tools() {
    tests/cluster/cluster tools
    PATH=$(tests/cluster/cluster tools --print-bin):$PATH
    export PATH
}

chart_renders() {
    helm lint charts/atomix
    helm template atomix charts/atomix >/dev/null
    helm template atomix charts/atomix --set watchNamespace=one >/dev/null
}

start_cluster() {
    cluster_started=yes
    tests/cluster/cluster up --kubeconfig "$kubeconfig"
}

load_images() {
    ATOMIX_TEST_IMAGE_TAG=$(scripts/images.sh)
    export ATOMIX_TEST_IMAGE_TAG
}

test_crate() {
    ATOMIX_TEST_KUBECONFIG=$kubeconfig cargo test --locked -p "$1" -- --test-threads "$2" --nocapture
}

step "build everything" build_everything
step "tests without a cluster" cargo test --locked
step "tests of the cluster tool" bash -c 'cd tests/cluster && go test ./...'
step "cluster tools" find_tools
step "chart" chart_renders
step "cluster" start_cluster
step "images" load_images
step "operator against the real API server" test_crate atomix-operator-tests 1
step "end to end" test_crate atomix-e2e 1
