#!/usr/bin/env python3
"""Regenerates the golden results, but only those that independent tools agree with.

Called by ../golden/bless.sh, which builds the two examples and finds ffmpeg:

    bless.py --rtp2flv PATH --listing PATH --ffmpeg PATH --ffprobe PATH [--check] [name...]

For each <name>.rtpdump the muxer's output is accepted when

- ffprobe (>= 8) sees exactly the streams of the SDP, and in each stream exactly the
  packets that expect.py computes from the recording: count, order, key flag, MD5 of
  the data, dts strictly increasing, pts within 1 ms of the RTP clock and equal to dts
  unless there are B-frames;
- beside audio, video may leave its clock by a sixteenth of each picture's duration,
  and only towards where the sender reports of both tracks put it;
- the AVC sequence headers hold the recording's SPS and PPS, one right before each IDR
  at which they are new; Opus has one, before its first frame;
- pictures of a clock that is set come evenly, those of a recovery but the last a millisecond apart;
- ffmpeg decodes it without a message, into as many pictures as packets;
- where the source of the pictures is ours (<name>.pictures), each decoded picture is
  bit for bit the source picture that expect.py says it is.

One disagreement and nothing at all is written. `--check` confirms the stored
results instead and writes nothing.
"""

import argparse
import hashlib
import itertools
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import edit
import expect
import rtpdump

GOLDEN = Path(__file__).resolve().parent.parent / "golden"
OLDEST_FFPROBE = 8
CLOCK_TOLERANCE_MS = 1.0  # an FLV time is whole milliseconds
REPORT_TOLERANCE_MS = 12.0  # the muxer leaves 10 ms alone, and rounds once in each track
LARGEST_MOVE = 1 / 16  # of a picture's duration: how far video may move against its own clock for the sake of sync
ARRIVAL_TOLERANCE_MS = 40.0  # arrival times of packets that share a sender's burst

SILENCE_MD5 = hashlib.md5(bytes([0xF8, 0xFF, 0xFE])).hexdigest()  # 20 ms, as the muxer makes it
SOURCE_CLOCK = ("-fps_mode", "passthrough", "-enc_time_base", "demux")

# What the muxer leaves out of an access unit: SPS and PPS (they stand in the sequence header), delimiters, fillers.
DROPPED_NAL_TYPES = frozenset({7, 8, 9, 10, 11, 12})

# 30 pictures a second whose clock is set: times go on evenly.
CLOCK_IS_SET = frozenset({"field_clock_back_500ms"})

# Pictures without an own recording command are described by their edit.
FIELD = "x264 by libavcodec, packets made after public reports of senders: "
RECORDED = {
    "audio_only": "libopus 32 kbit/s mono, ffmpeg rtp muxer",
    "b_frames": "x264 Main profile, 3 B-frames with b-pyramid, libopus; ffmpeg rtp muxer",
    "chromium": "`chromium.py --seconds 3.2`: Chromium 156, OpenH264 640x360 + Opus, fake devices",
    "chromium_rescale": "`chromium.py --seconds 3.4 --rescale-ms 1500`: Chromium 156, scaleResolutionDownBy 2 after 1.5 s",
    "field_annexb_in_fua": FIELD + "Annex B in the FU-A of each IDR picture",
    "field_clock_back_500ms": FIELD + "the RTP clock steps back by 500 ms; Baseline",
    "field_control": FIELD + "nothing wrong",
    "field_fua_no_end_bit": FIELD + "no FU-A has its end bit",
    "field_fua_start_and_end": FIELD + "start and end in one FU-A",
    "field_intra_refresh_one_loss": FIELD + "periodic intra refresh, one IDR picture, one packet lost",
    "field_marker_each_nal": FIELD + "four slices a picture, the marker on each NAL unit",
    "fu_a": "x264enc, GStreamer rtph264pay mtu=300 aggregate-mode=none config-interval=-1",
    "headers_between_slices": "x264enc, 3 slices, GStreamer rtph264pay, which repeats SPS and PPS before every IDR slice",
    "multi_slice": "x264 High profile, 4 slices, libopus; ffmpeg rtp muxer, 500-byte packets",
    "opus_dtx": "`chromium.py --seconds 4 --dtx pause.wav` (1.8 s of silence): Chromium 156 with usedtx=1 stops sending",
    "single_nal": "x264 slice-max-size 1100, libopus; ffmpeg rtp muxer with h264_mode0",
    "sprop_only": "x264 Main profile with global header, libopus; ffmpeg rtp muxer: SPS and PPS only in the SDP",
    "sps_change": "x264 320x180 then 426x240 in one stream, libopus; ffmpeg rtp muxer",
    "stap_a_start": "x264 with repeated headers, libopus; ffmpeg rtp muxer",
    "video_only": "x264 with repeated headers; ffmpeg rtp muxer",
}


