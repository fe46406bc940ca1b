#!/usr/bin/env bash
# `make run`: the daemon in the foreground, and tests/ingest on the RTMP port
# when nothing listens there, so that a guest can be tried without a media server.
# `make run-sim` (argument: sim): also the simulated SFU, so that the remote path
# can be tried without an account. HTTP_PORT, RTMP_PORT and SFU_PORT name other ports.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

HTTP_PORT=${HTTP_PORT:-8000}
RTMP_PORT=${RTMP_PORT:-1935}
SFU_PORT=${SFU_PORT:-8787}
CONFIG=config.yml
binaries=${CARGO_TARGET_DIR:-target}/release
with_sim=${1:-}

listens() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

# Whether guest-relay itself answers.
is_healthy() {
    {
        exec 3<>"/dev/tcp/127.0.0.1/$HTTP_PORT" &&
            printf 'GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n' >&3 &&
            timeout 1 grep -q '^ok' <&3
    } 2>/dev/null
}

work=''
daemon_pid=''
other_pids=()
# shellcheck disable=SC2329 # called by the traps
stop() {
    trap - EXIT INT TERM HUP
    local pid
    for pid in $daemon_pid "${other_pids[@]}"; do kill -TERM "$pid" 2>/dev/null || true; done
    for pid in $daemon_pid "${other_pids[@]}"; do wait "$pid" 2>/dev/null || true; done
    if [ -n "$work" ]; then rm -rf "$work"; fi
}
trap stop EXIT
trap 'stop; exit 130' INT
trap 'stop; exit 143' TERM HUP

packages=(-p guest-relay -p ingest)
if [ "$with_sim" = sim ]; then packages+=(-p sfu-sim); fi
cargo build --release --locked "${packages[@]}"

if listens "$RTMP_PORT"; then
    echo "run: publishing to the RTMP server that listens on 127.0.0.1:$RTMP_PORT"
else
    "$binaries/ingest" --listen "127.0.0.1:$RTMP_PORT" &
    other_pids+=($!)
    echo "run: nothing listens on 127.0.0.1:$RTMP_PORT, so a test RTMP server was started there"
    echo "run: it prints a line a second for each guest, and keeps nothing"
fi

arguments=()
link=http://localhost:$HTTP_PORT/guest_join
if [ "$HTTP_PORT" != 8000 ]; then export GUEST_RELAY_HTTP_LISTEN=0.0.0.0:$HTTP_PORT; fi
if [ "$RTMP_PORT" != 1935 ]; then export GUEST_RELAY_RELAY_OUTPUT="rtmp://127.0.0.1:$RTMP_PORT/{guest_id}"; fi
if [ "$with_sim" = sim ]; then
    app_id=0123456789abcdef0123456789abcdef
    CLOUDFLARE_CALLS_API_TOKEN=$(od -An -N16 -tx1 /dev/urandom | tr -d ' \n')
    export CLOUDFLARE_CALLS_API_TOKEN
    "$binaries/sfu-sim" --listen "127.0.0.1:$SFU_PORT" --app-id "$app_id" --secret-env CLOUDFLARE_CALLS_API_TOKEN &
    other_pids+=($!)
    work=$(mktemp -d "${TMPDIR:-/tmp}/guest-relay-run.XXXXXX")
    cat >"$work/config.yml" <<YAML
cloudflare: { calls_app_id: $app_id, api_base: "http://127.0.0.1:$SFU_PORT/v1" }
rtc: { stun_server: none }
relay: { state_file: "$work/state.json" }
YAML
    arguments=(--config "$work/config.yml")
    link+='?mode=calls'
    echo "run: guests go through a simulated SFU; what it holds: http://127.0.0.1:$SFU_PORT/control/sessions"
elif [ -e "$CONFIG" ]; then
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
        printf '\n  Open %s in a browser on this machine, press Join.\n  Ctrl-C ends everything.\n\n' "$link"
        break
    fi
    sleep 0.1
done
status=0
wait "$daemon_pid" || status=$?
daemon_pid=''
exit "$status"
