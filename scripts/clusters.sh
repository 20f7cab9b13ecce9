# Sourced by the scripts that test against clusters of their own: starting and removing them, running
# test programs against them, and which programs there are.

source scripts/jobs.sh

# Test programs that take too long for `make test`: scripts/chaos.sh runs each of them.
long_programs=(real_nodes upgrade)

started_clusters=()
run_programs=()

find_tools() {
    tests/cluster/cluster tools
    PATH=$(tests/cluster/cluster tools --print-bin):$PATH
    export PATH
}

kubeconfig_of() { echo "$PWD/.cluster/$1.kubeconfig"; }

# Starts a cluster of this name; more arguments go to `cluster up`.
start_cluster() {
    local name=$1
    shift
    started_clusters+=("$name")
    tests/cluster/cluster up --name "$name" --kubeconfig "$(kubeconfig_of "$name")" "$@"
}

remove_clusters() {
    local name
    for name in "${started_clusters[@]}"; do
        tests/cluster/cluster down --name "$name"
    done
}

load_images() {
    ATOMIX_TEST_IMAGE_TAG=$(scripts/images.sh)
    export ATOMIX_TEST_IMAGE_TAG
}

# Runs a test program against the named cluster; more arguments go to the program.
test_with_cluster() {
    run_programs+=("$2")
    run_program "$@"
}

# Does so beside the steps that follow, as a job of this name.
begin_with_cluster() {
    local job=$1
    shift
    run_programs+=("$2")
    begin "$job" run_program "$@"
}

run_program() {
    local name=$1 program=$2
    shift 2
    ATOMIX_TEST_KUBECONFIG=$(kubeconfig_of "$name") \
        cargo test --locked --workspace --test "$program" -- "$@"
}

# The test programs that need a cluster.
cluster_programs() {
    local file
    for file in tests/*/tests/*.rs tests/*/tests/*/main.rs; do
        [[ -e $file ]] && test_target "$file"
    done
}

is_long() { [[ " ${long_programs[*]} " == *" $1 "* ]]; }

# Each program was run here, or is one of the long ones.
every_program_was_run() {
    local program programs
    mapfile -t programs < <(cluster_programs)
    for program in "${long_programs[@]}"; do
        if [[ " ${programs[*]} " != *" $program "* ]]; then
            echo "there is no test program $program: take it out of scripts/clusters.sh" >&2
            return 1
        fi
    done
    for program in "${programs[@]}"; do
        if ! is_long "$program" && [[ " ${run_programs[*]} " != *" $program "* ]]; then
            echo "the test program $program is not run: add a step for it to scripts/test.sh" >&2
            return 1
        fi
    done
}

test_target() {
    local name
    name=$(basename "$1" .rs)
    [[ $name == main ]] && name=$(basename "$(dirname "$1")")
    echo "$name"
}
