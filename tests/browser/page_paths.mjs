// Which way the guest page takes, what it says about it, and what it learns from the daemon while it is live. Run by
// page.mjs.

import assert from "node:assert/strict";
import { alert, open, seen, state, test, until } from "./page_stub.mjs";

const REMOTE = { path: "calls", calls_configured: true };
const NEAR = { path: "direct", calls_configured: true };
const BANNER = "🌐 Remote Access Mode - Using Cloudflare Calls SFU";
const CALLS_LINES = ["Connecting to Cloudflare Calls...", "WHIP connection established", "Connected to Cloudflare Calls SFU"];

/** Waits of a second and more take a twentieth of it, so that a minute's patience fits into a test. */
const HASTE = `{
  const real = setTimeout;
  Math.random = () => 0;
  window.setTimeout = (f, ms) => real(f, ms >= 1000 && ms <= 15000 ? ms / 20 : ms);
}`;

const endpoints = (offers) => offers().map((r) => r.pathname);
const ours = (lines) => lines.filter((line) => CALLS_LINES.includes(line));
const isRemote = async (page) => [await page.isVisible("#banner"), await page.isVisible("#path")];

test("a guest from elsewhere goes through the SFU, with the words that operators look for", async (t) => {
  const { page, offers, requests, lines } = await open(t, { facts: REMOTE, path: "/guest_join?guest=guest2" });
  assert.equal(await page.textContent("#banner"), BANNER);
  assert.equal(await page.textContent("#path"), "Remote Access Mode");
  assert.deepEqual(await isRemote(page), [true, true]);
  await page.click("#join");
  await state(page, "live");
  assert.deepEqual(endpoints(offers), ["/api/calls/whip/guest2"]);
  assert.match(offers()[0].body, /^a=candidate:/m);
  assert.deepEqual(ours(lines), CALLS_LINES);
  assert.equal(requests.filter((r) => r.pathname === "/api/ice-servers").length, 1);
  assert.deepEqual(await page.evaluate(() => window.guestRelay.pc.getConfiguration().iceServers.map((s) => [s.urls, s.username])), [
    [["stun:127.0.0.1:9"], ""], [["turn:127.0.0.1:9?transport=udp"], "somebody"],
  ]);
  await page.click("#leave");
  await until(() => requests.some((r) => r.method === "DELETE" && r.pathname === "/api/calls/whip/guest2/session1"));
});

test("a guest on the production's network goes straight to the relay, and no word of Cloudflare is said", async (t) => {
  const { page, offers, requests, lines } = await open(t, { facts: NEAR });
  assert.deepEqual(await isRemote(page), [false, false]);
  await page.click("#join");
  await state(page, "live");
  assert.deepEqual(endpoints(offers), ["/whip/guest1"]);
  assert.deepEqual(ours(lines), ["WHIP connection established"]);
  assert.ok(!requests.some((r) => r.pathname === "/api/ice-servers"));
  assert.deepEqual(await isRemote(page), [false, false]);
});

for (const [mode, facts, endpoint] of [
  ["calls", NEAR, "/api/calls/whip/guest1"], ["direct", REMOTE, "/whip/guest1"], ["auto", REMOTE, "/api/calls/whip/guest1"],
  ["nonsense", NEAR, "/whip/guest1"],
]) {
  test(`mode=${mode} against a daemon that says ${facts.path}: ${endpoint}`, async (t) => {
    const { page, offers } = await open(t, { facts, path: `/guest_join?mode=${mode}` });
    const remote = endpoint.startsWith("/api");
    assert.deepEqual(await isRemote(page), [remote, remote]);
    await page.click("#join");
    await state(page, "live");
    assert.deepEqual(endpoints(offers), [endpoint]);
  });
}

test("a direct way that leads nowhere is left for the SFU after 2.5 seconds, and comes second from then on", async (t) => {
  const { page, offers, receiver, lines } = await open(t, { facts: NEAR, dead: (pathname) => pathname.startsWith("/whip") });
  await page.click("#join");
  await state(page, "live");
  assert.deepEqual(offers().map((r) => [r.pathname, r.replaces]), [
    ["/whip/guest1", undefined], ["/api/calls/whip/guest1", "session1"],
  ]);
  // A way that has no other behind it is given twelve seconds.
  const waited = offers()[1].at - offers()[0].at;
  assert.ok(waited >= 2_500 && waited < 4_000, `${waited} ms`);
  assert.deepEqual(await seen(page).then(({ states, errors }) => [states.filter((s, i) => s !== states[i - 1]), errors]), [
    ["joining", "live"], [],
  ]);
  assert.deepEqual(await isRemote(page), [true, true]);
  assert.deepEqual(ours(lines), ["WHIP connection established", ...CALLS_LINES]);
  await receiver.evaluate(() => window.sessions.at(-1).close());
  await until(() => offers().length === 3);
  assert.equal(offers()[2].pathname, "/api/calls/whip/guest1");
  await state(page, "live");
});

