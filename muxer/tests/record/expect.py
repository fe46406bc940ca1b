"""Says what the muxer has to make of a recording, from the recording alone.

An offline depacketiser (RFC 6184, RFC 7587): it sees the whole file at once, so
it sorts by sequence number instead of waiting in a reorder buffer, and shares
neither code nor structure with the muxer. Rules it holds the muxer to:

- a datagram counts once, in sequence order; padding-only packets only fill their number;
- packets of one RTP time are one picture; a picture with a number missing before,
  in or behind it, or with an unfinished FU-A, is not whole, nor is one whose end
  neither a marker nor a later packet shows;
- nothing goes out before the first whole IDR picture with parameter sets, and
  after a missing number nothing until the next one;
- where no number is missing, a missing FU-A end bit ends its unit with the packet; start codes inside a unit divide it;
- a stream without IDR pictures goes on with a recovery point: its pictures, once the last of them is exact and nothing
  has gone out for a second, all but the last squeezed together;
- a picture right behind a gap is whole only if it opens with an access unit
  delimiter or SPS: otherwise its beginning may be what is missing;
- every Opus packet goes out, and in the place of each missing one another of its
  duration: for 100 ms one without a frame, in the configuration of the last that
  came (RFC 6716 section 3.2.1), then 20 ms of silence.
"""

import base64
import hashlib
import itertools
import re
import struct
from dataclasses import dataclass

from rtpdump import SENDER_REPORT, Datagram

NAL_IDR, NAL_SPS, NAL_PPS, NAL_AUD = 5, 7, 8, 9
OPUS_SILENCE = bytes.fromhex("f8fffe")
CONCEALED_TICKS = 4800
NO_IDR_TICKS = 90000


@dataclass
class Picture:
    rtp_time: int  # unwrapped
    nal_units: list[bytes]
    whole: bool
    squeezed: bool = False  # part of a recovery, and not its last
    parameter_sets: tuple[bytes, bytes] | None = None  # SPS and PPS in force; set on forwarded IDR pictures

    @property
    def is_idr(self) -> bool:
        return any(nal[0] & 0x1F == NAL_IDR for nal in self.nal_units)

    @property
    def coded(self) -> tuple[bytes, ...]:
        """The slices alone: what identifies a picture across recordings."""
        return tuple(nal for nal in self.nal_units if 1 <= nal[0] & 0x1F <= 5)


@dataclass
class Frame:
    """One packet an FLV reader has to find: clock-rate units, MD5 of its data."""

    rtp_time: int
    key: bool
    md5: str
    squeezed: bool = False
    recovery_point: bool = False  # ffprobe calls it a key picture too


@dataclass
class Track:
    clock_rate: int
    frames: list[Frame]
    pictures: list[Picture]  # forwarded ones; video only
    reports: list[tuple[int, int, int]]  # arrival ms, NTP time in 2^-32 s, RTP time (unwrapped)
    arrivals: dict[int, int]  # unwrapped RTP time -> first arrival in ms


def rtpmap(sdp: str) -> dict[str, tuple[int, int]]:
    """Encoding name in upper case -> payload type, clock rate."""
    found = {}
    for line in sdp.splitlines():
        if line.startswith("a=rtpmap:"):
            number, encoding = line.removeprefix("a=rtpmap:").split(None, 1)
            name, rate = encoding.split("/")[:2]
            found.setdefault(name.upper(), (int(number), int(rate)))
    return found


