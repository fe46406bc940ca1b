#!/usr/bin/env bash
# Records a real Chromium's H.264 and Opus as NAME.rtpdump and NAME.sdp.
#
#   tests/loadgen/record_chromium.sh small NAME   640x360, 30 fps, 4 s, at most 260 kbit/s of video
#   tests/loadgen/record_chromium.sh load NAME    1280x720, 30 fps, 6 s, about 2.4 Mbit/s, a keyframe every 2 s
#
# Camera and microphone are Chromium's fake devices; for `load` the picture is a moving test card with noise, since the
# fake camera's own picture needs a third of the bitrate. The first 12 s of `load` are the encoder's start and are not kept.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
. tests/scripts/tools.sh

case "${1:-} ${2:-}" in
    "small "?*) page="width=640&height=360&fps=30&kbps=260" options=(--seconds 4 --start-kbps 300) ;;
    "load "?*) page="width=1280&height=720&fps=30&kbps=2500"
        options=(--seconds 5.9 --skip 12 --keyframe-every 2 --start-kbps 2400) ;;
    *) sed -n '4,5s/^# *//p' "${BASH_SOURCE[0]}" >&2; exit 2 ;;
esac
name=$2

need_chromium
cargo build --quiet --release -p loadgen
work=$(mktemp -d)
browser=''
finish() {
    if [ -n "$browser" ]; then kill "$browser" 2>/dev/null || true; wait "$browser" 2>/dev/null || true; fi
    rm -rf "$work"
}
trap finish EXIT

camera=()
if [ "$1" = load ]; then
    need_ffmpeg
    "$FFMPEG" -v error -f lavfi -i "testsrc2=size=1280x720:rate=30:duration=5,noise=alls=6:allf=t" \
        -pix_fmt yuv420p "$work/camera.y4m"
    camera=("--use-file-for-fake-video-capture=$work/camera.y4m")
fi

# The recorder says on its first line where it listens.
target/release/loadgen record --listen 127.0.0.1:0 --out "$name" "${options[@]}" >"$work/recorder" &
recorder=$!
for _ in $(seq 100); do
    address=$(sed -n 's/^listening on //p' "$work/recorder")
    if [ -n "$address" ]; then break; fi
    sleep 0.1
done
if [ -z "$address" ]; then echo "the recorder does not listen" >&2; exit 1; fi
"$CHROMIUM" --headless --no-sandbox --disable-gpu --no-first-run --user-data-dir="$work/profile" \
    --use-fake-ui-for-media-stream --use-fake-device-for-media-stream=fps=30 "${camera[@]}" \
    "http://$address/?$page" >"$work/browser" 2>&1 &
browser=$!
wait "$recorder"
tail -n +2 "$work/recorder"
"$CHROMIUM" --version 2>/dev/null || true
