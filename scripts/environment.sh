# Sourced by the scripts here: where built things are kept, and where images are found.

export ATOMIX_CACHE=${ATOMIX_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/atomix}
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$ATOMIX_CACHE/target}

# How programs are built for local images: with the tests, of which one is named. Alone they would
# get fewer features of their dependencies (tokio's test clock), and all of those compile twice.
build_for_images=(cargo build --locked --workspace --test node)

# Only a cluster of the user's takes its images from elsewhere; ours has them under this name.
image_registry() {
    if [[ ${CLUSTER:-} == existing ]]; then
        echo "${IMAGE_REGISTRY:-localhost/atomix}"
    else
        echo localhost/atomix
    fi
}

# For what always starts a cluster of its own and must never reach the user's.
ignore_other_clusters() {
    local name
    for name in CLUSTER CONTEXT KIND IMAGE_REGISTRY; do
        if [[ -n ${!name:-} ]]; then
            echo "$name=${!name} is ignored: this uses a cluster of its own" >&2
        fi
        unset "$name"
    done
    # What was said on make's command line would reach every make that is called here.
    unset KUBECONFIG MAKEFLAGS MFLAGS MAKEOVERRIDES
}
