#!/usr/bin/env bash
# Measures and writes docs/benchmarks.md. Everything runs on this machine, in one run.
# QUICK=1 measures each row shorter.
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/environment.sh
ignore_other_clusters

export CLUSTER_NAME=${CLUSTER_NAME:-bench-$(pwd | sha256sum | cut -c1-6)}
kubeconfig=$PWD/.cluster/$CLUSTER_NAME.kubeconfig
seconds=8
[[ -n ${QUICK:-} ]] && seconds=3

tests/cluster/cluster tools
PATH=$(tests/cluster/cluster tools --print-bin):$PATH
export PATH
cargo build --locked --workspace --release --bin atomix-node --bin atomix-runtime --bin atomix-operator --bin atomix-bench
bench=$CARGO_TARGET_DIR/release/atomix-bench

throughput=$("$bench" throughput --binaries "$CARGO_TARGET_DIR/release" --etcd "$(command -v etcd)" \
    --data "$ATOMIX_CACHE/bench" --seconds "$seconds" | tee /dev/stderr)

changes=10
[[ -n ${QUICK:-} ]] && changes=3
leaders=$("$bench" leaders --binaries "$CARGO_TARGET_DIR/release" --data "$ATOMIX_CACHE/bench" \
    --runs "$changes" | tee /dev/stderr)

trap 'tests/cluster/cluster down' EXIT
tests/cluster/cluster up --kubeconfig "$kubeconfig"
tag=$(scripts/images.sh)
kubectl --kubeconfig "$kubeconfig" apply --server-side -f crds/
# These before the chart is installed: two operators would share the work.
# The operator has a connection to each of the ten thousand runtimes.
ulimit -n "$(ulimit -Hn)"
size=()
[[ -n ${QUICK:-} ]] && size=(--stores 100 --sessions 1000 --stores-with-nodes 20)
scale=$("$bench" scale --kubeconfig "$kubeconfig" --operator "$CARGO_TARGET_DIR/release/atomix-operator" \
    "${size[@]}" | tee /dev/stderr)
failover=$("$bench" failover --kubeconfig "$kubeconfig" --operator "$CARGO_TARGET_DIR/release/atomix-operator" \
    --runs "$changes" | tee /dev/stderr)

install_chart() {
    helm --kubeconfig "$kubeconfig" upgrade --install atomix charts/atomix --namespace atomix-system \
        --create-namespace --set image.registry=localhost/atomix --set image.tag="$tag" \
        --set tls.enabled="$1" --wait --timeout 3m
}

of_cluster=(--kubeconfig "$kubeconfig" --registry localhost/atomix --tag "$tag")
pods=200
[[ -n ${QUICK:-} ]] && pods=40
# Without certificates, as the bare StatefulSet has none.
install_chart false
operator=$("$bench" operator "${of_cluster[@]}" | tee /dev/stderr)
sidecars=$("$bench" sidecars "${of_cluster[@]}" --pods "$pods" | tee /dev/stderr)
install_chart true
# Without the head of the table, which the rows before have.
secured=$("$bench" sidecars "${of_cluster[@]}" --pods "$pods" --single 0 --tls | tee /dev/stderr | tail -n +3)

# Before the report, which is a file of this repository, is written.
version=$(git describe --always --dirty)
how=
[[ -n ${QUICK:-} ]] && how=" Each row was measured shorter than by default (QUICK=1)."

cat >docs/benchmarks.md <<END
# Benchmarks

Written by \`make bench\` on $(date -u +%Y-%m-%d). The machine is shared and noisy: read ratios and medians, not single
figures. Goals stand beside the rows; a row that falls short stays.$how

| | |
|---|---|
| machine | $(nproc) cores ($(sed -n 's/^model name.*: //p' /proc/cpuinfo | head -1)), $(free -g | awk '/^Mem/ {print $2}') GiB, Linux $(uname -r) |
| Atomix | $version |
| Rust | $(rustc --version | cut -d' ' -f2) |
| etcd | $(etcd --version | sed -n 's/^etcd Version: //p'), default settings, fsync on |
| Kubernetes | $(kubectl version --client -o json | sed -n 's/.*"gitVersion": "\(.*\)".*/\1/p' | head -1), etcd without fsync, two nodes in network namespaces |

## Durable writes

Three storage nodes and one sidecar, or three etcd servers, all on this machine with the generator;
16 connections; release build; rows alternate run by run. Unlike work: etcd writes a value of 256
bytes to its leader directly and keeps history on disk; an increment goes through the sidecar, and
its state is kept in memory beside the log.
Goals: with 256 clients 1.5 times etcd's writes with one partition and 3 times with eight; with one client
etcd's p50 and 1.5 times its p99. Not measured yet: reads, batched writes, without the sidecar, the ceiling
of an empty gRPC service, a disk whose fsync takes a millisecond more, ten minutes of load with memory
that stays flat, 256 idle partitions.

$throughput

## A new leader

The same three nodes with one partition, one client. Goal: the driver follows within 1 s after the new
leader leads. Killed leaders are noticed by the election timeout of 1 s.

$leaders

## The operator

The images of the tests: with debug assertions, nodes and sidecars optimised a little, the operator not; without TLS
where it is not named. Goals: a Store is Ready within 1.2 times the bare StatefulSet's time; at most 1 % of a core
at rest. Reconciles are those of all controllers, requests without the lease's.

$operator

Pods with an injected sidecar, a native one, beside a program that waits. Goals: connected within 100 ms (p50)
and 500 ms (p99). A sidecar's time begins with its process, by up to 10 ms too early, and ends with the line of
its log that it has reached the Store.

$sidecars
$secured

Two operators of a release build, one lease. Goals: the other one acts within 15 s after kill -9, within
2 s after SIGTERM.

$failover

## Many objects

Release build, a control plane's API server and etcd (without fsync), all runtimes and the operator on
this machine; one namespace, without TLS and webhook. Stores are of the memory driver, but for those of which
the last rows tell: they have objects of their own, each of which a start applies once. Goals for 1,000 Stores
and 10,000 Sessions: writes at 0.7 times a blind client's rate, at most 150 MiB and one core; a second start
converges within 15 s, with one apply for each object beside; nothing at rest. Requests and reconciles are counted
from the operator's start, requests without the lease's.

$scale

$(cat docs/benchmark-notes.md)
END
echo "wrote docs/benchmarks.md"
