#!/usr/bin/env bash
# Tests that a dead cluster is cleaned up by the next start, and that `cluster down` leaves nothing on
# the machine. Root; takes the name of a running cluster with nodes, which is gone afterwards.
set -euo pipefail
cd "$(dirname "$0")"

name=$1
records=/run/atomix-cluster/$name
data=/var/lib/atomix-cluster/$name
# Names of links have at most 15 characters.
hash=$(printf %s "$name" | sha256sum | cut -c1-6)

fail() {
    printf 'cluster %s: %s\n' "$name" "$*" >&2
    exit 1
}

processes() {
    local file
    for file in /proc/[0-9]*/cgroup; do
        # A process that has just ended has no file any more.
        if grep -qE ":/atomix-cluster/$name(/|\$)" "$file" 2>/dev/null; then
            process "$file"
        fi
    done
}

# With its start time, since ids come again; the name before it may hold spaces. Not those that have
# ended and wait for their parent to ask.
process() {
    local folder=${1%/cgroup} stat
    stat=$(cat "$folder/stat" 2>/dev/null) || return 0
    read -ra stat <<<"${stat##*) }"
    [[ ${stat[0]} != [ZX] ]] || return 0
    echo "process ${folder#/proc/} since ${stat[19]}"
}

# Of each kind what bears the cluster's name; a line is "kind what".
traces() {
    processes
    find /sys/fs/cgroup -maxdepth 3 -type d -path "*/atomix-cluster/$name" | sed 's/^/cgroup /'
    ip netns list | sed -nE "s/^(atx-$name-(control|node-[0-9]+))( .*)?$/namespace \1/p"
    ip -o link | sed -nE "s/^[0-9]+: (atx-$hash)@.*/link \1/p"
    awk -v records="$records/" -v data="$data/" \
        'index($2, records) == 1 || index($2, data) == 1 {print "mount " $2}' /proc/self/mounts
    find "$records" "$data" -maxdepth 0 2>/dev/null | sed 's/^/folder /'
    find /var/log/containers -lname "$data/*" 2>/dev/null | sed 's/^/log /'
    find /var/lib/cni/results -name "atx-$hash-*" 2>/dev/null | sed 's/^/address /'
    local socket
    for socket in "${shim_sockets[@]}"; do
        [[ ! -e $socket ]] || echo "socket $socket"
    done
}

# Of the pods that run now; only the records of their shims tell.
read_shim_sockets() {
    mapfile -t shim_sockets < <(grep -ohE 'unix://[^"]+' \
        "$records"/node-*/containerd/io.containerd.runtime.v2.task/k8s.io/*/bootstrap.json | sed 's|^unix://||')
}

# What is looked for is there while the cluster runs: otherwise nothing would be proved.
expect_traces_of_each_kind() {
    local found=$1 kind
    for kind in process cgroup namespace link mount folder log address socket; do
        grep -q "^$kind " <<<"$found" || fail "this test sees no $kind of the running cluster"
    done
}

shim_sockets=()
[[ -d $records ]] || fail "does not run"
read_shim_sockets
before=$(traces)
expect_traces_of_each_kind "$before"

# A machine's memory ran out, say: the control plane dies, and kubelets and pods stay.
api_server=$(grep -oE '"id":[0-9]+' "$records/processes/kube-apiserver.json")
kill -9 "${api_server#*:}"
folder=$(mktemp -d)
./cluster up --name "$name" --kubeconfig "$folder/kubeconfig"
after=$(processes)
survivors=$(grep -Fx -f <(grep '^process ' <<<"$before") <<<"$after" || true)
[[ -z $survivors ]] || fail "of the dead one still runs:"$'\n'"$survivors"
[[ -n $after ]] || fail "nothing runs after its new start"

read_shim_sockets
expect_traces_of_each_kind "$(traces)"
./cluster down --name "$name"
left=$(traces)
[[ -z $left ]] || fail "left after \`cluster down\`:"$'\n'"$left"
rmdir "$folder" || fail "its kubeconfig is left"
./cluster down --name "$name" || fail "removing it twice is an error"
echo "cluster $name: a dead one was replaced, and nothing is left of it"
