#!/usr/bin/env bash
# `make bench-whole`: what whole processes cost under load. The shipped binary
# with 1, 4, 16 and 32 guests of 720p30 and 2.4 Mbit/s (a browser's recorded
# H.264 and Opus), then what could be used in its place under the same load, on
# the same machine, in the same run; as tables in Markdown, for RESULTS.md.
#
#   make bench-whole                        about 11 minutes
#   make bench-whole QUICK=1                about 2: few guests, short rows
#   ROW_SECONDS=60 GUESTS="1 16" PEERS="gstreamer" make bench-whole
#
# All of it runs in a network namespace of its own, which needs root or user
# namespaces: two addresses of this machine, nothing else to reach or to hear.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
. tests/scripts/tools.sh

if [ -n "${QUICK:-}" ]; then
    ROW_SECONDS=${ROW_SECONDS:-8} GUESTS=${GUESTS:-1 4} PEER_GUESTS=${PEER_GUESTS:-1}
fi
row_seconds=${ROW_SECONDS:-30}
guest_counts=${GUESTS:-1 4 16 32}
peers=${PEERS-janus gstreamer gstreamer-video aiortc}
peer_guest_counts=${PEER_GUESTS:-1 4 16}
# It decodes and encodes: more do not fit on a small machine.
AIORTC_MOST_GUESTS=4

WARM_UP_SECONDS=5
UP_SECONDS=20
CONNECT_SECONDS=60
STOP_SECONDS=5
READING_SECONDS=3 # of /proc, while the load goes on
ADDRESS=10.77.0.1
RTMP_PORT=1935 HTTP_PORT=8000 RTC_PORT=8189

targets=${CARGO_TARGET_DIR:-target}

say() { printf 'bench-whole: %s\n' "$*" >&2; }

# Outside: builds and fetches. A peer that cannot be had is left out.
prepare() {
    local peer had=''
    cargo build --release --locked -p loadgen --bin loadgen
    cargo build --profile dist --locked -p guest-relay --bin guest-relay
    cargo build --profile dist --locked -p bench --bin bench
    for peer in $peers; do
        case $peer in
        janus) need_janus && need_ffmpeg ;;
        gstreamer | gstreamer-video) need_gstreamer_webrtc && need_nginx_rtmp && need_ffmpeg && need_openssl ;;
        aiortc) need_aiortc && need_nginx_rtmp && need_ffmpeg ;;
        *) say "unknown peer $peer" && exit 2 ;;
        esac || { say "$peer is left out" && continue; }
        had="$had $peer"
    done
    export PEERS=${had# }
}

if [ -z "${BENCH_WHOLE_INSIDE:-}" ]; then
    prepare
    inside=(unshare --net --pid --fork --kill-child --mount-proc)
    if [ "$(id -u)" -ne 0 ]; then inside+=(--map-root-user); fi
    BENCH_WHOLE_INSIDE=1 exec "${inside[@]}" tests/bench/whole.sh
fi

# A pair of devices, since WebRTC stacks leave out loopback; all datagrams pass
# the loopback device all the same.
ip link set lo up
ip link add guests type veth peer name unused
echo 1 >/proc/sys/net/ipv6/conf/all/disable_ipv6 2>/dev/null || true
ip address add "$ADDRESS/24" dev guests
ip link set guests up
ip link set unused up

work=$(mktemp -d "${TMPDIR:-/tmp}/guest-relay-bench.XXXXXX")
groups=()
# start NAME COMMAND...: in a process group of its own, whose id is in $started.
start() {
    local name=$1
    shift
    setsid "$@" >"$work/$name.log" 2>&1 &
    started=$!
    groups+=("$started")
}
stop_all() {
    local group
    for group in "${groups[@]}"; do kill -- "-$group" 2>/dev/null || true; done
    for group in "${groups[@]}"; do
        for _ in $(seq "$((STOP_SECONDS * 10))"); do
            if ! pgrep -g "$group" >/dev/null; then break; fi
            sleep 0.1
        done
        kill -KILL -- "-$group" 2>/dev/null || true
        wait "$group" 2>/dev/null || true
    done
    groups=()
}
trap 'stop_all; rm -rf "$work"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

