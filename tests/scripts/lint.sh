#!/usr/bin/env bash
# `make lint`: what a machine can say about the code before it runs.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
. tests/scripts/tools.sh

MAX_LINES=600 # of one source file; split at about 400
# How long to wait for the advisory database, which is not part of the registry.
ADVISORIES_LIMIT_SECONDS=60

step() { printf '\n== %s\n' "$*"; }

# Each source file says at its top what it does, and stays readable in one go.
check_source_files() {
    local file lines status=0
    while IFS= read -r file; do
        if [[ $(head -n 1 "$file") != '//!'* ]]; then
            printf '%s: does not open with //!\n' "$file"
            status=1
        fi
        lines=$(wc -l <"$file")
        if [ "$lines" -gt "$MAX_LINES" ]; then
            printf '%s: %s lines, more than %s: split it\n' "$file" "$lines" "$MAX_LINES"
            status=1
        fi
    done < <(git ls-files '*.rs')
    return "$status"
}

# Nothing tracked names a directory of one person's machine.
check_paths() {
    ! git grep -nIE '(^|[^A-Za-z0-9._/~-])/(work|root|home)/[A-Za-z0-9]' -- ':!Cargo.lock'
}

# Every test that the table of rules names is where the table says: crate, module, name.
check_rules() {
    tests/scripts/rules.py
}

# No loop and no wait in tests is without an end.
check_waits() {
    tests/scripts/waits.py
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

step 'cargo fmt'
cargo fmt --all --check

step 'cargo clippy'
cargo clippy --release --workspace --all-targets --locked -- -D warnings

step 'cargo deny'
cargo deny check bans
cargo deny --workspace check licenses sources
check_advisories

step 'source files'
check_source_files
check_paths
check_rules
check_waits
echo 'lint: ok'
