#!/usr/bin/env bash
# `make fuzz`: each parser that reads what somebody else wrote, FUZZ_SECONDS each.
# Arguments pick targets. What a run finds new is kept in tests/fuzz/corpus, what
# breaks a target in tests/fuzz/artifacts.
#
# Seeds: tests/fuzz/seeds/TARGET, where `stun` holds the vectors of RFC 5769 and
# `dtls` what OpenSSL's server sent in one handshake; the muxer's golden
# recordings; the example configuration.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
. tests/scripts/tools.sh

SECONDS_EACH=${FUZZ_SECONDS:-20}
INPUT_SECONDS_MAX=5
MEMORY_MAX_MB=512
INPUT_BYTES_MAX=65536

need_cargo_fuzz

# No sanitizer: our crates hold no unsafe code, and without one the toolchain
# that builds everything else does.
fuzz() { (cd tests/fuzz && cargo fuzz "$@"); }
build=(--fuzz-dir . --sanitizer none)

targets=("$@")
if [ "${#targets[@]}" -eq 0 ]; then mapfile -t targets < <(fuzz list --fuzz-dir .); fi

failed=()
for target in "${targets[@]}"; do
    corpus=$PWD/tests/fuzz/corpus/$target
    mkdir -p "$corpus"
    seeds=()
    if [ -d "tests/fuzz/seeds/$target" ]; then seeds+=("$PWD/tests/fuzz/seeds/$target"); fi
    case $target in
        muxer) cp muxer/tests/golden/*.rtpdump "$corpus" ;;
        config) cp config.example.yml "$corpus" ;;
    esac
    log=$(tools_log "fuzz-$target")
    if fuzz run "${build[@]}" "$target" "$corpus" "${seeds[@]}" -- \
        -max_total_time="$SECONDS_EACH" -timeout="$INPUT_SECONDS_MAX" \
        -rss_limit_mb="$MEMORY_MAX_MB" -max_len="$INPUT_BYTES_MAX" >"$log" 2>&1 </dev/null; then
        printf 'ok    %-14s %s\n' "$target" "$(grep -E '^Done ' "$log" | tail -n 1)"
    else
        failed+=("$target")
        printf 'FAIL  %-14s %s\n' "$target" "$log"
        grep -E '^(SUMMARY|thread|assertion|Test unit|error)|panicked' "$log" | head -n 8 || true
    fi
done
[ "${#failed[@]}" -eq 0 ]