test("when neither way works at first both are tried in turn, until one does", async (t) => {
  const fault = { status: 503, headers: { "guest-relay-fault": "calls-unreachable" }, body: "no way to the API\n" };
  const { page, offers, daemon, refuse } = await open(t, { facts: NEAR, dead: () => true, init: HASTE });
  await page.click("#join");
  await until(() => offers().length === 1);
  refuse.push(fault);
  assert.match(await alert(page), /cannot reach Cloudflare/);
  daemon.dead = () => false;
  await state(page, "live");
  assert.deepEqual(endpoints(offers), ["/whip/guest1", "/api/calls/whip/guest1", "/whip/guest1"]);
  assert.equal(await page.textContent("#error"), "");
});

for (const [name, facts, path, words] of [
  ["through the SFU", REMOTE, "", /to Cloudflare came about.*try another one/s],
  ["on the direct way", NEAR, "?mode=direct", /^No media connection came about\. The page tries again/],
  ["where the SFU is not configured", { calls_configured: false }, "", /only be reached from its own network/],
]) {
  test(`an attempt that comes to no connection ${name} is told and repeated`, async (t) => {
    const { page, offers, daemon } = await open(t, { facts, path: `/guest_join${path}`, dead: () => true, init: HASTE });
    await page.click("#join");
    assert.match(await alert(page), words);
    daemon.dead = () => false;
    await state(page, "live");
    assert.equal(new Set(endpoints(offers)).size, 1);
    assert.equal(await page.textContent("#error"), "");
  });
}

const REFUSALS = {
  misconfigured: { status: 503, headers: { "guest-relay-fault": "calls-misconfigured" }, body: "not set up\n" },
  unreachable: { status: 502, headers: { "guest-relay-fault": "calls-unreachable" }, body: "no answer\n" },
  unnamed: { status: 502, body: "the video service did not answer properly\n" },
  foreign: { status: 530, headers: { "content-type": "text/html" }, body: "error code: 1033\n" },
};
test("a wrong secret, a silent API and other trouble behind the daemon are told in words, and tried again", async (t) => {
  const { page, offers } = await open(t, { facts: REMOTE, init: HASTE, refuse: Object.values(REFUSALS) });
  await page.click("#join");
  await state(page, "live");
  const told = (await seen(page)).errors;
  for (const [index, words] of [
    /not set up correctly.*Nothing is wrong on your side/s, /cannot reach Cloudflare/,
    /cannot take you in.*\(the video service did not answer properly\)/, /cannot take you in/,
  ].entries()) assert.match(told[index], words);
  assert.equal(told.length, 4);
  assert.equal(offers().length, 5);
  assert.equal(await page.textContent("#error"), "");
});

test("a production without the SFU says so to those who were sent that way, once", async (t) => {
  const refusal = { status: 503, headers: { "guest-relay-fault": "calls-not-configured" }, body: "not configured\n" };
  const { page, offers } = await open(t, { path: "/guest_join?mode=calls", init: HASTE, refuse: [refusal] });
  await page.click("#join");
  assert.match(await alert(page), /not set up for guests over the internet.*Tell the people who invited you/s);
  await state(page, "preview");
  await page.waitForTimeout(500);
  assert.equal(offers().length, 1);
});

test("a device without a network is told so, and joins when the network is back", async (t) => {
  const { page, context } = await open(t, { facts: REMOTE });
  await page.click("#start-preview");
  await state(page, "preview");
  await context.setOffline(true);
  await page.click("#join");
  assert.match(await alert(page), /This device has no network/);
  await state(page, "reconnecting");
  await context.setOffline(false);
  await state(page, "live");
  assert.equal(await page.textContent("#error"), "");
});

