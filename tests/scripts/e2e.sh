#!/usr/bin/env bash
# `make e2e`: the whole path with programs that are not ours at both ends.
# Without arguments every step runs; with arguments only those checks of
# tests/browser/path.mjs whose names contain one of them.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
. tests/scripts/tools.sh

need_ffmpeg
need_chromium
need_playwright
need_nginx_rtmp
need_promtool
need_gstreamer

cargo build --release --locked --workspace --bins --examples
binaries=${CARGO_TARGET_DIR:-$PWD/target}/release
export GUEST_RELAY=$binaries/guest-relay INGEST=$binaries/ingest LOADGEN=$binaries/loadgen SFU_SIM=$binaries/sfu-sim

E2E_DIR=$(mktemp -d "${TMPDIR:-/tmp}/guest-relay-e2e.XXXXXX")
export E2E_DIR
chmod 755 "$E2E_DIR" # nginx, started by root, records as nobody
failed=()

# step NAME LIMIT_SECONDS COMMAND...: runs on after a failure, remembers it.
step() {
    local name=$1 limit=$2 start=$SECONDS status=0
    shift 2
    printf '\n== %s\n' "$name"
    timeout --kill-after=15 "$limit" "$@" </dev/null || status=$?
    if [ "$status" -eq 124 ]; then echo "stopped after $limit s"; fi
    if [ "$status" -ne 0 ]; then failed+=("$name"); fi
    printf -- '-- %s: %s s\n' "$name" "$((SECONDS - start))"
}

step 'browser to RTMP server' 900 "$NODE" tests/browser/path.mjs "$@"
if [ "$#" -eq 0 ]; then
    step 'the page' 300 "$NODE" tests/browser/with_daemon.mjs --test-reporter=spec tests/browser/page.mjs
    step 'the mixer reads on, whoever comes and goes' 120 "$NODE" tests/browser/mixer.mjs
    step 'make run-sim' 300 tests/scripts/run_sim.sh
    step 'RTMP client against other servers' 300 tests/scripts/rtmp_interop.sh
    step 'RTMP servers that go away' 120 tests/scripts/rtmp_outages.sh
    step 'x264 through the muxer, bit for bit' 300 muxer/tests/x264_equivalence.sh
    step 'deployed over ssh' 300 tests/scripts/deploy.sh
    step 'ffprobe agrees with the golden files' 300 muxer/tests/golden/bless.sh --check
fi

if [ "${#failed[@]}" -gt 0 ]; then
    printf '\ne2e: FAILED: %s\n' "$(IFS=,; echo "${failed[*]}")"
    echo "e2e: logs, configurations and recordings are in $E2E_DIR"
    exit 1
fi
rm -rf "$E2E_DIR"
printf '\ne2e: all passed\n'
