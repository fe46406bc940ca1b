"""rtptools "rtpdump v1.0" files and the few RTP/RTCP fields the recordings need.

Layout (rtptools `rtpdump.h`):

    #!rtpplay1.0 <address>/<port>\n
    u32 start seconds, u32 start microseconds, u32 source, u16 port, u16 padding
    then per datagram
    u16 length (of this entry, with these 8 bytes)
    u16 plen   (bytes of RTP header + payload, 0 for RTCP)
    u32 offset (milliseconds since start)
    the datagram

All integers are big-endian. The start time is written as 0: a recording does
not depend on the day it was made.
"""

import struct
from dataclasses import dataclass, replace
from pathlib import Path

MAGIC = b"#!rtpplay1.0 127.0.0.1/0\n"
SENDER_REPORT = 200


@dataclass(frozen=True)
class Datagram:
    """One captured datagram: arrival in milliseconds since the recording's start."""

    offset_ms: int
    data: bytes

    @property
    def is_rtcp(self) -> bool:
        """RFC 5761 section 4: RTCP packet types 192-223 where RTP has marker + payload type."""
        return 192 <= self.data[1] <= 223

    @property
    def marker(self) -> bool:
        return bool(self.data[1] & 0x80)

    @property
    def payload_type(self) -> int:
        return self.data[1] & 0x7F

    @property
    def sequence_number(self) -> int:
        return struct.unpack_from("!H", self.data, 2)[0]

    @property
    def rtp_time(self) -> int:
        return struct.unpack_from("!I", self.data, 4)[0]

    @property
    def ssrc(self) -> int:
        return struct.unpack_from("!I", self.data, 4 if self.is_rtcp else 8)[0]

    @property
    def payload(self) -> bytes:
        """RTP payload: without CSRC list, header extension and padding."""
        data = self.data
        start = 12 + 4 * (data[0] & 0x0F)
        if data[0] & 0x10:
            start += 4 + 4 * struct.unpack_from("!H", data, start + 2)[0]
        end = len(data) - (data[-1] if data[0] & 0x20 else 0)
        return data[start:end]

    def with_sequence_number(self, value: int) -> "Datagram":
        data = self.data[:2] + struct.pack("!H", value & 0xFFFF) + self.data[4:]
        return replace(self, data=data)

    def with_rtp_time(self, value: int) -> "Datagram":
        """Sets the RTP time; in a sender report the one beside the NTP time."""
        at = 16 if self.is_rtcp else 4
        data = self.data[:at] + struct.pack("!I", value & 0xFFFFFFFF) + self.data[at + 4 :]
        return replace(self, data=data)

    def shifted_rtp_time(self, delta: int) -> "Datagram":
        if not self.is_rtcp:
            return self.with_rtp_time(self.rtp_time + delta)
        if self.data[1] != SENDER_REPORT:
            return self
        return self.with_rtp_time(struct.unpack_from("!I", self.data, 16)[0] + delta)


def serialise(datagrams: list[Datagram]) -> bytes:
    out = bytearray(MAGIC + bytes(16))
    for datagram in datagrams:
        data = datagram.data
        plen = 0 if datagram.is_rtcp else len(data)
        out += struct.pack("!HHI", len(data) + 8, plen, datagram.offset_ms) + data
    return bytes(out)


def write(path: Path, datagrams: list[Datagram]) -> None:
    Path(path).write_bytes(serialise(datagrams))


def read(path: Path) -> list[Datagram]:
    raw = Path(path).read_bytes()
    if not raw.startswith(b"#!rtpplay1.0 "):
        raise ValueError(f"{path}: not an rtpdump file")
    at = raw.index(b"\n") + 1 + 16
    datagrams = []
    while at < len(raw):
        length, _plen, offset_ms = struct.unpack_from("!HHI", raw, at)
        if length < 8 + 8 or at + length > len(raw):
            raise ValueError(f"{path}: entry {len(datagrams)} is cut")
        datagrams.append(Datagram(offset_ms, raw[at + 8 : at + length]))
        at += length
    return datagrams


def sequence_after(a: int, b: int) -> bool:
    """True when 16-bit sequence number `a` comes after `b` (RFC 3550 A.1, modulo 2^16)."""
    return 0 < ((a - b) & 0xFFFF) < 0x8000
