// The publisher: one WebRTC session after the other over WHIP (RFC 9725), until the guest leaves.
//
//   idle ──join──▶ joining ──connected──▶ live ──lost──▶ reconnecting ──connected──▶ live
//                     └──────── refused for good, or leave() ────────▶ left (or preview, if it was never live)
//
// A session that is lost is not repaired but replaced: new connection, new session, same guest slot. No goodbye is said
// in between, so that the relay keeps the mixer's input; the new offer names the session it replaces, so that it cannot
// push out somebody else who has taken the slot meanwhile.

/** Longest wait for ICE candidates; host candidates are there within milliseconds. */
const GATHER_MS = 1500;
/** Longest wait for the answer to an offer. */
const ANSWER_MS = 15_000;
/** From the answer to a connection. */
const CONNECT_MS = 12_000;
/** A connection that is only disturbed often recovers; after this it is given up. */
const DISCONNECTED_MS = 7_000;
/** Waits after the first, second, third … failure in a row. The loss of a good session is followed by an attempt at once. */
const BACKOFF_MS = [1_000, 2_000, 4_000, 8_000, 15_000];
/** Times in a row that a slot may be found taken; a session of our own that nobody hears of dies sooner than that. */
const TAKEN_MAX = 5;
/** A session that lived this long was a good one. */
const STABLE_MS = 5_000;

const H264_ORDER = ["42e01f", "42001f"];

/** What ended an attempt. `status` 0: no answer at all. */
export class PublishError extends Error {
  constructor(key, { status = 0, reason = "", retryAfterMs = 0, final = false } = {}) {
    super(reason || key);
    Object.assign(this, { key, status, reason, retryAfterMs, final });
  }
}

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

export class Publisher {
  /** The current RTCPeerConnection, or null. */
  pc = null;
  #wanted = null;
  #session = null;
  #failures = 0;
  #everLive = false;
  /** Resource of the last session. */
  #replaces = null;
  #taken = 0;
  #retryTimer = 0;

