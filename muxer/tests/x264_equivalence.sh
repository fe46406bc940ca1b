#!/usr/bin/env bash
# An x264 stream, packetised to RTP by ffmpeg (not by us), through rtp2flv: the
# pictures that ffmpeg decodes from the FLV are those of the source, bit for bit,
# and stand at the source's times. One line per case; exit code 1 on any difference.
#
#   muxer/tests/x264_equivalence.sh
#
# Cases: single NAL unit packets | STAP-A | FU-A, 1 | 4 slices a picture, SPS and PPS
# repeated in the stream | only in the SDP; 1 to 3 B-frames with and without pyramid.
# Each checks that its packets were seen, and that decoding times strictly increase and
# are never later than presentation times.
#
# ffmpeg: $FFMPEG, else tests/scripts/tools.sh installs it.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
cd "$root"

if [ -z "${FFMPEG:-}" ]; then
  # shellcheck source=/dev/null
  . tests/scripts/tools.sh
  need_ffmpeg
fi
cargo build -q --release --locked --workspace --example rtp2flv
rtp2flv=${CARGO_TARGET_DIR:-target}/release/examples/rtp2flv
record=muxer/tests/record

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
ff() { "$FFMPEG" -hide_banner -v error -nostdin "$@"; }

# Presentation time in ms (rounded down) and MD5 of every decoded picture.
pictures() {
  ff -xerror -i "$1" -map 0:v -fps_mode passthrough -enc_time_base demux -f framemd5 - |
    awk -F', *' '/^#tb 0:/ { split($0, word, "[ /]"); num = word[3]; den = word[4] }
                 !/^#/ { printf "%d %s\n", $3 * num * 1000 / den, $6 }'
}

# same_pictures SOURCE RESULT: equal MD5s in order; times from the first on equal to 1 ms.
same_pictures() {
  paste -d' ' "$1" "$2" | awk '
    NF != 4 { print "picture " NR ": one side has none"; bad = 1; exit }
    NR == 1 { from_source = $1; from_result = $3 }
    $2 != $4 { print "picture " NR ": decoded differently"; bad = 1; exit }
    { apart = ($1 - from_source) - ($3 - from_result) }
    apart > 1 || apart < -1 { print "picture " NR ": " apart " ms off"; bad = 1; exit }
    END { if (!bad && NR == 0) { print "no pictures"; bad = 1 }; exit bad }'
}

# in_time RESULT: every packet's dts is above the one before and no later than its pts.
in_time() {
  "$FFPROBE" -v error -select_streams v -show_entries packet=dts,pts -of csv=p=0 "$1" | awk -F, '
    NR > 1 && $2 <= last { print "packet " NR ": dts " $2 " after " last; bad = 1; exit }
    $1 < $2 { print "packet " NR ": dts " $2 " is later than pts " $1; bad = 1; exit }
    { last = $2 }
    END { if (!bad && NR == 0) print "no packets"; exit bad }'
}

failed=0
# one_case PACKETS SLICES HEADERS [B-FRAMES [PYRAMID]]
one_case() {
  local packets=$1 slices=$2 headers=$3 b_frames=${4:-0} pyramid=${5:-none}
  local name="$packets, $slices slice(s), headers $headers"
  [ "$b_frames" = 0 ] || name+=", $b_frames B-frame(s), pyramid $pyramid"
  local stem=$work/case x264="slices=$slices:b-adapt=0:b-pyramid=$pyramid" packet_bytes=1400 expected
  local flags=()
  case $packets in
    single) x264+=:slice-max-size=1000 flags=(-rtpflags h264_mode0) expected="single" ;;
    stap-a) x264+=:aud=1 expected="STAP-A" ;;
    fu-a) packet_bytes=300 expected="FU-A" ;;
  esac
  [ "$headers" = repeated ] && x264+=:repeat-headers=1

  rm -f "$stem".*
  ff -f lavfi -i testsrc2=size=352x288:rate=30,trim=end_frame=60 -c:v libx264 -preset veryfast -profile:v high -bf "$b_frames" -g 20 \
    -b:v 250k -pix_fmt yuv420p -threads 1 -x264-params "$x264" "$stem.nut"
  # Four times real time: fast, and no burst that overflows a socket buffer.
  python3 "$record/capture.py" "$stem.rtpdump" -- "$FFMPEG" -hide_banner -v error -nostdin -readrate 4 -readrate_initial_burst 0.001 \
    -i "$stem.nut" -map 0:v -c copy -payload_type 96 "${flags[@]}" -f rtp "rtp://127.0.0.1:{video}?pkt_size=$packet_bytes" \
    -sdp_file "$stem.sdp" 2>/dev/null
  python3 "$record/describe.py" "$stem.rtpdump" >"$stem.packets"

  local problem=""
  if ! grep -q "$expected" "$stem.packets"; then
    problem="ffmpeg sent no $expected packet"
  elif [ "$headers" = repeated ] && ! grep -q SPS "$stem.packets"; then
    problem="no SPS in the stream"
  elif [ "$headers" = sdp ] && grep -q SPS "$stem.packets"; then
    problem="an SPS in the stream"
  elif ! problem=$("$rtp2flv" --sdp "$stem.sdp" "$stem.rtpdump" "$stem.flv" 2>&1); then
    problem="rtp2flv: $problem"
  elif ! pictures "$stem.nut" >"$stem.source" 2>"$stem.messages"; then
    problem="source: $(head -1 "$stem.messages")"
  elif ! pictures "$stem.flv" >"$stem.result" 2>"$stem.messages" || [ -s "$stem.messages" ]; then
    problem="ffmpeg on the FLV: $(head -1 "$stem.messages")"
  else
    problem=$(same_pictures "$stem.source" "$stem.result" && in_time "$stem.flv") || true
  fi
  if [ -n "$problem" ]; then
    echo "DIFFERS  $name: $problem"
    failed=1
  else
    echo "equal    $name: $(wc -l <"$stem.source") pictures, $(grep -c " pt " "$stem.packets") packets"
  fi
}

for packets in single stap-a fu-a; do
  for slices in 1 4; do
    for headers in repeated sdp; do
      one_case "$packets" "$slices" "$headers"
    done
  done
done
for b_frames in 1 3; do
  for pyramid in none strict normal; do
    one_case stap-a 1 repeated "$b_frames" "$pyramid"
  done
done
exit $failed
