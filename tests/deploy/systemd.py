#!/usr/bin/env python3
"""systemd for one service, where none runs: Type=notify, Restart=always, and the file descriptor store.

    systemd.py run CONTROL [OPTION...] -- PROGRAM ARGUMENT...
        Starts the program and keeps it running until SIGTERM or SIGINT, which end it as `systemctl stop` would. Its stderr
        is this program's. CONTROL is the path of a Unix socket that the commands below go to. A line on stdout tells of
        each event, behind the seconds since the start:
            started PID, ready PID, notified TEXT, stored NAME, refused NAME, dropped NAME (its connection has ended),
            removed NAME, barrier, stopping PID, ended PID HOW, restarting

        --restart-seconds 2     RestartSec=
        --start-seconds 15      TimeoutStartSec=
        --stop-seconds 10       TimeoutStopSec=
        --watchdog-seconds 0    WatchdogSec=; 0 for none
        --store-max 256         FileDescriptorStoreMax=
        --prevent 2             RestartPreventExitStatus=

    systemd.py tell CONTROL COMMAND [PROGRAM]
        Sends one command and prints the answer, a line. Exit code 0 if it begins with `ok`, 1 if with `failed`.
            start [PROGRAM]     ok PID once it is ready; failed WHY
            restart [PROGRAM]   SIGTERM, then the same; another PROGRAM takes the place of the one before, from now on
            stop                SIGTERM; ok when it has ended, and the store is empty then
            kill                SIGKILL, as a crash: ok PID at once; it is started again after --restart-seconds
            status              ok STATE PID STARTS NAME,...: dead, starting, active, stopping or waiting; the process (0: none);
                                processes started so far; names in the store

As systemd 252 does: only the main process is listened to (NotifyAccess=main). A descriptor that comes with FDSTORE=1 is kept
under its FDNAME, several under one name if so sent, until FDSTOREREMOVE=1, until its connection has ended (EPOLLHUP, EPOLLERR),
or until the service is dead and nothing is to start it. The next process gets them as 3, 4, ..., the newest first, with
LISTEN_FDS, LISTEN_PID and LISTEN_FDNAMES. A start that fails is answered at once, and then tried again after
--restart-seconds with the same store.
"""

import argparse
import array
import fcntl
import os
import select
import signal
import socket
import struct
import sys
import tempfile
import time

MESSAGE_MAX = 64 * 1024
DESCRIPTORS_MAX = 253  # in one message: SCM_MAX_FD


class Unit:
    """How the service is run; read anew at each start."""

    def __init__(self, command, **settings):
        self.command = command
        self.restart_seconds = settings.get("restart_seconds", 2.0)
        self.start_seconds = settings.get("start_seconds", 15.0)
        self.stop_seconds = settings.get("stop_seconds", 10.0)
        self.watchdog_seconds = settings.get("watchdog_seconds", 0.0)
        self.store_max = settings.get("store_max", 256)
        self.prevent = settings.get("prevent", [2])
        self.environment = settings.get("environment", dict(os.environ))
        self.user = settings.get("user")  # (uid, gid)
        self.directory = settings.get("directory")
        self.output = settings.get("output", 2)  # a descriptor for stdout and stderr