def unwrap(values: list[int], bits: int) -> list[int]:
    """Each value as the one nearest to its predecessor modulo 2^bits."""
    size, out = 1 << bits, []
    for value in values:
        if not out:
            out.append(value)
            continue
        step = (value - out[-1]) % size
        out.append(out[-1] + (step if step < size // 2 else step - size))
    return out


def in_sequence(datagrams: list[Datagram]) -> list[tuple[int, int, Datagram]]:
    """(unwrapped sequence number, unwrapped RTP time, datagram), sorted, each number once."""
    numbers = unwrap([d.sequence_number for d in datagrams], 16)
    once: dict[int, Datagram] = {}
    for number, datagram in zip(numbers, datagrams):
        once.setdefault(number, datagram)
    ordered = sorted(once.items())
    times = unwrap([d.rtp_time for _, d in ordered], 32)
    return [(number, time, datagram) for (number, datagram), time in zip(ordered, times)]


def nal_units(payloads: list[bytes]) -> tuple[list[bytes], bool]:
    """The NAL units of one picture and whether each FU-A in it is finished."""
    units, whole, open_unit = [], True, None
    for payload in payloads:
        kind = payload[0] & 0x1F
        if kind != 28 and open_unit is not None:
            units.append(open_unit)
            open_unit = None
        if kind == 28:
            start, end = payload[1] & 0x80, payload[1] & 0x40
            if start:
                if open_unit is not None:
                    units.append(open_unit)
                open_unit = bytes([(payload[0] & 0xE0) | (payload[1] & 0x1F)])
            if open_unit is None:
                whole = False
                continue
            open_unit += payload[2:]
            if end:
                units.append(open_unit)
                open_unit = None
        elif kind == 24:
            at = 1
            while at < len(payload):
                (size,) = struct.unpack_from("!H", payload, at)
                units.append(payload[at + 2 : at + 2 + size])
                at += 2 + size
        else:
            units.append(payload)
    if open_unit is not None:
        units.append(open_unit)
    divided = []
    for unit in units:
        parts = unit.split(b"\0\0\1")
        divided += parts if len(parts) == 1 else [part.rstrip(b"\0") for part in parts]
    return [unit for unit in divided if unit], whole


def pictures(packets: list[tuple[int, int, Datagram]]) -> list[Picture]:
    out = []
    group: list[tuple[int, int, Datagram]] = []
    last_number = None  # of the packet before the group

    def finish(following_number):
        numbers = [number for number, _, _ in group]
        media = [d.payload for _, _, d in group if d.payload]
        if not media:
            return
        units, whole = nal_units(media)
        opens = units and units[0][0] & 0x1F in (NAL_SPS, NAL_AUD)
        before = last_number is None or numbers[0] == last_number + 1 or bool(opens)
        inside = numbers == list(range(numbers[0], numbers[-1] + 1))
        behind = any(d.marker for _, _, d in group) or following_number == numbers[-1] + 1
        out.append(Picture(group[0][1], units, whole and before and inside and behind))

    for packet in packets:
        if group and packet[1] != group[0][1]:
            finish(packet[0])
            last_number = group[-1][0]
            group = []
        group.append(packet)
    if group:
        finish(None)
    return out


def missing_before(packets: list[tuple[int, int, Datagram]]) -> set[int]:
    """RTP times of the packets that have a missing number right before them."""
    return {packet[1] for previous, packet in itertools.pairwise(packets) if packet[0] != previous[0] + 1}


def sdp_parameter_sets(sdp: str) -> dict[int, bytes]:
    """RFC 6184 section 8.1, sprop-parameter-sets: NAL unit type -> NAL unit."""
    found = re.search(r"sprop-parameter-sets=([^;\s]+)", sdp)
    nal_units = [base64.b64decode(text) for text in found[1].split(",")] if found else []
    return {nal[0] & 0x1F: nal for nal in nal_units}


def recovery_frames(picture: Picture) -> int | None:
    """recovery_frame_cnt, H.264 section D.1.8, where that SEI message comes first in its NAL unit."""
    for nal in picture.nal_units:
        if nal[:2] == b"\6\6":
            bits = "".join(f"{byte:08b}" for byte in nal[3 : 3 + nal[2]])
            zeros = bits.index("1")
            return int(bits[zeros : 2 * zeros + 1], 2) - 1
    return None


def forwarded(candidates: list[Picture], after_gap: set[int], sets: dict[int, bytes]) -> list[Picture]:
    """`sets`: the parameter sets known from the SDP."""
    out, waiting, in_force = [], True, dict(sets)
    shut_at, held, needed = None, None, 0
    for picture in candidates:
        if picture.rtp_time in after_gap or not picture.whole:
            waiting, held = True, None
        for nal in picture.nal_units:
            if nal[0] & 0x1F in (NAL_SPS, NAL_PPS):
                in_force[nal[0] & 0x1F] = nal
        if picture.whole and picture.is_idr and {NAL_SPS, NAL_PPS} <= in_force.keys():
            waiting, shut_at, held = False, None, None
            picture.parameter_sets = (in_force[NAL_SPS], in_force[NAL_PPS])
        if not waiting:
            out.append(picture)
            continue
        shut_at = picture.rtp_time if shut_at is None else shut_at
        count = recovery_frames(picture)
        if out and picture.whole and held is None and count is not None:
            held, needed = [], count + 1
        if held is not None:
            held.append(picture)
            if len(held) >= needed and picture.rtp_time - shut_at >= NO_IDR_TICKS:
                for before in held[:-1]:
                    before.squeezed = True
                out += held
                waiting, shut_at, held = False, None, None
    return out


def sound(packets: list[tuple[int, int, Datagram]]) -> list[Frame]:
    """Opus packets and what stands in for missing ones, as (RTP time, MD5)."""
    out: list[Frame] = []
    for previous, (number, time, datagram) in zip([None, *packets], packets):
        missing = number - previous[0] - 1 if previous else 0
        for n in range(missing):
            step = (time - previous[1]) // (missing + 1)
            concealed = n * step < CONCEALED_TICKS
            payload = bytes([previous[2].payload[0] & 0xFC]) if concealed else OPUS_SILENCE
            out.append(Frame(previous[1] + (n + 1) * step, True, hashlib.md5(payload).hexdigest()))
        if datagram.payload:
            out.append(Frame(time, True, hashlib.md5(datagram.payload).hexdigest()))
    return out


def avc_sample(nal_units: list[bytes], dropped_types: frozenset[int]) -> bytes:
    """ISO/IEC 14496-15 section 5.3.3: 4-byte lengths."""
    kept = [nal for nal in nal_units if nal[0] & 0x1F not in dropped_types]
    return b"".join(struct.pack("!I", len(nal)) + nal for nal in kept)


def sender_reports(datagrams: list[Datagram], ssrc: int, near_rtp_time: int) -> list[tuple[int, int, int]]:
    """Those behind the first RTP packet of their SSRC: nothing before it says which track they are about."""
    found, known = [], False
    for datagram in datagrams:
        if datagram.ssrc != ssrc:
            continue
        if not datagram.is_rtcp:
            known = True
        elif known and datagram.data[1] == SENDER_REPORT:
            ntp_time, rtp_time = struct.unpack_from("!QI", datagram.data, 8)
            found.append((datagram.offset_ms, ntp_time, unwrap([near_rtp_time, rtp_time], 32)[1]))
    return found


def expect(datagrams: list[Datagram], sdp: str, dropped_types: frozenset[int]) -> dict[str, Track]:
    """ "video" and "audio" -> what has to come out, for the kinds the recording has."""
    codecs = rtpmap(sdp)
    tracks = {}
    for kind, encoding in (("video", "H264"), ("audio", "OPUS")):
        if encoding not in codecs:
            continue
        payload_type, clock_rate = codecs[encoding]
        own = [d for d in datagrams if not d.is_rtcp and d.payload_type == payload_type]
        packets = in_sequence(own)
        arrivals: dict[int, int] = {}
        for _, time, datagram in packets:
            arrivals[time] = min(arrivals.get(time, datagram.offset_ms), datagram.offset_ms)
        going_out: list[Picture] = []
        if kind == "video":
            going_out = forwarded(pictures(packets), missing_before(packets), sdp_parameter_sets(sdp))
            frames = [
                Frame(
                    p.rtp_time,
                    p.is_idr,
                    hashlib.md5(avc_sample(p.nal_units, dropped_types)).hexdigest(),
                    p.squeezed,
                    recovery_frames(p) is not None,
                )
                for p in going_out
            ]
        else:
            frames = sound(packets)
        reports = sender_reports(datagrams, own[0].ssrc, packets[0][1])
        tracks[kind] = Track(clock_rate, frames, going_out, reports, arrivals)
    return tracks