class Refused(Exception):
    """An independent tool does not agree; the text says on what."""


class Tools:
    def __init__(self, args):
        self.rtp2flv, self.listing_tool = args.rtp2flv, args.listing
        self.ffmpeg, self.ffprobe = args.ffmpeg, args.ffprobe
        first_line = run([self.ffprobe, "-version"]).stdout.splitlines()[0]
        self.version = first_line.split(" Copyright")[0]
        number = re.search(r"version n?(\d+)", first_line)
        if not number or int(number[1]) < OLDEST_FFPROBE:
            raise Refused(f"{self.version} is older than {OLDEST_FFPROBE} and knows no Opus in FLV")

    def mux(self, name: str, flv: Path) -> None:
        extra = GOLDEN / f"{name}.args"
        arguments = extra.read_text().split() if extra.exists() else []
        dump, sdp = GOLDEN / f"{name}.rtpdump", GOLDEN / f"{name}.sdp"
        done = run([self.rtp2flv, *arguments, "--sdp", sdp, dump, flv], check=False)
        if done.returncode != 0:
            raise Refused(f"rtp2flv ended with {done.returncode}: {done.stderr.strip()}")

    def listing(self, flv: Path) -> str:
        return run([self.listing_tool, flv]).stdout

    def probe(self, flv: Path) -> dict:
        done = run([
            self.ffprobe, "-v", "error", "-show_streams", "-show_packets",
            "-show_data_hash", "md5", "-of", "json", flv,
        ])  # fmt: skip
        if done.stderr:
            raise Refused(f"ffprobe says: {done.stderr.strip()}")
        return json.loads(done.stdout)

    def decode(self, flv: Path) -> None:
        # The sink's default clock is one tick a picture, on which jitter of the sender's clock collides.
        done = run(
            [self.ffmpeg, "-v", "error", "-nostdin", "-xerror", "-i", flv, *SOURCE_CLOCK, "-f", "null", "-"],
            check=False,
        )
        if done.returncode != 0 or done.stderr:
            raise Refused(f"ffmpeg -xerror ({done.returncode}): {done.stderr.strip()[:300]}")

    def decoded_pictures(self, flv: Path) -> list[str]:
        done = run([
            self.ffmpeg, "-v", "error", "-nostdin", "-i", flv, "-map", "0:v",
            *SOURCE_CLOCK, "-noautoscale", "-f", "framemd5", "-",
        ])  # fmt: skip
        lines = [line for line in done.stdout.splitlines() if not line.startswith("#")]
        return [line.split(",")[-1].strip() for line in lines]


def run(command, check=True) -> subprocess.CompletedProcess:
    return subprocess.run([str(word) for word in command], check=check, capture_output=True, text=True)


def start_ms(name: str) -> int:
    extra = GOLDEN / f"{name}.args"
    words = extra.read_text().split() if extra.exists() else []
    return int(words[words.index("--start-ms") + 1]) if "--start-ms" in words else 0


def check_streams(probed: dict, tracks: dict[str, expect.Track]) -> None:
    codecs = sorted(stream["codec_name"] for stream in probed["streams"])
    wanted = sorted({"video": "h264", "audio": "opus"}[kind] for kind in tracks)
    if codecs != wanted:
        raise Refused(f"ffprobe sees streams {codecs}, the SDP has {wanted}")
    for stream in probed["streams"]:
        if stream["codec_name"] == "opus" and stream["sample_rate"] != "48000":
            raise Refused(f"Opus at {stream['sample_rate']} Hz")


def check_packets(kind: str, packets: list[dict], track: expect.Track) -> None:
    if len(packets) != len(track.frames):
        raise Refused(f"{kind}: {len(packets)} packets in the FLV, {len(track.frames)} in the recording")
    times = [frame.rtp_time for frame in track.frames]
    reordered = times != sorted(times)  # B-frames
    for number, (packet, frame) in enumerate(zip(packets, track.frames)):
        where = f"{kind} packet {number} at {packet['dts']} ms"
        if packet["data_hash"] != f"MD5:{frame.md5}":
            raise Refused(f"{where}: not the data of the recording")
        if ("K" in packet["flags"]) != (frame.key or frame.recovery_point):
            raise Refused(f"{where}: key flag {packet['flags']}, IDR {frame.key}")
        if packet["pts"] < packet["dts"] or (packet["pts"] > packet["dts"] and not reordered):
            raise Refused(f"{where}: pts {packet['pts']}")
        if number and packet["dts"] <= packets[number - 1]["dts"]:
            raise Refused(f"{where}: dts does not increase")


