"""WHIP to RTMP with GStreamer's webrtcbin: what somebody would write who has GStreamer instead of this daemon.

    gstreamer_whip.py HOST:PORT rtmp://HOST:PORT/APP [--without-audio]

H.264 passes through. GStreamer's flvmux knows no Opus (its Enhanced RTMP muxer is newer than Debian 12), so the sound is
decoded and encoded as AAC, or left away. One process and one pipeline for each guest; Python does the signalling only.
"""

import hashlib
import re
import ssl
import subprocess
import sys
import threading
import urllib.parse

import gi
import whip

gi.require_version("Gst", "1.0")
gi.require_version("GstSdp", "1.0")
gi.require_version("GstWebRTC", "1.0")
from gi.repository import GLib, Gst, GstSdp, GstWebRTC  # noqa: E402

GATHERING_SECONDS = 5
BRANCHES = {
    "H264": "rtph264depay ! h264parse ! video/x-h264,stream-format=avc,alignment=au ! queue",
    "OPUS": "rtpopusdepay ! opusdec ! audioconvert ! audioresample ! voaacenc ! aacparse ! queue",
}


class Guest:
    """One webrtcbin, whose tracks meet again in a flvmux."""

    def __init__(self, location, branches, certificate):
        self.branches = branches
        self.certificate = certificate
        self.gathered = threading.Event()
        # In one piece, rtmp2sink would take no address whose path is one name.
        url = urllib.parse.urlsplit(location)
        application, _, stream = url.path[1:].partition("/")
        self.pipeline = Gst.parse_launch(
            f"webrtcbin name=rtc bundle-policy=max-bundle "
            f"flvmux name=mux streamable=true ! rtmp2sink sync=false "
            f'host={url.hostname} port={url.port} application={application} stream="{stream}"'
        )
        self.rtc = self.pipeline.get_by_name("rtc")
        self.rtc.connect("deep-element-added", self.on_element)
        self.rtc.connect("pad-added", self.on_pad)
        self.rtc.connect("notify::ice-gathering-state", self.on_gathering)
        # What the muxer should wait for is asked of it before anything comes.
        self.sinks = {name: self.pipeline.get_by_name("mux").request_pad_simple(pad) for name, pad in branches.items()}
        bus = self.pipeline.get_bus()
        bus.add_signal_watch()
        bus.connect("message::error", self.on_error)
        self.pipeline.set_state(Gst.State.PLAYING)

    def on_error(self, _, message):
        error, where = message.parse_error()
        print(f"{self.pipeline.name}: {error.message} ({where})", file=sys.stderr, flush=True)

    def on_element(self, _, __, element):
        if element.__gtype__.name == "GstDtlsDec":
            element.set_property("pem", self.certificate)

    def on_gathering(self, *_):
        if self.rtc.get_property("ice-gathering-state") == GstWebRTC.WebRTCICEGatheringState.COMPLETE:
            self.gathered.set()

    def on_pad(self, _, pad):
        if pad.direction != Gst.PadDirection.SRC:
            return
        encoding = pad.get_current_caps().get_structure(0).get_string("encoding-name")
        branch = Gst.parse_bin_from_description(BRANCHES[encoding] if encoding in self.branches else "fakesink", True)
        self.pipeline.add(branch)
        if encoding in self.branches:
            branch.get_static_pad("src").link(self.sinks[encoding])
        branch.sync_state_with_parent()
        pad.link(branch.get_static_pad("sink"))

    def asked(self, action, description):
        """A description is set or made in the background: waits for the reply."""
        promise = Gst.Promise.new()
        self.rtc.emit(action, description, promise)
        promise.wait()
        return promise.get_reply()

    def answer(self, offer):
        _, message = GstSdp.SDPMessage.new_from_text(offer)
        self.asked("set-remote-description", GstWebRTC.WebRTCSessionDescription.new(GstWebRTC.WebRTCSDPType.OFFER, message))
        # The reply has to outlive what is read from it: Python does not know that it owns the answer.
        reply = self.asked("create-answer", None)
        self.asked("set-local-description", reply.get_value("answer"))
        self.gathered.wait(GATHERING_SECONDS)
        answer = self.rtc.get_property("local-description").sdp.as_text()
        answer = re.sub("a=fingerprint:.*", f"a=fingerprint:sha-256 {fingerprint(self.certificate)}", answer)
        # webrtcbin leaves the profile out, which means another one than was offered (RFC 6184, 8.1).
        profile = re.search("profile-level-id=[0-9a-f]+", offer).group()
        return answer.replace("packetization-mode=1", f"packetization-mode=1;{profile}")

    def end(self):
        self.pipeline.set_state(Gst.State.NULL)


def ecdsa_certificate():
    """The guest's stack takes no RSA certificate, which is what GStreamer would make for itself."""
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", "-"]
    command = ["openssl", "req", "-x509", *key, "-subj", "/CN=peer", "-days", "30"]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True).stdout


def fingerprint(certificate):
    """RFC 8122, 5. The one in webrtcbin's answer is that of the certificate which it would have made."""
    begin = certificate.index("-----BEGIN CERTIFICATE")
    return hashlib.sha256(ssl.PEM_cert_to_DER_cert(certificate[begin:])).digest().hex(":").upper()


def main():
    listen, output = sys.argv[1:3]
    branches = {"H264": "video", "OPUS": "audio"}
    if "--without-audio" in sys.argv:
        del branches["OPUS"]
    certificate = ecdsa_certificate()
    Gst.init(None)
    threading.Thread(target=GLib.MainLoop().run, daemon=True).start()
    guests = {}

    def publish(name, offer):
        guests[name] = Guest(f"{output}/{name}", branches, certificate)
        return guests[name].answer(offer)

    whip.serve(listen, publish, lambda name: guests.pop(name).end())


main()
