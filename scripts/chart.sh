#!/usr/bin/env bash
# Checks of the chart and of what is made from it, without a cluster: it renders, refuses bad values
# with a message, and deploy/kustomize installs the same. `scripts/chart.sh generate` writes what is
# in deploy/kustomize but the overlays anew. Needs helm and kubectl.
set -euo pipefail
cd "$(dirname "$0")/.."

chart=charts/atomix
crds=deploy/kustomize/crds
render=(helm template atomix "$chart" --namespace atomix-system --kube-version 1.36.0)

fail() {
    echo "$*" >&2
    exit 1
}

# Refused, with these words in the message.
expect_refused() {
    local words=${1//.//} message
    shift
    if message=$("${render[@]}" "$@" 2>&1 >/dev/null); then
        fail "the chart accepts $*"
    fi
    [[ $message == *"$words"* ]] || fail "the chart refuses $* without saying '$words': $message"
}

renders() {
    helm lint "$chart"
    "${render[@]}" >/dev/null
    "${render[@]}" --set watchNamespace=one >/dev/null
    "${render[@]}" --set webhook.certManager.enabled=true >/dev/null
    "${render[@]}" --set webhook.enabled=false >/dev/null
    "${render[@]}" --set tls.enabled=false,networkPolicies.enabled=false >/dev/null
    # A deletion is checked wherever the operator serves, and nowhere else.
    [[ $("${render[@]}") != *matchResources:* ]] ||
        fail "an operator of all namespaces checks the deletions of one"
    [[ $("${render[@]}" --set watchNamespace=one) == *matchResources:*metadata.name:\ one* ]] ||
        fail "an operator of one namespace checks the deletions of all"
    [[ $("${render[@]}" --set tracing.endpoint=http://collector:4317) == *--otlp-endpoint=http://collector:4317* ]] ||
        fail "the collector of traces is lost"
    local with_secrets
    with_secrets=$("${render[@]}" --set 'configFrom.secretNamespaces={one,two}')
    [[ $with_secrets == *--secret-namespaces=one,two* ]] || fail "the namespaces of Secrets are lost"
    [[ $(grep -c 'name: atomix-operator-config$' <<<"$with_secrets") == 6 ]] ||
        fail "not each namespace of Secrets has its Role and RoleBinding"
    [[ $("${render[@]}") != *atomix-operator-config* ]] ||
        fail "Secrets are granted although nobody asked for it"
    local with_authority
    with_authority=$("${render[@]}" --set tls.authoritySource=company)
    [[ $with_authority == *--tls-authority-source=company* ]] || fail "the authority's source is lost"
    [[ $with_authority == *'resourceNames: ["company"]'* ]] || fail "the authority's source is not granted"
}

refuses_bad_values() {
    expect_refused replicas --set replicas=-1
    expect_refused replicas --set replicas=1.5
    expect_refused replicas --set-string replicas=1
    expect_refused "additional properties 'replicaCount'" --set replicaCount=2
    expect_refused image.pullPolicy --set image.pullPolicy=Sometimes
    expect_refused image.registry --set image.registry=
    expect_refused image.tag --set-string 'image.tag=a b'
    expect_refused "additional properties 'tags'" --set image.tags=1
    expect_refused image.pullSecrets --set-json 'image.pullSecrets=["name"]'
    expect_refused operatorImage --set operatorImage=5
    expect_refused nodeImage --set nodeImage=Garden/node
    expect_refused runtimeImage --set-json 'runtimeImage={}'
    expect_refused watchNamespace --set watchNamespace=One
    expect_refused configFrom.secretNamespaces --set configFrom.secretNamespaces=one
    expect_refused configFrom.secretNamespaces --set 'configFrom.secretNamespaces={one,one}'
    expect_refused configFrom.secretNamespaces --set 'configFrom.secretNamespaces={*}'
    expect_refused tls.authoritySource --set tls.authoritySource=A_company
    expect_refused webhook.enabled --set-string webhook.enabled=yes
    expect_refused "additional properties 'names'" --set webhook.certManager.issuerRef.names=a
    expect_refused runtime.resources --set runtime.resources.requests.memory=much
    expect_refused resources.limits --set resources.limits.memory=-1
    expect_refused "additional properties 'limit'" --set resources.limit.memory=1Gi
    expect_refused logFormat --set logFormat=xml
    expect_refused tracing.endpoint --set tracing.endpoint=collector:4317
    expect_refused nodeSelector --set nodeSelector.zone=1
    expect_refused tolerations --set tolerations=all
    expect_refused podAnnotations --set podAnnotations.a=1
    expect_refused affinity --set affinity=none
    expect_refused priorityClassName --set priorityClassName=1
    expect_refused test.timeoutSeconds --set test.timeoutSeconds=0
}

# What is installed, without the hook of `helm test` and what only Helm needs.
manifests() {
    "${render[@]}" --no-hooks "$@" | sed -e '/^# Source: /d' -e '/helm.sh\/chart:/d' \
        -e 's/app.kubernetes.io\/managed-by: Helm/app.kubernetes.io\/managed-by: kustomize/'
}

# The kustomizations that are written from the chart, and the values that each is rendered with. The
# namespace `applications` stands for the reader's own.
declare -A values_of=(
    [base]=""
    [single-namespace]="--set watchNamespace=applications"
)

generate() {
    local name file
    rm -rf "$crds"
    mkdir -p "$crds"
    cp crds/*.yaml "$crds/"
    {
        kustomization_head
        for file in crds/*.yaml; do echo "  - $(basename "$file")"; done
    } >"$crds/kustomization.yaml"
    for name in "${!values_of[@]}"; do
        generate_kustomization "$name"
    done
}

kustomization_head() {
    echo "# Written by scripts/chart.sh generate."
    echo "apiVersion: kustomize.config.k8s.io/v1beta1"
    echo "kind: Kustomization"
    echo "resources:"
}

generate_kustomization() {
    local folder=deploy/kustomize/$1 values
    read -ra values <<<"${values_of[$1]}"
    mkdir -p "$folder"
    {
        echo "# Written by scripts/chart.sh generate, from the chart with ${values[*]:-its default values}."
        manifests "${values[@]}"
    } >"$folder/operator.yaml"
    {
        kustomization_head
        printf '  - %s\n' namespace.yaml ../crds operator.yaml
    } >"$folder/kustomization.yaml"
    cat >"$folder/namespace.yaml" <<END
apiVersion: v1
kind: Namespace
metadata:
  name: atomix-system
  labels:
    pod-security.kubernetes.io/enforce: restricted
END
}

# Kustomize orders objects, so both sides go through it.
kustomize_installs_the_same() {
    local scratch name overlay
    scratch=$(mktemp -d)
    # shellcheck disable=SC2064
    trap "rm -rf '$scratch'" RETURN
    for name in "${!values_of[@]}"; do
        same_as_the_chart "$name" "$scratch"
    done
    # So that docs/install.md may tell to delete it.
    for name in "${!values_of[@]}"; do
        if grep -E '^kind: (CustomResourceDefinition|Namespace)$' "deploy/kustomize/$name/operator.yaml"; then
            fail "who deletes deploy/kustomize/$name/operator.yaml loses more than the operator"
        fi
    done
    for overlay in deploy/kustomize/overlays/*/; do
        kubectl kustomize "$overlay" >"$scratch/overlay.yaml" || fail "$overlay does not build"
        if diff -q "$scratch/base.yaml" "$scratch/overlay.yaml" >/dev/null; then
            fail "$overlay changes nothing"
        fi
    done
}

same_as_the_chart() {
    local name=$1 scratch=$2 folder=deploy/kustomize/$1 chart=$2/$1-chart values
    read -ra values <<<"${values_of[$name]}"
    mkdir "$chart"
    cp crds/*.yaml "$folder/namespace.yaml" "$chart/"
    manifests "${values[@]}" >"$chart/operator.yaml"
    (
        cd "$chart"
        echo "resources: [$(printf '%s, ' *.yaml)]" >kustomization.yaml
    )
    kubectl kustomize "$chart" >"$scratch/by-helm.yaml"
    kubectl kustomize "$folder" >"$scratch/$name.yaml"
    diff -u "$scratch/by-helm.yaml" "$scratch/$name.yaml" ||
        fail "$folder is not what the chart installs: run scripts/chart.sh generate"
}

if [[ ${1:-} == generate ]]; then
    generate
    exit 0
fi
renders
refuses_bad_values
kustomize_installs_the_same