def check_headers(lines: list[str], tracks: dict[str, expect.Track]) -> None:
    """A sequence header right before each IDR whose SPS or PPS are new, and nowhere else; one for Opus, before its frames."""
    for line in lines:
        if "ERROR" in line:
            raise Refused(f"listing: {line}")
    wanted = []
    for picture in tracks["video"].pictures if "video" in tracks else []:
        if picture.is_idr and (not wanted or wanted[-1] != picture.parameter_sets):
            wanted.append(picture.parameter_sets)
    got = []
    for line, following in itertools.pairwise(lines):
        sets = re.search(r" AVC sequence header .* SPS ([0-9a-f]+) .*PPS ([0-9a-f]+)", line)
        if sets:
            got.append((bytes.fromhex(sets[1]), bytes.fromhex(sets[2])))
            if " key cts " not in following:
                raise Refused(f"listing: a sequence header before: {following}")
    if got != wanted:
        raise Refused(f"{len(got)} AVC sequence headers, the recording changes its parameter sets {len(wanted)} times")
    opus = [line for line in lines if " Opus " in line]
    starts = [number for number, line in enumerate(opus) if "sequence start" in line]
    if starts != ([0] if "audio" in tracks else []):
        raise Refused(f"Opus sequence starts at Opus tags {starts}")
    if any(" script " in line and int(line.split()[2]) for line in lines[1:]):
        raise Refused("metadata not at time 0: ffmpeg takes it for a text stream")


def rtp_elapsed_ms(track: expect.Track, rtp_time: int) -> float:
    return (rtp_time - track.frames[0].rtp_time) * 1000 / track.clock_rate


def check_clock(kind: str, packets: list[dict], track: expect.Track) -> None:
    """A track that nothing moves: each time is the first one plus what the RTP clock says."""
    for number, (packet, frame) in enumerate(zip(packets, track.frames)):
        elapsed_ms = rtp_elapsed_ms(track, frame.rtp_time)
        if frame.squeezed:
            continue
        if abs(packet["pts"] - packets[0]["pts"] - elapsed_ms) > CLOCK_TOLERANCE_MS:
            raise Refused(
                f"{kind} packet {number} at {packet['pts']} ms: the RTP clock says {elapsed_ms:.3f} ms after the first"
            )


def check_even(packets: list[dict]) -> None:
    """30 pictures a second, each shown when it is decoded."""
    for number, packet in enumerate(packets):
        elapsed_ms = number * 1000 / 30
        if abs(packet["pts"] - packets[0]["pts"] - elapsed_ms) > 2 * CLOCK_TOLERANCE_MS or packet["pts"] != packet["dts"]:
            raise Refused(f"video packet {number} at {packet['pts']} ms, not at {elapsed_ms:.1f} ms")


def check_sync(packets: dict[str, list[dict]], tracks: dict[str, expect.Track]) -> str:
    """Audio keeps its clock; video starts by arrival and then goes, step by small step, where the reports say."""
    video, audio = tracks["video"], tracks["audio"]
    first = {kind: track.arrivals[track.frames[0].rtp_time] for kind, track in tracks.items()}
    apart_ms = packets["video"][0]["pts"] - packets["audio"][0]["pts"]
    if abs(apart_ms - (first["video"] - first["audio"])) > ARRIVAL_TOLERANCE_MS:
        raise Refused(f"video starts {apart_ms} ms behind audio, arrival says {first['video'] - first['audio']}")
    if not (video.reports and audio.reports):
        check_clock("video", packets["video"], video)
        return "; A/V by arrival"

    both_known_ms = max(video.reports[0][0], audio.reports[0][0])
    (_, video_ntp, video_rtp), (_, audio_ntp, audio_rtp) = video.reports[0], audio.reports[0]

    def reported_ms(rtp_time: int) -> float:
        """FLV time of a picture by both reports, on the audio track's clock."""
        since_report_ms = (rtp_time - video_rtp) * 1000 / video.clock_rate
        between_reports_ms = (video_ntp - audio_ntp) * 1000 / 2**32
        return packets["audio"][0]["dts"] + rtp_elapsed_ms(audio, audio_rtp) + between_reports_ms + since_report_ms

    errors = [p["pts"] - reported_ms(f.rtp_time) for p, f in zip(packets["video"], video.frames)]
    could_move_ms = 0.0
    start_error = None
    for number in range(1, len(errors)):
        previous, frame = video.frames[number - 1], video.frames[number]
        step_ms = abs(frame.rtp_time - previous.rtp_time) * 1000 / video.clock_rate
        moved_ms = errors[number] - errors[number - 1]
        known = video.arrivals[frame.rtp_time] >= both_known_ms
        if abs(moved_ms) > CLOCK_TOLERANCE_MS + (step_ms * LARGEST_MOVE if known else 0):
            raise Refused(f"video packet {number} moves {moved_ms:.1f} ms against its clock")
        if known and start_error is None:
            start_error = errors[number - 1]
        if known:
            could_move_ms += step_ms * LARGEST_MOVE
            if abs(errors[number]) > abs(errors[number - 1]) + CLOCK_TOLERANCE_MS:
                raise Refused(f"video packet {number} moves away from where the sender reports say")
    allowed_ms = max(0.0, abs(start_error or 0.0) - could_move_ms) + REPORT_TOLERANCE_MS
    if abs(errors[-1]) > allowed_ms:
        raise Refused(f"video ends {errors[-1]:.1f} ms from where the sender reports say")
    return f"; A/V by sender reports ({errors[0]:+.0f} -> {errors[-1]:+.0f} ms)"


