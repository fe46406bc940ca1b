// What a connection offers: the tracks, the codecs that the production can use, the candidates.

/** Longest wait for ICE candidates; host candidates are there within milliseconds. */
const GATHER_MS = 1500;

const H264_ORDER = ["42e01f", "42001f"];

/**
 * Codecs for setCodecPreferences: H.264 with packetization-mode 1, constrained baseline first, and retransmission.
 * Null when the browser cannot say; empty when it cannot send H.264.
 */
export function h264Codecs() {
  const capabilities = globalThis.RTCRtpSender?.getCapabilities?.("video");
  if (!capabilities) return null;
  const profile = (codec) => /profile-level-id=([0-9a-f]{6})/i.exec(codec.sdpFmtpLine ?? "")?.[1].toLowerCase() ?? "";
  const rank = (codec) => {
    const place = H264_ORDER.indexOf(profile(codec));
    return place < 0 ? H264_ORDER.length : place;
  };
  const h264 = capabilities.codecs
    .filter((c) => c.mimeType.toLowerCase() === "video/h264" && /packetization-mode=1/.test(c.sdpFmtpLine ?? ""))
    .sort((a, b) => rank(a) - rank(b));
  if (h264.length === 0) return [];
  return [...h264, ...capabilities.codecs.filter((c) => c.mimeType.toLowerCase() === "video/rtx")];
}

/** Whether the tracks of `pc` can be sent as they should. */
export function offersH264(pc) {
  const video = pc.getTransceivers().some((transceiver) => transceiver.receiver.track.kind === "video");
  return !video || /a=rtpmap:\d+ H264\/90000/i.test(pc.localDescription.sdp);
}

/** Sends the tracks of `stream`, video with at most `maxBitrate` bit/s. */
export async function addTracks(pc, stream, maxBitrate) {
  for (const track of [...stream.getAudioTracks(), ...stream.getVideoTracks()]) {
    const video = track.kind === "video";
    const transceiver = pc.addTransceiver(track, {
      direction: "sendonly",
      streams: [stream],
      sendEncodings: video ? [{ maxBitrate, maxFramerate: 30 }] : undefined,
    });
    if (!video) continue;
    const codecs = h264Codecs();
    if (codecs?.length) transceiver.setCodecPreferences?.(codecs);
    // Full size from the first frame; under congestion the frame rate gives way. Without it Chromium climbs from 320x180
    // for twelve seconds, with a new picture size at each step.
    try {
      const parameters = transceiver.sender.getParameters();
      parameters.degradationPreference = "maintain-resolution";
      await transceiver.sender.setParameters(parameters);
    } catch {
      // Firefox before 138 does not know it.
    }
  }
}

/**
 * The offer with retransmission of lost sound in it. Browsers send again what is asked for, but offer it for pictures
 * only, and no API adds it.
 */
export function withAudioNack({ type, sdp }) {
  const opus = /^a=rtpmap:(\d+) opus\/48000\/2\r\n/im.exec(sdp);
  if (!opus || new RegExp(`^a=rtcp-fb:(${opus[1]}|\\*) nack\r\n`, "m").test(sdp.slice(opus.index).split(/^m=/m)[0])) return { type, sdp };
  const end = opus.index + opus[0].length;
  return { type, sdp: `${sdp.slice(0, end)}a=rtcp-fb:${opus[1]} nack\r\n${sdp.slice(end)}` };
}

/** Sets the offer; as the browser made it, should it not take the one with {@link withAudioNack}. */
export async function setOffer(pc) {
  const offer = await pc.createOffer();
  try {
    await pc.setLocalDescription(withAudioNack(offer));
  } catch {
    await pc.setLocalDescription(offer);
  }
}

/**
 * Resolves when there are candidates to offer; to be called before setLocalDescription. With `firstIsEnoughMs`, that long
 * after the first candidate: a peer with a public address learns the others from our checks.
 */
export function gathered(pc, firstIsEnoughMs = GATHER_MS) {
  return new Promise((resolve) => {
    pc.addEventListener("icegatheringstatechange", () => {
      if (pc.iceGatheringState === "gathering") setTimeout(resolve, GATHER_MS);
      if (pc.iceGatheringState === "complete") resolve();
    });
    pc.addEventListener("icecandidate", ({ candidate }) => candidate && setTimeout(resolve, firstIsEnoughMs), { once: true });
  });
}
