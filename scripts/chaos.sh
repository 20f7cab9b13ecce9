#!/usr/bin/env bash
# The long part of the operator's reliability tests, on clusters of its own; writes
# docs/chaos-report.md and fails when anything failed. A part that fails does not stop the others.
#   PART=models      only the planners' models, with millions of steps; needs no cluster
#   PART=matrices    only a crash or an error at every call, against a real API server
#   PART=upgrade     only an upgrade of the release from the first slice's version
#   PART=nodes       only what happens to machines, on three kubelets
#   PART=demo        only the demo, whose count is checked
#   ROWS="NAME ..."  only the rows whose test has one of these in its name; of nodes, or with PART=matrices of
#                    those
#   HISTORIES=10000  of each model, so many random histories
#   MUTATIONS=3000   of specifications
# The report keeps what it says of what is not run, and names the commit of each row.
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/environment.sh
source scripts/clusters.sh
ignore_other_clusters

all_parts=(models matrices upgrade nodes demo)
# The first version that was whole: its chart, CRDs, samples and images.
first_slice=5e76da6
report=docs/chaos-report.md
log_folder=$CARGO_TARGET_DIR/chaos
export HISTORIES=${HISTORIES:-10000}
export CLUSTER_NAME=${CLUSTER_NAME:-chaos-$(pwd | sha256sum | cut -c1-6)}

# One row of the report: part, what, how many, result, seconds, seed.
row() {
    printf '| %s | %s | %s | %s | %s | %s | %s |\n' "$@" "$COMMIT" >>"$ROWS_FILE"
}