  /** `onState(state)`; `onError(PublishError | null)`; `maxBitrate` in bit/s, read at each attempt. */
  constructor({ onState, onError, maxBitrate }) {
    this.onState = onState;
    this.onError = onError;
    this.maxBitrate = maxBitrate;
    addEventListener("online", () => this.#hurry());
    document.addEventListener("visibilitychange", () => document.visibilityState === "visible" && this.#hurry());
  }

  /** Publishes `stream` to `endpoint` and keeps doing so until leave(). */
  join(endpoint, stream) {
    this.leave();
    this.#wanted = { endpoint, stream };
    this.#replaces = null;
    this.#failures = 0;
    this.#taken = 0;
    this.#everLive = false;
    this.onState("joining");
    this.#connect();
  }

  /** Sends other tracks from now on. A kind more or less needs a new session: a sender without a track sends nothing. */
  async replace(stream) {
    if (!this.#wanted) return;
    this.#wanted.stream = stream;
    if (!this.pc) return;
    const senders = this.pc.getTransceivers().map((t) => ({ kind: t.receiver.track.kind, sender: t.sender }));
    const tracks = stream.getTracks();
    if (senders.length !== tracks.length || !tracks.every((track) => senders.some(({ kind }) => kind === track.kind))) {
      this.#lost(this.#session);
      return;
    }
    for (const { kind, sender } of senders) await sender.replaceTrack(tracks.find((track) => track.kind === kind));
  }

  /** Ends the session. While the page is closing, requests must survive it. */
  leave({ closing = false } = {}) {
    if (!this.#wanted) return;
    this.#wanted = null;
    clearTimeout(this.#retryTimer);
    this.#retryTimer = 0;
    this.#end();
    if (this.#replaces) goodbye(this.#replaces, closing);
    this.onState("left");
  }

  /** Does a waiting attempt now. */
  #hurry() {
    if (!this.#retryTimer) return;
    clearTimeout(this.#retryTimer);
    this.#connect();
  }

  /** Lets go of the connection. The server is not told. */
  #end() {
    const session = this.#session;
    this.#session = null;
    this.pc = null;
    if (!session) return;
    clearTimeout(session.timer);
    session.pc.onconnectionstatechange = null;
    session.pc.close();
  }

  async #connect() {
    this.#retryTimer = 0;
    const { endpoint, stream } = this.#wanted;
    const pc = new RTCPeerConnection({ bundlePolicy: "max-bundle" });
    const session = { pc, timer: 0, liveSince: 0 };
    this.#session = session;
    this.pc = pc;
    try {
      await addTracks(pc, stream, this.maxBitrate());
      await pc.setLocalDescription(await pc.createOffer());
      await gathered(pc);
      if (this.#session !== session) return;
      if (stream.getVideoTracks().length && !/a=rtpmap:\d+ H264\/90000/i.test(pc.localDescription.sdp)) {
        throw new PublishError("noH264", { final: true });
      }
      const { resource, answer } = await post(endpoint, pc.localDescription.sdp, this.#replaces);
      if (this.#session !== session) {
        goodbye(resource, false);
        return;
      }
      this.#replaces = resource;
      this.#taken = 0;
      pc.onconnectionstatechange = () => this.#watch(session);
      // A server that says goodbye (DTLS close_notify) need not be waited for.
      const transport = pc.getSenders()[0].transport;
      if (transport) transport.onstatechange = () => transport.state === "closed" && this.#lost(session);
      session.timer = setTimeout(() => this.#lost(session, new PublishError("noConnection")), CONNECT_MS);
      await pc.setRemoteDescription({ type: "answer", sdp: answer });
    } catch (error) {
      this.#lost(session, error instanceof PublishError ? error : new PublishError("refused", { reason: error.message, final: true }));
    }
  }

  #watch(session) {
    if (this.#session !== session) return;
    const state = session.pc.connectionState;
    clearTimeout(session.timer);
    if (state === "connected") {
      session.liveSince ||= performance.now();
      this.#everLive = true;
      this.onError(null);
      this.onState("live");
    } else if (state === "failed" || state === "closed") {
      this.#lost(session);
    } else {
      const patience = state === "disconnected" ? DISCONNECTED_MS : CONNECT_MS;
      session.timer = setTimeout(() => this.#lost(session), patience);
    }
  }

  /** Replaces a session, unless the error says that this is pointless. */
  #lost(session, error = null) {
    if (this.#session !== session) return;
    const wasStable = session.liveSince && performance.now() - session.liveSince > STABLE_MS;
    this.#end();
    if (error?.status === 409) this.#taken += 1;
    if (this.#taken === TAKEN_MAX) error.final = true;
    if (error) this.onError(error);
    if (error?.final) {
      this.#wanted = null;
      this.onState(this.#everLive ? "left" : "preview");
      return;
    }
    this.#failures = wasStable ? 0 : this.#failures + 1;
    const backoff = this.#failures ? BACKOFF_MS[Math.min(this.#failures, BACKOFF_MS.length) - 1] : 0;
    // Guests that lost the same server should not come back in the same instant.
    const jitter = Math.random() * Math.max(200, backoff / 4);
    this.onState("reconnecting");
    this.#retryTimer = setTimeout(() => this.#connect(), Math.max(backoff, error?.retryAfterMs ?? 0) + jitter);
  }
}

async function addTracks(pc, stream, maxBitrate) {
  for (const track of [...stream.getAudioTracks(), ...stream.getVideoTracks()]) {
    const video = track.kind === "video";
    const transceiver = pc.addTransceiver(track, {
      direction: "sendonly",
      streams: [stream],
      sendEncodings: video ? [{ maxBitrate, maxFramerate: 30 }] : undefined,
    });
    if (!video) continue;
    const codecs = h264Codecs();
    if (codecs?.length === 0) throw new PublishError("noH264", { final: true });
    if (codecs) transceiver.setCodecPreferences?.(codecs);
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

function gathered(pc) {
  if (pc.iceGatheringState === "complete") return Promise.resolve();
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, GATHER_MS);
    pc.addEventListener("icegatheringstatechange", () => {
      if (pc.iceGatheringState !== "complete") return;
      clearTimeout(timer);
      resolve();
    });
  });
}

/** Sends the offer; resolves to `{resource, answer}`. `replaces` is the resource of the session before, or null. */
async function post(endpoint, sdp, replaces) {
  const headers = { "Content-Type": "application/sdp" };
  if (replaces) headers["Guest-Relay-Replaces"] = replaces.split("/").at(-1);
  let response, body;
  try {
    response = await fetch(endpoint, {
      method: "POST",
      headers,
      body: sdp,
      credentials: "omit",
      signal: AbortSignal.timeout(ANSWER_MS),
    });
    body = await response.text();
  } catch {
    throw new PublishError("unreachable");
  }
  const { status } = response;
  if (status === 201 && response.headers.has("Location")) {
    console.info("WHIP connection established");
    return { resource: new URL(response.headers.get("Location"), response.url).href, answer: body };
  }
  const reason = body.split("\n")[0].slice(0, 200);
  const retryAfterMs = 1000 * (Number.parseInt(response.headers.get("Retry-After"), 10) || 0);
  if (status === 429) throw new PublishError("busy", { status, reason, retryAfterMs });
  if (status === 409) throw new PublishError("taken", { status, reason });
  if (status >= 500 || [408, 425].includes(status)) {
    throw new PublishError("serverTrouble", { status, reason, retryAfterMs });
  }
  const key = { 403: "closedSlot", 404: "unknownSlot", 410: "gone" }[status] ?? "refused";
  throw new PublishError(key, { status, reason, final: true });
}

/** Tells the server; while the page closes, twice, since each way alone is lost now and then. */
function goodbye(resource, closing) {
  fetch(resource, { method: "DELETE", keepalive: true, credentials: "omit" }).catch(() => {});
  if (closing) navigator.sendBeacon?.(`${resource}/leave`);
}
