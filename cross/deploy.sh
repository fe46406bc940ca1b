#!/usr/bin/env bash
# `make deploy HOST=user@board`: builds for the board (or takes BINARY=file),
# copies binary, unit and first configuration there with scp, and has
# cross/install.sh put them in place: switched at once, checked, and taken back
# when the new version does not come up. ROLLBACK=1 goes back to the version
# before.
#
# SSH_OPTIONS: further options that ssh and scp both take, e.g. "-o Port=2222".
# REMOTE_ENV, for tests: variables for cross/install.sh.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

if [ -z "${HOST:-}" ]; then
    echo 'deploy: say where to: make deploy HOST=user@board' >&2
    exit 2
fi
read -ra options <<<"${SSH_OPTIONS:-}"
# One connection for all steps: one password at most.
control=$(mktemp -d "${TMPDIR:-/tmp}/guest-relay-ssh.XXXXXX")
options+=(-o ControlMaster=auto -o "ControlPath=$control/%C" -o ControlPersist=60 -o ConnectTimeout=10)
staging=''
# shellcheck disable=SC2329 # called by the trap
finish() {
    if [ -n "$staging" ]; then ssh "${options[@]}" "$HOST" "rm -rf '$staging'" || true; fi
    ssh "${options[@]}" -O exit "$HOST" 2>/dev/null || true
    rm -rf "$control"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

verb=install
files=(cross/install.sh)
if [ -n "${ROLLBACK:-}" ]; then
    verb=rollback
else
    binary=${BINARY:-}
    if [ -z "$binary" ]; then
        cross/build.sh
        binary=${CARGO_TARGET_DIR:-target}/cross/guest-relay
    fi
    bundle=$control/bundle
    mkdir "$bundle"
    cp "$binary" "$bundle/guest-relay"
    files+=("$bundle/guest-relay" cross/guest-relay.service cross/config.r58.yml)
fi

staging=$(ssh "${options[@]}" "$HOST" 'mktemp -d "${TMPDIR:-/tmp}/guest-relay-deploy.XXXXXX"')
scp -q "${options[@]}" "${files[@]}" "$HOST:$staging/"
# Root does the rest; anybody else through sudo, which may ask for a password.
terminal=()
if [ -t 0 ]; then terminal=(-t); fi
ssh "${terminal[@]}" "${options[@]}" "$HOST" \
    "as_root=; [ \"\$(id -u)\" = 0 ] || as_root=sudo; \$as_root env ${REMOTE_ENV:-} bash '$staging/install.sh' $verb '$staging'"
