#!/usr/bin/env bash
# Records what clients of a real Store are told while its nodes and sidecars are killed, stopped and
# parted, and checks that it is linearizable and that each change was made exactly once.
#   DURATION=30       seconds for which things go wrong
#   SEED=NUMBER       the faults and the clients' choices of an earlier run; by default any
#   CLIENTS=4         that change each kind of object; one more only reads, by a sidecar for readers
#   NODES, SIDECARS, PARTITIONS   how large the Store is: 3, 3, 3
#   OPERATIONS=1000, AGE=8   on one object and seconds of it, after which the next one is used
#   PROFILE=release   programs as they are released; by default those that tests use
# Nothing stays behind but, of a run that failed, the folder that it names.
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/environment.sh

profile=${PROFILE:-dev}
programs=$CARGO_TARGET_DIR/${profile/#dev/debug}
checker=$CARGO_TARGET_DIR/porcupine
folder=
recorder=
interrupted=130

# Every process that begins here has it in its environment, so that one that stays is found.
export ATOMIX_HISTORIES_RUN=$$-$SRANDOM

clean_up() {
    local status=$?
    trap - EXIT
    if [[ -n $recorder ]]; then
        # With it end all processes that it has started.
        kill "$recorder" 2>/dev/null || true
        wait "$recorder" 2>/dev/null || true
    fi
    nothing_is_left_running || status=1
    if [[ -n $folder ]]; then
        if ((status == 0 || status == interrupted)); then
            rm -r "$folder"
        else
            echo "histories, faults and logs of this run: $folder" >&2
        fi
    fi
    exit "$status"
}
trap clean_up EXIT
trap 'exit "$interrupted"' HUP INT TERM

nothing_is_left_running() {
    local process variables left=0
    # The kernel ends what the recorder has started a moment after it.
    for _ in {1..50}; do
        left=0
        for process in /proc/[0-9]*; do
            [[ ${process#/proc/} != "$$" ]] || continue
            # It may end meanwhile.
            mapfile -d '' variables 2>/dev/null <"$process/environ" || continue
            [[ " ${variables[*]} " == *" ATOMIX_HISTORIES_RUN=$ATOMIX_HISTORIES_RUN "* ]] || continue
            left=1
            break
        done
        ((left == 1)) || return 0
        sleep 0.1
    done
    echo "still running: process ${process#/proc/}, $(tr '\0' ' ' <"$process/cmdline")" >&2
    return 1
}

# With the features that tests have, so that what those have built serves here, too.
build() {
    "${build_for_images[@]}" --profile "$profile" \
        --bin atomix-node --bin atomix-runtime --bin atomix-histories
    (cd tests/porcupine && go vet ./... && go test ./... && go build -o "$checker" .)
}

record() {
    local options=(
        --output "$folder"
        --seconds "${DURATION:-30}"
        --clients "${CLIENTS:-4}"
        --nodes "${NODES:-3}"
        --sidecars "${SIDECARS:-3}"
        --partitions "${PARTITIONS:-3}"
        --operations "${OPERATIONS:-1000}"
        --age "${AGE:-8}"
    )
    [[ -z ${SEED:-} ]] || options+=(--seed "$SEED")
    "$programs/atomix-histories" "${options[@]}" &
    recorder=$!
    wait "$recorder"
    recorder=
}

build
folder=$(mktemp -d "${TMPDIR:-/tmp}/atomix-histories.XXXXXX")
started=$SECONDS
record
recorded=$SECONDS
"$checker" "$folder"
echo "recorded in $((recorded - started)) s, checked in $((SECONDS - recorded)) s"