class Service:
    """One service. `unit` gives its Unit; `told` is called with a line for each event."""

    def __init__(self, control, unit, told):
        self.unit_of, self.told = unit, told
        self.unit = unit()
        self.epoll = select.epoll()
        self.store = []  # (name, descriptor), the oldest first
        self.state, self.pid, self.pidfd, self.starts = "dead", 0, None, 0
        self.deadline = None  # of the state
        self.fed = None  # when the watchdog was last fed
        self.waiting = []  # clients whose command is under way
        self.start_again = False  # after the stop
        self.notify_directory = tempfile.TemporaryDirectory(prefix="systemd-")
        os.chmod(self.notify_directory.name, 0o755)
        self.notify_path = self.notify_directory.name + "/notify"
        self.notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self.notify.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        self.notify.bind(self.notify_path)
        os.chmod(self.notify_path, 0o777)
        self.control = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        if os.path.exists(control):
            os.unlink(control)
        self.control.bind(control)
        self.control.listen()
        self.epoll.register(self.notify, select.EPOLLIN)
        self.epoll.register(self.control, select.EPOLLIN)

    # --- The process ---------------------------------------------------------------------------------------------------

    def start(self):
        self.unit = self.unit_of()
        fds = [fd for _, fd in reversed(self.store)]
        names = [name for name, _ in reversed(self.store)]
        environment = dict(self.unit.environment, NOTIFY_SOCKET=self.notify_path)
        if self.unit.watchdog_seconds:
            environment["WATCHDOG_USEC"] = str(int(self.unit.watchdog_seconds * 1e6))
        self.pid = os.fork()
        if self.pid == 0:
            try:
                self.become(fds, names, environment)
            except BaseException as error:  # noqa: the child ends here in any case
                os.write(2, f"systemd.py: {self.unit.command[0]}: {error}\n".encode())
            os._exit(203)
        self.pidfd = os.pidfd_open(self.pid)
        self.epoll.register(self.pidfd, select.EPOLLIN)
        self.starts += 1
        self.enter("starting", self.unit.start_seconds)
        self.told(f"started {self.pid}")

    def become(self, fds, names, environment):
        """In the child: the program, with the stored descriptors from 3 on."""
        os.setsid()
        signal.set_wakeup_fd(-1)
        null = os.open("/dev/null", os.O_RDONLY)
        os.dup2(null, 0)
        os.dup2(self.unit.output, 1)
        os.dup2(self.unit.output, 2)
        # Out of the way first: a source may be where a target is.
        high = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 1000) for fd in fds]
        for place, fd in enumerate(high):
            os.dup2(fd, 3 + place)
        if fds:
            environment |= {
                "LISTEN_FDS": str(len(fds)),
                "LISTEN_PID": str(os.getpid()),
                "LISTEN_FDNAMES": ":".join(names),
            }
        if self.unit.user:
            uid, gid = self.unit.user
            os.setgroups([])
            os.setgid(gid)
            os.setuid(uid)
        if self.unit.directory:
            os.chdir(self.unit.directory)
        os.execvpe(self.unit.command[0], self.unit.command, environment)

    def enter(self, state, seconds=None):
        self.state = state
        self.deadline = time.monotonic() + seconds if seconds is not None else None

    def begin_stop(self):
        self.told(f"stopping {self.pid}")
        self.enter("stopping", self.unit.stop_seconds)
        self.signal(signal.SIGTERM)

    def signal(self, number):
        try:
            signal.pidfd_send_signal(self.pidfd, number)
        except ProcessLookupError:
            pass

    def handle_end(self):
        # What it said last comes before its end.
        self.handle_notifications()
        _, status = os.waitpid(self.pid, 0)
        self.epoll.unregister(self.pidfd)
        os.close(self.pidfd)
        code = os.waitstatus_to_exitcode(status)
        how = f"exit {code}" if code >= 0 else f"signal {-code}"
        self.told(f"ended {self.pid} {how}")
        was, self.pid, self.pidfd, self.fed = self.state, 0, None, None
        if was == "stopping":
            if self.start_again:
                self.start_again = False
                return self.start()
            self.die()
            return self.answer("ok")
        if was == "starting":
            self.answer(f"failed {how} before it was ready")
        if code in self.unit.prevent:
            return self.die()
        self.told("restarting")
        self.enter("waiting", self.unit.restart_seconds)

    def die(self):
        self.enter("dead")
        for name, fd in self.store:
            self.forget(name, fd)
        self.store = []

    def handle_deadline(self):
        if self.state == "starting":
            self.answer(f"failed not ready within {self.unit.start_seconds} s")
            self.signal(signal.SIGKILL)
            self.deadline = None
            self.state = "active"  # its end leads to the next start
        elif self.state == "stopping":
            self.signal(signal.SIGKILL)
            self.deadline = None
        elif self.state == "waiting":
            self.start()
        elif self.state == "active":
            self.told(f"watchdog {self.pid}")
            self.signal(signal.SIGKILL)
            self.deadline = None

    # --- What it says --------------------------------------------------------------------------------------------------

    def handle_notifications(self):
        while True:
            size = socket.CMSG_SPACE(DESCRIPTORS_MAX * 4) + socket.CMSG_SPACE(12)
            try:
                data, ancillary, _, _ = self.notify.recvmsg(MESSAGE_MAX, size, socket.MSG_CMSG_CLOEXEC)
            except BlockingIOError:
                return
            fds, sender = array.array("i"), 0
            for level, kind, content in ancillary:
                if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                    fds.frombytes(content[: len(content) // 4 * 4])
                elif level == socket.SOL_SOCKET and kind == socket.SCM_CREDENTIALS:
                    sender = struct.unpack("3i", content)[0]
            self.handle_notification(data.decode(), list(fds), sender)

    def handle_notification(self, text, fds, sender):
        if text == "BARRIER=1" and len(fds) == 1:
            self.told("barrier")
            os.close(fds[0])
            return
        if sender != self.pid:
            self.told(f"ignored {text!r} of {sender}")
            for fd in fds:
                os.close(fd)
            return
        self.told(f"notified {text!r}")
        words = text.split("\n")
        name = next((word[len("FDNAME=") :] for word in words if word.startswith("FDNAME=")), "stored")
        if "FDSTORE=1" in words:
            for fd in fds:
                self.keep(name, fd)
        else:
            for fd in fds:
                os.close(fd)
        if "FDSTOREREMOVE=1" in words:
            for kept, fd in [entry for entry in self.store if entry[0] == name]:
                self.store.remove((kept, fd))
                self.forget(kept, fd)
            self.told(f"removed {name}")
        if "READY=1" in words and self.state == "starting":
            self.told(f"ready {self.pid}")
            self.enter("active", self.unit.watchdog_seconds or None)
            self.answer(f"ok {self.pid}")
        elif "WATCHDOG=1" in words and self.state == "active" and self.unit.watchdog_seconds:
            self.enter("active", self.unit.watchdog_seconds)

    def keep(self, name, fd):
        if len(self.store) >= self.unit.store_max:
            self.told(f"refused {name}")
            os.close(fd)
            return
        self.store.append((name, fd))
        try:
            self.epoll.register(fd, 0)  # reports EPOLLHUP and EPOLLERR
        except PermissionError:
            pass  # a memfd: nothing to wait for
        self.told(f"stored {name}")

    def forget(self, name, fd):
        try:
            self.epoll.unregister(fd)
        except OSError:
            pass
        os.close(fd)

    # --- Commands ------------------------------------------------------------------------------------------------------

    def handle_client(self):
        client, _ = self.control.accept()
        client.settimeout(5)
        words = client.makefile().readline().split()
        command, program = words[0] if words else "", words[1:]
        if program and command in ("start", "restart"):
            self.unit_of = with_program(self.unit_of, program[0])
        if command == "status":
            names = ",".join(name for name, _ in self.store)
            return answer(client, f"ok {self.state} {self.pid} {self.starts} {names}")
        if command == "kill":
            if not self.pid:
                return answer(client, "failed nothing runs")
            pid = self.pid
            self.signal(signal.SIGKILL)
            return answer(client, f"ok {pid}")
        if command not in ("start", "restart", "stop"):
            return answer(client, f"failed not known: {command}")
        if self.state == "active" and command == "start":
            return answer(client, f"ok {self.pid}")
        self.waiting.append(client)
        if command == "stop":
            self.start_again = False
            if self.pid:
                return self.begin_stop()
            self.die()
            return self.answer("ok")
        if self.pid and self.state != "stopping":
            self.start_again = True
            self.begin_stop()
        elif self.pid:
            self.start_again = True
        else:
            self.start()

    def answer(self, text):
        clients, self.waiting = self.waiting, []
        for client in clients:
            answer(client, text)

    # --- The loop ------------------------------------------------------------------------------------------------------

    def run(self, ended):
        """Until `ended` says so; then the service is stopped."""
        while True:
            if ended() and self.state != "stopping":
                if not self.pid:
                    self.die()
                    return
                self.start_again = False
                self.begin_stop()
            timeout = 0.2
            if self.deadline is not None:
                timeout = max(0.0, min(timeout, self.deadline - time.monotonic()))
            for fd, _ in self.epoll.poll(timeout):
                if fd == self.notify.fileno():
                    self.handle_notifications()
                elif fd == self.control.fileno():
                    self.handle_client()
                elif fd == self.pidfd:
                    self.handle_end()
                    if ended() and not self.pid:
                        self.die()
                        return
                else:
                    for name, kept in [entry for entry in self.store if entry[1] == fd]:
                        self.store.remove((name, kept))
                        self.forget(name, kept)
                        self.told(f"dropped {name}")
            if self.deadline is not None and time.monotonic() >= self.deadline:
                self.handle_deadline()


def with_program(unit_of, program):
    def changed():
        unit = unit_of()
        unit.command = [program, *unit.command[1:]]
        return unit

    return changed


def answer(client, text):
    try:
        client.sendall((text + "\n").encode())
    except OSError:
        pass  # it has lost patience
    client.close()


def tell(control, words):
    """The answer to a command."""
    client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    client.connect(control)
    client.sendall((" ".join(words) + "\n").encode())
    return client.makefile().readline().strip()


def run(control, unit, told):
    ended = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.append(True))
    service = Service(control, unit, told)
    service.start()
    try:
        service.run(lambda: bool(ended))
    finally:
        if service.pid:
            service.signal(signal.SIGKILL)
        os.unlink(control)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    runs = verbs.add_parser("run")
    runs.add_argument("control")
    for name, default in [("restart", 2.0), ("start", 15.0), ("stop", 10.0), ("watchdog", 0.0)]:
        runs.add_argument(f"--{name}-seconds", type=float, default=default)
    runs.add_argument("--store-max", type=int, default=256)
    runs.add_argument("--prevent", type=int, nargs="*", default=[2])
    runs.add_argument("command", nargs="+")
    tells = verbs.add_parser("tell")
    tells.add_argument("control")
    tells.add_argument("words", nargs="+")
    options = parser.parse_args()
    if options.verb == "tell":
        said = tell(options.control, options.words)
        print(said)
        sys.exit(0 if said.startswith("ok") else 1)
    settings = {key: value for key, value in vars(options).items() if key not in ("verb", "control", "command")}
    began = time.monotonic()
    run(
        options.control,
        lambda: Unit(list(options.command), **settings),
        lambda line: print(f"{time.monotonic() - began:.3f} {line}", flush=True),
    )


if __name__ == "__main__":
    main()
