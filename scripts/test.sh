#!/usr/bin/env bash
# All tests: units and processes, the cluster tool, the chart, then the operator against a real API
# server and the whole story on a real cluster, both of an instance of their own that is removed
# afterwards. `scripts/test.sh unit` stops before what needs a cluster. What takes longer is
# scripts/chaos.sh.
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/environment.sh
source scripts/steps.sh
source scripts/clusters.sh
ignore_other_clusters

# The tests use a cluster of their own, also while a demo's runs.
export CLUSTER_NAME=${CLUSTER_NAME:-test-$(pwd | sha256sum | cut -c1-6)}

# Every process that begins here has it in its environment, so that one that stays is found.
export ATOMIX_TEST_RUN=$$-$SRANDOM

clean_up() {
    local status=$?
    end_jobs
    remove_clusters
    nothing_is_left_running || status=1
    print_steps
    exit "$status"
}

nothing_is_left_running() {
    local folder variables left=0
    for folder in /proc/[0-9]*; do
        # It may end meanwhile.
        mapfile -d '' variables 2>/dev/null <"$folder/environ" || continue
        if [[ " ${variables[*]} " == *" ATOMIX_TEST_RUN=$ATOMIX_TEST_RUN "* ]]; then
            echo "still running: process ${folder#/proc/}, $(tr '\0' ' ' <"$folder/cmdline")" >&2
            left=1
        fi
    done
    return "$left"
}
trap clean_up EXIT

build_everything() {
    cargo build --locked --workspace --all-targets
}

# Neither compiler keeps two cores busy alone.
build_everything_and_tools() {
    begin_shown tools tests/cluster/cluster tools
    build_everything
    finish tools
}

# Every cargo call selects the whole workspace, so that all of them share one build: another
# selection of packages would unify other features and compile the dependencies again.
test_without_cluster() {
    local targets=(--lib) file
    for file in crates/*/tests/*.rs crates/*/tests/*/main.rs tests/*.rs; do
        [[ -e $file ]] || continue
        targets+=(--test "$(test_target "$file")")
    done
    cargo test --locked --workspace "${targets[@]}"
}

if [[ ${1:-} == unit ]]; then
    step "build everything" build_everything
else
    step "build everything, and the cluster's tools" build_everything_and_tools
fi
step "tests without a cluster" test_without_cluster
step "wire, in another language" tests/wire/run
if [[ ${1:-} == unit ]]; then
    exit 0
fi
find_tools
step "tests of the cluster tool" bash -c 'cd tests/cluster && go test ./...'
step "chart" scripts/chart.sh
step "a cluster of the user's" tests/own_cluster_test.sh
# The operator's steps are tested without nodes: every pod is a process that the test starts.
step "control plane" start_cluster "$CLUSTER_NAME-op" --control-plane-only
step "operator: resource definitions" test_with_cluster "$CLUSTER_NAME-op" crds
# Waits for ten minutes.
begin_with_cluster rest "$CLUSTER_NAME-op" namespaced at_rest::
step "operator: against the real API server" \
    test_with_cluster "$CLUSTER_NAME-op" namespaced --test-threads 8 --skip at_rest::
step "operator: at rest" finish rest
# Only now: it serves every namespace, so also those of the other tests' operators. It waits much, and so do
# the tests of the other cluster.
begin_with_cluster all_namespaces "$CLUSTER_NAME-op" cluster_wide
step "cluster" start_cluster "$CLUSTER_NAME"
step "images" load_images
step "end to end" test_with_cluster "$CLUSTER_NAME" end_to_end --test-threads 3
step "end to end, one by one" test_with_cluster "$CLUSTER_NAME" one_by_one --test-threads 1
step "operator: all namespaces" finish all_namespaces
step "cluster: restart and removal" tests/cluster/cleanup_test.sh "$CLUSTER_NAME"
step "every test program was run" every_program_was_run
