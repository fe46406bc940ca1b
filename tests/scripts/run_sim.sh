#!/usr/bin/env bash
# `make run-sim` does what it says: a guest who publishes through the simulated SFU is pulled and published, and one
# SIGTERM ends everything.
#
#   tests/scripts/run_sim.sh
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
. tests/scripts/tools.sh

LIMIT_SECONDS=20

HTTP_PORT=$(free_port) RTMP_PORT=$(free_port) SFU_PORT=$(free_port)
export HTTP_PORT RTMP_PORT SFU_PORT
GUEST_RELAY_RTC_LISTEN=127.0.0.1:$(free_port)
export GUEST_RELAY_RTC_LISTEN
loadgen=${LOADGEN:-${CARGO_TARGET_DIR:-target}/release/loadgen}
log=$(mktemp)
run='' guest=''
# shellcheck disable=SC2329 # called by the trap
stop() {
    local pid
    for pid in $guest $run; do kill -TERM "$pid" 2>/dev/null || true; done
    for pid in $guest $run; do wait "$pid" 2>/dev/null || true; done
    rm -f "$log"
}
trap stop EXIT

# wait_for SECONDS WHAT COMMAND...
wait_for() {
    local until=$((SECONDS + $1)) what=$2
    shift 2
    until "$@"; do
        if [ "$SECONDS" -ge "$until" ]; then
            echo "run-sim: waited in vain for $what"
            cat "$log"
            exit 1
        fi
        sleep 0.1
    done
}

answers() { curl --silent --fail --max-time 2 "http://127.0.0.1:$HTTP_PORT$1" | grep -q "$2"; }
listens() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

tests/scripts/run.sh sim >"$log" 2>&1 </dev/null &
run=$!
wait_for 300 'the link' grep -q "Open http://localhost:$HTTP_PORT/guest_join?mode=calls" "$log"
"$loadgen" publish --url "http://127.0.0.1:$HTTP_PORT/api/calls/whip/guest1" --seconds 60 >/dev/null 2>&1 &
guest=$!
wait_for "$LIMIT_SECONDS" 'a live guest' answers /api/guests '"state":"live"'
wait_for "$LIMIT_SECONDS" 'pictures at the RTMP server' grep -Eq 'guest1: .*(video|frames|fps)' "$log"
kill -TERM "$run"
wait "$run" || true
for port in "$HTTP_PORT" "$RTMP_PORT" "$SFU_PORT"; do
    if listens "$port"; then
        echo "run-sim: something still listens on $port"
        exit 1
    fi
done
echo 'run-sim: a guest came through the simulated SFU, and everything ended'
