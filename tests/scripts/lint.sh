#!/usr/bin/env bash
# `make lint`: what a machine can say about the code before it runs.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
. tests/scripts/tools.sh

# How long to wait for the advisory database, which is not part of the registry.
ADVISORIES_LIMIT_SECONDS=60

step() { printf '\n== %s\n' "$*"; }

# Each source file says at its top what it does.
check_headers() {
    local file status=0
    while IFS= read -r file; do
        if [[ $(head -n 1 "$file") != '//!'* ]]; then
            printf '%s: does not open with //!\n' "$file"
            status=1
        fi
    done < <(git ls-files '*.rs')
    return "$status"
}

# Nothing tracked names a directory of one person's machine.
check_paths() {
    ! git grep -nIE '(^|[^A-Za-z0-9._/~-])/(work|root|home)/[A-Za-z0-9]' -- ':!Cargo.lock'
}

check_advisories() {
    local log
    log=$(tools_log advisories)
    if timeout "$ADVISORIES_LIMIT_SECONDS" cargo deny fetch db >"$log" 2>&1; then
        cargo deny --workspace check --disable-fetch advisories
    else
        echo "advisories: NOT checked, the advisory database cannot be reached from here ($log)"
    fi
}

need_cargo_deny
need_python

step 'cargo fmt'
cargo fmt --all --check

step 'cargo clippy'
cargo clippy --release --workspace --all-targets --locked -- -D warnings

step 'cargo deny'
cargo deny check bans
cargo deny --workspace check licenses sources
check_advisories

step 'source files'
check_headers
check_paths

step 'layout: floors, circles, parent names, lengths, paths in comments'
tests/scripts/layout.py --self-test
tests/scripts/layout.py

step 'tests: each that a rule or a decision names exists, and no wait is without an end'
tests/scripts/rules.py
tests/scripts/waits.py
echo 'lint: ok'
