#!/usr/bin/env bash
# `make bench`: what the packet path costs, on a recording: instructions
# (counted by callgrind, the same on each run of one build), time and heap
# allocations per packet, from SRTP datagram to RTMP bytes, beside what
# webrtc-srtp alone takes to decrypt the same packets.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
. tests/scripts/tools.sh

RATIO_LIMIT_PERCENT=150 # of the bare cost, in instructions
# Buffers grow for an IDR picture, and some are given back after it; no packet needs the heap.
ALLOCATIONS_LIMIT_PERCENT=3 # of the packets

need_valgrind

cargo rustc --profile dist --locked -p bench --bin bench -- -Cstrip=none
bench=${CARGO_TARGET_DIR:-target}/dist/bench

# instructions SUBJECT PROFILE FILE: of the measured part alone
instructions() {
    valgrind --tool=callgrind --callgrind-out-file=/dev/null --collect-atstart=no \
        --toggle-collect="bench::Subject::run" "$bench" count "$@" 2>&1 >/dev/null |
        awk '/Collected :/ { print $4 }'
}

over=0
printf '  %-14s %-7s %7s  %-23s  %-20s  %5s %11s\n' recording profile packets 'instructions/packet' 'ns/packet' ratio allocations
for recording in tests/loadgen/clips/chromium-720p30 muxer/tests/golden/{multi_slice,audio_only}; do
    file=$recording.rtpdump
    for profile in gcm cm; do
        packets=$("$bench" count path "$profile" "$file")
        path=$(($(instructions path "$profile" "$file") / packets))
        open=$(($(instructions open "$profile" "$file") / packets))
        bare=$(($(instructions bare "$profile" "$file") / packets))
        path_ns=$("$bench" time path "$profile" "$file" | tail -n 1)
        open_ns=$("$bench" time open "$profile" "$file" | tail -n 1)
        bare_ns=$("$bench" time bare "$profile" "$file" | tail -n 1)
        allocations=$("$bench" allocations path "$profile" "$file" | tail -n 1)
        percent=$((100 * path / bare))
        printf '  %-14s %-7s %7s  %5s, %5s; bare %5s  %4s, %4s; bare %4s  %4s%% %11s\n' "$(basename "$recording")" \
            "$profile" "$packets" "$path" "$open" "$bare" "$path_ns" "$open_ns" "$bare_ns" "$percent" "$allocations"
        if [ "$percent" -gt "$RATIO_LIMIT_PERCENT" ]; then over=1; fi
        if [ "$((100 * allocations))" -gt "$((ALLOCATIONS_LIMIT_PERCENT * packets))" ]; then over=1; fi
    done
done
echo '  the whole path, of that opening SRTP; bare: webrtc-srtp alone, with which the ratio is (instructions)'
if [ "$over" -ne 0 ]; then
    echo "bench: more than $RATIO_LIMIT_PERCENT % of the bare cost, or allocations for more than $ALLOCATIONS_LIMIT_PERCENT % of the packets"
    exit 1
fi
