#!/usr/bin/env bash
# Checks without changing anything: format, lints, generated files, dependencies, licences.
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/environment.sh
source scripts/steps.sh
trap print_steps EXIT

generated_files_are_current() {
    local fresh
    fresh=$(mktemp -d)
    "${build_for_images[@]}" --quiet --bin atomix-operator
    "$CARGO_TARGET_DIR/debug/atomix-operator" crds --output-dir "$fresh"
    if ! diff -r crds "$fresh"; then
        echo "crds/ is not what the types say: run 'make generate' and commit the result" >&2
        rm -r "$fresh"
        return 1
    fi
    rm -r "$fresh"
}

# The same compiler and the same names wherever they are repeated.
repeated_facts_agree() {
    local toolchain
    toolchain=$(sed -nE 's/^channel = "([0-9]+\.[0-9]+).*"/\1/p' rust-toolchain.toml)
    grep -q "^FROM rust:$toolchain-" Dockerfile ||
        { echo "Dockerfile does not build with Rust $toolchain of rust-toolchain.toml" >&2; return 1; }
    local version
    version=$(sed -nE 's/^version = "(.*)"/\1/p' Cargo.toml | head -1)
    grep -q "^appVersion: \"\?$version" charts/atomix/Chart.yaml ||
        { echo "the chart's appVersion is not $version of Cargo.toml" >&2; return 1; }
    if grep -rhoE 'ghcr.io/atomix/[a-z-]+:[0-9.]+' deploy | grep -v ":$version\$"; then
        echo "deploy/ names images of another version than $version" >&2
        return 1
    fi
}

go_is_tidy() {
    local unformatted
    unformatted=$(gofmt -l tests/cluster tests/porcupine)
    if [[ -n $unformatted ]]; then
        printf 'not formatted (run make fix):\n%s\n' "$unformatted" >&2
        return 1
    fi
    (cd tests/cluster && go vet ./...)
    (cd tests/porcupine && go vet ./...)
}

dependencies_are_allowed() {
    scripts/tools.sh cargo-deny cargo-machete
    "$ATOMIX_CACHE/cargo-tools/bin/cargo-deny" --log-level error check bans licenses sources
    "$ATOMIX_CACHE/cargo-tools/bin/cargo-machete"
    echo "advisories: not checked here, the database cannot be fetched everywhere; run 'make audit' where it can"
}

step "format (cargo fmt --check)" cargo fmt --all --check
step "lints (cargo clippy)" cargo clippy --workspace --all-targets --locked -- -D warnings
step "generated files" generated_files_are_current
step "versions agree" repeated_facts_agree
step "go format and vet" go_is_tidy
step "dependencies (cargo deny, cargo machete)" dependencies_are_allowed
