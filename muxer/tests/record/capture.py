#!/usr/bin/env python3
"""Runs a packetiser and records what it sends over loopback UDP as an rtpdump file.

    capture.py out.rtpdump -- ffmpeg ... -f rtp rtp://127.0.0.1:{video} ...

`{video}` and `{audio}` in the command become free port pairs (RTP on the even
port, RTCP on the next). Recording ends when the command has ended and nothing
has arrived for 200 ms. Arrival offsets are real.
"""

import argparse
import selectors
import socket
import subprocess
import sys
import time

import rtpdump

QUIET_S = 0.2
RECEIVE_BUFFER_BYTES = 4 << 20


def bind_port_pair() -> tuple[socket.socket, socket.socket]:
    """Two UDP sockets on neighbouring ports, the lower one even (RFC 3550 section 11)."""
    while True:
        rtp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        rtp.bind(("127.0.0.1", 0))
        port = rtp.getsockname()[1]
        rtcp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        try:
            if port % 2:
                raise OSError("odd port")
            rtcp.bind(("127.0.0.1", port + 1))
        except OSError:
            rtp.close()
            rtcp.close()
            continue
        for sock in (rtp, rtcp):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES)
            sock.setblocking(False)
        return rtp, rtcp


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out")
    parser.add_argument("command", nargs=argparse.REMAINDER)
    args = parser.parse_args()
    command = args.command[1:] if args.command[:1] == ["--"] else args.command

    selector = selectors.DefaultSelector()
    ports = {}
    for name in ("video", "audio"):
        pair = bind_port_pair()
        ports[name] = pair[0].getsockname()[1]
        for sock in pair:
            selector.register(sock, selectors.EVENT_READ)
    for name, port in ports.items():
        command = [word.replace("{" + name + "}", str(port)) for word in command]

    received = []
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    while True:
        ready = selector.select(timeout=QUIET_S)
        if not ready and process.poll() is not None:
            break
        for key, _ in ready:
            data = key.fileobj.recv(65536)
            received.append((time.monotonic(), data))
    if process.returncode != 0 or not received:
        print(f"capture: the packetiser failed ({process.returncode})", file=sys.stderr)
        return 1

    start = received[0][0]
    datagrams = [rtpdump.Datagram(int((at - start) * 1000), data) for at, data in received]
    rtpdump.write(args.out, datagrams)
    print(f"capture: {args.out}: {len(datagrams)} datagrams", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
