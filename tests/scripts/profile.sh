#!/usr/bin/env bash
# `make profile`: where the work is. First the packet path of `make bench`, on
# one recording: each function's own instructions per packet, counted by
# callgrind, the same on each run of one build; what the compiler inlined counts
# for whom it was inlined into. Then the shipped daemon with live guests: how
# often its threads go to sleep and wake up, and which system calls it makes.
#
#   make profile                            AES-GCM, one guest; about 30 s once built
#   make profile PROFILE=cm GUESTS=4 SLOTS=32    slots without a guest cost nothing
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
. tests/scripts/tools.sh

profile=${PROFILE:-gcm}
guests=${GUESTS:-1}
slots=${SLOTS:-$guests}

RECORDING=tests/loadgen/clips/chromium-720p30.rtpdump
LEAST_PERCENT=0.5 # of the instructions; what takes less is summed up
WINDOW_SECONDS=10
# How long the guests stay besides the two windows: for reading and attaching.
SPARE_SECONDS=5
UP_SECONDS=20
CONNECT_SECONDS=60

need_valgrind
need_strace

targets=${CARGO_TARGET_DIR:-target}
cargo rustc --profile dist --locked -p bench --bin bench -- -Cstrip=none
cargo build --profile dist --locked -p guest-relay --bin guest-relay
cargo build --release --locked -p loadgen --bin loadgen

scratch profile

fail() {
    echo "profile: $*" >&2
    tail -n 15 "$work"/*.log >&2
    exit 1
}

# Instructions and function, a line each, of callgrind_annotate's table. Of a
# name stay path and type: not file and object, hashes and suffixes of the
# compiler's, closures, generic arguments, `<impl T>` and `<T as Trait>`.
functions() {
    sed -nE '
        s/^ *([0-9,]+) +\([ 0-9.]+%\) +[^:]*:/\1 /
        t function
        d
        :function
        s/ \[[^]]*\]$//
        s/(::h[0-9a-f]{16}|\.[a-z]+(\.[0-9]+)?|@@?[A-Z].*|'\''[0-9]+)+$//
        s/::\{\{closure\}\}//g
        s/ .*::<impl (.* for )?/ </
        :generic
        s/([A-Za-z0-9_])(::)?<[^<>]*>/\1/
        t generic
        :self
        s/<([^<>]*)( as [^<>]*)>/\1/
        s/<([^<>]*)>/\1/
        t self
        p'
}

# per_packet PACKETS: the table, of those lines.
per_packet() {
    tr -d , | awk '{ count = $1; $1 = ""; own[$0] += count } END { for (name in own) print own[name] name }' |
        sort -k 1,1nr -k 2 | awk -v packets="$1" -v least="$LEAST_PERCENT" '
            { count[NR] = $1; $1 = ""; name[NR] = $0; total += count[NR] }
            function row(count, name) { printf "  %9.1f %6.1f %% %s\n", count / packets, 100 * count / total, name }
            END {
                row(total, " in all, of which in")
                for (i = 1; i <= NR && 100 * count[i] >= least * total; i++) row(count[i], name[i])
                for (j = i; j <= NR; j++) rest += count[j]
                row(rest, " " NR - i + 1 " other functions")
            }'
}

instructions() {
    local packets
    packets=$(valgrind --tool=callgrind --callgrind-out-file="$work/callgrind" --collect-atstart=no \
        --toggle-collect="bench::Subject::run" "$targets/dist/bench" count path "$profile" "$RECORDING" \
        2>"$work/callgrind.log") || fail 'callgrind did not count'
    printf '\ninstructions per packet, %s packets of %s, %s:\n' "$packets" "$(basename "$RECORDING" .rtpdump)" "$profile"
    callgrind_annotate --auto=no --threshold=100 "$work/callgrind" | functions | per_packet "$packets"
}

listening() { (exec 3<>"/dev/tcp/127.0.0.1/$1"); }

# Packets that the daemon has received from all guests.
received() {
    exec 3<>"/dev/tcp/127.0.0.1/$http"
    printf 'GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n' >&3
    awk '/^guest_relay_guest_packets_total\{/ { n += $2 } END { print n }' <&3
    exec 3<&-
}

# Thread, its name, and how often it has gone to sleep by itself.
sleeps() {
    awk '$1 == "Name:" { name = $2 } $1 == "Pid:" { pid = $2 } $1 == "voluntary_ctxt_switches:" { print pid, name, $2 }' \
        /proc/"$daemon"/task/*/status
}