def source_pictures(name: str, track: expect.Track) -> list[str] | None:
    """The source MD5 of each forwarded picture, found by its slices in the recording the case is made from."""
    base = edit.EDITS[name][0] if name in edit.EDITS else name
    file = GOLDEN / f"{base}.pictures"
    if not file.exists():
        return None
    hashes = file.read_text().split()
    codecs = expect.rtpmap((GOLDEN / f"{base}.sdp").read_text())
    payload_type = codecs["H264"][0]
    datagrams = rtpdump.read(GOLDEN / f"{base}.rtpdump")
    video = [d for d in datagrams if not d.is_rtcp and d.payload_type == payload_type]
    whole = expect.pictures(expect.in_sequence(video))
    if len(whole) != len(hashes):
        raise Refused(f"{base}: {len(whole)} pictures recorded, {len(hashes)} in the source")

    def presented(pictures: list[expect.Picture]) -> list[expect.Picture]:
        return sorted(pictures, key=lambda picture: picture.rtp_time)

    by_slices = {picture.coded: md5 for picture, md5 in zip(presented(whole), hashes)}
    return [by_slices[picture.coded] for picture in presented(track.pictures)]


def slate_seconds(name: str) -> int:
    extra = GOLDEN / f"{name}.args"
    words = extra.read_text().split() if extra.exists() else []
    return int(words[words.index("--slate-seconds") + 1]) if "--slate-seconds" in words else 0


