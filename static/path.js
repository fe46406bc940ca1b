// Which way the media goes: straight to the relay ("direct"), or through the SFU ("calls").
//
// The daemon knows which of its guests are on its own network and says so in /api/page. A guest that seems to be near
// tries the direct way first and, where that does not connect at once, the other; `?mode=` in the link forces one.

export const DIRECT = "direct";
export const CALLS = "calls";

/** Longest wait for what the daemon knows; without an answer the last one counts. */
const ANSWER_MS = 2_000;
/** An answer this young need not be asked for again. */
const FRESH_MS = 30_000;
/** TURN credentials hold for hours. */
const ICE_FRESH_MS = 600_000;

/** From the answer to a connection. */
const CONNECT_MS = 12_000;
/** The same to the SFU, where now and then a session just never connects, and another one does. */
const CALLS_CONNECT_MS = 7_000;
/** The same for a direct attempt that has another way behind it: on one network it takes a few milliseconds. */
const DIRECT_FIRST_MS = 2_500;

async function ask(address) {
  const response = await fetch(address, { credentials: "omit", signal: AbortSignal.timeout(ANSWER_MS) });
  if (!response.ok) throw new Error(`${address}: ${response.status}`);
  return response.json();
}

/** Remembers what the daemon says and which ways have failed. */
export class Paths {
  #facts = { path: DIRECT, calls_configured: false };
  #askedAt = -Infinity;
  #iceServers = [];
  #iceAskedAt = -Infinity;
  #directFailed = false;
  #callsFailed = false;

  /** `mode`: "direct" and "calls" force one way; anything else leaves it to the daemon and to what works. */
  constructor(mode) {
    this.mode = [DIRECT, CALLS].includes(mode) ? mode : "auto";
  }

  /** Asks the daemon, unless it was asked a moment ago. Resolves to the facts of /api/page, or to null without them. */
  async refresh({ force = false } = {}) {
    if (!force && performance.now() - this.#askedAt < FRESH_MS) return this.#facts;
    try {
      this.#facts = await ask("/api/page");
      this.#askedAt = performance.now();
      return this.#facts;
    } catch {
      return null;
    }
  }

  get callsConfigured() {
    return Boolean(this.#facts.calls_configured);
  }

  /** For RTCPeerConnection. The direct way needs none: the relay's addresses are in its answer. */
  async iceServers() {
    if (performance.now() - this.#iceAskedAt < ICE_FRESH_MS) return this.#iceServers;
    try {
      this.#iceServers = (await ask("/api/ice-servers")).iceServers;
      this.#iceAskedAt = performance.now();
    } catch {
      // Where UDP is let through they are not needed.
    }
    return this.#iceServers;
  }

  /** A new join begins: what failed before may work now. */
  reset() {
    this.#directFailed = false;
    this.#callsFailed = false;
  }

  /** The way of the next attempt, how long it may take to connect, and whether the other is tried at once if it fails. */
  next() {
    const forced = this.mode !== "auto";
    const path = forced ? this.mode : this.#facts.path === CALLS ? CALLS : DIRECT;
    if (path === CALLS) return { path, connectMs: CALLS_CONNECT_MS, hasOther: false };
    if (forced || !this.callsConfigured) return { path, connectMs: CONNECT_MS, hasOther: false };
    if (this.#directFailed) return { path: CALLS, connectMs: CALLS_CONNECT_MS, hasOther: false };
    const hasOther = !this.#callsFailed;
    return { path, connectMs: hasOther ? DIRECT_FIRST_MS : CONNECT_MS, hasOther };
  }

  /** An attempt brought no connection: the next one goes the other way, where there is one. */
  failed(path) {
    this.#directFailed = path === DIRECT;
    this.#callsFailed = path === CALLS;
    // There may be a TURN server by now, and it may be what was missing.
    if (path === CALLS) this.#iceAskedAt = -Infinity;
  }

  /** An attempt brought a connection. */
  worked() {
    this.#callsFailed = false;
  }
}
