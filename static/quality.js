// How well the picture gets out, from the connection's statistics: size, rate, and a word for the loss.

const PERIOD_MS = 2000;
/** Lost packets beyond which the connection is no longer good, fair, poor. */
const LOSS = [[0.01, "qualityGood"], [0.03, "qualityFair"], [0.05, "qualityPoor"], [1, "qualityBad"]];

/**
 * Calls `show({size, fps, bitrate, wordKey})` every two seconds, or `show(null)` while nothing is sent.
 * `connection()` is the current RTCPeerConnection or null.
 */
export function watchQuality(connection, show) {
  let last = null;
  let loss = 0;
  setInterval(async () => {
    const pc = connection();
    if (pc?.connectionState !== "connected") {
      last = null;
      loss = 0;
      show(null);
      return;
    }
    const stats = [...(await pc.getStats()).values()];
    const video = stats.find((s) => s.type === "outbound-rtp" && s.kind === "video");
    if (!video) {
      show(null);
      return;
    }
    const remote = stats.find((s) => s.type === "remote-inbound-rtp" && s.localId === video.id);
    const sent = stats.filter((s) => s.type === "outbound-rtp").reduce((sum, s) => sum + s.bytesSent, 0);
    const now = { pc, at: video.timestamp, sent, frames: video.framesEncoded, packets: video.packetsSent, lost: remote?.packetsLost ?? 0 };
    if (last?.pc === pc && now.at > last.at) {
      const seconds = (now.at - last.at) / 1000;
      const packets = now.packets - last.packets;
      const fraction = packets > 0 ? Math.min(1, Math.max(0, (now.lost - last.lost) / packets)) : 0;
      loss += 0.5 * (fraction - loss);
      show({
        size: `${video.frameWidth ?? 0}×${video.frameHeight ?? 0}`,
        fps: Math.round((now.frames - last.frames) / seconds),
        bitrate: ((8 * (now.sent - last.sent)) / seconds / 1e6).toFixed(1),
        wordKey: LOSS.find(([limit]) => loss <= limit)[1],
      });
    }
    last = now;
  }, PERIOD_MS);
}
