#!/usr/bin/env bash
# Installs the pinned cargo tools that `make verify` uses into the cache, once.
# Usage: scripts/tools.sh cargo-deny|cargo-machete …
set -euo pipefail

source "$(dirname "$0")/environment.sh"
root=$ATOMIX_CACHE/cargo-tools

declare -A versions=([cargo-deny]=0.20.2 [cargo-machete]=0.9.2)

for tool in "$@"; do
    version=${versions[$tool]}
    if [[ -x $root/bin/$tool && -e $root/$tool-$version ]]; then
        continue
    fi
    echo "installing $tool $version (once; a few minutes)"
    # Without optimisation it builds in half the time and still checks in seconds.
    CARGO_PROFILE_DEV_DEBUG=false CARGO_TARGET_DIR=$ATOMIX_CACHE/cargo-tools-target cargo install --quiet --locked --debug --root "$root" "$tool@$version"
    touch "$root/$tool-$version"
done
