"""WHIP to RTMP with GStreamer: what somebody would write who has GStreamer's webrtcbin instead of this daemon.

    gstreamer_whip.py HTTP_PORT rtmp://HOST:PORT/APP

H.264 passes through; FLV in GStreamer carries no Opus, so the sound is decoded and encoded as AAC.
"""

import http.server
import sys
import threading

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstSdp", "1.0")
gi.require_version("GstWebRTC", "1.0")
from gi.repository import GLib, Gst, GstSdp, GstWebRTC  # noqa: E402

Gst.init(None)
PORT, OUTPUT = int(sys.argv[1]), sys.argv[2]
PIPELINES = {}


class Guest:
    """One webrtcbin whose tracks meet again in a flvmux."""

    def __init__(self, name):
        self.gathered = threading.Event()
        self.pipeline = Gst.parse_launch(
            f"webrtcbin name=rtc bundle-policy=max-bundle latency=100 "
            f"flvmux name=mux streamable=true ! rtmp2sink location={OUTPUT}/{name}"
        )
        self.rtc = self.pipeline.get_by_name("rtc")
        self.rtc.connect("pad-added", self.on_pad)
        self.rtc.connect("notify::ice-gathering-state", self.on_gathering)
        self.pipeline.set_state(Gst.State.PLAYING)

    def on_gathering(self, *_):
        if self.rtc.get_property("ice-gathering-state") == GstWebRTC.WebRTCICEGatheringState.COMPLETE:
            self.gathered.set()

    def on_pad(self, _, pad):
        encoding = pad.get_current_caps().get_structure(0).get_string("encoding-name")
        if encoding == "H264":
            chain = "rtph264depay ! h264parse config-interval=-1 ! video/x-h264,stream-format=avc,alignment=au ! queue"
        elif encoding == "OPUS":
            chain = "rtpopusdepay ! opusdec ! audioconvert ! audioresample ! avenc_aac ! aacparse ! queue"
        else:
            return
        branch = Gst.parse_bin_from_description(chain, True)
        self.pipeline.add(branch)
        branch.sync_state_with_parent()
        branch.link(self.pipeline.get_by_name("mux"))
        pad.link(branch.get_static_pad("sink"))

    def answer(self, offer):
        _, message = GstSdp.SDPMessage.new_from_text(offer)
        description = GstWebRTC.WebRTCSessionDescription.new(GstWebRTC.WebRTCSDPType.OFFER, message)
        promise = Gst.Promise.new()
        self.rtc.emit("set-remote-description", description, promise)
        promise.wait()
        promise = Gst.Promise.new()
        self.rtc.emit("create-answer", None, promise)
        promise.wait()
        answer = promise.get_reply().get_value("answer")
        promise = Gst.Promise.new()
        self.rtc.emit("set-local-description", answer, promise)
        promise.wait()
        self.gathered.wait(5)
        return self.rtc.get_property("local-description").sdp.as_text()


class Whip(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        name = self.path.rsplit("/", 1)[-1]
        offer = self.rfile.read(int(self.headers["Content-Length"])).decode()
        guest = PIPELINES[name] = Guest(name)
        body = guest.answer(offer).encode()
        self.send_response(201)
        self.send_header("Content-Type", "application/sdp")
        self.send_header("Location", f"/whip/{name}/session")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_DELETE(self):
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


loop = GLib.MainLoop()
threading.Thread(target=loop.run, daemon=True).start()
http.server.ThreadingHTTPServer(("127.0.0.1", PORT), Whip).serve_forever()
