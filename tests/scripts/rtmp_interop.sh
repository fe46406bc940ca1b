#!/usr/bin/env bash
# The RTMP client against servers that are not ours: publishes recordings in real
# time into `ffmpeg -listen 1` and nginx-rtmp, then compares what was recorded
# with what was sent: every picture and every Opus packet, byte for byte.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
. tests/scripts/tools.sh

need_ffmpeg
need_nginx_rtmp
cargo build --release --locked --quiet --workspace --example flv_publish
PUBLISH=${CARGO_TARGET_DIR:-target}/release/examples/flv_publish

DIR=$(mktemp -d "${E2E_DIR:-${TMPDIR:-/tmp}}/rtmp-interop.XXXXXX")
servers=()
failed=0
# shellcheck disable=SC2317 # called by the trap
cleanup() {
    for server in "${servers[@]}"; do kill "$server" 2>/dev/null || true; done
    if [ "$failed" -eq 0 ] && [ "${done:-0}" -eq 1 ]; then rm -rf "$DIR"; fi
}
trap cleanup EXIT

# is_open PORT
is_open() { (: <"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

free_port() {
    local port
    while port=$((20000 + RANDOM % 10000)); is_open "$port"; do :; done
    echo "$port"
}

# packets FILE: "v md5" and "a md5" of each packet from the first picture on, in
# the order of each stream.
packets() {
    local first
    first=$("$FFPROBE" -v error -select_streams v:0 -read_intervals '%+#1' -show_entries packet=pts_time -of csv=p=0 "$1")
    local stream
    for stream in v a; do
        # audio before the first picture is not published
        "$FFPROBE" -v error -select_streams "$stream:0" -show_entries packet=pts_time,data_hash -show_data_hash md5 \
            -of csv=p=0 "$1" | awk -F, -v first="${first%%,*}" -v stream="$stream" '$1 >= first - 0.0005 { print stream, $2 }'
    done
}

# compare NAME SENT RECORDED
compare() {
    packets "$2" >"$DIR/sent"
    packets "$3" >"$DIR/recorded"
    local pictures audio message=''
    pictures=$(grep -c '^v' "$DIR/sent")
    audio=$(grep -c '^a' "$DIR/sent")
    if ! cmp -s "$DIR/sent" "$DIR/recorded"; then
        message="$(grep -c '^v' "$DIR/recorded") pictures and $(grep -c '^a' "$DIR/recorded") Opus packets arrived, or others"
    elif [ -n "$("$FFMPEG" -v error -xerror -i "$3" -f null - 2>&1)" ]; then
        message='the recording does not decode cleanly'
    fi
    if [ -n "$message" ]; then
        failed=1
        echo "FAILED $1: sent $pictures pictures and $audio Opus packets; $message"
    else
        echo "ok $1: $pictures pictures, $audio Opus packets"
    fi
}

# into_ffmpeg NAME FILE PATH [OPTION...]
into_ffmpeg() {
    local name=$1 file=$2 path=$3 port server
    shift 3
    port=$(free_port)
    "$FFMPEG" -v error -y -listen 1 -f flv -i "rtmp://127.0.0.1:$port/$path" -c copy -f matroska "$DIR/$name.mkv" \
        </dev/null 2>"$DIR/$name.log" &
    server=$!
    servers+=("$server")
    # the listener takes one connection only, so it must not be probed: a refused publisher tries again
    "$PUBLISH" "$@" "$file" "rtmp://127.0.0.1:$port/$path" >"$DIR/$name.publish.log" || failed=1
    wait "$server" || true # ends with an I/O error when the publisher leaves
    compare "$name" "$file" "$DIR/$name.mkv"
}

SMALL=tests/it/rtmp/testsrc2_320x240.flv
# Key frames of several chunks; the jump puts timestamps beyond 24 bits into them.
"$FFMPEG" -v error -y -f lavfi -i testsrc2=size=1280x720:rate=25,noise=alls=60:allf=t -f lavfi -i sine=f=440:r=48000 -t 4 \
    -c:v libx264 -preset ultrafast -b:v 8M -maxrate 8M -bufsize 2M -g 25 -bf 0 -pix_fmt yuv420p -c:a libopus -b:a 48k -ac 2 -f flv "$DIR/large.flv"

into_ffmpeg ffmpeg-app-only "$SMALL" guest1
into_ffmpeg ffmpeg-app-and-name "$SMALL" live/guest1
into_ffmpeg ffmpeg-large-frames "$DIR/large.flv" live/guest1
into_ffmpeg ffmpeg-extended-timestamps "$DIR/large.flv" live/guest1 --jump 16776000

port=$(free_port)
# Started by root, nginx records as nobody, who may not reach the directory.
[ "$(id -u)" -ne 0 ] || run_as='user root;'
cat >"$DIR/nginx.conf" <<CONF
${run_as:-}
load_module $NGINX_RTMP_MODULE;
daemon off;
pid $DIR/nginx.pid;
error_log $DIR/nginx.log;
events {}
rtmp { access_log off; server { listen 127.0.0.1:$port; chunk_size 4096; max_message 8m; ping 1s; ping_timeout 3s;
    application live { live on; record all; record_path $DIR; record_suffix .flv; } } }
CONF
env -u NGINX "$NGINX" -c "$DIR/nginx.conf" 2>>"$DIR/nginx.log" & # nginx takes $NGINX for inherited sockets
nginx=$!
servers+=("$nginx")
for _ in $(seq 50); do is_open "$port" && break; sleep 0.1; done
for case in 'nginx-small' 'nginx-query ?user=u&pass=p' 'nginx-large'; do
    read -r name query <<<"$case"
    file=$SMALL
    [ "$name" = nginx-large ] && file=$DIR/large.flv
    "$PUBLISH" "$file" "rtmp://127.0.0.1:$port/live/$name$query" >"$DIR/$name.publish.log" || failed=1
    for _ in $(seq 50); do [ -s "$DIR/$name.flv" ] && break; sleep 0.1; done
    compare "$name" "$file" "$DIR/$name.flv"
done
kill "$nginx"
wait "$nginx" || true
done=1
if [ "$failed" -ne 0 ]; then echo "logs and recordings are in $DIR"; fi
exit "$failed"
