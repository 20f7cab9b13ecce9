# Sourced by the scripts here: runs a command beside the steps that follow.

declare -A job_groups=()
declare -A job_logs=()

# begin NAME COMMAND …; the command may be a function. What it prints is shown when it is finished.
begin() {
    job_logs[$1]=$(mktemp)
    begin_shown "$@" >"${job_logs[$1]}" 2>&1
}

# Like begin, but shows what the command prints as it comes.
begin_shown() {
    local name=$1
    shift
    # With job control its processes are a group, which end_jobs ends as a whole.
    set -m
    (set +m; "$@") &
    job_groups[$name]=$!
    set +m
}

# Waits for the job, and returns as it did.
finish() {
    local name=$1 status=0
    wait "${job_groups[$name]}" || status=$?
    unset "job_groups[$name]"
    if [[ -n ${job_logs[$name]:-} ]]; then
        cat "${job_logs[$name]}"
        rm "${job_logs[$name]}"
        unset "job_logs[$name]"
    fi
    return "$status"
}

# Ends what nobody waited for.
end_jobs() {
    local name
    for name in "${!job_groups[@]}"; do
        kill -- "-${job_groups[$name]}" 2>/dev/null || true
        finish "$name" >/dev/null || true
    done
}
