#!/usr/bin/env bash
# The RTMP server goes away under a live guest, with real processes and signals:
# killed and started again, stopped and continued, cut off from the network. For
# each: when the daemon noticed, when the server had the publication again after
# its return, and that the guest was never asked to come again.
#
#   tests/scripts/rtmp_outages.sh        needs root for the network (two namespaces of its own);
#                                without, that case is left out
#
# Binaries: $GUEST_RELAY, $INGEST, $LOADGEN, else it builds them.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

NOTICED_MAX_MS=10000
FOUND_MAX_MS=2000
# What this script itself and a busy machine add.
SLACK_MS=1000

if [ -z "${GUEST_RELAY:-}" ] || [ -z "${INGEST:-}" ] || [ -z "${LOADGEN:-}" ]; then
    cargo build --release --locked --workspace --bins
    binaries=${CARGO_TARGET_DIR:-$PWD/target}/release
    GUEST_RELAY=$binaries/guest-relay INGEST=$binaries/ingest LOADGEN=$binaries/loadgen
fi

work=$(mktemp -d)
space='' ingest='' daemon='' guest=''
# shellcheck disable=SC2329 # called by the trap
stop() {
    local pid
    for pid in $guest $daemon $ingest; do kill -KILL "$pid" 2>/dev/null || true; done
    for pid in $guest $daemon $ingest; do wait "$pid" 2>/dev/null || true; done
    if [ -n "$space" ]; then ip netns del "$space-server"; ip netns del "$space"; fi
    rm -rf "$work"
}
trap stop EXIT

now_ms() { date +%s%3N; }

# wait_for LIMIT_MS FILE LINES PATTERN: until a line beyond the first LINES matches.
wait_for() {
    local until=$(($(now_ms) + $1))
    until tail -n "+$(($3 + 1))" "$2" | grep -q "$4"; do
        if [ "$(now_ms)" -gt "$until" ]; then return 1; fi
        sleep 0.02
    done
}

lines() { wc -l <"$1"; }

address=127.0.0.1
here=() there=()
if [ "$(id -u)" -eq 0 ] && command -v ip >/dev/null && ip netns add "relay-outage-$$" 2>/dev/null; then
    space=relay-outage-$$
    address=192.0.2.2
    here=(ip netns exec "$space") there=(ip netns exec "$space-server")
    ip netns add "$space-server"
    ip -n "$space" link add inside type veth peer name outside netns "$space-server"
    ip -n "$space" addr add 192.0.2.1/30 dev inside
    ip -n "$space-server" addr add "$address/30" dev outside
    ip -n "$space" link set inside up
    ip -n "$space" link set lo up
    ip -n "$space-server" link set outside up
    ip -n "$space-server" link set lo up
fi

# start_ingest PORT
start_ingest() {
    "${there[@]}" "$INGEST" --listen "$address:$1" >>"$work/ingest.log" 2>&1 &
    ingest=$!
}

start_ingest 0
wait_for 10000 "$work/ingest.log" 0 'listening on' || { cat "$work/ingest.log"; exit 1; }
port=$(sed -n 's#.*listening on rtmp://.*:\([0-9]*\)$#\1#p' "$work/ingest.log" | head -n 1)

cat >"$work/config.yml" <<END
http: {listen: '127.0.0.1:0'}
rtc: {listen: '127.0.0.1:0'}
relay: {output: 'rtmp://$address:$port/{guest_id}', state_file: none}
guests: {guest1: {name: Guest 1, enabled: true}}
END
"${here[@]}" "$GUEST_RELAY" --config "$work/config.yml" >"$work/daemon.log" 2>&1 &
daemon=$!
wait_for 10000 "$work/daemon.log" 0 'serves http' || { cat "$work/daemon.log"; exit 1; }
http=$(sed -n 's#.*serves \(http://[^/]*\)/.*#\1#p' "$work/daemon.log" | head -n 1)
"${here[@]}" "$LOADGEN" publish --url "$http/whip/guest1" --seconds 300 >"$work/guest.log" 2>&1 &
guest=$!

failed=0
# outage NAME BEGIN END: two commands, some seconds apart.
outage() {
    local name=$1 daemon_lines ingest_lines began ended noticed found problem=''
    if ! wait_for 30000 "$work/daemon.log" "$live_after" 'guest1: live'; then
        echo "$name: the guest is not live"
        cat "$work/daemon.log"
        exit 1
    fi
    daemon_lines=$(lines "$work/daemon.log")
    began=$(now_ms)
    "$2"
    wait_for 15000 "$work/daemon.log" "$daemon_lines" 'publication interrupted' || problem='not noticed'
    noticed=$(($(now_ms) - began))
    sleep 4.3
    ingest_lines=$(lines "$work/ingest.log")
    live_after=$(lines "$work/daemon.log")
    ended=$(now_ms)
    "$3"
    wait_for 20000 "$work/ingest.log" "$ingest_lines" 'publishing' || problem='not published again'
    found=$(($(now_ms) - ended))
    [ "$noticed" -le $((NOTICED_MAX_MS + SLACK_MS)) ] || problem='noticed too late'
    [ "$found" -le $((FOUND_MAX_MS + SLACK_MS)) ] || problem='found too late'
    if grep -q 'session over' "$work/daemon.log"; then problem='the guest was lost'; fi
    printf '%-12s noticed after %5d ms, found %5d ms after the return%s\n' "$name" "$noticed" "$found" "${problem:+: $problem}"
    if [ -n "$problem" ]; then failed=1; fi
}

# shellcheck disable=SC2329 # passed to outage
kill_server() { kill -KILL "$ingest"; wait "$ingest" 2>/dev/null || true; }
# shellcheck disable=SC2329
start_server() { start_ingest "$port"; }
# shellcheck disable=SC2329
stop_server() { kill -STOP "$ingest"; }
# shellcheck disable=SC2329
continue_server() { kill -CONT "$ingest"; }
# shellcheck disable=SC2329 # the server's side drops all it would send, and by its reverse path all that comes
cut_network() { ip -n "$space-server" route add blackhole 192.0.2.1/32; }
# shellcheck disable=SC2329
mend_network() { ip -n "$space-server" route del blackhole 192.0.2.1/32; }

live_after=0
outage killed kill_server start_server
outage stopped stop_server continue_server
if [ -n "$space" ]; then
    outage partitioned cut_network mend_network
else
    echo 'partitioned: left out, needs root and ip netns'
fi
if [ "$failed" -ne 0 ]; then cat "$work/daemon.log"; fi
exit "$failed"
