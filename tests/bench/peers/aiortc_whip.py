"""WHIP to RTMP with aiortc and FFmpeg's libraries (PyAV): what somebody would write in Python instead of this daemon.

    aiortc_whip.py HOST:PORT rtmp://HOST:PORT/APP

aiortc hands out decoded pictures and sound only. Its MediaRecorder encodes both again: x264, here with its fastest preset,
and AAC.
"""

import sys

from aiohttp import web
from aiortc import RTCPeerConnection, RTCSessionDescription
from aiortc.contrib.media import MediaRecorder

X264_OPTIONS = {"preset": "ultrafast", "tune": "zerolatency"}


class Whip:
    """POST /whip/NAME, DELETE /whip/NAME."""

    def __init__(self, output):
        self.output = output
        self.guests = {}

    async def publish(self, request):
        name = request.match_info["name"]
        connection = RTCPeerConnection()
        recorder = MediaRecorder(f"{self.output}/{name}", format="flv")

        @connection.on("track")
        def on_track(track):
            recorder.addTrack(track)
            if track.kind == "video":
                # MediaRecorder offers no way to choose the preset.
                recorder._MediaRecorder__tracks[track].stream.options = X264_OPTIONS

        await connection.setRemoteDescription(RTCSessionDescription(await request.text(), "offer"))
        await connection.setLocalDescription(await connection.createAnswer())
        await recorder.start()
        self.guests[name] = connection, recorder
        return web.Response(
            status=201,
            text=connection.localDescription.sdp,
            content_type="application/sdp",
            headers={"Location": request.path},
        )

    async def leave(self, request):
        guest = self.guests.pop(request.match_info["name"], None)
        if guest:
            connection, recorder = guest
            await recorder.stop()
            await connection.close()
        return web.Response()


def main():
    listen, output = sys.argv[1:3]
    host, port = listen.rsplit(":", 1)
    whip = Whip(output)
    application = web.Application()
    application.router.add_post("/whip/{name}", whip.publish)
    application.router.add_delete("/whip/{name}", whip.leave)
    web.run_app(application, host=host, port=int(port), print=None)


main()
