#!/usr/bin/env bash
# `make deploy` against a board that is this machine: an sshd of its own on a
# loopback port, with keys thrown away afterwards, and paths below a directory.
# systemd does not run here, so tests/deploy/systemctl.py stands in for systemctl:
# it starts and ends the daemon as the unit says. What systemd itself has to say of
# the unit, systemd-analyze says.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
. tests/scripts/tools.sh

RECOVERED_WITHIN_MS=5000
EXPOSURE_MAX=2.0

need_sshd
need_systemd_analyze
if [ "$(id -u)" -ne 0 ]; then
    echo 'deploy: needs root, as on the board: the daemon runs as a user of its own'
    exit 1
fi

cargo build --release --locked -p guest-relay -p ingest -p loadgen -p sfu-sim --bins
binaries=$(realpath "${CARGO_TARGET_DIR:-target}")/release

work=$(mktemp -d "${TMPDIR:-/tmp}/guest-relay-deploy-test.XXXXXX")
chmod 755 "$work" # the daemon runs as another user
root=$work/root
systemctl=$PWD/tests/deploy/systemctl.py
pids=()
stop() {
    local pid
    ROOT=$root "$systemctl" stop || true
    for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
    for pid in "${pids[@]}"; do wait "$pid" 2>/dev/null || true; done
    rm -rf "$work"
}
trap stop EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

