# Sourced by the scripts here: runs named steps, says how long each takes, and prints a table of
# steps and seconds at the end, also when one fails.

step_names=()
step_seconds=()

step() {
    local name=$1 started=$SECONDS
    shift
    printf '\n==> %s\n' "$name"
    step_names+=("$name")
    step_seconds+=("failed")
    "$@"
    step_seconds[-1]=$((SECONDS - started))
    printf '    %s: %s s\n' "$name" "${step_seconds[-1]}"
}

print_steps() {
    local index
    printf '\n%-46s %8s\n' "step" "seconds"
    for index in "${!step_names[@]}"; do
        printf '%-46s %8s\n' "${step_names[$index]}" "${step_seconds[$index]}"
    done
    printf '%-46s %8s\n' "all" "$SECONDS"
}

# Prints the program's location in the cluster tools, which are built first if they are missing.
cluster_tools_path() {
    tests/cluster/cluster tools >&2
    tests/cluster/cluster tools --print-bin
}
