#!/usr/bin/env python3
"""systemctl for tests/scripts/deploy.sh, where no systemd runs: starts and ends the daemon
as the unit file says, in one process a service, below the directory ROOT.

What it takes from the unit: ExecStart, User, Type=notify with TimeoutStartSec and
WatchdogSec, StateDirectory. A service is a supervisor (this file, verb `supervise`)
that hears the daemon's notifications and restarts it as Restart=always would.
"""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time

ROOT = os.environ["ROOT"]
RUN = ROOT + "/run"
UNIT = ROOT + "/etc/systemd/system/guest-relay.service"
LOG = RUN + "/journal.log"


def setting(name, default=None):
    with open(UNIT) as unit:
        found = re.findall(rf"^{name}=(.*)$", unit.read(), re.M)
    return found[-1] if found else default


def note(text):
    with open(RUN + "/calls.log", "a") as log:
        log.write(f"{time.time():.3f} {text}\n")


def below_root(word):
    return ROOT + word if word.startswith("/") else word


def user():
    with open(ROOT + "/etc/passwd") as passwd:
        for line in passwd:
            fields = line.strip().split(":")
            if fields[0] == setting("User"):
                return int(fields[2]), int(fields[3])
    sys.exit("the unit's user does not exist")


class Service:
    """One run of the daemon, with the socket that it notifies."""

    def __init__(self):
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        name = f"guest-relay-deploy-{os.getpid()}-{time.monotonic_ns()}"
        self.socket.bind("\0" + name)
        uid, gid = user()
        state = ROOT + "/var/lib/" + setting("StateDirectory")
        os.makedirs(state, mode=0o700, exist_ok=True)
        os.chown(state, uid, gid)
        environment = {k: v for k, v in os.environ.items() if k == "PATH" or k.startswith("GUEST_RELAY_")}
        environment |= {"NOTIFY_SOCKET": "@" + name, "STATE_DIRECTORY": state}
        environment["WATCHDOG_USEC"] = str(int(float(setting("WatchdogSec")) * 1e6))
        with open(LOG, "a") as log:
            command = [below_root(word) for word in setting("ExecStart").split()]
            self.process = subprocess.Popen(command, env=environment, user=uid, group=gid, extra_groups=[],
                                            stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=state)
        note(f"started {self.process.pid}")

    def heard(self, wanted, seconds):
        """Waits for a notification; False when none came in time or the daemon is gone."""
        end = time.monotonic() + seconds
        while time.monotonic() < end and self.process.poll() is None:
            self.socket.settimeout(0.1)
            try:
                message = self.socket.recv(4096).decode()
            except TimeoutError:
                continue
            note(f"notified {message!r}")
            if wanted in message.split("\n"):
                return True
        return False

    def end(self):
        if self.process.poll() is None:
            note("stopping")
            self.process.terminate()
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


def supervise():
    """Until SIGTERM. The file `up` is there from the first READY=1 on, `failed` when none came."""
    ended = []
    signal.signal(signal.SIGTERM, lambda *_: ended.append(True))
    while not ended:
        service = Service()
        if not service.heard("READY=1", float(setting("TimeoutStartSec"))):
            service.end()
            if not os.path.exists(RUN + "/up"):
                open(RUN + "/failed", "w").close()
        else:
            open(RUN + "/up", "w").close()
            while not ended and service.heard("WATCHDOG=1", float(setting("WatchdogSec"))):
                pass
            service.end()
        if not ended:
            time.sleep(float(setting("RestartSec")))


def supervisor():
    try:
        with open(RUN + "/supervisor.pid") as file:
            pid = int(file.read())
        os.kill(pid, 0)
        return pid
    except (OSError, ValueError):
        return None


def stop():
    pid = supervisor()
    if pid:
        os.kill(pid, signal.SIGTERM)
        while supervisor():
            time.sleep(0.05)
    for name in ("up", "failed", "supervisor.pid"):
        if os.path.exists(f"{RUN}/{name}"):
            os.unlink(f"{RUN}/{name}")


def start():
    child = subprocess.Popen([sys.executable, __file__, "supervise"], stdin=subprocess.DEVNULL,
                             stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    with open(RUN + "/supervisor.pid", "w") as file:
        file.write(str(child.pid))
    while not os.path.exists(RUN + "/up"):
        if os.path.exists(RUN + "/failed"):
            sys.exit("Job for guest-relay.service failed because the service did not become ready.")
        time.sleep(0.05)


def main():
    os.makedirs(RUN, exist_ok=True)
    verb = sys.argv[1]
    if verb == "supervise":
        return supervise()
    note(" ".join(sys.argv[1:]))
    if verb == "restart":
        stop()
        start()
    elif verb == "stop":
        stop()
    elif verb == "is-active":
        sys.exit(0 if supervisor() and os.path.exists(RUN + "/up") else 3)
    elif verb == "enable":
        # The real one can do this without a running systemd.
        command = ["systemctl", "--root=" + ROOT, "enable", "--quiet", "guest-relay"]
        if shutil.which("systemctl"):
            subprocess.run(command, check=True)
    elif verb not in ("daemon-reload", "reset-failed"):
        sys.exit(f"not known here: {verb}")


main()
