#!/usr/bin/env bash
# Regenerates the golden .flv and .txt files and PROVENANCE.md, and refuses to
# unless ffprobe >= 8 and the recordings themselves agree with every one of them
# (what exactly is compared: ../record/bless.py).
#
#   muxer/tests/golden/bless.sh            accept the muxer's present output
#   muxer/tests/golden/bless.sh --check    confirm the stored files, write nothing
#
# ffmpeg and ffprobe: $FFMPEG and $FFPROBE, else tests/scripts/tools.sh installs them.
set -euo pipefail
root=$(cd "$(dirname "$0")/../../.." && pwd)
cd "$root"

if [ -z "${FFMPEG:-}" ] || [ -z "${FFPROBE:-}" ]; then
  # shellcheck source=/dev/null
  . tests/scripts/tools.sh
  need_ffmpeg
fi

python3 muxer/tests/record/edit.py --check
cargo build -q --release --locked --workspace --example rtp2flv --example flv_listing
examples=${CARGO_TARGET_DIR:-target}/release/examples
exec python3 muxer/tests/record/bless.py --rtp2flv "$examples/rtp2flv" --listing "$examples/flv_listing" \
  --ffmpeg "$FFMPEG" --ffprobe "$FFPROBE" "$@"