# Runs a command as a row. Its output is shown and kept; how many and with which seed is read off it
# by the functions that are named.
measured() {
    local part=$1 what=$2 count=$3 seed=$4 started=$SECONDS result=ok points
    shift 4
    local log=$log_folder/${what//[^a-z_]/-}.log
    kept "$log" "$@" || result=FAILED
    points=$("$count" "$log")
    # A name that no test has any more runs nothing.
    [[ -n $points ]] || result=FAILED
    row "$part" "$what" "$points" "$result" "$((SECONDS - started))" "$("$seed" "$log")"
    [[ $result == ok ]]
}

# Shows a command's output and keeps it. By a pipe, of which the clusters' processes inherit nothing.
kept() {
    local log=$1
    shift
    "$@" 2>&1 | tee "$log"
}

none() { :; }

# ---- the planners' models

model() {
    cargo test --locked --workspace --lib -- --nocapture "$1"
}

# As `placement: 20000 histories of 500 steps, seeds 1 to 20000` says.
steps_of() {
    sed -nE 's/.*: ([0-9]+) histories of ([0-9]+) steps.*/\1 \2/p' "$1" |
        awk '{printf "%d steps", $1 * $2}'
}

first_seed() { sed -nE 's/.* steps, seeds ([0-9]+) to .*/\1/p' "$1"; }

cases_of() { grep -qE '^test result: .* [1-9][0-9]* passed' "$1" && echo "$PROPTEST_CASES cases"; }

run_models() {
    local failed=0
    export ATOMIX_HISTORIES=$HISTORIES PROPTEST_CASES=$((HISTORIES * 5))
    measured models placement steps_of first_seed model store::members::placement::tests::histories || failed=1
    measured models rolling steps_of first_seed model store::rolling::tests::histories || failed=1
    measured models leaders cases_of none model store::leaders || failed=1
    measured models bootstrap cases_of none model store::bootstrap::tests::model || failed=1
    return "$failed"
}

# ---- a crash or an error at every call

passed_tests() { sed -nE 's/^test result: .* ([0-9]+) passed; ([0-9]+) failed.*/\1 of \1+\2 tests/p' "$1" | add; }

# 40 of 40+2 is 40 of 42.
add() { sed -E 's/([0-9]+) of ([0-9]+)\+([0-9]+)/\1 \2 \3/' | awk '{printf "%d of %d tests", $1, $2 + $3}'; }

mutation_seed() { sed -nE 's/^(test .*)?seed ([0-9]+): repeat it.*/\2/p' "$1"; }

# The tests of a program that have one of these words in their names, and one of ROWS if that is given.
chosen_tests() {
    local program=$1 rows
    shift
    read -ra rows <<<"${ROWS:-}"
    cargo test --locked --workspace --test "$program" -- --list |
        sed -n 's/: test$//p' | grep -E "$(any_of "$@")" | grep -E "$(any_of "${rows[@]}")"
}

any_of() {
    local IFS='|'
    echo "$*"
}

# A matrix ends with `NAME: 120 runs in 93.1s, 0 failed`, unless its undisturbed run failed.
matrix_row() {
    local log=$1 name=$2 runs seconds failures result=ok
    read -r runs seconds failures < <(
        sed -nE "s/^(.*[^a-z_:])?$name: ([0-9]+) runs in ([0-9.]+)s, ([0-9]+) failed.*/\2 \3 \4/p" "$log"
    ) || result="did not run to its end"
    ((${failures:-0} == 0)) || result="FAILED ($failures)"
    row matrices "$name" "${runs:+$runs runs}" "$result" "${seconds%.*}" ""
    [[ $result == ok ]]
}

# With ROWS, tests of which the report would have nothing at all: it shall not look complete.
left_for_later() {
    local program=$1 name
    shift
    while read -r name; do
        grep -qF "| matrices | ${name##*::} |" "$report" "$ROWS_FILE" ||
            printf '| matrices | %s | | not run | | | |\n' "${name##*::}" >>"$ROWS_FILE"
    done < <(ROWS='' chosen_tests "$program" "$@")
}

# Four matrices at a time: each begins and ends with few runs.
run_matrices_of() {
    local program=$1 log=$log_folder/$1.log tests name failed=0
    mapfile -t tests < <(chosen_tests "$program" crash_and_trouble every_call)
    if ((${#tests[@]} == 0)); then
        left_for_later "$program" crash_and_trouble every_call
        return 0
    fi
    kept "$log" test_with_cluster "$CLUSTER_NAME-op" "$program" \
        --nocapture --test-threads 4 --exact "${tests[@]}" || failed=1
    for name in "${tests[@]##*::}"; do
        matrix_row "$log" "$name" || failed=1
    done
    left_for_later "$program" crash_and_trouble every_call
    return "$failed"
}

changes_or_tests() {
    sed -nE 's/^(.*[^0-9])?([0-9]+ changes) in .*/\2/p' "$1" | grep . || passed_tests "$1"
}

run_matrices() {
    local tests test failed=0
    trap remove_clusters EXIT
    find_tools
    cargo build --locked --workspace --all-targets
    start_cluster "$CLUSTER_NAME-op" --control-plane-only
    export ATOMIX_EVERY_CALL=1 ATOMIX_MUTATIONS=${MUTATIONS:-3000}
    mapfile -t tests < <(chosen_tests namespaced any_specification old_view)
    for test in "${tests[@]}"; do
        measured matrices "${test##*::}" changes_or_tests mutation_seed \
            test_with_cluster "$CLUSTER_NAME-op" namespaced --nocapture --exact "$test" || failed=1
    done
    left_for_later namespaced any_specification old_view
    run_matrices_of namespaced || failed=1
    run_matrices_of cluster_wide || failed=1
    return "$failed"
}

# ---- an upgrade

run_upgrade() {
    trap remove_clusters EXIT
    find_tools
    cargo build --locked --workspace --all-targets
    export CLUSTER_NAME=$CLUSTER_NAME-up
    start_cluster "$CLUSTER_NAME"
    load_images
    export ATOMIX_TEST_OLD_SOURCE=$log_folder/$first_slice ATOMIX_TEST_OLD_IMAGE_TAG
    rm -rf "$ATOMIX_TEST_OLD_SOURCE"
    mkdir -p "$ATOMIX_TEST_OLD_SOURCE"
    git archive "$first_slice" | tar -x -C "$ATOMIX_TEST_OLD_SOURCE"
    ATOMIX_TEST_OLD_IMAGE_TAG=$(CARGO_TARGET_DIR=$log_folder/target-$first_slice \
        IMAGE_SOURCE=$ATOMIX_TEST_OLD_SOURCE scripts/images.sh)
    measured upgrade "from $first_slice, under load" passed_tests none \
        test_with_cluster "$CLUSTER_NAME" upgrade --nocapture
}

# ---- what happens to machines

count_tests() {
    local program=$1
    shift
    cargo test --locked --workspace --test "$program" -- --list "$@" | grep -c ': test$'
}

run_nodes() {
    local failed=0 program expected=0 played filters
    read -ra filters <<<"${ROWS:-}"
    trap remove_clusters EXIT
    find_tools
    cargo build --locked --workspace --all-targets
    start_cluster "$CLUSTER_NAME" --nodes 3
    load_images
    ATOMIX_ROWS_FILE=$(mktemp)
    export ATOMIX_ROWS_FILE
    kept "$log_folder/real_nodes.log" test_with_cluster "$CLUSTER_NAME" real_nodes \
        --nocapture --test-threads 1 "${filters[@]}" || failed=1
    expected=$(count_tests real_nodes "${filters[@]}")
    while IFS=$'\t' read -r name result seconds; do
        row nodes "$name" "" "$result" "$seconds" ""
    done <"$ATOMIX_ROWS_FILE"
    # A row that ended its process wrote nothing.
    played=$(wc -l <"$ATOMIX_ROWS_FILE")
    rm "$ATOMIX_ROWS_FILE"
    if ((played != expected)); then
        row nodes "$((expected - played)) rows more" "" "did not run to their end" "" ""
        failed=1
    fi
    return "$failed"
}

# ---- the demo

# As `nothing lost: 1 acknowledged <= 2 counted <= 3 sent` says; each check counts all so far.
increments_of() {
    sed -nE 's/^nothing lost: .* ([0-9]+) counted .*/\1 increments/p' "$1" | tail -1
}

run_demo() {
    export CLUSTER_NAME=$CLUSTER_NAME-demo
    # It starts the cluster itself, and leaves it for people to look at.
    started_clusters+=("$CLUSTER_NAME")
    trap remove_clusters EXIT
    measured demo "make demo" increments_of none scripts/demo.sh
}

# ---- the report

commit() {
    git rev-parse --short HEAD | tr -d '\n'
    [[ -z $(git status --porcelain -- . ":!$report") ]] || echo -n ", with changes"
}

write_report() {
    local part names
    # Rows that were run again replace those of the same name.
    mapfile -t names < <(sed -nE 's/^(\| [a-z]+ \| [^|]+ \|).*/-e\n\1/p' "$ROWS_FILE")
    cat <<END
# What the operator lived through

Written by \`make chaos-operator\`. \`make test\` runs a shorter form of the models and matrices, and
none of the nodes. A row is of the commit that it names: parts are also run one at a time. Seconds are
those of a shared machine with two cores.

* **models**: the planners against models of groups, nodes and pods, at random; a seed repeats a
  history (\`ATOMIX_SEED\`).
* **matrices**: against a real API server and real storage nodes, once undisturbed and then once for
  each mutating call with the operator killed before it and after it, or with an error at calls, or
  with an event of a watch that it does not hear of; the two of all namespaces, which nothing can run
  beside, with a sample of these.
* **upgrade**: the release of an earlier version, on two kubelets, while an application counts. Its
  pods are not touched, its count is whole, and all storage pods run the new version at the end.
* **nodes**: on three kubelets. During each row an application counts. A row is ok when the Store is whole
  again, and the count lies between what was acknowledged and that with all unknown outcomes; where a lost
  majority is recovered, which gives up what only the lost copies had, a counter that every copy had is whole.
* **demo**: \`make demo\`, with chart and samples as they are, on two kubelets: a storage pod deleted, scaled to
  5 nodes and back, all pods replaced, the count checked after each.

| part | row | points | result | seconds | seed | commit |
|---|---|---:|---|---:|---|---|
END
    for part in "${all_parts[@]}"; do
        if [[ " ${parts[*]} " == *" $part "* ]]; then
            [[ -z ${ROWS:-} ]] || rows_of "$part" "$report" | grep -vF "${names[@]}" || true
            rows_of "$part" "$ROWS_FILE"
        elif ! rows_of "$part" "$report" | grep .; then
            echo "| $part | all | | not run yet | | | |"
        fi
    done
}

rows_of() { sed -n "/^| $1 |/{/ not run yet /!p}" "$2" 2>/dev/null; }

if [[ ${1:-} == --part ]]; then
    "run_$2"
    exit
fi

parts=("${all_parts[@]}")
if [[ -n ${PART:-} ]]; then
    [[ " ${all_parts[*]} " == *" $PART "* ]] ||
        { echo "there is no PART=$PART; choose one of ${all_parts[*]}" >&2; exit 1; }
    parts=("$PART")
fi
if [[ -n ${ROWS:-} ]]; then
    parts=("${PART:-nodes}")
    [[ ${parts[0]} == nodes || ${parts[0]} == matrices ]] ||
        { echo "ROWS are of PART=nodes or PART=matrices, not of $PART" >&2; exit 1; }
fi
mkdir -p "$log_folder"
ROWS_FILE=$(mktemp)
COMMIT=$(commit)
export ROWS_FILE COMMIT
trap 'rm "$ROWS_FILE"' EXIT
status=0
for part in "${parts[@]}"; do
    printf '\n==> chaos: %s\n' "$part"
    # A process of its own ends, and removes its cluster, wherever it fails.
    if ! scripts/chaos.sh --part "$part"; then
        status=1
        grep -qE "^\| $part \|.*\| (FAILED|did not)" "$ROWS_FILE" ||
            row "$part" all "" "FAILED beside its rows" "" ""
    fi
done
if [[ ! -s $ROWS_FILE ]]; then
    echo "no test has ${ROWS:-anything} in its name" >&2
    exit 1
fi
write_report >"$report.new"
mv "$report.new" "$report"
cat "$report"
echo "wrote $report; logs are in $log_folder"
exit "$status"
