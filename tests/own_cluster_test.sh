#!/usr/bin/env bash
# Tests how a cluster of the user's is chosen: never by an exported KUBECONFIG alone, and what is
# missing is said before anything is built or changed. As root, with kubectl on the PATH.
set -euo pipefail
cd "$(dirname "$0")/.."
# Also what was said on the command line of a make that runs this: it would reach every make here.
unset CLUSTER CONTEXT KIND IMAGE_REGISTRY KUBECONFIG MAKEFLAGS MFLAGS MAKEOVERRIDES
export CLUSTER_NAME=own-cluster-test

folder=$(mktemp -d)
server=
clean_up() {
    [[ -z $server ]] || kill "$server"
    rm -r "$folder"
}
trap clean_up EXIT

fail() {
    echo "$*" >&2
    exit 1
}

# Runs a command that must fail and say this.
expect_refusal() {
    local message=$1 output
    shift
    if output=$("$@" 2>&1); then
        fail "not refused: $*"
    fi
    [[ $output == *"$message"* ]] || fail "$*: it does not say '$message' but: $output"
    [[ $output != *Compiling* && $output != *Finished* ]] || fail "$*: it builds before it says what is missing"
}

# A cluster that only an exported KUBECONFIG knows, that forbids everything and notes each question.
cat >"$folder/server.py" <<'END'
import http.server, pathlib, socketserver, sys
folder = pathlib.Path(sys.argv[1])

class Forbidding(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        (folder / "reached").touch()
        self.send_error(403)

    do_DELETE = do_GET

    def log_message(self, *_):
        pass

server = socketserver.TCPServer(("127.0.0.1", 0), Forbidding)
(folder / "port.part").write_text(str(server.server_address[1]))
(folder / "port.part").rename(folder / "port")
server.serve_forever()
END
python3 "$folder/server.py" "$folder" &
server=$!
for _ in {1..100}; do
    [[ ! -e $folder/port ]] || break
    sleep 0.1
done
port=$(cat "$folder/port")
export KUBECONFIG=$folder/kubeconfig
cat >"$KUBECONFIG" <<END
apiVersion: v1
kind: Config
current-context: mine
contexts: [{name: mine, context: {cluster: mine, user: mine}}]
clusters: [{name: mine, cluster: {server: "http://127.0.0.1:$port"}}]
users: [{name: mine, user: {}}]
END

expect_refusal "needs CONTEXT=" env CLUSTER=existing make demo
expect_refusal "needs KIND=" env CLUSTER=existing CONTEXT=mine make images
expect_refusal "needs KIND=" env CLUSTER=existing CONTEXT=mine scripts/images.sh
expect_refusal "has a cluster already" env CLUSTER=existing make cluster

make demo-down
[[ ! -e $folder/reached ]] || fail "make demo-down reached the cluster of an exported KUBECONFIG"
# Asked for, it is reached.
expect_refusal "orbidden" env CLUSTER=existing CONTEXT=mine make demo-down
[[ -e $folder/reached ]] || fail "CLUSTER=existing CONTEXT=mine did not reach the cluster that it names"
