#!/usr/bin/env bash
# Whole processes under load: the daemon with 1, 4, 16 and 32 guests of 720p30,
# 2.4 Mbit/s (a browser's recorded H.264 and Opus), then what could be used in
# its place with the same load on the same machine in the same run. CPU time,
# memory, threads and context switches are read from /proc; the delay of
# pictures is measured from the guest's send call to the RTMP server's read.
#
#   SECONDS_PER_RUN=60 GUESTS="1 4 16 32" PEERS="gstreamer aiortc" tests/bench/process.sh
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
. tests/tools.sh

seconds=${SECONDS_PER_RUN:-60}
guest_counts=${GUESTS:-1 4 16 32}
peers=${PEERS-gstreamer aiortc}
peer_guest_counts=${PEER_GUESTS:-1 4}

targets=${CARGO_TARGET_DIR:-target}
cargo build --release --locked --workspace --bins
cargo build --profile dist --locked -p guest-relay --bin guest-relay
loadgen=$targets/release/loadgen

work=$(mktemp -d "${TMPDIR:-/tmp}/guest-relay-bench.XXXXXX")
chmod 755 "$work"
pids=()
stop_all() {
    local pid
    for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
    for pid in "${pids[@]}"; do wait "$pid" 2>/dev/null || true; done
    pids=()
}
trap 'stop_all; rm -rf "$work"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

free_port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }
wait_for_port() {
    for _ in $(seq 200); do
        if (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; then return 0; fi
        sleep 0.1
    done
    echo "process: nothing came up on port $1" >&2
    tail -n 20 "$work"/*.log >&2
    return 1
}
wait_for_line() { # FILE TEXT
    for _ in $(seq 300); do
        if grep -q "$2" "$1"; then return 0; fi
        sleep 0.1
    done
    echo "process: no '$2' in $1" >&2
    tail -n 20 "$work"/*.log >&2
    return 1
}

# All processes of a tree: a peer may use several.
tree() { echo "$1"; for child in $(cat /proc/"$1"/task/*/children 2>/dev/null); do tree "$child"; done; }
# Nanoseconds of CPU, to the tick of the scheduler rather than of the clock.
cpu_ns() { for pid in $(tree "$1"); do cat /proc/"$pid"/task/*/schedstat 2>/dev/null; done | awk '{ ns += $1 } END { print ns + 0 }'; }
switches() { for pid in $(tree "$1"); do cat /proc/"$pid"/task/*/status 2>/dev/null; done | awk '/ctxt_switches/ { n += $2 } END { print n + 0 }'; }
field() { for pid in $(tree "$1"); do cat /proc/"$pid"/status 2>/dev/null; done | awk -v field="$2:" '$1 == field { n += $2 } END { print n + 0 }'; }

printf '%-11s %6s %14s %12s %12s %8s %12s  %s\n' what guests 'CPU s/guest-min' 'RSS kB' 'anon kB' threads 'switches/s' delay
# measure NAME GUESTS PID: one row over the next seconds
measure() {
    local name=$1 guests=$2 pid=$3 cpu before
    cpu=$(cpu_ns "$pid")
    before=$(switches "$pid")
    sleep "$seconds"
    cpu=$(($(cpu_ns "$pid") - cpu))
    before=$(($(switches "$pid") - before))
    row=$(printf '%-11s %6s %14s %12s %12s %8s %12s' "$name" "$guests" \
        "$(awk -v ns="$cpu" -v s="$seconds" -v g="$guests" 'BEGIN { printf "%.3f", ns / 1e9 * 60 / s / g }')" \
        "$(field "$pid" VmRSS)" "$(field "$pid" RssAnon)" "$(field "$pid" Threads)" "$((before / seconds))")
}

# The daemon; loadgen is both ends, so that it can tell the delay.
for guests in $guest_counts; do
    rtmp=$(free_port) http=$(free_port) rtc=$(free_port)
    {
        echo "http: {listen: '127.0.0.1:$http', offers_per_minute: 600}"
        echo "rtc: {listen: '127.0.0.1:$rtc'}"
        echo "relay: {output: 'rtmp://127.0.0.1:$rtmp/{guest_id}', state_file: none}"
        echo 'guests:'
        for number in $(seq "$guests"); do echo "  guest$number: {}"; done
    } >"$work/config.yml"
    "$targets/dist/guest-relay" --config "$work/config.yml" >"$work/daemon.log" 2>&1 &
    daemon=$!
    pids+=("$daemon")
    wait_for_port "$http"
    "$loadgen" latency --listen "127.0.0.1:$rtmp" --url "http://127.0.0.1:$http/whip/guest1" --guests "$guests" \
        --seconds "$((seconds + 2))" >"$work/latency.log" 2>&1 &
    load=$!
    pids+=("$load")
    wait_for_line "$work/latency.log" measuring
    measure guest-relay "$guests" "$daemon"
    wait "$load" || { cat "$work/latency.log" >&2; exit 1; }
    printf '%s  %s\n' "$row" "$(tail -n 1 "$work/latency.log")"
    stop_all
done

# What has no Opus in FLV sends AAC, so the sink is a server that takes both.
start_nginx() {
    need_nginx_rtmp
    rtmp=$(free_port)
    cat >"$work/nginx.conf" <<NGINX
load_module $NGINX_RTMP_MODULE;
worker_processes 1;
daemon off;
pid $work/nginx.pid;
error_log $work/nginx.log;
events { worker_connections 512; }
rtmp { server { listen 127.0.0.1:$rtmp; chunk_size 65536; application live { live on; } } }
NGINX
    "$NGINX" -p "$work" -c "$work/nginx.conf" >"$work/nginx.out" 2>&1 &
    pids+=("$!")
    wait_for_port "$rtmp"
}

for peer in $peers; do
    case $peer in
    gstreamer) need_gstreamer_webrtc && command=("$GST_PYTHON" tests/bench/peers/gstreamer_whip.py) || continue ;;
    aiortc) need_aiortc && command=("$AIORTC_PYTHON" tests/bench/peers/aiortc_whip.py) || continue ;;
    *) echo "process: unknown peer $peer" >&2; exit 2 ;;
    esac
    for guests in $peer_guest_counts; do
        start_nginx
        http=$(free_port)
        "${command[@]}" "$http" "rtmp://127.0.0.1:$rtmp/live" >"$work/$peer.log" 2>&1 &
        server=$!
        pids+=("$server")
        wait_for_port "$http"
        "$loadgen" publish --url "http://127.0.0.1:$http/whip/guest1" --guests "$guests" --seconds "$((seconds + 30))" \
            >"$work/load.log" 2>&1 &
        pids+=("$!")
        wait_for_line "$work/load.log" ' live '
        sleep 5
        measure "$peer" "$guests" "$server"
        printf '%s  %s\n' "$row" 'not measured'
        stop_all
    done
done
