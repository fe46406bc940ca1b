"""WHIP to RTMP with aiortc and FFmpeg's libraries (PyAV): what somebody would write in Python instead of this daemon.

    aiortc_whip.py HTTP_PORT rtmp://HOST:PORT/APP

aiortc hands out decoded pictures and sound only, so both are encoded again: x264's fastest preset, and AAC.
"""

import asyncio
import sys

from aiohttp import web
from aiortc import RTCPeerConnection, RTCSessionDescription
from aiortc.contrib.media import MediaRecorder

PORT, OUTPUT = int(sys.argv[1]), sys.argv[2]
GUESTS = {}


async def publish(request):
    name = request.match_info["name"]
    connection = RTCPeerConnection()
    recorder = MediaRecorder(f"{OUTPUT}/{name}", format="flv")

    @connection.on("track")
    def on_track(track):
        recorder.addTrack(track)
        if track.kind == "video":
            stream = recorder._MediaRecorder__tracks[track].stream
            stream.options = {"preset": "ultrafast", "tune": "zerolatency"}

    await connection.setRemoteDescription(RTCSessionDescription(await request.text(), "offer"))
    await connection.setLocalDescription(await connection.createAnswer())
    await recorder.start()
    GUESTS[name] = connection, recorder
    return web.Response(
        status=201,
        text=connection.localDescription.sdp,
        content_type="application/sdp",
        headers={"Location": f"/whip/{name}/session"},
    )


async def leave(request):
    return web.Response(status=200)


application = web.Application()
application.router.add_post("/whip/{name}", publish)
application.router.add_delete("/whip/{name}/session", leave)
web.run_app(application, host="127.0.0.1", port=PORT, print=None)
