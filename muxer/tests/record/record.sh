#!/usr/bin/env bash
# Makes the recordings that need no browser: encodes short x264 and libopus
# sources, lets ffmpeg or GStreamer packetise them in real time, and keeps what
# arrived over loopback UDP. Writes <name>.rtpdump, <name>.sdp and <name>.pictures
# (MD5 of each decoded picture of the source, before anything was packetised) into
# the golden directory. Names as arguments record only those.
#
#   FFMPEG=... ./record.sh [name...]
#
# SSRCs, first sequence numbers and times are the packetisers' random choice, so a
# new recording differs from the old one: run edit.py and bless.sh afterwards.
#
# Needs ffmpeg >= 8 with libx264 and libopus (tests/scripts/tools.sh), python3, and for
# `fu_a` and `headers_between_slices` GStreamer 1.22 with x264enc (Debian: gstreamer1.0-tools,
# -plugins-base, -plugins-good, -plugins-ugly).
set -euo pipefail
cd "$(dirname "$0")"

GOLDEN=${GOLDEN:-../golden}
SOURCES=$(mktemp -d)
trap 'rm -rf "$SOURCES"' EXIT
: "${FFMPEG:?set FFMPEG to an ffmpeg >= 8 (. tests/scripts/tools.sh; need_ffmpeg)}"

# 72 pictures in four groups of 18, about 160 kbit/s: small, and with an IDR to
# come back on after each loss.
PICTURES=(-f lavfi -i "testsrc2=size=320x180:rate=30,trim=end_frame=72")
SOUND=(-f lavfi -i "sine=frequency=440:beep_factor=4:sample_rate=48000,atrim=end_sample=115200")
X264=(-c:v libx264 -preset veryfast -bf 0 -g 18 -sc_threshold 0 -threads 1 -pix_fmt yuv420p
      -b:v 160k -maxrate 160k -bufsize 80k)
OPUS=(-c:a libopus -b:a 24k -ac 2)