def confirm_slate(name: str, flv: Path, tools: Tools, seconds: int) -> str:
    """Black a second before and after the recording, all of it decoded without a message; sound without a gap."""
    tracks = expect.expect(rtpdump.read(GOLDEN / f"{name}.rtpdump"), (GOLDEN / f"{name}.sdp").read_text(), DROPPED_NAL_TYPES)
    probed = tools.probe(flv)
    packets = {kind: [p for p in probed["packets"] if p["codec_type"] == kind] for kind in tracks}
    check_packets("video", packets["video"][seconds:-seconds], tracks["video"])
    own = [frame.md5 for frame in tracks["audio"].frames]
    heard = [p["data_hash"].removeprefix("MD5:") for p in packets["audio"]]
    if [md5 for md5 in heard if md5 in own] != own:
        raise Refused("the sound is not that of the recording")
    # Where silence and sound meet, silence of less than 20 ms fills the rest.
    if sum(md5 not in own and md5 != SILENCE_MD5 for md5 in heard) > 4:
        raise Refused("sound that is neither the recording's nor silence")
    longest = max(after["dts"] - before["dts"] for before, after in itertools.pairwise(packets["audio"]))
    if longest > 21:
        raise Refused(f"no sound for {longest} ms")
    tools.decode(flv)
    decoded = tools.decoded_pictures(flv)
    black = hashlib.md5(bytes([16]) * (1280 * 720) + bytes([128]) * (1280 * 720 // 2)).hexdigest()
    if decoded[:seconds] != [black] * seconds or decoded[-seconds:] != [black] * seconds:
        raise Refused("the slate is not black")
    if len(decoded) != len(packets["video"]) or black in decoded[seconds:-seconds]:
        raise Refused(f"ffmpeg decodes {len(decoded)} pictures from {len(packets['video'])} packets")
    return f"{seconds} s of black, {len(tracks['video'].frames)} video, {seconds} s of black; decodes clean"


def confirm(name: str, flv: Path, tools: Tools) -> str:
    """Raises Refused, or returns what was confirmed in a few words."""
    if seconds := slate_seconds(name):
        return confirm_slate(name, flv, tools, seconds)
    sdp = (GOLDEN / f"{name}.sdp").read_text()
    tracks = expect.expect(rtpdump.read(GOLDEN / f"{name}.rtpdump"), sdp, DROPPED_NAL_TYPES)
    probed = tools.probe(flv)
    check_streams(probed, tracks)
    check_headers(tools.listing(flv).splitlines(), tracks)
    packets = {kind: [p for p in probed["packets"] if p["codec_type"] == kind] for kind in tracks}
    for kind, track in tracks.items():
        check_packets(kind, packets[kind], track)
    alone_or_master = "audio" if "audio" in tracks else "video"
    if name in CLOCK_IS_SET:
        check_even(packets["video"])
    else:
        check_clock(alone_or_master, packets[alone_or_master], tracks[alone_or_master])
    sync = check_sync(packets, tracks) if len(tracks) == 2 else ""
    earliest = min(p[0]["dts"] for p in packets.values()) - start_ms(name)
    if not 0 <= earliest <= ARRIVAL_TOLERANCE_MS:
        raise Refused(f"the first tag is {earliest} ms behind the start")
    tools.decode(flv)
    counted = ", ".join(f"{len(track.frames)} {kind}" for kind, track in tracks.items())
    if "video" not in tracks:
        return counted
    decoded = tools.decoded_pictures(flv)
    if len(decoded) != len(tracks["video"].frames):
        raise Refused(f"ffmpeg decodes {len(decoded)} pictures from {len(tracks['video'].frames)} packets")
    wanted = source_pictures(name, tracks["video"])
    if wanted is None:
        return f"{counted}; decodes clean{sync}"
    if decoded != wanted:
        at = next(i for i, pair in enumerate(zip(decoded, wanted)) if pair[0] != pair[1])
        raise Refused(f"decoded picture {at} is not the source's")
    return f"{counted}; decoded pictures = source{sync}"


def provenance(rows: list[tuple[str, str, str]], tools: Tools) -> str:
    lines = [
        "# Where the golden files come from",
        "",
        "Written by `bless.sh`; a result stands here only because the tools named agreed with it.",
        "Recordings: `../record/record.sh` and `../record/chromium.py`; edits: `../record/edit.py`.",
        "",
        f"Confirmed by {tools.version} (packets, flags, data MD5, times; clean decode with the ffmpeg of the",
        "same build) against `../record/expect.py` (an offline depacketiser, from the recording alone);",
        "`.txt` listings by scuffle-flv 0.2.2.",
        "",
        "| case | recording or edit | confirmed |",
        "|---|---|---|",
    ]
    lines += [f"| {name} | {source} | {result} |" for name, source, result in rows]
    return "\n".join(lines) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for tool in ("rtp2flv", "listing", "ffmpeg", "ffprobe"):
        parser.add_argument(f"--{tool}", required=True)
    parser.add_argument("--check", action="store_true", help="confirm what is stored, write nothing")
    args = parser.parse_args()

    names = sorted(path.stem for path in GOLDEN.glob("*.rtpdump"))
    tools = Tools(args)
    rows, accepted, refused = [], {}, 0
    with tempfile.TemporaryDirectory() as staging:
        for name in names:
            try:
                flv = GOLDEN / f"{name}.flv" if args.check else Path(staging) / f"{name}.flv"
                if not args.check:
                    tools.mux(name, flv)
                result = confirm(name, flv, tools)
                accepted[name] = (flv.read_bytes(), tools.listing(flv))
            except Refused as reason:
                refused += 1
                print(f"refused {name}: {reason}")
                continue
            source = RECORDED.get(name)
            if source is None:
                base, function = edit.EDITS[name]
                source = f"`{base}`: {function.__doc__}"
            rows.append((name, source, result))
            print(f"agreed  {name}: {result}")
    if refused:
        print(f"bless: {refused} of {len(names)} refused; nothing written", file=sys.stderr)
        return 1
    if not args.check:
        for name, (flv, text) in accepted.items():
            (GOLDEN / f"{name}.flv").write_bytes(flv)
            (GOLDEN / f"{name}.txt").write_text(text)
        (GOLDEN / "PROVENANCE.md").write_text(provenance(rows, tools))
    print(f"bless: {len(names)} results {'confirmed' if args.check else 'accepted'}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Refused as reason:
        sys.exit(f"bless: {reason}")
