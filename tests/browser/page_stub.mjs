// For tests of the guest page: Chromium with a page whose daemon is played by this script, and a second page as the WebRTC
// receiver behind it, so that every answer and every failure can be chosen. Only the files of the page are the daemon's.

import assert from "node:assert/strict";
import http from "node:http";
import { after, before, test as untimed } from "node:test";
import { chromium } from "playwright-core";
import { Stage } from "./stage.mjs";

/** Serves the files. */
let base;
/** Resolves to 127.0.0.1, but is no secure context. */
export const INSECURE_HOST = "guest-relay.test";
const FLAGS = [
  "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
  "--disable-component-update", "--disable-sync", "--use-fake-ui-for-media-stream",
  "--use-fake-device-for-media-stream=device-count=2,fps=30", `--host-resolver-rules=MAP ${INSECURE_HOST} 127.0.0.1`,
];
const FACTS = {
  public_url: "https://recorder.example.org", max_bitrate_kbps: 2500, path: "direct", calls_configured: false,
  guests: [
    { id: "guest1", name: "Guest 1", enabled: true }, { id: "guest2", name: "Guest 2", enabled: true },
    { id: "guest3", name: "Guest 3", enabled: false },
  ],
};
const ICE_SERVERS = [
  { urls: ["stun:127.0.0.1:9"] },
  { urls: ["turn:127.0.0.1:9?transport=udp"], username: "somebody", credential: "something" },
];

/** A page that never gets there fails rather than hangs. */
export const test = (name, run) => untimed(name, { timeout: 60_000 }, run);