fail() {
    say "$*"
    tail -n 15 "$work"/*.log >&2
    exit 1
}

listening() { (exec 3<>"/dev/tcp/$ADDRESS/$1"); }
all_live() { [ "$(tail -n "$1" "$work/load.log" | grep -c ' live ')" -eq "$1" ]; }

# The processes of a group; their threads' nanoseconds of CPU, user and system;
# their threads' context switches; their memory in kB; their threads.
members() { pgrep -g "$1"; }
cpu_ns() { for pid in $(members "$1"); do cat /proc/"$pid"/task/*/schedstat; done | awk '{ n += $1 } END { printf "%.0f\n", n }'; }
switches() { for pid in $(members "$1"); do cat /proc/"$pid"/task/*/status; done | awk '/ctxt_switches/ { n += $2 } END { print n }'; }
memory() { for pid in $(members "$1"); do cat /proc/"$pid"/smaps_rollup; done | awk -v field="$2:" '$1 == field { n += $2 } END { print n }'; }
threads() { for pid in $(members "$1"); do cat /proc/"$pid"/status; done | awk '$1 == "Threads:" { n += $2 } END { print n }'; }

# measure GROUP GUESTS: sets $cost to what the next seconds take.
measure() {
    local cpu switched
    cpu=$(cpu_ns "$1")
    switched=$(switches "$1")
    sleep "$row_seconds"
    cpu=$(($(cpu_ns "$1") - cpu))
    switched=$(($(switches "$1") - switched))
    cost=$(awk -v ns="$cpu" -v switched="$switched" -v s="$row_seconds" -v g="$2" -v rss="$(memory "$1" Rss)" \
        -v pss="$(memory "$1" Pss)" -v anonymous="$(memory "$1" Anonymous)" -v threads="$(threads "$1")" \
        'BEGIN { printf "%.3f %.1f %.1f %.1f %d %d", ns / 1e9 * 60 / s / g, rss / 1024, pss / 1024, anonymous / 1024,
            threads, switched / s }')
}

row() { # NAME GUESTS COST PICTURES DELAYS
    local name=$1 guests=$2 fields
    read -ra fields <<<"$3"
    printf '%s %s %s\n' "$name" "$guests" "$3" >>"$work/rows"
    printf '| %s | %s |' "$name" "$guests"
    printf ' %s |' "${fields[@]}" "$4" "${5:--}"
    printf '\n'
}

# start_sink latency|nginx: where to publish to, $output. The load generator itself
# refuses what MediaMTX refuses, and knows its pictures again; nginx takes AAC as
# well, and records, so that pictures can be counted.
start_sink() {
    sink=$1
    output=rtmp://$ADDRESS:$RTMP_PORT
    if [ "$sink" = latency ]; then return 0; fi
    output=$output/live
    mkdir -p "$work/recordings"
    chmod -R a+rwX "$work"
    cat >"$work/nginx.conf" <<NGINX
load_module $NGINX_RTMP_MODULE;
daemon off;
pid $work/nginx.pid;
error_log stderr;
events { worker_connections 512; }
rtmp {
    access_log off;
    server { listen $ADDRESS:$RTMP_PORT; chunk_size 65536; application live { live on; record all; record_path $work/recordings; } }
}
NGINX
    # nginx takes a variable NGINX for sockets that it is to inherit.
    start nginx env -u NGINX "$NGINX" -e stderr -p "$work" -c "$work/nginx.conf"
    wait_for "$UP_SECONDS" "the RTMP server" listening "$RTMP_PORT"
}

# Pictures per second and guest between $work/recorded and now.
recorded() { stat -c '%s %n' "$work"/recordings/*.flv; }
pictures_recorded() {
    local from to file
    while read -r from file to _; do
        "$FFPROBE" -v error -select_streams v -show_entries packet=pos -of csv=p=0 "$file" |
            awk -v from="$from" -v to="$to" '$1 >= from && $1 < to { n++ } END { print n + 0 }'
    done < <(recorded | paste -d ' ' "$work/recorded" -) |
        awk -v s="$row_seconds" '{ n += $1 } END { printf "%.1f", n / NR / s }'
}

# under_load NAME GUESTS GROUP: one row, with whatever server start_sink started.
under_load() {
    local name=$1 guests=$2 group=$3 pictures delays='' load
    local url=http://$ADDRESS:$HTTP_PORT/whip/guest1
    if [ "$sink" = latency ]; then
        start load "$targets/release/loadgen" latency --listen "$ADDRESS:$RTMP_PORT" --url "$url" --guests "$guests" \
            --seconds "$((row_seconds + READING_SECONDS))"
        load=$started
        wait_for "$CONNECT_SECONDS" "$guests guests at $name" grep -q '^measuring' "$work/load.log"
        measure "$group" "$guests"
        wait "$load" || fail "$name did not deliver"
        read -r pictures delays < <(awk -v s="$((row_seconds + READING_SECONDS))" -v g="$guests" \
            '/ pictures, delay / { printf "%.1f %s/%s\n", $1 / s / g, $5, $7 }' "$work/load.log")
    else
        start load "$targets/release/loadgen" publish --url "$url" --guests "$guests"
        wait_for "$CONNECT_SECONDS" "$guests guests at $name" all_live "$guests"
        sleep "$WARM_UP_SECONDS"
        recorded >"$work/recorded"
        measure "$group" "$guests"
        pictures=$(pictures_recorded)
    fi
    row "$name" "$guests" "$cost" "$pictures" "$delays"
    stop_all
    rm -rf "${work:?}"/*.log "$work/recordings"
}

relay_row() {
    local guests=$1 number
    start_sink latency
    {
        echo "http: { listen: '$ADDRESS:$HTTP_PORT', offers_per_minute: 600 }"
        echo "rtc: { listen: '$ADDRESS:$RTC_PORT' }"
        echo "relay: { output: '$output/{guest_id}', state_file: none }"
        echo 'guests:'
        for number in $(seq "$guests"); do echo "  guest$number: {}"; done
    } >"$work/config.yml"
    start guest-relay "$targets/dist/guest-relay" --config "$work/config.yml"
    local daemon=$started
    wait_for "$UP_SECONDS" guest-relay listening "$HTTP_PORT"
    under_load guest-relay "$guests" "$daemon"
}

# What this machine charges, in these minutes, for a wake-up and a write for each Opus packet and picture of one guest.
least_row() {
    local cost
    cost=$("$targets/dist/bench" wake-ups "$row_seconds")
    printf '| wake-ups and writes alone | 1 | %s |%s\n' "$cost" "$(printf ' - |%.0s' {1..7})"
}

peer_row() {
    local peer=$1 guests=$2 command
    case $peer in
    janus)
        start_sink latency
        mkdir -p "$work/janus"
        command=(python3 tests/bench/peers/janus_whip.py "$ADDRESS:$HTTP_PORT" "$output"
            --janus "$JANUS_PREFIX" --ffmpeg "$FFMPEG" --work "$work/janus")
        ;;
    gstreamer)
        start_sink nginx
        command=("$GST_PYTHON" tests/bench/peers/gstreamer_whip.py "$ADDRESS:$HTTP_PORT" "$output")
        ;;
    gstreamer-video)
        start_sink latency
        command=("$GST_PYTHON" tests/bench/peers/gstreamer_whip.py "$ADDRESS:$HTTP_PORT" "$output" --without-audio)
        ;;
    aiortc)
        start_sink nginx
        command=("$AIORTC_PYTHON" tests/bench/peers/aiortc_whip.py "$ADDRESS:$HTTP_PORT" "$output")
        ;;
    esac
    start "$peer" "${command[@]}"
    local server=$started
    wait_for "$UP_SECONDS" "$peer" listening "$HTTP_PORT"
    under_load "$peer" "$guests" "$server"
}

model=$(awk -F ': ' '/^model name/ { print $2; exit }' /proc/cpuinfo)
read -r load _ </proc/loadavg
echo "$(date -u +%F), $(nproc) cores, $model, Linux $(uname -r | cut -d. -f1,2), load $load before it began, $row_seconds s a row"
echo
echo '| what | guests | CPU s per guest-minute | RSS MiB | PSS MiB | anonymous MiB | threads | switches/s | pictures/s | delay p50/p99 ms |'
echo '|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|'
for guests in $guest_counts; do
    relay_row "$guests"
    if [ "$guests" -eq 1 ]; then least_row; fi
done
for peer in $peers; do
    for guests in $peer_guest_counts; do
        if [ "$peer" != aiortc ] || [ "$guests" -le "$AIORTC_MOST_GUESTS" ]; then peer_row "$peer" "$guests"; fi
    done
done

echo
echo 'Times as much as guest-relay with as many guests:'
echo
echo '| what | guests | CPU | RSS | PSS | anonymous | threads | switches |'
echo '|---|--:|--:|--:|--:|--:|--:|--:|'
awk '$1 == "guest-relay" { for (i = 3; i <= 8; i++) ours[$2, i] = $i; next }
    ($2, 3) in ours {
        printf "| %s | %s |", $1, $2
        for (i = 3; i <= 8; i++) printf " %.1f |", $i / ours[$2, i]
        print ""
    }' "$work/rows"
