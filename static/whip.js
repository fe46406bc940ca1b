// The requests of a WHIP session (RFC 9725), and what their answers mean for the guest.

/** Longest wait for the answer to an offer. */
const ANSWER_MS = 15_000;
/** Longest wait for a status. */
const STATUS_MS = 5_000;

/** What the daemon may say is at fault, as keys of the string table. */
const FAULTS = {
  "calls-not-configured": "callsNotConfigured",
  "calls-misconfigured": "callsMisconfigured",
  "calls-unreachable": "callsUnreachable",
};

/** What ended an attempt. `key` is of the string table; `status` 0: no answer at all; `final`: another would be pointless. */
export class PublishError extends Error {
  constructor(key, { status = 0, reason = "", retryAfterMs = 0, final = false } = {}) {
    super(reason || key);
    Object.assign(this, { key, status, reason, retryAfterMs, final });
  }
}

/** Sends the offer; resolves to `{resource, answer}`. `replaces` is the resource of the session before, or null. */
export async function publish(endpoint, sdp, replaces) {
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
    throw new PublishError(navigator.onLine ? "unreachable" : "offline");
  }
  const { status } = response;
  if (status === 201 && response.headers.has("Location")) {
    console.info("WHIP connection established");
    return { resource: new URL(response.headers.get("Location"), response.url).href, answer: body };
  }
  const reason = body.split("\n")[0].slice(0, 200);
  const retryAfterMs = 1000 * (Number.parseInt(response.headers.get("Retry-After"), 10) || 0);
  const fault = FAULTS[response.headers.get("Guest-Relay-Fault")];
  if (fault) throw new PublishError(fault, { status, reason, retryAfterMs });
  if (status === 429) throw new PublishError("busy", { status, reason, retryAfterMs });
  if (status === 409) throw new PublishError("taken", { status, reason });
  if (status >= 500 || [408, 425].includes(status)) {
    throw new PublishError("serverTrouble", { status, reason, retryAfterMs });
  }
  const key = { 403: "closedSlot", 404: "unknownSlot", 410: "gone" }[status] ?? "refused";
  throw new PublishError(key, { status, reason, final: true });
}

/**
 * `{holds, dropped}`: whether the session still holds its slot, and the kinds of tracks that the SFU has given up; null
 * when nobody can say. An error of any kind, from whatever stands between us and the daemon, is no answer: while the
 * daemon is away, the media may well flow through the SFU.
 */
export async function askStatus(resource) {
  try {
    const response = await fetch(`${resource}/status`, { credentials: "omit", signal: AbortSignal.timeout(STATUS_MS) });
    const { holds_slot: holds, dropped = [] } = await response.json();
    return typeof holds === "boolean" ? { holds, dropped } : null;
  } catch {
    return null;
  }
}

/**
 * Tells the server: for good, or that the page closes, after which the guest may come back (a reload closes it too). A page
 * that closes says so twice, since each way alone is lost now and then. Resolves when the server has answered, or cannot.
 */
export function goodbye(resource, closing) {
  const [url, method] = closing ? [`${resource}/leave`, "POST"] : [resource, "DELETE"];
  const said = fetch(url, { method, keepalive: true, credentials: "omit" }).catch(() => {});
  if (closing) navigator.sendBeacon?.(url);
  return said;
}
