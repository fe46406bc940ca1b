#!/usr/bin/env python3
"""Derives the impaired golden inputs from the recorded ones, always the same way.

    edit.py [golden-directory]             writes every derived <name>.rtpdump and <name>.sdp
    edit.py --check [golden-directory]     exit code 1 when a file on disk differs from what would be written

Each edit is one function below; its docstring is what PROVENANCE.md says about
the case. Losses leave the sequence numbers as they are; what a sender or an SFU
would number differently (padding, a later start) is renumbered.
"""

import struct
import sys
from dataclasses import replace
from pathlib import Path

import rtpdump
from rtpdump import Datagram

EDITS = {}


def edit(base):
    """Registers a function: recorded datagrams of `base` in, datagrams of the case out."""

    def register(function):
        EDITS[function.__name__] = (base, function)
        return function

    return register


class Recording:
    """Datagrams of a recording with the pictures of its video track told apart."""

    def __init__(self, datagrams: list[Datagram], sdp: str):
        self.datagrams = datagrams
        self.video_type = payload_type(sdp, "H264")
        self.pictures: list[list[int]] = []  # index of a picture -> indices of its datagrams
        previous = None
        for index, datagram in enumerate(datagrams):
            if not self.is_video(datagram):
                continue
            if datagram.rtp_time != previous:
                self.pictures.append([])
                previous = datagram.rtp_time
            self.pictures[-1].append(index)

    def is_video(self, datagram: Datagram) -> bool:
        return not datagram.is_rtcp and datagram.payload_type == self.video_type

    def without(self, indices: list[int], pictures: int | None = None) -> list[Datagram]:
        gone = set(indices)
        kept = self.datagrams if pictures is None else self.first_pictures(pictures)
        return [d for i, d in enumerate(kept) if i not in gone]

    def first_pictures(self, count: int) -> list[Datagram]:
        """Everything that arrived before the first packet of picture `count`."""
        return self.datagrams[: self.pictures[count][0]]


def payload_type(sdp: str, encoding: str) -> int | None:
    for line in sdp.splitlines():
        if line.startswith("a=rtpmap:") and f" {encoding}/" in line:
            return int(line.removeprefix("a=rtpmap:").split()[0])
    return None


def tracks(datagrams: list[Datagram]) -> dict[int, list[int]]:
    """SSRC -> indices of its RTP datagrams."""
    found: dict[int, list[int]] = {}
    for index, datagram in enumerate(datagrams):
        if not datagram.is_rtcp:
            found.setdefault(datagram.ssrc, []).append(index)
    return found


def renumbered(datagrams: list[Datagram], first: dict[int, int]) -> list[Datagram]:
    """Numbers each track consecutively in the order of the list, from `first[ssrc]`."""
    following = dict(first)
    out = []
    for datagram in datagrams:
        if not datagram.is_rtcp:
            number = following.get(datagram.ssrc, datagram.sequence_number)
            following[datagram.ssrc] = number + 1
            datagram = datagram.with_sequence_number(number)
        out.append(datagram)
    return out


def padding_only(like: Datagram, padding_bytes: int) -> Datagram:
    """An RTP packet of padding alone (RFC 3550 section 5.1), as an SFU sends to probe bandwidth."""
    header = bytes([0xA0, like.payload_type]) + like.data[2:12]
    return Datagram(like.offset_ms, header + bytes(padding_bytes - 1) + bytes([padding_bytes]))


@edit("fu_a")
def reordered_by_3(recording: Recording) -> list[Datagram]:
    """First 36 pictures; every fifth packet that has three successors within 40 ms arrives behind the third of them."""
    out = recording.first_pictures(36)
    at = 4
    while at + 3 < len(out):
        if out[at + 3].offset_ms - out[at].offset_ms <= 40:
            late = replace(out.pop(at), offset_ms=out[at + 2].offset_ms)
            out.insert(at + 3, late)
        at += 5
    return out