let browser;
let stage;
before(async () => {
  base = process.env.BASE_URL;
  if (!base) {
    stage = new Stage("page");
    base = (await stage.startDaemon("rtmp://127.0.0.1:9/{guest_id}")).url;
  }
  browser = await chromium.launch({ executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium", args: FLAGS });
});
after(async () => {
  await browser.close();
  await stage?.strike();
});

/**
 * A page with its own storage, and its daemon.
 *
 * `refuse`: what offers are answered with instead of a session, in order. `facts`: what /api/page says, where it differs.
 * The result's `daemon` may be changed while the page runs: `daemon.dead(pathname)` whether an offer's answer leads to no
 * connection; `daemon.away` drops every request but those for files; `daemon.holds` what is said about the slot, and
 * `daemon.dropped(pathname)` about a session's tracks; `daemon.goodbye()` holds the answer to a DELETE back.
 */
export async function open(t, {
  path = "/guest_join", init, refuse = [], facts = {}, dead = () => false, locale = "en-GB", host = "127.0.0.1",
} = {}) {
  const context = await browser.newContext({ locale, viewport: { width: 1280, height: 900 } });
  t.after(() => context.close());
  // In a context of its own, so that its renderer is another one and may crash.
  const receivers = await browser.newContext();
  t.after(() => receivers.close());
  const receiver = await receivers.newPage();
  await receiver.evaluate(() => (window.sessions = []));
  const requests = [];
  const daemon = { facts: { ...FACTS, ...facts }, dead, away: false, holds: true, dropped: () => [], goodbye: () => {} };
  /** WHIP requests; the status is not among them. */
  const whip = () => requests.filter((r) => r.pathname.includes("/whip/") && !r.pathname.endsWith("/status"));
  const offers = () => whip().filter((r) => r.method === "POST" && !r.pathname.endsWith("/leave"));
  const server = http.createServer(async (request, response) => {
    const { pathname } = new URL(request.url, base);
    const { method, headers } = request;
    // As the daemon does; on a connection used before, Chromium would repeat a request that gets no answer.
    response.setHeader("connection", "close");
    if (!pathname.startsWith("/whip/") && !pathname.startsWith("/api/")) {
      const passed = await fetch(new URL(request.url, base));
      const type = passed.headers.get("content-type");
      response.writeHead(passed.status, {
        "content-type": type, "content-security-policy": passed.headers.get("content-security-policy") ?? "",
      });
      return response.end(Buffer.from(await passed.arrayBuffer()));
    }
    let body = "";
    for await (const chunk of request) body += chunk;
    requests.push({
      at: performance.now(), method, pathname, body, type: headers["content-type"], replaces: headers["guest-relay-replaces"],
    });
    if (daemon.away) return request.socket.destroy();
    if (pathname === "/api/page") return response.end(JSON.stringify(daemon.facts));
    if (pathname === "/api/ice-servers") return response.end(JSON.stringify({ iceServers: ICE_SERVERS }));
    if (pathname.endsWith("/status")) {
      return response.end(JSON.stringify({ holds_slot: daemon.holds, dropped: daemon.dropped(pathname) }));
    }
    if (method === "DELETE") await daemon.goodbye();
    if (method !== "POST" || pathname.endsWith("/leave")) return response.end("left\n");
    const refusal = refuse.shift();
    if (refusal === "abort") return request.socket.destroy();
    if (refusal) return response.writeHead(refusal.status, refusal.headers).end(refusal.body);
    const session = offers().length;
    const answer = await receiver.evaluate(receive, { offer: body, dead: daemon.dead(pathname, session) });
    const location = `${pathname}/session${session}`;
    return response.writeHead(201, { "content-type": "application/sdp", location, etag: '"e"' }).end(answer);
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  t.after(() => server.close());
  const origin = `http://${host}:${server.address().port}`;
  const page = await context.newPage();
  const errors = [];
  const lines = [];
  page.on("pageerror", (error) => errors.push(error.message));
  page.on("console", (message) => {
    lines.push(message.text());
    if (message.text().includes("Content Security Policy")) errors.push(message.text());
  });
  t.after(() => assert.deepEqual(errors, []));
  if (init) await page.addInitScript(init);
  await page.addInitScript(watch);
  await page.goto(origin + path);
  await page.waitForFunction(() => document.getElementById("guest").options.length > 0);
  return { page, context, origin, daemon, requests, whip, offers, refuse, receiver, lines };
}

/** Runs in the page: notes every state and every error that it shows. */
function watch() {
  window.seen = { states: [], errors: [] };
  document.addEventListener("DOMContentLoaded", () => {
    const error = document.getElementById("error");
    if (!error) return; // about:blank
    new MutationObserver(() => error.textContent && window.seen.errors.push(error.textContent))
      .observe(error, { childList: true });
    new MutationObserver(() => window.seen.states.push(document.documentElement.dataset.state))
      .observe(document.documentElement, { attributeFilter: ["data-state"] });
  });
}

/** Runs in the receiver: answers an offer as a recvonly peer. */
async function receive({ offer, dead }) {
  const pc = new RTCPeerConnection();
  window.sessions.push(pc);
  await pc.setRemoteDescription({ type: "offer", sdp: offer });
  await pc.setLocalDescription(await pc.createAnswer());
  if (pc.iceGatheringState !== "complete") {
    await new Promise((resolve) => (pc.onicegatheringstatechange = () => pc.iceGatheringState === "complete" && resolve()));
  }
  const { sdp } = pc.localDescription;
  if (dead) pc.close();
  return sdp;
}

/** What the page has shown: `{states, errors}`, in order. */
export const seen = (page) => page.evaluate(() => window.seen);

export const state = (page, wanted, timeout = 15_000) =>
  page.waitForFunction((wanted) => document.documentElement.dataset.state === wanted, wanted, { timeout });

/** The words of the error that the page shows, as soon as there is one. */
export const alert = async (page) => {
  await page.waitForFunction(() => document.getElementById("error").textContent !== "");
  return page.textContent("#error");
};

/** Waits until `condition()` holds. */
export async function until(condition, limitMs = 20_000) {
  const deadline = performance.now() + limitMs;
  while (!(await condition())) {
    assert.ok(performance.now() < deadline, `waited ${limitMs} ms for ${condition}`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}
