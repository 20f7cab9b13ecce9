#!/usr/bin/env bash
# Builds the images of the operator, node, runtime and sample application without Docker, and
# brings them to the cluster. The tag names the content, so that a rebuilt image is a new one.
# Prints the tag on standard output; everything else goes to standard error.
#
# IMAGE_SOURCE=folder builds those of another version, whose source is there.
#
# Where to: a cluster of `make cluster` (default; CLUSTER_NAME chooses which), or with
# CLUSTER=existing into kind (KIND=name) or a registry (IMAGE_REGISTRY=host/path).
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/environment.sh

registry=$(image_registry)
programs=(atomix-operator atomix-node atomix-runtime atomix-example-counter)

declare -A binary_of=(
    [atomix-operator]=atomix-operator
    [atomix-node]=atomix-node
    [atomix-runtime]=atomix-runtime
    [atomix-example-counter]=counter
)

# Before anything is built.
check_destination() {
    [[ ${CLUSTER:-} == existing && -z ${KIND:-} ]] || return 0
    if [[ -z ${IMAGE_REGISTRY:-} ]]; then
        echo "CLUSTER=existing needs KIND=<kind cluster> or IMAGE_REGISTRY=<host/path>, so that its nodes find the images" >&2
        exit 1
    fi
    command -v skopeo >/dev/null || { echo "pushing to a registry needs skopeo (apt install skopeo)" >&2; exit 1; }
}

build_images() {
    if [[ -n ${IMAGE_SOURCE:-} ]]; then
        (cd "$IMAGE_SOURCE" && cargo build --locked --workspace --bins)
    else
        "${build_for_images[@]}" --bin atomix-operator --bin atomix-node --bin atomix-runtime --bin counter
    fi
    local binaries=()
    for program in "${programs[@]}"; do
        binaries+=("$CARGO_TARGET_DIR/debug/${binary_of[$program]}")
    done
    tag=dev-$(cat "${binaries[@]}" | sha256sum | cut -c1-12)
    # An archive holds its image's whole name, so another registry needs other archives. skopeo ends
    # an archive's path at a colon, as in a registry's port.
    folder=$ATOMIX_CACHE/images/${registry//[\/:]/_}/$tag
    mkdir -p "$folder"
    touch "$folder"
    remove_old_archives
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

# Archives of the builds before the last few.
remove_old_archives() {
    local old
    find "$ATOMIX_CACHE/images" -mindepth 2 -maxdepth 2 -type d -printf '%T@ %p\n' | sort -rn | tail -n +6 |
        while read -r _ old; do rm -r "$old"; done
}

deliver_images() {
    if [[ ${CLUSTER:-} != existing ]]; then
        tests/cluster/cluster load "${archives[@]}"
    elif [[ -n ${KIND:-} ]]; then
        echo "loading images into the kind cluster '$KIND'"
        for archive in "${archives[@]}"; do kind load image-archive --name "$KIND" "$archive"; done
    else
        echo "pushing images to $registry"
        for program in "${programs[@]}"; do
            skopeo copy "docker-archive:$folder/$program.tar" "docker://$registry/$program:$tag"
        done
    fi
}

check_destination
build_images >&2
deliver_images >&2
echo "$tag"
