# Sourced by the scripts here: runs named steps, says how long each takes, and prints a table of
# steps and seconds at the end, also when one fails. STEPS_FILE names a file that takes the table
# instead, for whoever runs several scripts.

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
    if [[ -n ${STEPS_FILE:-} ]]; then
        print_step_rows >>"$STEPS_FILE"
        return
    fi
    printf '\n%-46s %8s\n' "step" "seconds"
    print_step_rows
    printf '%-46s %8s\n' "all" "$SECONDS"
}

print_step_rows() {
    local index
    for index in "${!step_names[@]}"; do
        printf '%-46s %8s\n' "${step_names[$index]}" "${step_seconds[$index]}"
    done
}

# Prints the program's location in the cluster tools, which are built first if they are missing.
cluster_tools_path() {
    tests/cluster/cluster tools >&2
    tests/cluster/cluster tools --print-bin
}
