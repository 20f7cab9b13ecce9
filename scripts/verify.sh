#!/usr/bin/env bash
# Checks without changing anything: format, lints, generated files, dependencies, licences.
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/steps.sh
trap print_steps EXIT

generated_files_are_current() {
    local fresh
    fresh=$(mktemp -d)
    cargo build --quiet --locked --workspace --bin atomix-operator
    "$CARGO_TARGET_DIR/debug/atomix-operator" crds --output-dir "$fresh"
    if ! diff -r crds "$fresh"; then
        echo "crds/ is not what the types say: run 'make generate' and commit the result" >&2
        rm -r "$fresh"
        return 1
    fi
    rm -r "$fresh"
}

go_is_tidy() {
    local unformatted
    unformatted=$(gofmt -l tests/cluster)
    if [[ -n $unformatted ]]; then
        printf 'not formatted (run make fix):\n%s\n' "$unformatted" >&2
        return 1
    fi
    (cd tests/cluster && go vet ./...)
}

dependencies_are_allowed() {
    scripts/tools.sh cargo-deny cargo-machete
    "$ATOMIX_CACHE/cargo-tools/bin/cargo-deny" --log-level error check bans licenses sources
    "$ATOMIX_CACHE/cargo-tools/bin/cargo-machete"
    echo "advisories: not checked here, the database cannot be fetched everywhere; run 'make audit' where it can"
}

export ATOMIX_CACHE=${ATOMIX_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/atomix}
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$ATOMIX_CACHE/target}
step "format (cargo fmt --check)" cargo fmt --all --check
step "lints (cargo clippy)" cargo clippy --workspace --all-targets --locked -- -D warnings
step "generated files" generated_files_are_current
step "go format and vet" go_is_tidy
step "dependencies (cargo deny, cargo machete)" dependencies_are_allowed
