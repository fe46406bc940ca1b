#!/usr/bin/env python3
"""systemctl for tests, where no systemd runs: starts and ends the daemon as the unit file
says, in one process a service, below the directory ROOT.

What it takes from the unit: ExecStart, User, Type=notify with TimeoutStartSec and
WatchdogSec, StateDirectory, FileDescriptorStoreMax, and when it is started again. A
service is a supervisor: systemd.py, which this file runs with the verb `supervise`.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
import time

import systemd

ROOT = os.environ["ROOT"]
RUN = ROOT + "/run"
UNIT = ROOT + "/etc/systemd/system/guest-relay.service"
LOG = RUN + "/journal.log"
CONTROL = RUN + "/control"


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


def unit():
    uid, gid = user()
    state = ROOT + "/var/lib/" + setting("StateDirectory")
    os.makedirs(state, mode=0o700, exist_ok=True)
    os.chown(state, uid, gid)
    environment = {k: v for k, v in os.environ.items() if k == "PATH" or k.startswith("GUEST_RELAY_")}
    return systemd.Unit(
        [below_root(word) for word in setting("ExecStart").split()],
        restart_seconds=float(setting("RestartSec")),
        start_seconds=float(setting("TimeoutStartSec")),
        stop_seconds=float(setting("TimeoutStopSec")),
        watchdog_seconds=float(setting("WatchdogSec")),
        store_max=int(setting("FileDescriptorStoreMax", "0")),
        prevent=[int(setting("RestartPreventExitStatus"))],
        environment=environment | {"STATE_DIRECTORY": state},
        user=(uid, gid),
        directory=state,
        output=os.open(LOG, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644),
    )


def state():
    """dead, starting, active, stopping or waiting."""
    return systemd.tell(CONTROL, ["status"]).split()[1] if os.path.exists(CONTROL) else "dead"


def stop():
    """Ends the supervisor too, whose descriptor store is empty then."""
    if os.path.exists(CONTROL):
        with open(RUN + "/supervisor.pid") as file:
            os.kill(int(file.read()), signal.SIGTERM)
        while os.path.exists(CONTROL):
            time.sleep(0.02)


def restart():
    if os.path.exists(CONTROL):
        said = systemd.tell(CONTROL, ["restart"])
    else:
        child = subprocess.Popen([sys.executable, __file__, "supervise"], stdin=subprocess.DEVNULL,
                                 stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
        with open(RUN + "/supervisor.pid", "w") as file:
            file.write(str(child.pid))
        while not os.path.exists(CONTROL) or state() == "starting":
            if child.poll() is not None:
                sys.exit("the supervisor has ended")
            time.sleep(0.02)
        said = "ok" if state() == "active" else "failed to become ready"
    if not said.startswith("ok"):
        sys.exit(f"Job for guest-relay.service failed: {said}")


def main():
    os.makedirs(RUN, exist_ok=True)
    verb = sys.argv[1]
    if verb == "supervise":
        return systemd.run(CONTROL, unit, note)
    note(" ".join(sys.argv[1:]))
    if verb == "restart":
        restart()
    elif verb == "stop":
        stop()
    elif verb == "is-active":
        sys.exit(0 if state() == "active" else 3)
    elif verb == "enable":
        # The real one can do this without a running systemd.
        command = ["systemctl", "--root=" + ROOT, "enable", "--quiet", "guest-relay"]
        if shutil.which("systemctl"):
            subprocess.run(command, check=True)
    elif verb not in ("daemon-reload", "reset-failed"):
        sys.exit(f"not known here: {verb}")


main()
