// The publisher: one WebRTC session after the other, until the guest leaves.
//
//   idle ──join──▶ joining ──connected──▶ live ──lost──▶ reconnecting ──connected──▶ live
//                     └──────── refused for good, or leave() ────────▶ left (or preview, if it was never live)
//
// A session that is lost is not repaired but replaced: new connection, new session, same guest slot, on either path. No
// goodbye is said in between, so that the relay keeps the mixer's input; the new offer names the session it replaces, so
// that it cannot push out somebody else who has taken the slot meanwhile.
//
// While it is live, the connection is all that counts. The daemon is asked only whether the session still holds its slot,
// and only a clear "no" means anything: through the SFU the guest stays live while the daemon restarts.

import { addTracks, gathered, h264Codecs, offersH264, setOffer } from "./offer.js";
import { CALLS, DIRECT } from "./path.js";
import { PublishError, askStatus, goodbye, publish } from "./whip.js";

/** The SFU has a public address, so the first candidate is as good as all. */
const CALLS_GATHER_MS = 50;
/** A connection that is only disturbed often recovers; after this it is given up. */
const DISCONNECTED_MS = 7_000;
/**
 * Waits after the first, second, third … failure in a row. The loss of a good session is followed by an attempt at once.
 * With the last one a guest is in again within 10 s of the end of whatever was wrong, and asks no more than 10 times a minute.
 */
const BACKOFF_MS = [1_000, 2_000, 4_000, 6_500];
/** Times in a row that a slot may be found taken; a session of our own that nobody hears of dies sooner than that. */
const TAKEN_MAX = 5;
/** A session that lived this long was a good one. */
const STABLE_MS = 5_000;

/** How often a live connection is looked at. */
const LOOK_MS = 1_000;
/** Nothing received for so long is suspicious: feedback comes several times a second. */
const QUIET_MS = 2_000;
/** Between two questions about the slot while the connection is quiet. */
const ASK_QUIET_MS = 3_000;
/** The same while the SFU holds the connection, which looks well whoever has the slot and whatever becomes of the tracks. */
const ASK_CALLS_MS = 3_000;
/** A connection through the SFU outlives a goodbye by so much at most: its tracks cannot well be closed without it. */
const GOODBYE_MS = 2_000;