start_daemon() {
    local rtmp number
    rtmp=$(free_port)
    http=$(free_port)
    {
        echo "http: { listen: '127.0.0.1:$http', offers_per_minute: 600 }"
        echo "rtc: { listen: '127.0.0.1:$(free_port)' }"
        echo "relay: { output: 'rtmp://127.0.0.1:$rtmp/{guest_id}', state_file: none }"
        echo 'guests:'
        for number in $(seq "$slots"); do echo "  guest$number: {}"; done
    } >"$work/config.yml"
    "$targets/dist/guest-relay" --config "$work/config.yml" >"$work/guest-relay.log" 2>&1 &
    daemon=$!
    pids+=("$daemon")
    wait_for "$UP_SECONDS" guest-relay listening "$http"
    "$targets/release/loadgen" latency --listen "127.0.0.1:$rtmp" --url "http://127.0.0.1:$http/whip/guest1" \
        --guests "$guests" --seconds "$((2 * WINDOW_SECONDS + SPARE_SECONDS))" >"$work/loadgen.log" 2>&1 &
    load=$!
    pids+=("$load")
    wait_for "$CONNECT_SECONDS" "$guests guests" grep -q '^measuring' "$work/loadgen.log"
}

# In a window without strace, which itself stops the threads at each call.
wake_ups() {
    local packets
    packets=$(received)
    sleeps >"$work/before"
    sleep "$WINDOW_SECONDS"
    sleeps >"$work/after"
    packets=$(($(received) - packets))
    printf '\nwake-ups (voluntary switches), guests: %s of %s, packets/s: %s\n' "$guests" "$slots" "$((packets / WINDOW_SECONDS))"
    awk -v packets="$packets" -v s="$WINDOW_SECONDS" '
        NR == FNR { before[$1] = $3; next }
        { count = $3 - before[$1]; all += count; threads = threads row(count, $2) }
        function row(count, name) { return sprintf("  %9.1f/s %7.2f per packet  %s\n", count / s, count / packets, name) }
        END { printf "%s%s", row(all, "all threads, of which"), threads }' "$work/before" "$work/after"
}

system_calls() {
    local packets
    packets=$(received)
    timeout "$WINDOW_SECONDS" strace -f -c -o "$work/calls" -p "$daemon" 2>"$work/strace.log" || true
    packets=$(($(received) - packets))
    if ! grep -q ' total$' "$work/calls"; then fail 'strace did not count'; fi
    printf '\nsystem calls, guests: %s of %s, packets/s: %s\n' "$guests" "$slots" "$((packets / WINDOW_SECONDS))"
    # % time, seconds, usecs/call, calls, errors unless there are none, system call
    awk '$4 ~ /^[0-9]+$/ { print $4, $NF, (NF > 5 ? $5 : 0) }' "$work/calls" | sort -k 1,1nr |
        awk -v packets="$packets" -v s="$WINDOW_SECONDS" '
            { printf "  %9.1f/s %7.2f per packet  %s", $1 / s, $1 / packets, $2 == "total" ? "all calls, of which" : $2 }
            $3 { printf " (%.1f/s fail)", $3 / s }
            { print "" }'
}

instructions
start_daemon
wake_ups
system_calls
wait "$load" || fail 'the guests did not arrive'