test("through the SFU the page stays live and quiet while the daemon is away", async (t) => {
  const { page, daemon, requests, offers } = await open(t, { facts: REMOTE });
  await page.click("#join");
  await state(page, "live");
  const before = await seen(page);
  daemon.away = true;
  const asked = requests.length;
  await until(() => requests.slice(asked).some((r) => r.pathname === "/api/calls/whip/guest1/session1/status"));
  daemon.away = false;
  const back = requests.length;
  await until(() => requests.length > back);
  assert.deepEqual(await seen(page), before);
  assert.deepEqual([offers().length, await page.textContent("#error")], [1, ""]);
});

test("a guest whose slot was taken learns it through the SFU too, where the connection looks well", async (t) => {
  const { page, daemon, offers, refuse } = await open(t, { facts: REMOTE });
  await page.click("#join");
  await state(page, "live");
  refuse.push(...Array(9).fill({ status: 409, body: "somebody else has joined as guest1\n" }));
  daemon.holds = false;
  await state(page, "reconnecting");
  assert.match(await alert(page), /Somebody else has joined/);
  assert.deepEqual(offers().map((r) => r.replaces), [undefined, "session1"]);
});

test("a guest whose tracks the SFU has dropped publishes anew, but not for a track that sends nothing", async (t) => {
  const { page, daemon, requests, offers } = await open(t, { facts: REMOTE });
  await page.click("#join");
  await state(page, "live");
  await page.evaluate(() => {
    // As on a phone that has taken the camera away from a page in the background.
    const [camera] = window.guestRelay.pc.getSenders().map((sender) => sender.track).filter((track) => track.kind === "video");
    Object.defineProperty(camera, "muted", { get: () => window.isAway, configurable: true });
    window.isAway = true;
  });
  daemon.dropped = (pathname) => (pathname.includes("/session1/") ? ["video"] : []);
  const asks = () => requests.filter((r) => r.pathname.endsWith("/session1/status")).length;
  const asked = asks();
  await until(() => asks() > asked);
  assert.equal(offers().length, 1);
  await page.evaluate(() => (window.isAway = false));
  await until(() => offers().length === 2);
  assert.deepEqual(offers().map((r) => r.replaces), [undefined, "session1"]);
  await state(page, "live");
});

test("through the SFU the connection is closed after the goodbye, so that its tracks can be closed before", async (t) => {
  const { page, daemon, receiver } = await open(t, { facts: REMOTE });
  await page.click("#join");
  await state(page, "live");
  let answer;
  const asked = new Promise((resolve) => (daemon.goodbye = () => (resolve(), new Promise((go) => (answer = go)))));
  await page.click("#leave");
  await state(page, "left");
  await asked;
  await page.waitForTimeout(500);
  const connection = () => receiver.evaluate(() => window.sessions[0].connectionState);
  assert.equal(await connection(), "connected");
  answer();
  await until(async () => (await connection()) !== "connected");
});

test("on the direct way a taken slot is noticed before the browser gives the connection up", async (t) => {
  const { page, daemon, receiver, requests, offers, refuse } = await open(t);
  await page.click("#join");
  await state(page, "live");
  await page.evaluate(() => {
    window.connection = [];
    const { pc } = window.guestRelay;
    pc.addEventListener("connectionstatechange", () => window.connection.push(pc.connectionState));
  });
  refuse.push(...Array(9).fill({ status: 409, body: "somebody else has joined as guest1\n" }));
  daemon.holds = false;
  // Gone without a word, as a session is that the daemon has dropped.
  await receiver.goto("chrome://crash").catch(() => {});
  await until(() => offers().length > 1);
  assert.deepEqual(await page.evaluate(() => window.connection), []);
  assert.ok(requests.some((r) => r.pathname === "/whip/guest1/session1/status"));
  assert.match(await alert(page), /Somebody else has joined/);
});

test("a disturbed connection is given up after seven seconds, not before, while the slot is still ours", async (t) => {
  const { page, receiver, offers } = await open(t);
  await page.click("#join");
  await state(page, "live");
  await page.evaluate(() => {
    const { pc } = window.guestRelay;
    pc.addEventListener("connectionstatechange", () => {
      if (pc.connectionState === "disconnected") window.disturbedAt = performance.now();
    });
    new MutationObserver(() => (window.givenUpAt ??= performance.now()))
      .observe(document.documentElement, { attributeFilter: ["data-state"] });
  });
  await receiver.goto("chrome://crash").catch(() => {});
  await state(page, "reconnecting", 40_000);
  const patience = await page.evaluate(() => window.givenUpAt - window.disturbedAt);
  assert.ok(patience >= 6_990 && patience <= 8_000, `${patience} ms`);
  assert.equal(offers().length, 1);
});
