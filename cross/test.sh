#!/usr/bin/env bash
# `make cross-test`: the ARM binaries at work under qemu-user: the muxer's golden
# tests, and whole-daemon tests with the daemon under qemu: a guest arrives bit
# by bit at the strict ingest, directly and through the simulated SFU.
# qemu-user hangs at a dynamic binary's first thread, so these are the static ones.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. tests/scripts/tools.sh

LIMIT_SECONDS=120 # of each run; seconds are what they take
DAEMON_TESTS=(
    direct::a_guest_arrives_bit_by_bit_and_leaves_with_a_clean_unpublish
    remote::a_remote_guest_comes_back_from_the_sfu_and_leaves_nothing_there
)

need_cross
need_qemu_aarch64

cross/build.sh golden
cross/build.sh static
binaries=$(realpath "${CARGO_TARGET_DIR:-target}")/cross

printf '\n== golden files of the muxer, under qemu\n'
# Without the tests that start another program: qemu-user starts it as this machine would.
timeout "$LIMIT_SECONDS" qemu-aarch64 "$binaries/golden-static" --skip bad_input

printf '\n== a guest through the daemon, under qemu\n'
cargo test --release --locked -p guest-relay --test it --no-run
GUEST_RELAY_UNDER_TEST="qemu-aarch64 $binaries/guest-relay-static" \
    timeout "$LIMIT_SECONDS" cargo test --release --locked -p guest-relay --test it -- --exact "${DAEMON_TESTS[@]}" |
    tee "$binaries/it.log"
# A name that no test has any more would pass by running nothing.
grep -q "^test result: ok. ${#DAEMON_TESTS[@]} passed" "$binaries/it.log"
