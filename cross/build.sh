#!/usr/bin/env bash
# `make cross`: the daemon for the board (aarch64, Debian 12 or newer), built as
# it is shipped, and what the binary has to be: with the ARM crypto extensions,
# against no newer glibc than the board's, small.
# `make cross-static` (argument: static): the same with glibc inside; the one
# that runs under qemu-user, and on a board with an older system.
# cross/build.sh golden: the muxer's golden tests, linked in that way.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

TARGET=aarch64-unknown-linux-gnu
GLIBC_MAX=2.36       # Debian 12's
SIZE_LIMIT_KB=4000   # thousands of bytes, of the one that ships
# The weaker half of RK3588's cores; the stronger (Cortex-A76) runs whatever it
# runs. CROSS_CPU=generic fits every 64-bit ARM board with crypto extensions.
CPU=${CROSS_CPU:-cortex-a55}

kind=${1:-dynamic}
targets=${CARGO_TARGET_DIR:-target}

missing=()
command -v aarch64-linux-gnu-gcc >/dev/null || missing+=('a C compiler and linker for ARM:   apt-get install gcc-aarch64-linux-gnu')
if [ "${#missing[@]}" -eq 0 ] && ! echo '#include <stdlib.h>' | aarch64-linux-gnu-gcc -E - >/dev/null 2>&1; then
    missing+=("C library's headers for ARM:       apt-get install libc6-dev-arm64-cross")
fi
[ -d "$(rustc --print sysroot)/lib/rustlib/$TARGET/lib" ] || missing+=("Rust's libraries for ARM:          rustup target add $TARGET")
if [ "${#missing[@]}" -gt 0 ]; then
    echo 'cross: missing here:'
    printf '  %s\n' "${missing[@]}"
    exit 1
fi

# aes 0.8 and polyval 0.6 use the CPU's AES and PMULL only when told to; without
# these two flags AES-CM, SRTCP and DTLS records are computed in software, though
# not RTP under AES-GCM, for which ring looks itself. They hold for this target alone.
flags=(--cfg=aes_armv8 --cfg=polyval_armv8 "-Ctarget-cpu=$CPU")
CARGO_ENCODED_RUSTFLAGS=$(IFS=$'\x1f'; echo "${flags[*]}")
export CARGO_ENCODED_RUSTFLAGS
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc
build=(cargo rustc --locked --profile dist --target "$TARGET")
# Only the last step differs between the two, so that everything else is built once.
static=(-Ctarget-feature=+crt-static)

out=$targets/cross
mkdir -p "$out"
case $kind in
dynamic)
    "${build[@]}" -p guest-relay --bin guest-relay
    cp "$targets/$TARGET/dist/guest-relay" "$out/guest-relay"
    binary=$out/guest-relay
    ;;
static)
    "${build[@]}" -p guest-relay --bin guest-relay -- "${static[@]}"
    cp "$targets/$TARGET/dist/guest-relay" "$out/guest-relay-static"
    binary=$out/guest-relay-static
    ;;
golden)
    golden=$("${build[@]}" -p guest-relay-muxer --test golden --message-format=json -- "${static[@]}" |
        sed -n 's/.*"executable":"\([^"]*\)".*/\1/p' | tail -n 1)
    cp "$golden" "$out/golden-static"
    exit 0
    ;;
*)
    echo "cross: unknown kind $kind" >&2
    exit 2
    ;;
esac

failed=0
row() { printf '  %-34s %s\n' "$1" "$2"; }
refuse() {
    row "$1" "$2"
    failed=1
}

echo
echo "$binary"
size_kb=$(($(stat -c %s "$binary") / 1000))
if [ "$kind" = static ]; then
    row size "$size_kb kB"
elif [ "$size_kb" -gt "$SIZE_LIMIT_KB" ]; then
    refuse size "$size_kb kB: OVER THE LIMIT of $SIZE_LIMIT_KB kB"
else
    row size "$size_kb kB (limit $SIZE_LIMIT_KB)"
fi

# Of one round of AES, of the carry-less product in GCM, of SHA-256's rounds: in
# the whole, and in ring's assembly, which has them in any case.
crypto_instructions() {
    aarch64-linux-gnu-objdump -d --no-show-raw-insn "$1" |
        awk '{ seen[$2]++ } END { print seen["aese"] + 0, seen["pmull"] + seen["pmull2"], seen["sha256h"] + 0 }'
}
read -r aese pmull sha256h < <(crypto_instructions "$binary")
ring=$(find "$targets/$TARGET/dist/build" -name 'libring_core_*_.a' -printf '%T@ %p\n' | sort -n | tail -n 1 | cut -d ' ' -f 2-)
read -r ring_aese ring_pmull _ < <(crypto_instructions "$ring")
if [ "$ring_aese" -eq 0 ] || [ "$aese" -le "$ring_aese" ] || [ "$pmull" -le "$ring_pmull" ]; then
    refuse 'crypto instructions' "aese $aese, pmull $pmull: the flags for ARM's crypto extensions had no effect"
else
    row 'crypto instructions' "aese $aese, pmull $pmull, sha256h $sha256h; ring's of them $ring_aese, $ring_pmull"
fi

if [ "$kind" = dynamic ]; then
    # Packed relocations need 2.36, whatever the symbols do.
    glibc=$({
        aarch64-linux-gnu-objdump -T "$binary" | sed -n 's/.*GLIBC_\([0-9.]*\).*/\1/p'
        if aarch64-linux-gnu-objdump -p "$binary" | grep -q '^ *RELR '; then echo 2.36; fi
    } | sort -uV | tail -n 1)
    newest=$(printf '%s\n%s\n' "$glibc" "$GLIBC_MAX" | sort -V | tail -n 1)
    if [ "$newest" != "$GLIBC_MAX" ]; then
        refuse 'glibc needed' "$glibc: the board has $GLIBC_MAX. Build on Debian 12, or use make cross-static"
    else
        row 'glibc needed' "$glibc (the board has $GLIBC_MAX)"
    fi
    row 'libraries needed' "$(aarch64-linux-gnu-objdump -p "$binary" | awk '$1 == "NEEDED" { printf "%s ", $2 }')"
fi
exit "$failed"