@edit("stap_a_start")
def duplicates(recording: Recording) -> list[Datagram]:
    """First 36 pictures; every third packet arrives twice in a row, every eleventh again five datagrams later."""
    out = []
    later: list[tuple[int, Datagram]] = []
    for index, datagram in enumerate(recording.first_pictures(36)):
        out.append(datagram)
        if not datagram.is_rtcp and index % 3 == 0:
            out.append(datagram)
        if not datagram.is_rtcp and index % 11 == 0:
            later.append((index + 5, datagram))
        for due in [entry for entry in later if entry[0] == index]:
            out.append(replace(due[1], offset_ms=datagram.offset_ms))
    return out


@edit("stap_a_start")
def sequence_wrap(recording: Recording) -> list[Datagram]:
    """First 36 pictures, renumbered so that 65535 -> 0 falls inside the FU-A of the second IDR and after 20 audio packets."""
    kept = recording.first_pictures(36)
    inside_idr = recording.pictures[18][-2]
    first = {}
    for ssrc, indices in tracks(kept).items():
        video = recording.is_video(kept[indices[0]])
        before_wrap = indices.index(inside_idr) if video else 20
        first[ssrc] = 0x10000 - before_wrap
    return renumbered(kept, first)


@edit("stap_a_start")
def rtp_time_wrap(recording: Recording) -> list[Datagram]:
    """First 36 pictures, RTP times shifted (sender reports too) so that video wraps 0.5 s and audio 0.8 s after the start."""
    kept = recording.first_pictures(36)
    shift = {}
    for ssrc, indices in tracks(kept).items():
        wraps_after = 45_000 if recording.is_video(kept[indices[0]]) else 38_400
        shift[ssrc] = -wraps_after - kept[indices[0]].rtp_time
    return [d.shifted_rtp_time(shift.get(d.ssrc, 0)) for d in kept]


@edit("video_only")
def padding_only_packets(recording: Recording) -> list[Datagram]:
    """First 36 pictures; three padding-only packets before the first and one to three after each, renumbered; every fourth media packet gets 7 bytes of padding."""
    kept = recording.first_pictures(36)
    video = [d for d in kept if recording.is_video(d)]
    out = [padding_only(replace(video[0].with_rtp_time(video[0].rtp_time - 3000)), 255) for _ in range(3)]
    media = 0
    for datagram in kept:
        if not recording.is_video(datagram):
            out.append(datagram)
            continue
        media += 1
        if media % 4 == 0:
            flagged = bytes([datagram.data[0] | 0x20]) + datagram.data[1:]
            datagram = replace(datagram, data=flagged + bytes(6) + bytes([7]))
        out.append(datagram)
        if datagram.marker:
            out.extend(padding_only(datagram, 1 + (61 * media) % 255) for _ in range(1 + media % 3))
    return renumbered(out, {video[0].ssrc: video[0].sequence_number})


@edit("stap_a_start")
def sender_reports(recording: Recording) -> list[Datagram]:
    """Both sender reports arrive behind the first ten packets (so their SSRCs are known) and again 200 ms later, with clocks that went on as long; the video track's NTP time is 100 ms later than recorded."""
    reports = [d for d in recording.datagrams if d.is_rtcp]
    out = [d for d in recording.datagrams if not d.is_rtcp]
    video_ssrc = next(d.ssrc for d in out if recording.is_video(d))
    first_ms = out[9].offset_ms
    for later_ms in (200, 0):
        place = next(i for i, d in enumerate(out) if i >= 10 and d.offset_ms >= first_ms + later_ms)
        for report in reports:
            ntp_time, rtp_time = struct.unpack_from("!QI", report.data, 8)
            is_video = report.ssrc == video_ssrc
            ntp_time += ((later_ms + (100 if is_video else 0)) << 32) // 1000
            rtp_time = (rtp_time + later_ms * (90 if is_video else 48)) % (1 << 32)
            data = report.data[:8] + struct.pack("!QI", ntp_time, rtp_time) + report.data[20:]
            out.insert(place, replace(report, data=data, offset_ms=first_ms + later_ms))
    return out


@edit("video_only")
def no_marker(recording: Recording) -> list[Datagram]:
    """First 36 pictures without any marker bit: an access unit ends where the RTP time changes."""
    return [
        replace(d, data=bytes([d.data[0], d.data[1] & 0x7F]) + d.data[2:]) if recording.is_video(d) else d
        for d in recording.first_pictures(36)
    ]


