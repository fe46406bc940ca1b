#!/usr/bin/env bash
# The board's side of cross/deploy.sh, run there as root:
#   install.sh install DIRECTORY    with guest-relay, guest-relay.service and
#                                   config.r58.yml in it
#   install.sh rollback             back to the version before
#
#   /opt/guest-relay/releases/ID/   binary and unit of one version, never changed
#   /opt/guest-relay/current        -> the version in force, switched by one rename
#   /opt/guest-relay/previous       -> the one before
#   /etc/guest-relay/config.yml     the operator's: written once, never again
#
# What can be found out beforehand (the binary runs on this board, it accepts the
# configuration) is found out before anything is touched. After the switch the
# service has to come up and answer /healthz, or the switch is undone.
#
# For tests: ROOT, a prefix of all paths; SYSTEMCTL, a stand-in for systemctl.
set -euo pipefail
PATH=$PATH:/usr/sbin:/sbin # useradd, for shells that leave them out

HEALTHY_WITHIN_SECONDS=${HEALTHY_WITHIN_SECONDS:-20}
KEEP_RELEASES=3
SERVICE=guest-relay

root=${ROOT:-}
systemctl=${SYSTEMCTL:-systemctl}
base=$root/opt/guest-relay
config=$root/etc/guest-relay/config.yml
unit=$root/etc/systemd/system/$SERVICE.service

say() { printf 'guest-relay: %s\n' "$*"; }
die() {
    say "$*" >&2
    exit 1
}

# point NAME RELEASE: one rename, so that there is no moment without the name.
point() {
    ln -s "releases/$2" "$base/.$1.new"
    mv -T "$base/.$1.new" "$base/$1"
}
release_of() { basename "$(readlink "$base/$1" 2>/dev/null || true)"; }
version_of() { "$base/releases/$1/guest-relay" --version 2>/dev/null || echo "guest-relay of release $1"; }

# Where /healthz is, as the configuration has it: HOST PORT for /dev/tcp.
http_address() {
    local listen host port
    listen=$("$base/current/guest-relay" --config "$config" --check-config | awk '$1 == "http.listen" { print $2 }')
    port=${listen##*:}
    host=${listen%:*}
    host=${host#[}
    host=${host%]}
    case $host in
    0.0.0.0) host=127.0.0.1 ;;
    ::) host=::1 ;;
    esac
    echo "$host" "$port"
}

# answers HOST PORT: /healthz says 200 within two seconds. Bash is what every Debian has.
answers() {
    timeout 2 bash -c 'exec 3<>"/dev/tcp/$1/$2" &&
        printf "GET /healthz HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n" "$1" >&3 &&
        head -n 1 <&3 | grep -q "^HTTP/1.1 200"' answers "$1" "$2" 2>/dev/null
}

# Starts what `current` names, and waits until it serves.
bring_up() {
    local address host port until
    # Nobody publishes while a version that does not come up is taken back, and systemd reads all units at a time.
    if ! cmp -s "$base/current/guest-relay.service" "$unit"; then
        install -m 644 "$base/current/guest-relay.service" "$unit.new"
        mv -T "$unit.new" "$unit"
        "$systemctl" daemon-reload
    fi
    # Of earlier attempts that failed too often.
    "$systemctl" reset-failed "$SERVICE" 2>/dev/null || true
    "$systemctl" restart "$SERVICE" || return 1
    address=$(http_address) || return 1
    read -r host port <<<"$address"
    until=$((SECONDS + HEALTHY_WITHIN_SECONDS))
    while [ "$SECONDS" -lt "$until" ]; do
        if "$systemctl" is-active --quiet "$SERVICE" && answers "$host" "$port"; then
            say "$(version_of "$(release_of current)") answers on http://$host:$port/healthz"
            return 0
        fi
        sleep 0.2
    done
    say "nothing healthy on http://$host:$port/healthz within $HEALTHY_WITHIN_SECONDS s" >&2
    return 1
}

log_tail() {
    command -v journalctl >/dev/null && journalctl --unit "$SERVICE" --lines 20 --no-pager --output cat 2>/dev/null || true
}