const ENDPOINTS = { [DIRECT]: "/whip/", [CALLS]: "/api/calls/whip/" };

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

  /**
   * `onState(state)`; `onPath("direct" | "calls")` at each attempt; `onError(PublishError | null)`; `maxBitrate()` in
   * bit/s, asked at each attempt; `paths` as in path.js.
   */
  constructor({ onState, onPath, onError, maxBitrate, paths }) {
    Object.assign(this, { onState, onPath, onError, maxBitrate, paths });
    addEventListener("online", () => this.#hurry());
    document.addEventListener("visibilitychange", () => {
      if (document.visibilityState !== "visible") return;
      this.#hurry();
      if (this.#session?.liveSince) this.#ask(this.#session);
    });
    setInterval(() => this.#look(), LOOK_MS);
  }

  /** Publishes `stream` as `guest` and keeps doing so until leave(). `again`: the guest was here before the page closed. */
  join(guest, stream, { again = false } = {}) {
    this.leave();
    this.#wanted = { guest, stream };
    if (!again) this.#replaces = null;
    this.#failures = 0;
    this.#taken = 0;
    this.#everLive = false;
    this.paths.reset();
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
    const said = this.#replaces && goodbye(this.#replaces, closing);
    const lingers = said && !closing && this.#session?.path === CALLS;
    this.#end(lingers && Promise.race([said, new Promise((over) => setTimeout(over, GOODBYE_MS))]));
    this.onState("left");
  }

  /** Does a waiting attempt now. */
  #hurry() {
    if (!this.#retryTimer) return;
    clearTimeout(this.#retryTimer);
    this.#connect();
  }

  /** Lets go of the connection, which is closed `after` a promise, if there is one. The server is not told. */
  #end(after = null) {
    const session = this.#session;
    this.#session = null;
    this.pc = null;
    if (!session) return;
    clearTimeout(session.timer);
    if (!session.pc) return;
    session.pc.onconnectionstatechange = null;
    if (after) after.then(() => session.pc.close());
    else session.pc.close();
  }

  async #connect() {
    this.#retryTimer = 0;
    const { guest, stream } = this.#wanted;
    const session = { path: null, hasOther: false, pc: null, resource: null, timer: 0, liveSince: 0, ear: null };
    this.#session = session;
    const current = () => this.#session === session;
    try {
      // Since the last time the guest may have come to another network.
      await this.paths.refresh({ force: this.#everLive });
      if (!current()) return;
      const { path, connectMs, hasOther } = this.paths.next();
      Object.assign(session, { path, hasOther });
      this.onPath(path);
      const throughSfu = path === CALLS;
      if (throughSfu) console.info("Connecting to Cloudflare Calls...");
      const iceServers = throughSfu ? await this.paths.iceServers() : [];
      if (!current()) return;
      if (stream.getVideoTracks().length && h264Codecs()?.length === 0) throw new PublishError("noH264", { final: true });
      const pc = new RTCPeerConnection({ bundlePolicy: "max-bundle", iceServers });
      session.pc = pc;
      this.pc = pc;
      await addTracks(pc, stream, this.maxBitrate());
      const candidates = gathered(pc, throughSfu ? CALLS_GATHER_MS : undefined);
      await setOffer(pc);
      await candidates;
      if (!current()) return;
      if (!offersH264(pc)) throw new PublishError("noH264", { final: true });
      const endpoint = ENDPOINTS[path] + encodeURIComponent(guest);
      const { resource, answer } = await publish(endpoint, pc.localDescription.sdp, this.#replaces);
      if (!current()) {
        goodbye(resource, false);
        return;
      }
      session.resource = resource;
      this.#replaces = resource;
      this.#taken = 0;
      pc.onconnectionstatechange = () => this.#watch(session);
      // A server that says goodbye (DTLS close_notify) need not be waited for.
      const transport = pc.getSenders()[0].transport;
      if (transport) transport.onstatechange = () => transport.state === "closed" && this.#broken(session);
      session.timer = setTimeout(() => this.#broken(session), connectMs);
      await pc.setRemoteDescription({ type: "answer", sdp: answer });
    } catch (error) {
      if (!current()) return;
      if (error.status >= 500 && session.path === CALLS) this.paths.failed(CALLS);
      // Where the way is free to choose, the daemon's next word on it counts.
      if (error.key === "callsNotConfigured") error.final = this.paths.mode === CALLS;
      this.#lost(session, error instanceof PublishError ? error : new PublishError("refused", { reason: error.message, final: true }));
    }
  }

  #watch(session) {
    if (this.#session !== session) return;
    const state = session.pc.connectionState;
    if (state === "connected") {
      clearTimeout(session.timer);
      if (!session.liveSince && session.path === CALLS) console.info("Connected to Cloudflare Calls SFU");
      session.liveSince ||= performance.now();
      this.paths.worked();
      this.#everLive = true;
      this.onError(null);
      this.onState("live");
    } else if (state === "failed" || state === "closed") {
      this.#broken(session);
    } else if (session.liveSince) {
      clearTimeout(session.timer);
      session.timer = setTimeout(() => this.#lost(session), DISCONNECTED_MS);
      this.#ask(session);
    }
  }

  /** A connection that is over, or an attempt that was answered and came to none. */
  #broken(session) {
    if (this.#session !== session) return;
    if (session.liveSince) {
      this.#lost(session);
      return;
    }
    this.paths.failed(session.path);
    if (session.hasOther) {
      this.#end();
      this.#connect();
      return;
    }
    const calls = session.path === CALLS;
    const key = calls ? "noConnectionCalls" : this.paths.callsConfigured ? "noConnection" : "noConnectionDirectOnly";
    this.#lost(session, new PublishError(key));
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

  /** Notices sooner than the browser does that a live connection has gone quiet. */
  async #look() {
    const session = this.#session;
    if (!session?.liveSince) return;
    const stats = await session.pc.getStats().catch(() => new Map());
    const now = performance.now();
    const received = [...stats.values()].find((s) => s.type === "transport")?.packetsReceived;
    session.ear ??= { received, heardAt: now, askedAt: now };
    if (received === undefined || received !== session.ear.received) Object.assign(session.ear, { received, heardAt: now });
    const quiet = now - session.ear.heardAt >= QUIET_MS;
    const every = quiet ? ASK_QUIET_MS : session.path === CALLS ? ASK_CALLS_MS : Infinity;
    if (now - session.ear.askedAt >= every) this.#ask(session);
  }

  /** Replaces the session when the daemon says that it no longer holds the slot, or that what we send goes nowhere. */
  async #ask(session) {
    if (session.ear) session.ear.askedAt = performance.now();
    const status = await askStatus(session.resource);
    if (status && (!status.holds || this.#sends(status.dropped))) this.#lost(session);
  }

  /** Whether media of one of these kinds is there to be sent. A phone in the background has none: it can wait. */
  #sends(kinds) {
    const tracks = this.#wanted?.stream.getTracks() ?? [];
    return tracks.some((track) => kinds.includes(track.kind) && track.readyState === "live" && !track.muted);
  }
}
