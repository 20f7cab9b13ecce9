#!/usr/bin/env bash
# The demo: a real cluster, the chart, a Store of 3 nodes and 4 partitions, a Session, two replicas
# of an application that count together, with injected sidecars; one storage pod is deleted and the
# Store is scaled to 5 nodes and back while they count, and the count is checked.
# `scripts/demo.sh down` removes it all. Safe to repeat.
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/environment.sh
source scripts/steps.sh

namespace=atomix-demo
system_namespace=atomix-system
registry=$(image_registry)

if [[ ${CLUSTER:-} == existing ]]; then
    : "${CONTEXT:?CLUSTER=existing needs CONTEXT=<name of a context of your kubeconfig>}"
    kubectl=(kubectl --context "$CONTEXT")
    helm=(helm --kube-context "$CONTEXT")
    echo "using your cluster '$CONTEXT' at $("${kubectl[@]}" config view --minify -o jsonpath='{.clusters[0].cluster.server}'):"
    echo "namespaces $namespace and $system_namespace; of the whole cluster the Atomix CRDs, Drivers and roles,"
    echo "a webhook for pods labelled atomix.io/inject, and a policy for deletions of Stores; nothing else"
else
    # Its kubectl and helm are known when it is started. A cluster that is named has a kubeconfig of its own.
    kubeconfig=$PWD/.cluster/${CLUSTER_NAME:+$CLUSTER_NAME.}kubeconfig
fi

remove_demo() {
    if [[ ${CLUSTER:-} != existing ]]; then
        tests/cluster/cluster down
        return
    fi
    # While the operator runs: it lets go of Sessions, Stores and Drivers.
    "${kubectl[@]}" delete namespace "$namespace" --ignore-not-found
    "${helm[@]}" uninstall atomix --namespace "$system_namespace" --ignore-not-found
    "${kubectl[@]}" delete namespace "$system_namespace" --ignore-not-found
    echo "left: the Atomix CRDs and Drivers, which other namespaces may use; remove them, and every Store and Session of the cluster, by 'kubectl delete -f crds/'"
}

if [[ ${1:-} == down ]]; then
    remove_demo
    exit 0
fi

start_cluster() {
    if [[ ${CLUSTER:-} == existing ]]; then
        "${kubectl[@]}" get --raw /readyz >/dev/null
        return
    fi
    tests/cluster/cluster tools
    tests/cluster/cluster up --kubeconfig "$kubeconfig"
    local tools
    tools=$(tests/cluster/cluster tools --print-bin)
    kubectl=("$tools/kubectl" --kubeconfig "$kubeconfig")
    helm=("$tools/helm" --kubeconfig "$kubeconfig")
}

build_and_load_images() {
    tag=$(scripts/images.sh)
    "${build_for_images[@]}" --bin kubectl-atomix
}

install_chart() {
    "${kubectl[@]}" apply --server-side --force-conflicts -f crds/ >/dev/null
    "${helm[@]}" upgrade --install atomix charts/atomix --namespace "$system_namespace" --create-namespace \
        --set image.registry="$registry" --set image.tag="$tag" --wait --timeout 3m
}

apply_samples() {
    # A count from an earlier demo would hide a loss in this one.
    "${kubectl[@]}" delete namespace "$namespace" --ignore-not-found --timeout 3m
    "${kubectl[@]}" create namespace "$namespace"
    local sample
    for sample in store session injected-application; do
        sed -E "s#ghcr.io/atomix/(atomix-[a-z-]+):[0-9.]+#$registry/\\1:$tag#" "deploy/samples/$sample.yaml" |
            "${kubectl[@]}" apply --namespace "$namespace" -f -
    done
    "${kubectl[@]}" wait --namespace "$namespace" --for=condition=Ready store/counts --timeout 3m
    "${kubectl[@]}" wait --namespace "$namespace" --for=condition=Ready session/visits --timeout 2m
    "${kubectl[@]}" rollout status --namespace "$namespace" deployment/visits --timeout 2m
}

# Prints each replica's tally, one a line: acknowledged=… unknown=… refused=… value=…
tallies() {
    local pod
    for pod in $("${kubectl[@]}" get pods --namespace "$namespace" -l app=visits -o jsonpath='{.items[*].metadata.name}'); do
        "${kubectl[@]}" get --raw "/api/v1/namespaces/$namespace/pods/$pod:8080/proxy/"
    done
}

# Sums one field over the tallies on standard input; `value` is a maximum, since it is shared.
sum() { sed -nE "s/.*\\b$1=(-?[0-9]+).*/\\1/p" | awk '{ total += $1 } END { print total + 0 }'; }
highest() { sed -nE "s/.*\\bvalue=(-?[0-9]+).*/\\1/p" | sort -n | tail -1; }

