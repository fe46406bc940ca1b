#!/usr/bin/env python3
"""Records the RTP of a real Chromium, after decryption, as rtpdump + SDP.

    chromium.py out.rtpdump out.sdp [--seconds 4] [--dtx pause.wav] [--rescale-ms 1500]

Serves a page on loopback, starts headless Chromium on it with fake devices, and
answers its offer with aiortc, whose SRTP context is tapped: each datagram that
it decrypts is written exactly as decrypted (header extensions, padding and
all), RTCP included. `--dtx` plays the WAV file into the fake microphone and
negotiates Opus DTX. `--rescale-ms` halves the picture's size that long after
the connection stands, as a browser does under congestion. The SDP is aiortc's
answer without addresses, ICE and DTLS lines.

Needs `pip install aiortc==1.16.0 aiohttp` and Debian's chromium.
"""

import argparse
import asyncio
import re
import shutil
import sys
import tempfile
import time

from aiohttp import web
from aiortc import RTCPeerConnection, RTCSessionDescription, rtcdtlstransport
from aiortc.contrib.media import MediaBlackhole

import rtpdump

PAGE = """<!doctype html><title>recording</title><script type="module">
const stream = await navigator.mediaDevices.getUserMedia({
  video: { width: 640, height: 360, frameRate: 30 },
  audio: { echoCancellation: false, noiseSuppression: false, autoGainControl: false },
});
const pc = new RTCPeerConnection();
for (const track of stream.getTracks()) {
  const transceiver = pc.addTransceiver(track, { direction: 'sendonly', streams: [stream] });
  const codecs = RTCRtpSender.getCapabilities(track.kind).codecs;
  const wanted = track.kind === 'audio'
    ? codecs.filter((c) => c.mimeType === 'audio/opus')
    : codecs.filter((c) => /42e01f/.test(c.sdpFmtpLine) && /packetization-mode=1/.test(c.sdpFmtpLine));
  transceiver.setCodecPreferences(wanted);
  if (track.kind === 'video') {
    const parameters = transceiver.sender.getParameters();
    parameters.degradationPreference = 'maintain-resolution';
    parameters.encodings[0].maxBitrate = 250000;
    await transceiver.sender.setParameters(parameters);
  }
}
await pc.setLocalDescription();
await new Promise((done) => { pc.onicegatheringstatechange = () => pc.iceGatheringState === 'complete' && done(); });
const reply = await fetch('/offer', { method: 'POST', body: pc.localDescription.sdp });
await pc.setRemoteDescription({ type: 'answer', sdp: await reply.text() });
const rescaleMs = Number(new URLSearchParams(location.search).get('rescale_ms'));
if (rescaleMs) {
  await new Promise((done) => { pc.onconnectionstatechange = () => pc.connectionState === 'connected' && done(); });
  await new Promise((done) => setTimeout(done, rescaleMs));
  const sender = pc.getSenders().find((s) => s.track.kind === 'video');
  const parameters = sender.getParameters();
  parameters.encodings[0].scaleResolutionDownBy = 2;
  await sender.setParameters(parameters);
}
</script>"""

# The project's browser tests start Chromium the same way.
CHROMIUM_FLAGS = [
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream=fps=30",
    "--autoplay-policy=no-user-gesture-required",
]  # fmt: skip

PRIVATE_LINES = re.compile(r"^a=(ice|candidate|end-of-candidates|fingerprint|setup|rtcp:|msid|group)", re.MULTILINE)


class Tap:
    """Stands before aiortc's inbound SRTP session and keeps what comes out of it."""

    def __init__(self, session, received):
        self._session = session
        self._received = received

    def unprotect(self, data):
        plain = self._session.unprotect(data)
        self._received.append((time.monotonic(), plain))
        return plain

    def unprotect_rtcp(self, data):
        plain = self._session.unprotect_rtcp(data)
        self._received.append((time.monotonic(), plain))
        return plain


def tap_every_transport(received):
    original = rtcdtlstransport.RTCDtlsTransport._setup_srtp

    def setup(self):
        original(self)
        self._rx_srtp = Tap(self._rx_srtp, received)

    rtcdtlstransport.RTCDtlsTransport._setup_srtp = setup


def public_sdp(sdp: str) -> str:
    """The media description alone: nothing of the session's keys and addresses."""
    lines = []
    for line in sdp.splitlines():
        if PRIVATE_LINES.match(line):
            continue
        if line.startswith("o="):
            line = "o=- 0 0 IN IP4 127.0.0.1"
        if line.startswith("c="):
            line = "c=IN IP4 127.0.0.1"
        if line.startswith("m="):
            line = re.sub(r"^(m=\w+) \d+", r"\1 9", line)
        lines.append(line)
    return "\r\n".join(lines) + "\r\n"


async def record(args) -> int:
    received = []
    tap_every_transport(received)
    peers = []
    answer_sdp = asyncio.get_running_loop().create_future()

    async def offer(request):
        peer = RTCPeerConnection()
        peers.append(peer)
        sink = MediaBlackhole()
        peer.on("track", lambda track: sink.addTrack(track))
        await peer.setRemoteDescription(RTCSessionDescription(await request.text(), "offer"))
        await peer.setLocalDescription(await peer.createAnswer())
        await sink.start()
        sdp = peer.localDescription.sdp
        if args.dtx:
            opus = re.search(r"^a=rtpmap:(\d+) opus/48000/2\r\n", sdp, re.MULTILINE)
            sdp = re.sub(rf"^a=fmtp:{opus[1]} .*\r\n", "", sdp, flags=re.MULTILINE)
            sdp = sdp.replace(opus[0], f"{opus[0]}a=fmtp:{opus[1]} minptime=10;useinbandfec=1;usedtx=1\r\n")
        answer_sdp.set_result(sdp)
        return web.Response(text=sdp, content_type="application/sdp")

    app = web.Application()
    app.router.add_get("/", lambda _: web.Response(text=PAGE, content_type="text/html"))
    app.router.add_post("/offer", offer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "localhost", 0)
    await site.start()
    port = site._server.sockets[0].getsockname()[1]

    profile = tempfile.mkdtemp(prefix="recording-")
    flags = CHROMIUM_FLAGS + [f"--user-data-dir={profile}"]
    if args.dtx:
        flags.append(f"--use-file-for-fake-audio-capture={args.dtx}%noloop")
    browser = await asyncio.create_subprocess_exec(
        "chromium", *flags, f"http://localhost:{port}/?rescale_ms={args.rescale_ms}",
        stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    try:
        sdp = await asyncio.wait_for(answer_sdp, 30)
        await asyncio.sleep(args.seconds + 0.5)
    finally:
        browser.terminate()
        await browser.wait()
        for peer in peers:
            await peer.close()
        await runner.cleanup()
        shutil.rmtree(profile, ignore_errors=True)

    start = received[0][0]
    datagrams = [rtpdump.Datagram(int((at - start) * 1000), data) for at, data in received if at - start < args.seconds]
    rtpdump.write(args.out_rtpdump, datagrams)
    with open(args.out_sdp, "w", newline="") as file:
        file.write(public_sdp(sdp))
    print(f"chromium: {args.out_rtpdump}: {len(datagrams)} datagrams", file=sys.stderr)
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out_rtpdump")
    parser.add_argument("out_sdp")
    parser.add_argument("--seconds", type=float, default=4)
    parser.add_argument("--dtx", metavar="WAV", help="sound of the fake microphone; negotiates Opus DTX")
    parser.add_argument("--rescale-ms", type=int, default=0)
    return asyncio.run(record(parser.parse_args()))


if __name__ == "__main__":
    sys.exit(main())
