#!/usr/bin/env python3
"""The mixer's eye: one GStreamer pipeline that reads a publication from an RTMP server and ends when that does.

    mixer_reader.py rtmp://HOST:PORT/APP/STREAM

rtmp2src asks the server to play the stream, before or after somebody publishes it; what it makes of the end of the
publication (StreamEOF) is EOS. Prints a line for each thing that happens, with the monotonic clock's time:

    picture SECONDS BRIGHTEST DIGEST    decoded; the brightest of 16x16 grey points (black: 0), and what tells two apart
    sound SECONDS BYTES                 an Opus packet, as it came; one of silence has 3 bytes
    eos SECONDS
    error SECONDS TEXT                  also of a warning: nothing is to be said about this stream

and ends after eos or error. flvdemux of GStreamer 1.22 does not know Opus in FLV and ends the whole pipeline at its
first packet ("unsupported audio codec tag 9"), so the sound is counted and taken out before it.
"""

import sys
import time
import zlib

import gi

gi.require_version("Gst", "1.0")
from gi.repository import GLib, Gst  # noqa: E402 the version has to be said first

FLV_AUDIO = 8
# Tag header of 11 bytes, the sound's own header of 5 ('Opus' in enhanced RTMP), the tag's length again behind it.
AROUND_OPUS = 11 + 5 + 4
SIDE = 16
# One thread: several would hold pictures back until more come, and a slate brings one a second.
PIPELINE = (
    "rtmp2src name=server ! flvdemux ! h264parse ! avdec_h264 max-threads=1 ! videoconvertscale"
    f" ! video/x-raw,format=GRAY8,width={SIDE},height={SIDE} ! appsink name=screen sync=false emit-signals=true"
)


def say(what, *facts):
    print(what, f"{time.monotonic():.6f}", *facts, flush=True)


def take_out_sound(_pad, info):
    """rtmp2src gives one FLV tag a buffer."""
    tag = info.get_buffer()
    if tag.extract_dup(0, 1) != bytes([FLV_AUDIO]):
        return Gst.PadProbeReturn.OK
    say("sound", tag.get_size() - AROUND_OPUS)
    return Gst.PadProbeReturn.DROP


def show(screen):
    picture = screen.emit("pull-sample").get_buffer().extract_dup(0, SIDE * SIDE)
    say("picture", max(picture), zlib.crc32(picture))
    return Gst.FlowReturn.OK


def main():
    Gst.init(None)
    pipeline = Gst.parse_launch(PIPELINE)
    server = pipeline.get_by_name("server")
    server.set_property("location", sys.argv[1])
    server.get_static_pad("src").add_probe(Gst.PadProbeType.BUFFER, take_out_sound)
    pipeline.get_by_name("screen").connect("new-sample", show)
    loop = GLib.MainLoop()

    def hear(_bus, message):
        if message.type == Gst.MessageType.EOS:
            say("eos")
        elif message.type == Gst.MessageType.ERROR:
            say("error", message.parse_error()[0].message)
        elif message.type == Gst.MessageType.WARNING:
            return say("error", message.parse_warning()[0].message)
        else:
            return None
        return loop.quit()

    bus = pipeline.get_bus()
    bus.add_signal_watch()
    bus.connect("message", hear)
    pipeline.set_state(Gst.State.PLAYING)
    loop.run()
    pipeline.set_state(Gst.State.NULL)


main()