fail() {
    printf 'deploy: FAILED: %s\n' "$*" >&2
    tail -n 30 "$work"/*.log "$root"/run/*.log >&2 || true
    exit 1
}
# wait_for SECONDS WHAT COMMAND...
wait_for() {
    local until=$((SECONDS + $1)) what=$2
    shift 2
    while ! "$@"; do
        if [ "$SECONDS" -ge "$until" ]; then fail "$what did not come about"; fi
        sleep 0.05
    done
}
is_open() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }
status() {
    (
        exec 3<>"/dev/tcp/${http/:/\/}" && printf 'GET /api/guests HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n' "$http" >&3 &&
            timeout 2 cat <&3
    ) 2>/dev/null
}
# Milliseconds from the moment the old daemon is told to end to the guest's live pictures out of the new one, which goes
# on in the publication of the old one: nothing has to count as live anew.
gap() {
    python3 - "$root/run/calls.log" "$root/run/journal.log" <<'PYTHON'
import re, sys
from datetime import datetime
calls, journal = (open(name).read() for name in sys.argv[1:])
ended = [float(line.split()[0]) for line in calls.splitlines() if " stopping " in line][-1]
live = re.findall(r"^(\S+)Z .*guest1: live$", journal, re.M)[-1]
print(round((datetime.fromisoformat(live + "+00:00").timestamp() - ended) * 1000))
PYTHON
}
is_live() { status | grep -q '"id":"guest1"[^}]*"state":"live"'; }
current() { basename "$(readlink "$root/opt/guest-relay/current")"; }

printf '\n== the unit, as systemd reads it\n'
# Where it is verified the program has to be there.
sed "s#^ExecStart=[^ ]*#ExecStart=$binaries/guest-relay#" cross/guest-relay.service >"$work/guest-relay.service"
said=$(systemd-analyze verify "$work/guest-relay.service" 2>&1) || fail "systemd-analyze verify: $said"
[ -z "$said" ] || fail "systemd-analyze verify: $said"
exposure=$(systemd-analyze security --offline=true "$work/guest-relay.service" | sed -n 's/.*Overall exposure level.*: \([0-9.]*\) .*/\1/p')
echo "exposure level $exposure, at most $EXPOSURE_MAX"
awk "BEGIN { exit !($exposure <= $EXPOSURE_MAX) }" || fail "exposure level $exposure"

printf '\n== the tunnel leads guests to the daemon, and nobody else\n'
pattern=$(sed -n 's/^ *path: //p' cross/cloudflared.example.yml)
for path in /guest_join /whip/guest1 /whip/guest1/abc /api/calls/whip/guest1 /api/calls/session/guest1 /api/calls/sessions \
    /api/guests /api/events /api/page /api/ice-servers static/*; do
    case $path in static/switcher*) continue ;; esac # the application has its own
    path=/${path#/}
    grep -qE "$pattern" <<<"$path" || fail "$path would go to the application; add it to cross/cloudflared.example.yml"
done
for path in / /switcher /control /library /api/guests/status /api/guests/guest1/keyframe /api/events/guest1 /static/app.js /healthz /metrics; do
    if grep -qE "$pattern" <<<"$path"; then fail "$path would be taken from the application"; fi
done
"$binaries/guest-relay" --config cross/config.r58.yml --check-config >"$work/check.log" || fail 'cross/config.r58.yml is not valid'
if grep -q 'Note:' "$work/check.log"; then fail 'cross/config.r58.yml gives notices'; fi

printf '\n== a board\n'
mkdir -p "$root"/{etc/systemd/system,run,tmp,usr,var/lib}
printf 'root:x:0:0:root:/root:/bin/sh\n' >"$root/etc/passwd"
printf 'root:x:0:\n' >"$root/etc/group"
ssh-keygen -q -t ed25519 -N '' -f "$work/host_key"
ssh-keygen -q -t ed25519 -N '' -f "$work/key"
install -m 600 "$work/key.pub" "$work/authorized_keys"
mkdir -p /run/sshd # sshd wants it; a booted system has it
ssh_port=$(free_port)
cat >"$work/sshd_config" <<TEXT
Port $ssh_port
ListenAddress 127.0.0.1
HostKey $work/host_key
AuthorizedKeysFile $work/authorized_keys
PidFile none
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
StrictModes no
Subsystem sftp internal-sftp
TEXT
"$SSHD" -D -f "$work/sshd_config" -E "$work/sshd.log" &
pids+=($!)
wait_for 10 'the sshd' is_open "$ssh_port"

"$binaries/ingest" --listen 127.0.0.1:0 >"$work/ingest.log" 2>&1 &
pids+=($!)
app_id=0123456789abcdef0123456789abcdef
CLOUDFLARE_CALLS_API_TOKEN=$(od -An -N16 -tx1 /dev/urandom | tr -d ' \n')
export CLOUDFLARE_CALLS_API_TOKEN
"$binaries/sfu-sim" --listen 127.0.0.1:0 --app-id "$app_id" --secret-env CLOUDFLARE_CALLS_API_TOKEN >"$work/sfu-sim.log" 2>&1 &
pids+=($!)
wait_for 10 'the RTMP server' grep -q 'listening on' "$work/ingest.log"
wait_for 10 'the simulated SFU' grep -q 'api_base' "$work/sfu-sim.log"
rtmp=$(sed -n 's#.*listening on rtmp://##p' "$work/ingest.log")
api_base=$(sed -n 's/.*api_base \([^,]*\),.*/\1/p' "$work/sfu-sim.log")
http=127.0.0.1:$(free_port)

export HOST=root@127.0.0.1
export SSH_OPTIONS="-F /dev/null -i $work/key -o Port=$ssh_port -o IdentitiesOnly=yes -o StrictHostKeyChecking=no -o UserKnownHostsFile=$work/known_hosts -o LogLevel=ERROR"
# The board's own ports are the operator's; here they are what is free.
export REMOTE_ENV="ROOT=$root SYSTEMCTL=$systemctl HEALTHY_WITHIN_SECONDS=5 GUEST_RELAY_HTTP_LISTEN=$http GUEST_RELAY_RTC_LISTEN=127.0.0.1:0 GUEST_RELAY_RELAY_OUTPUT=rtmp://$rtmp/{guest_id} GUEST_RELAY_RELAY_STATE_FILE=$root/var/lib/guest-relay/state.json"
deploy() { BINARY=$1 make --no-print-directory deploy </dev/null >"$work/deploy.log" 2>&1; }
# Another version: the same program with a byte behind it.
version() {
    cp "$binaries/guest-relay" "$work/guest-relay-$1"
    printf '%s' "$1" >>"$work/guest-relay-$1"
    echo "$work/guest-relay-$1"
}

printf '\n== first install\n'
deploy "$(version 1)" || fail 'the first install failed'
config=$root/etc/guest-relay/config.yml
uid=$(awk -F: '$1 == "guest-relay" { print $3 }' "$root/etc/passwd")
[ "$(stat -c '%a %u' "$config")" = "600 $uid" ] || fail "config.yml is $(stat -c '%a %u' "$config"), not 600 $uid"
[ -n "$uid" ] && [ "$uid" -ne 0 ] || fail 'no user of its own'
cmp -s "$config" cross/config.r58.yml || fail 'the first configuration is not the one for the R58'
cmp -s "$root/etc/systemd/system/guest-relay.service" cross/guest-relay.service || fail 'the unit is not in place'
[ -L "$root/etc/systemd/system/multi-user.target.wants/guest-relay.service" ] || fail 'the unit is not enabled'
grep -q 'guest-relay doctor' "$work/deploy.log" || fail 'it does not say what to do next'
grep -q "READY=1" "$root/run/calls.log" || fail 'READY=1 was never sent'
first=$(current)

printf '\n== upgrade while a guest is live through the SFU\n'
# What an operator adds, and what an upgrade must leave alone.
cat >>"$config" <<YAML
cloudflare: { calls_app_id: $app_id, calls_api_token: $CLOUDFLARE_CALLS_API_TOKEN, api_base: "$api_base" }
YAML
digest=$(sha256sum "$config")
ROOT=$root env $REMOTE_ENV "$systemctl" restart || fail 'the restart with the keys failed'
"$binaries/loadgen" publish --url "http://$http/api/calls/whip/guest1" >"$work/loadgen.log" 2>&1 &
pids+=($!)
wait_for 30 'a live guest' is_live
deploy "$(version 2)" || fail 'the upgrade failed'
second=$(current)
[ "$second" != "$first" ] || fail 'the upgrade changed nothing'
[ "$(sha256sum "$config")" = "$digest" ] || fail 'the upgrade changed the configuration'
wait_for 30 'the guest after the upgrade' is_live
gap=$(gap)
echo "the guest was back after $gap ms"
[ "$gap" -le "$RECOVERED_WITHIN_MS" ] || fail "the guest was away for $gap ms"

printf '\n== broken upgrades are taken back\n'
for how in 'exit 1' 'exec sleep 60'; do
    # It passes every check that can be made beforehand.
    printf '#!/bin/sh\ncase "$*" in *--version*|*--check-config*) exec %s "$@";; esac\n%s\n' "$binaries/guest-relay" "$how" >"$work/broken"
    chmod 755 "$work/broken"
    if deploy "$work/broken"; then fail "a version that does '$how' was taken"; fi
    [ "$(current)" = "$second" ] || fail "after '$how' the version in force is another"
    grep -q 'the one before is back in force' "$work/deploy.log" || fail 'the roll-back is not told'
    wait_for 30 'the guest after the roll-back' is_live
    echo "'$how': taken back"
done
printf '#!/bin/sh\nexit 127\n' >"$work/broken"
if deploy "$work/broken"; then fail 'a binary that does not run was taken'; fi
[ "$(current)" = "$second" ] || fail 'a binary that does not run was switched to'
echo "'does not run here': refused beforehand"

printf '\n== ROLLBACK=1\n'
ROLLBACK=1 make --no-print-directory deploy </dev/null >"$work/deploy.log" 2>&1 || fail 'the roll-back failed'
[ "$(current)" = "$first" ] || fail 'it did not go back to the first version'
wait_for 30 'the guest after ROLLBACK=1' is_live
ROLLBACK=1 make --no-print-directory deploy </dev/null >"$work/deploy.log" 2>&1 || fail 'the way forward again failed'
[ "$(current)" = "$second" ] || fail 'a second ROLLBACK=1 does not undo the first'

if grep -q "$CLOUDFLARE_CALLS_API_TOKEN" "$work"/deploy.log "$root"/run/*.log; then fail 'the secret stands in a log'; fi
printf '\ndeploy: all passed\n'