@edit("fu_a")
def loss_in_fu_a(recording: Recording) -> list[Datagram]:
    """A middle fragment of picture 5, the first of picture 23 and the last (with the marker) of picture 41 are lost."""
    lost = []
    for picture, which in ((5, "middle"), (23, "start"), (41, "end")):
        fragments = [i for i in recording.pictures[picture] if recording.datagrams[i].payload[0] & 0x1F == 28]
        assert len(fragments) >= (3 if which == "middle" else 2), f"picture {picture} has {len(fragments)} fragments"
        lost.append({"middle": fragments[1], "start": fragments[0], "end": fragments[-1]}[which])
    return recording.without(lost)


@edit("stap_a_start")
def loss_of_idr(recording: Recording) -> list[Datagram]:
    """First 54 pictures; every packet of the second IDR (picture 18) is lost."""
    return recording.without(recording.pictures[18], pictures=54)


@edit("sps_change")
def loss_of_sps(recording: Recording) -> list[Datagram]:
    """The STAP-A with the new SPS and PPS (picture 36, the change of size) is lost; its IDR slice arrives whole."""
    first = recording.pictures[36][0]
    assert recording.datagrams[first].payload[0] & 0x1F == 24
    return recording.without([first])


@edit("multi_slice")
def loss_of_slice(recording: Recording) -> list[Datagram]:
    """First 60 pictures; the first packet of picture 22 (one or two slices of four) and the FU-A with the first slice of IDR 36 are lost."""
    assert len(recording.pictures[22]) >= 2
    first_slice = []
    for index in recording.pictures[36]:
        payload = recording.datagrams[index].payload
        if payload[0] & 0x1F == 28:
            first_slice.append(index)
            if payload[1] & 0x40:
                break
    assert first_slice
    return recording.without([recording.pictures[22][0], *first_slice], pictures=60)


@edit("stap_a_start")
def loss_of_sound(recording: Recording) -> list[Datagram]:
    """First 54 pictures; of the Opus packets the tenth, then three and then eight in a row are lost."""
    kept = recording.first_pictures(54)
    sound = [i for i, d in enumerate(kept) if not d.is_rtcp and not recording.is_video(d)]
    return recording.without([sound[9], *sound[20:23], *sound[40:48]], pictures=54)


@edit("stap_a_start")
def joined_mid_group(recording: Recording) -> list[Datagram]:
    """Pictures 7 to 35: reception begins eleven pictures before the next IDR."""
    return recording.first_pictures(36)[recording.pictures[7][0] :]


@edit("stap_a_start")
def flv_time_24_bits(recording: Recording) -> list[Datagram]:
    """First 36 pictures, muxed with --start-ms 16776615: FLV times cross 0xFFFFFF after 0.6 s."""
    return recording.first_pictures(36)


@edit("chromium_rescale")
def slate(recording: Recording) -> list[Datagram]:
    """nobody for two seconds before it and behind it: 1280x720, 640x360, 320x180, 1280x720"""
    return recording.datagrams



def main() -> int:
    arguments = sys.argv[1:]
    check = arguments[:1] == ["--check"]
    if check:
        arguments = arguments[1:]
    golden = Path(arguments[0]) if arguments else Path(__file__).parent.parent / "golden"
    differing = 0
    for name, (base, function) in EDITS.items():
        sdp = (golden / f"{base}.sdp").read_bytes()
        datagrams = function(Recording(rtpdump.read(golden / f"{base}.rtpdump"), sdp.decode()))
        start_ms = datagrams[0].offset_ms
        out = [replace(d, offset_ms=d.offset_ms - start_ms) for d in datagrams]
        for suffix, content in ((".rtpdump", rtpdump.serialise(out)), (".sdp", sdp)):
            path = golden / (name + suffix)
            if not check:
                path.write_bytes(content)
            elif not path.exists() or path.read_bytes() != content:
                print(f"edit: {path} is not what the edit of {base} gives", file=sys.stderr)
                differing += 1
    print(f"edit: {len(EDITS)} derived recordings {'checked' if check else 'written'}", file=sys.stderr)
    return 1 if differing else 0


if __name__ == "__main__":
    sys.exit(main())
