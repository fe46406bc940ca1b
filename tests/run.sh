#!/usr/bin/env bash
# `make run`: the daemon in the foreground, and tests/ingest on the RTMP port
# when nothing listens there, so that a guest can be tried without a media server.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

RTMP_PORT=1935
CONFIG=config.yml
binaries=${CARGO_TARGET_DIR:-target}/release

listens() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

# Whether guest-relay itself answers on port 8000.
is_healthy() {
    {
        exec 3<>/dev/tcp/127.0.0.1/8000 &&
            printf 'GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n' >&3 &&
            timeout 1 grep -q '^ok' <&3
    } 2>/dev/null
}

ingest_pid=''
daemon_pid=''
stop() {
    trap - EXIT INT TERM HUP
    local pid
    for pid in $daemon_pid $ingest_pid; do kill -TERM "$pid" 2>/dev/null || true; done
    for pid in $daemon_pid $ingest_pid; do wait "$pid" 2>/dev/null || true; done
}
trap stop EXIT
trap 'stop; exit 130' INT
trap 'stop; exit 143' TERM HUP

cargo build --release --locked -p guest-relay -p ingest

if listens "$RTMP_PORT"; then
    echo "run: publishing to the RTMP server that listens on 127.0.0.1:$RTMP_PORT"
else
    "$binaries/ingest" --listen "127.0.0.1:$RTMP_PORT" &
    ingest_pid=$!
    echo "run: nothing listens on 127.0.0.1:$RTMP_PORT, so a test RTMP server was started there"
    echo "run: it prints a line a second for each guest, and keeps nothing"
fi

arguments=()
if [ -e "$CONFIG" ]; then
    arguments=(--config "$CONFIG")
    echo "run: configured by $CONFIG"
else
    echo "run: no $CONFIG here, so the defaults hold (see config.example.yml)"
fi
"$binaries/guest-relay" "${arguments[@]}" &
daemon_pid=$!

# The link is shown once the page can be loaded; another address is the operator's.
for _ in $(seq 50); do
    kill -0 "$daemon_pid" 2>/dev/null || break
    if (is_healthy); then
        printf '\n  Open http://localhost:8000/guest_join in a browser on this machine, press Join.\n  Ctrl-C ends everything.\n\n'
        break
    fi
    sleep 0.1
done
status=0
wait "$daemon_pid" || status=$?
daemon_pid=''
exit "$status"