# switch RELEASE: puts it in force; back to the one before when it does not come up.
switch() {
    local before
    before=$(release_of current)
    point current "$1"
    if bring_up; then
        if [ -n "$before" ] && [ "$before" != "$1" ]; then point previous "$before"; fi
        return 0
    fi
    if [ -z "$before" ] || [ "$before" = "$1" ]; then
        log_tail >&2
        die 'it does not come up. Its last words: journalctl -u guest-relay; what is wrong: guest-relay doctor'
    fi
    say "taking the switch back to $(version_of "$before")" >&2
    point current "$before"
    log_tail >&2 & # beside it, not before: a journal may be long
    bring_up || die "the version before does not come up either: journalctl -u guest-relay"
    wait
    die 'the new version did not come up; the one before is back in force'
}

make_user() {
    if grep -q '^guest-relay:' "$root/etc/passwd"; then return 0; fi
    say 'making the user guest-relay'
    useradd ${root:+--prefix "$root"} --system --user-group --no-create-home --home-dir /var/lib/guest-relay \
        --shell /usr/sbin/nologin guest-relay
}

# The numbers, which are right below a prefix too.
owner() { awk -F: '$1 == "guest-relay" { print $3 ":" $4 }' "$root/etc/passwd"; }

first_steps() {
    cat <<TEXT

Next, on this board:
  1. Look through /etc/guest-relay/config.yml. Guests from outside the LAN need the Cloudflare keys in it.
     Then: systemctl restart guest-relay
  2. MediaMTX needs the guests' paths and its API (paths: { guest1: {}, guest2: {} }, api: yes).
  3. guest-relay doctor --config /etc/guest-relay/config.yml     says what is still missing, and what to do
  4. journalctl -fu guest-relay                                  shows guests come and go
TEXT
}

install_release() {
    local staging=$1 id first=''
    chmod 755 "$staging/guest-relay"
    "$staging/guest-relay" --version >/dev/null ||
        die "the binary does not run here ($(uname -m), $(ldd --version | head -n 1)). Was it built with make cross for this board? make cross-static needs no glibc"
    mkdir -p "$base/releases" "$(dirname "$unit")" "$root/usr/local/bin"
    make_user
    if [ ! -e "$config" ]; then
        first=yes
        say 'writing a first /etc/guest-relay/config.yml'
        install -d -m 755 "$(dirname "$config")"
        # Readable by nobody else at any moment: the operator will put secrets there.
        install -m 600 "$staging/config.r58.yml" "$config"
        chown "$(owner)" "$config"
    fi
    "$staging/guest-relay" --config "$config" --check-config >/dev/null ||
        die 'this version does not accept /etc/guest-relay/config.yml as it is; nothing was changed'

    id=$(cat "$staging/guest-relay" "$staging/guest-relay.service" | sha256sum | cut -c 1-12)
    if [ ! -d "$base/releases/$id" ]; then
        mkdir "$base/releases/.$id"
        install -m 755 "$staging/guest-relay" "$base/releases/.$id/guest-relay"
        install -m 644 "$staging/guest-relay.service" "$base/releases/.$id/guest-relay.service"
        mv -T "$base/releases/.$id" "$base/releases/$id"
    fi
    ln -sfn ../../../opt/guest-relay/current/guest-relay "$root/usr/local/bin/guest-relay"
    touch "$base/releases/$id"
    switch "$id"
    "$systemctl" enable --quiet "$SERVICE"
    prune
    if [ -n "$first" ]; then first_steps; fi
}

# Keeps the newest releases, and in any case those that a name points to.
prune() {
    local id
    for id in $(ls -t "$base/releases" | tail -n "+$((KEEP_RELEASES + 1))"); do
        case $id in
        "$(release_of current)" | "$(release_of previous)") ;;
        *) rm -rf "${base:?}/releases/$id" ;;
        esac
    done
}

case ${1:-} in
install) install_release "$2" ;;
rollback)
    previous=$(release_of previous)
    if [ -z "$previous" ]; then die 'there is no version before this one'; fi
    switch "$previous"
    ;;
*) die 'install.sh install DIRECTORY | rollback' ;;
esac