# Waits until the applications have acknowledged more than $1 increments.
wait_for_more_than() {
    local deadline=$((SECONDS + 60))
    until (($(tallies | sum acknowledged) > $1)); do
        if ((SECONDS > deadline)); then
            echo "the application did not count beyond $1 within 60 s:" >&2
            tallies >&2
            return 1
        fi
    done
}

count_through_a_failure() {
    wait_for_more_than 100
    echo "the application counts:"
    tallies | sed 's/^/    /'
    local acknowledged
    acknowledged=$(tallies | sum acknowledged)

    local victim=counts-0
    echo "deleting storage pod $victim while it counts"
    "${kubectl[@]}" delete pod --namespace "$namespace" "$victim" --wait=false
    wait_for_more_than $((acknowledged + 200))
    "${kubectl[@]}" wait --namespace "$namespace" --for=condition=Ready store/counts --timeout 2m

    check_count
}

scale_while_it_counts() {
    local replicas acknowledged
    for replicas in 5 3; do
        acknowledged=$(tallies | sum acknowledged)
        "${kubectl[@]}" scale --namespace "$namespace" store/counts --replicas "$replicas"
        "${kubectl[@]}" wait --namespace "$namespace" --for=jsonpath='{.status.readyReplicas}'="$replicas" \
            store/counts --timeout 3m
        "${kubectl[@]}" wait --namespace "$namespace" --for=condition=Progressing=False store/counts --timeout 3m
        wait_for_more_than $((acknowledged + 100))
        show_partitions
    done
    check_count
}

change_settings_while_it_counts() {
    local acknowledged
    acknowledged=$(tallies | sum acknowledged)
    "${kubectl[@]}" patch --namespace "$namespace" store/counts --type merge \
        --patch '{"spec": {"multiRaft": {"pod": {"resources": {"requests": {"cpu": "11m"}}}}}}'
    "${kubectl[@]}" wait --namespace "$namespace" --for=condition=Progressing=True store/counts --timeout 1m
    "${kubectl[@]}" wait --namespace "$namespace" --for=condition=Progressing=False store/counts --timeout 5m
    "${kubectl[@]}" wait --namespace "$namespace" --for=jsonpath='{.status.updatedReplicas}'=3 store/counts
    "${kubectl[@]}" wait --namespace "$namespace" --for=jsonpath='{.status.readyReplicas}'=3 store/counts --timeout 3m
    wait_for_more_than $((acknowledged + 100))
    show_partitions
    check_count
}

show_partitions() {
    local kubectl_atomix=("$CARGO_TARGET_DIR/debug/kubectl-atomix")
    if [[ ${CLUSTER:-} == existing ]]; then
        kubectl_atomix+=(--context "$CONTEXT")
    else
        kubectl_atomix=(env "KUBECONFIG=$kubeconfig" "${kubectl_atomix[@]}")
    fi
    "${kubectl_atomix[@]}" status counts --namespace "$namespace"
}

check_count() {
    # Read in this order, what was acknowledged before is a lower bound of the value, and what is
    # acknowledged or unknown after, with one increment in flight per replica, an upper one.
    local before value after upper
    before=$(tallies | sum acknowledged)
    wait_for_more_than "$before"
    value=$(tallies | highest)
    after=$(tallies)
    upper=$(($(sum acknowledged <<<"$after") + $(sum unknown <<<"$after") + 2))
    printf '%s\n' "$after" | sed 's/^/    /'
    if ((value < before)); then
        echo "LOST: the counter shows $value, but $before increments had been acknowledged" >&2
        return 1
    fi
    if ((value > upper)); then
        echo "COUNTED TWICE: the counter shows $value, but at most $upper increments were sent" >&2
        return 1
    fi
    echo "nothing lost: $before acknowledged <= $value counted <= $upper sent"
}

show_what_runs() {
    local which=
    [[ ${CLUSTER:-} != existing ]] || which="CLUSTER=existing CONTEXT=$CONTEXT "
    "${kubectl[@]}" get stores,sessions,drivers --namespace "$namespace"
    "${kubectl[@]}" get pods --namespace "$namespace" -o wide
    cat <<END

Next:
    ${kubectl[*]} -n $namespace get stores,sessions -o wide
    ${kubectl[*]} -n $namespace describe store counts
    ${kubectl[*]} -n $namespace logs deployment/visits -c application --tail 5
    ${kubectl[*]} -n $namespace delete pod counts-1        # and watch the count go on
    ${kubectl[*]} -n $namespace scale store/counts --replicas 4
    ${which}make demo-down                                         # remove all of it
END
}

trap print_steps EXIT
step "cluster" start_cluster
step "images" build_and_load_images
step "chart" install_chart
step "Store, Session and application" apply_samples
step "count while a storage pod is deleted" count_through_a_failure
step "scale to 5 nodes and back while it counts" scale_while_it_counts
step "replace all nodes, one at a time, while it counts" change_settings_while_it_counts
step "what runs now" show_what_runs
