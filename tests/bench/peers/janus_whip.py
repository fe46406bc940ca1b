"""WHIP to RTMP with Janus and FFmpeg: a general WebRTC server that forwards plain RTP, and one ffmpeg for each guest.

    janus_whip.py HOST:PORT rtmp://HOST:PORT/APP --janus PREFIX --ffmpeg PROGRAM --work DIR

The video room forwards each guest's RTP to two local ports, from which ffmpeg (8 or newer, for Opus in FLV) copies H.264 and
Opus into RTMP: nothing is decoded. This program starts both and speaks their languages; it is idle while media flows.
"""

import argparse
import itertools
import json
import pathlib
import re
import subprocess
import sys
import threading
import time
import urllib.request

import whip

PLUGIN = "janus.plugin.videoroom"
ROOM = 1234
START_SECONDS = 10
API_PORT = 8088
VIDEO_PT, AUDIO_PT = 108, 111
RTP_PORT = 20000
# The kind of a media section, and its identification.
MID = re.compile(r"^m=(\w+).*\n(?:[^m].*\n)*?a=mid:(\S+)", re.MULTILINE)
SDP = """v=0
o=- 0 0 IN IP4 127.0.0.1
s=-
c=IN IP4 127.0.0.1
t=0 0
m=video {video} RTP/AVP {video_pt}
a=rtpmap:{video_pt} H264/90000
a=fmtp:{video_pt} packetization-mode=1
m=audio {audio} RTP/AVP {audio_pt}
a=rtpmap:{audio_pt} opus/48000/2
"""


class Janus:
    """The server and its HTTP API."""

    def __init__(self, prefix, work, address):
        self.url = f"http://127.0.0.1:{API_PORT}/janus"
        self.transactions = itertools.count(1)
        library = next(pathlib.Path(prefix).glob("usr/lib/*/janus"))
        (work / "janus.jcfg").write_text(
            f'general: {{ plugins_folder = "{library}/plugins"; transports_folder = "{library}/transports";\n'
            f'  events_folder = "{work}"; loggers_folder = "{work}"; configs_folder = "{work}"; session_timeout = 0 }}\n'
            'media: { rtp_port_range = "30000-39999" }\n'
            f'nat: {{ ice_enforce_list = "{address}"; full_trickle = false }}\n'
            'plugins: { disable = "libjanus_audiobridge.so,libjanus_duktape.so,libjanus_echotest.so,libjanus_lua.so,'
            "libjanus_nosip.so,libjanus_recordplay.so,libjanus_sip.so,libjanus_streaming.so,libjanus_textroom.so,"
            'libjanus_videocall.so,libjanus_voicemail.so" }\n'
            'transports: { disable = "libjanus_mqtt.so,libjanus_nanomsg.so,libjanus_pfunix.so,libjanus_rabbitmq.so,'
            'libjanus_websockets.so" }\n'
        )
        (work / "janus.transport.http.jcfg").write_text(
            f'general: {{ json = "plain"; http = true; port = {API_PORT}; ip = "127.0.0.1"; https = false }}\n'
        )
        (work / "janus.plugin.videoroom.jcfg").write_text(
            f"room-{ROOM}: {{ publishers = 100; videocodec = \"h264\"; audiocodec = \"opus\"; bitrate = 0;\n"
            "  h264_profile = \"42e01f\" }\n"
        )
        subprocess.Popen([f"{prefix}/usr/bin/janus", "--configs-folder", work], stdout=sys.stderr)
        for _ in range(START_SECONDS * 10):
            try:
                self.session = self.call("", {"janus": "create"})["data"]["id"]
                return
            except OSError:
                time.sleep(0.1)
        raise SystemExit("janus did not come up")

    def call(self, path, message):
        body = json.dumps({"transaction": str(next(self.transactions)), **message}).encode()
        request = urllib.request.Request(self.url + path, body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request) as response:
            return json.load(response)

    def events(self):
        """What happened since, oldest first; waits for something to happen."""
        with urllib.request.urlopen(f"{self.url}/{self.session}?maxev=10") as response:
            events = json.load(response)
        return events if isinstance(events, list) else [events]

    def publish(self, name, offer):
        """A new publisher in the room: its answer and its id."""
        handle = self.call(f"/{self.session}", {"janus": "attach", "plugin": PLUGIN})["data"]["id"]
        body = {"request": "joinandconfigure", "ptype": "publisher", "room": ROOM, "display": name}
        jsep = {"type": "offer", "sdp": offer}
        self.call(f"/{self.session}/{handle}", {"janus": "message", "body": body, "jsep": jsep})
        while True:
            for event in self.events():
                data = event.get("plugindata", {}).get("data", {})
                if event.get("sender") == handle and "error" in data:
                    raise SystemExit(f"janus: {data}")
                if event.get("sender") == handle and "jsep" in event:
                    return event["jsep"]["sdp"], data["id"], handle

    def forward(self, handle, publisher, mids, ports):
        body = {"request": "rtp_forward", "room": ROOM, "publisher_id": publisher, "host": "127.0.0.1", "host_family": "ipv4"}
        streams = [
            {"mid": mids["video"], "port": ports["video"], "pt": VIDEO_PT},
            {"mid": mids["audio"], "port": ports["audio"], "pt": AUDIO_PT},
        ]
        return self.call(f"/{self.session}/{handle}", {"janus": "message", "body": {**body, "streams": streams}})


class Bridge:
    """The room, and an ffmpeg for each guest; a guest stays until the program ends."""

    def __init__(self, janus, arguments):
        self.janus = janus
        self.arguments = arguments
        # FFmpeg takes the port after each for RTCP.
        self.ports = itertools.count(RTP_PORT, 2)
        self.one_at_a_time = threading.Lock()

    def publish(self, name, offer):
        with self.one_at_a_time:
            answer, publisher, handle = self.janus.publish(name, offer)
            ports = {"video": next(self.ports), "audio": next(self.ports)}
            sdp = self.arguments.work / f"{name}.sdp"
            sdp.write_text(SDP.format(video_pt=VIDEO_PT, audio_pt=AUDIO_PT, **ports))
            reading = ["-protocol_whitelist", "file,udp,rtp", "-fflags", "nobuffer", "-i", sdp]
            writing = ["-c", "copy", "-f", "flv", f"{self.arguments.output}/{name}"]
            ffmpeg = [self.arguments.ffmpeg, "-nostdin", "-loglevel", "warning"]
            subprocess.Popen(ffmpeg + reading + writing, stdout=sys.stderr)
            self.janus.forward(handle, publisher, dict(MID.findall(offer)), ports)
        return answer


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("listen")
    parser.add_argument("output")
    for option, kind in [("--janus", pathlib.Path), ("--ffmpeg", str), ("--work", pathlib.Path)]:
        parser.add_argument(option, type=kind, required=True)
    arguments = parser.parse_args()
    janus = Janus(arguments.janus, arguments.work, arguments.listen.rsplit(":", 1)[0])
    whip.serve(arguments.listen, Bridge(janus, arguments).publish, lambda name: None)


main()
