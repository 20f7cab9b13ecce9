#!/usr/bin/env bash
# Builds the images of the operator, node, runtime and sample application without Docker, and
# brings them to the cluster. The tag names the content, so that a rebuilt image is a new one.
# Prints the tag on standard output; everything else goes to standard error.
#
# Where to: a cluster of `make cluster` (default; CLUSTER_NAME chooses which), or with
# CLUSTER=existing into kind (KIND=name) or a registry (IMAGE_REGISTRY=host/path).
set -euo pipefail
cd "$(dirname "$0")/.."

cache=${ATOMIX_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/atomix}
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$cache/target}
registry=${IMAGE_REGISTRY:-localhost/atomix}
programs=(atomix-operator atomix-node atomix-runtime atomix-example-counter)

declare -A binary_of=(
    [atomix-operator]=atomix-operator
    [atomix-node]=atomix-node
    [atomix-runtime]=atomix-runtime
    [atomix-example-counter]=counter
)

build_images() {
    cargo build --locked --workspace --bin atomix-operator --bin atomix-node --bin atomix-runtime --bin counter
    local binaries=()
    for program in "${programs[@]}"; do
        binaries+=("$CARGO_TARGET_DIR/debug/${binary_of[$program]}")
    done
    tag=dev-$(cat "${binaries[@]}" | sha256sum | cut -c1-12)
    folder=$cache/images/$tag
    mkdir -p "$folder"
    archives=()
    for program in "${programs[@]}"; do
        local binary=$CARGO_TARGET_DIR/debug/${binary_of[$program]}
        local archive=$folder/$program.tar
        if [[ ! -e $archive ]]; then
            tests/cluster/cluster image --name "$registry/$program:$tag" \
                --file "$binary:/bin/${binary_of[$program]}" --entrypoint "/bin/${binary_of[$program]}" \
                -o "$archive.part"
            mv "$archive.part" "$archive"
        fi
        archives+=("$archive")
    done
}

deliver_images() {
    if [[ ${CLUSTER:-} != existing ]]; then
        tests/cluster/cluster load "${archives[@]}"
    elif [[ -n ${KIND:-} ]]; then
        for archive in "${archives[@]}"; do kind load image-archive --name "$KIND" "$archive"; done
    elif [[ -n ${IMAGE_REGISTRY:-} ]]; then
        command -v skopeo >/dev/null || { echo "pushing to a registry needs skopeo (apt install skopeo)" >&2; exit 1; }
        for program in "${programs[@]}"; do
            skopeo copy "docker-archive:$folder/$program.tar" "docker://$registry/$program:$tag"
        done
    else
        echo "CLUSTER=existing needs KIND=<kind cluster> or IMAGE_REGISTRY=<host/path>, so that its nodes find the images" >&2
        exit 1
    fi
}

build_images >&2
deliver_images >&2
echo "$tag"