ff() { "$FFMPEG" -hide_banner -v error -nostdin -y "$@"; }
realtime() { echo -re -readrate_initial_burst 0.001; }
wanted() { [ $# -lt 1 ] || [ ${#NAMES[@]} -eq 0 ] || [[ " ${NAMES[*]} " == *" $1 "* ]]; }
NAMES=("$@")
PACKET_BYTES=1200

# send_av NAME SOURCE [rtp options]: both tracks; send_v, send_a: one of them.
send_av() {
  local name=$1 source=$2; shift 2
  # shellcheck disable=SC2046
  python3 capture.py "$GOLDEN/$name.rtpdump" -- "$FFMPEG" -hide_banner -v error -nostdin $(realtime) -i "$source" \
    -map 0:v -c copy -payload_type 96 "$@" -f rtp "rtp://127.0.0.1:{video}?pkt_size=$PACKET_BYTES" \
    -map 0:a -c copy -payload_type 97 -f rtp "rtp://127.0.0.1:{audio}" -sdp_file "$GOLDEN/$name.sdp"
}
send_v() {
  local name=$1 source=$2; shift 2
  # shellcheck disable=SC2046
  python3 capture.py "$GOLDEN/$name.rtpdump" -- "$FFMPEG" -hide_banner -v error -nostdin $(realtime) -i "$source" \
    -map 0:v -c copy -payload_type 96 "$@" -f rtp "rtp://127.0.0.1:{video}?pkt_size=$PACKET_BYTES" -sdp_file "$GOLDEN/$name.sdp"
}
send_a() {
  local name=$1 source=$2; shift 2
  # shellcheck disable=SC2046
  python3 capture.py "$GOLDEN/$name.rtpdump" -- "$FFMPEG" -hide_banner -v error -nostdin $(realtime) -i "$source" \
    -map 0:a -c copy -payload_type 97 "$@" -f rtp "rtp://127.0.0.1:{audio}" -sdp_file "$GOLDEN/$name.sdp"
}

# pictures NAME SOURCE: what a decoder makes of the source itself.
pictures() {
  ff -i "$2" -map 0:v -fps_mode passthrough -noautoscale -f framemd5 - | awk -F', *' '!/^#/ { print $6 }' >"$GOLDEN/$1.pictures"
}

# NUT keeps exact clocks. With repeated headers ffmpeg's packetiser puts SPS, PPS
# and SEI of each IDR into a STAP-A.
if wanted stap_a_start; then
  ff "${PICTURES[@]}" "${SOUND[@]}" "${X264[@]}" -profile:v baseline -x264-params repeat-headers=1 "${OPUS[@]}" "$SOURCES/stap_a_start.nut"
  send_av stap_a_start "$SOURCES/stap_a_start.nut"
  pictures stap_a_start "$SOURCES/stap_a_start.nut"
fi

# High profile, CABAC, four slices a picture, packets small enough that a picture needs several.
if wanted multi_slice; then
  ff "${PICTURES[@]}" "${SOUND[@]}" "${X264[@]}" -profile:v high -x264-params slices=4:repeat-headers=1 "${OPUS[@]}" "$SOURCES/multi_slice.nut"
  PACKET_BYTES=500 send_av multi_slice "$SOURCES/multi_slice.nut"
  pictures multi_slice "$SOURCES/multi_slice.nut"
fi

# packetization-mode 0: every NAL unit in its own packet, so slices are kept below the MTU.
if wanted single_nal; then
  ff "${PICTURES[@]}" "${SOUND[@]}" "${X264[@]}" -profile:v baseline -x264-params slice-max-size=1100:repeat-headers=1 "${OPUS[@]}" "$SOURCES/single_nal.nut"
  send_av single_nal "$SOURCES/single_nal.nut" -rtpflags h264_mode0
  pictures single_nal "$SOURCES/single_nal.nut"
fi

# MP4 wants a global header: SPS and PPS stand in the SDP alone.
if wanted sprop_only; then
  ff "${PICTURES[@]}" "${SOUND[@]}" "${X264[@]}" -profile:v main "${OPUS[@]}" "$SOURCES/sprop_only.mp4"
  send_av sprop_only "$SOURCES/sprop_only.mp4"
  pictures sprop_only "$SOURCES/sprop_only.mp4"
fi

# Three B-frames between references, one of them a reference too: RTP times go back and forth.
if wanted b_frames; then
  ff "${PICTURES[@]}" "${SOUND[@]}" "${X264[@]}" -profile:v main -bf 3 -x264-params b-pyramid=normal:b-adapt=0:repeat-headers=1 "${OPUS[@]}" "$SOURCES/b_frames.nut"
  send_av b_frames "$SOURCES/b_frames.nut"
  pictures b_frames "$SOURCES/b_frames.nut"
fi

# 320x180 for 36 pictures, then 426x240 (which needs cropping in both directions).
if wanted sps_change; then
  for size in 320x180 426x240; do
    ff -f lavfi -i "testsrc2=size=$size:rate=30,trim=end_frame=36" "${X264[@]}" -profile:v baseline -f h264 "$SOURCES/part-$size.h264"
  done
  cat "$SOURCES/part-320x180.h264" "$SOURCES/part-426x240.h264" >"$SOURCES/sps_change.h264"
  ff "${SOUND[@]}" "${OPUS[@]}" "$SOURCES/sps_change.nut"
  # shellcheck disable=SC2046
  python3 capture.py "$GOLDEN/sps_change.rtpdump" -- "$FFMPEG" -hide_banner -v error -nostdin \
    $(realtime) -framerate 30 -f h264 -i "$SOURCES/sps_change.h264" $(realtime) -i "$SOURCES/sps_change.nut" \
    -map 0:v -c copy -payload_type 96 -f rtp "rtp://127.0.0.1:{video}?pkt_size=$PACKET_BYTES" \
    -map 1:a -c copy -payload_type 97 -f rtp "rtp://127.0.0.1:{audio}" -sdp_file "$GOLDEN/sps_change.sdp"
  pictures sps_change "$SOURCES/sps_change.h264"
fi

if wanted audio_only; then
  ff "${SOUND[@]}" -c:a libopus -b:a 32k -ac 1 "$SOURCES/audio_only.nut"
  send_a audio_only "$SOURCES/audio_only.nut"
fi

if wanted video_only; then
  ff "${PICTURES[@]}" "${X264[@]}" -profile:v baseline -x264-params repeat-headers=1 "$SOURCES/video_only.nut"
  send_v video_only "$SOURCES/video_only.nut"
  pictures video_only "$SOURCES/video_only.nut"
fi

# GStreamer's packetiser: SPS, PPS and SEI as single NAL unit packets of their
# own, FU-A for nearly every slice at this MTU.
gst_video() {
  local name=$1 mtu=$2 slices=$3
  python3 capture.py "$GOLDEN/$name.rtpdump" -- gst-launch-1.0 -q \
    videotestsrc is-live=true pattern=smpte num-buffers=72 \
    ! video/x-raw,format=I420,width=320,height=180,framerate=30/1 \
    ! x264enc bitrate=160 vbv-buf-capacity=500 key-int-max=18 bframes=0 threads=1 sliced-threads=false speed-preset=veryfast \
        rc-lookahead=0 sync-lookahead=0 option-string="scenecut=0:slices=$slices" \
    ! video/x-h264,profile=constrained-baseline,stream-format=byte-stream ! tee name=t \
    t. ! queue ! filesink location="$SOURCES/$name.h264" \
    t. ! queue ! rtph264pay pt=96 mtu="$mtu" aggregate-mode=none config-interval=-1 \
    ! udpsink host=127.0.0.1 port="{video}" sync=false
  cat >"$GOLDEN/$name.sdp" <<SDP
v=0
o=- 0 0 IN IP4 127.0.0.1
s=rtph264pay mtu=$mtu aggregate-mode=none config-interval=-1
c=IN IP4 127.0.0.1
t=0 0
m=video 5004 RTP/AVP 96
a=rtpmap:96 H264/90000
a=fmtp:96 packetization-mode=1
SDP
  pictures "$name" "$SOURCES/$name.h264"
}
if wanted fu_a; then gst_video fu_a 300 1; fi
if wanted headers_between_slices; then gst_video headers_between_slices 1200 3; fi
