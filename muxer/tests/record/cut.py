#!/usr/bin/env python3
"""Cuts the payloads of a recording that is about times, so that it is small: what a muxer reads of them stays.

    cut.py in.rtpdump[.gz] out.rtpdump

A slice keeps its first bytes, an Opus packet its first ones; parameter sets and sender reports stay whole.
"""

import gzip
import sys
from dataclasses import replace
from pathlib import Path

import rtpdump

KEPT_PAYLOAD_BYTES = 16
WHOLE_NAL_TYPES = {7, 8, 24}


def cut(datagram: rtpdump.Datagram, opus_type: int) -> rtpdump.Datagram:
    if datagram.is_rtcp:
        return datagram
    is_sets = datagram.payload_type != opus_type and datagram.payload[0] & 0x1F in WHOLE_NAL_TYPES
    header = len(datagram.data) - len(datagram.payload)
    return datagram if is_sets else replace(datagram, data=datagram.data[: header + KEPT_PAYLOAD_BYTES])


def main() -> int:
    source, target = map(Path, sys.argv[1:3])
    data = source.read_bytes()
    target.write_bytes(gzip.decompress(data) if source.suffix == ".gz" else data)
    rtpdump.write(target, [cut(datagram, 111) for datagram in rtpdump.read(target)])
    return 0


if __name__ == "__main__":
    sys.exit(main())
