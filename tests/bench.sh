#!/usr/bin/env bash
# `make bench`: instructions per RTP packet, from packet to FLV tag, counted by
# callgrind on recordings. The count is the same on each run of one build.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. tests/tools.sh

need_valgrind

PASSES=10 # beyond the first one, which pays for start-up and growing buffers

(cd tests/bench && cargo build --release --quiet)
bench=${CARGO_TARGET_DIR:-tests/bench/target}/release/bench

# instructions PASSES FILE
instructions() {
    valgrind --tool=callgrind --callgrind-out-file=/dev/null "$bench" "$1" "$2" 2>&1 >/dev/null |
        awk '/Collected :/ { print $4 }'
}

printf '  %-24s %8s %20s\n' recording packets instructions/packet
for recording in muxer/tests/golden/{chromium,fu_a,multi_slice,audio_only}.rtpdump; do
    packets=$("$bench" 1 "$recording")
    first=$(instructions 1 "$recording")
    all=$(instructions "$((1 + PASSES))" "$recording")
    printf '  %-24s %8s %20s\n' "$(basename "$recording" .rtpdump)" "$packets" "$(((all - first) / PASSES / packets))"
done
