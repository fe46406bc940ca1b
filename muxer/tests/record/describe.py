#!/usr/bin/env python3
"""Prints one line per datagram of an rtpdump file: what a person looks at first.

describe.py in.rtpdump
"""

import signal
import sys

import rtpdump

NAL_NAMES = {1: "slice", 5: "IDR", 6: "SEI", 7: "SPS", 8: "PPS", 9: "AUD"}


def nal_name(octet: int) -> str:
    return NAL_NAMES.get(octet & 0x1F, str(octet & 0x1F))


def describe_h264(payload: bytes) -> str:
    """RFC 6184 section 5.2: the payload structures of packetization-mode 0 and 1."""
    if not payload:
        return "padding only"
    kind = payload[0] & 0x1F
    if kind == 24:
        names, at = [], 1
        while at + 2 < len(payload):
            size = int.from_bytes(payload[at : at + 2], "big")
            names.append(f"{nal_name(payload[at + 2])}:{size}")
            at += 2 + size
        return "STAP-A " + " ".join(names)
    if kind == 28:
        flags = ("S" if payload[1] & 0x80 else "") + ("E" if payload[1] & 0x40 else "")
        return f"FU-A {nal_name(payload[1])} {flags}"
    return f"single {nal_name(payload[0])}"


def main() -> int:
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # `| head` is not an error
    datagrams = rtpdump.read(sys.argv[1])
    video_types = {d.payload_type for d in datagrams if not d.is_rtcp and len(d.payload) > 250}
    for d in datagrams:
        if d.is_rtcp:
            print(f"{d.offset_ms:6} rtcp type {d.data[1]} ssrc {d.ssrc:08x} {len(d.data)} B")
            continue
        text = describe_h264(d.payload) if d.payload_type in video_types else d.payload[:3].hex()
        print(
            f"{d.offset_ms:6} pt {d.payload_type} seq {d.sequence_number:5} time {d.rtp_time:10}"
            f" {'M' if d.marker else '-'} {len(d.payload):4} B  {text}"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
