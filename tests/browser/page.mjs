// The guest page in Chromium: what it says, offers, sends and repeats; with page_paths.mjs, which way it takes.
//
//   BASE_URL=http://127.0.0.1:8000 node tests/browser/page.mjs        (needs playwright-core and Debian's chromium)
//
// BASE_URL is a running daemon, of which only the pages are used. Without it the one that GUEST_RELAY names is started.

import assert from "node:assert/strict";
import { INSECURE_HOST, alert, open, seen, state, test, until } from "./page_stub.mjs";
import "./page_paths.mjs";

test("a page opened over http from elsewhere names the https link and asks for no camera", async (t) => {
  const { page, whip } = await open(t, { host: INSECURE_HOST, path: "/guest_join?guest=guest2" });
  const words = await alert(page);
  assert.match(words, /https/);
  assert.ok(words.includes("https://recorder.example.org/guest_join?guest=guest2"), words);
  await page.click("#join");
  await page.click("#start-preview");
  assert.equal(await page.evaluate(() => document.documentElement.dataset.state), "idle");
  assert.deepEqual(whip(), []);
});

for (const [name, words] of [
  ["NotAllowedError", /blocked.*Allow them/s],
  ["NotFoundError", /No camera and no microphone were found/],
  ["NotReadableError", /in use by another program/],
  ["AbortError", /stopped while it was being opened/],
  ["SecurityError", /administrator/],
  ["OverconstrainedError", /Choose another/],
  ["TypeError", /could not be opened \(TypeError\)/],
]) {
  test(`a getUserMedia that fails with ${name} is explained, and the button works again`, async (t) => {
    const { page, whip } = await open(t, {
      init: `{
        const real = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
        window.failing = true;
        navigator.mediaDevices.getUserMedia = (c) => window.failing
          ? Promise.reject(Object.assign(new Error("x"), { name: "${name}" })) : real(c);
      }`,
    });
    await page.click("#join");
    assert.match(await alert(page), words);
    assert.equal(await page.evaluate(() => document.documentElement.dataset.state), "idle");
    assert.deepEqual(whip(), []);
    await page.evaluate(() => (window.failing = false));
    await page.click("#start-preview");
    await state(page, "preview");
    assert.equal(await page.textContent("#error"), "");
  });
}

for (const [missing, words, kinds] of [["video", /No camera was found/, ["audio"]], ["audio", /No microphone was found/, ["video"]]]) {
  test(`a guest without ${missing} device is told so and can still join`, async (t) => {
    const { page, offers } = await open(t, {
      init: `{
        const real = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
        navigator.mediaDevices.getUserMedia = (c) => c["${missing}"]
          ? Promise.reject(new DOMException("x", "NotFoundError")) : real(c);
      }`,
    });
    await page.click("#start-preview");
    assert.match(await alert(page), words);
    await page.click("#join");
    await state(page, "live");
    const sent = [...offers()[0].body.matchAll(/^m=(\w+)/gm)].map((m) => m[1]);
    assert.deepEqual(sent, kinds);
  });
}

test("a browser that cannot send H.264 is told which ones can, and sends no offer", async (t) => {
  const { page, whip } = await open(t, {
    init: `{
      const real = RTCRtpSender.getCapabilities.bind(RTCRtpSender);
      RTCRtpSender.getCapabilities = (kind) => {
        const c = real(kind);
        return { ...c, codecs: c.codecs.filter((codec) => !/h264/i.test(codec.mimeType)) };
      };
    }`,
  });
  assert.match(await alert(page), /cannot send H\.264.*Chrome.*Safari/s);
  await page.click("#join");
  assert.match(await alert(page), /cannot send H\.264/);
  assert.deepEqual(whip(), []);
});

test("the preview opens camera and microphone in one call, at 720p30, mirrored, with a moving meter", async (t) => {
  const { page, whip } = await open(t, {
    init: `{
      const real = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
      window.asked = [];
      navigator.mediaDevices.getUserMedia = (c) => (window.asked.push(c), real(c));
    }`,
  });
  await page.click("#start-preview");
  await state(page, "preview");
  const asked = await page.evaluate(() => window.asked);
  assert.equal(asked.length, 1);
  assert.ok(asked[0].video && asked[0].audio);
  const settings = await page.evaluate(() => document.getElementById("preview").srcObject.getVideoTracks()[0].getSettings());
  assert.deepEqual([settings.width, settings.height, Math.round(settings.frameRate)], [1280, 720, 30]);
  assert.equal(await page.evaluate(() => getComputedStyle(document.getElementById("preview")).transform), "matrix(-1, 0, 0, 1, 0, 0)");
  await page.waitForFunction(() => /scaleX\(0\.[1-9]/.test(document.querySelector("#meter span").style.transform));
  assert.deepEqual(whip(), []);
});

test("Join sends an offer of H.264 and Opus only, full size from the start, within the bitrate", async (t) => {
  const { page, offers } = await open(t);
  await page.click("#join");
  await state(page, "live");
  const [offer] = offers();
  assert.deepEqual([offer.pathname, offer.type], ["/whip/guest1", "application/sdp"]);
  const video = offer.body.slice(offer.body.indexOf("m=video"));
  const codecs = [...video.matchAll(/^a=rtpmap:\d+ ([^/]+)/gm)].map((m) => m[1]);
  assert.deepEqual([...new Set(codecs)].sort(), ["H264", "rtx"]);
  const profiles = [...video.matchAll(/packetization-mode=(\d);profile-level-id=(\w+)/g)].map((m) => m.slice(1));
  assert.deepEqual(profiles[0], ["1", "42e01f"]);
  assert.ok(profiles.every(([mode]) => mode === "1"), String(profiles));
  assert.match(offer.body, /^a=candidate:/m);
  assert.match(offer.body, /a=sendonly/);
  const sender = await page.evaluate(() => {
    const p = window.guestRelay.pc.getSenders().find((s) => s.track.kind === "video").getParameters();
    return { preference: p.degradationPreference, max: p.encodings[0].maxBitrate };
  });
  assert.deepEqual(sender, { preference: "maintain-resolution", max: 2_500_000 });
  await page.waitForFunction(async () => {
    const stats = [...(await window.guestRelay.pc.getStats()).values()];
    const video = stats.find((s) => s.type === "outbound-rtp" && s.kind === "video");
    const codec = stats.find((s) => s.id === video?.codecId);
    return video?.framesEncoded > 10 && video.frameWidth === 1280 && codec?.mimeType === "video/H264";
  });
  await page.waitForFunction(() => /1280×720/.test(document.getElementById("quality").textContent));
  assert.equal(await page.textContent("#state"), "You are live");
});

test("the mutes switch tracks off and say so", async (t) => {
  const { page } = await open(t);
  await page.click("#start-preview");
  await state(page, "preview");
  await page.click("#join");
  await state(page, "live");
  for (const [id, kind, mark] of [["#mute-mic", "audio", "#mark-microphone"], ["#mute-camera", "video", "#mark-camera"]]) {
    const enabled = () => page.evaluate((kind) => window.guestRelay.pc.getSenders().find((s) => s.track.kind === kind).track.enabled, kind);
    assert.equal(await page.getAttribute(id, "aria-pressed"), "false");
    await page.click(id);
    assert.deepEqual([await page.getAttribute(id, "aria-pressed"), await enabled(), await page.isVisible(mark)], ["true", false, true]);
    await page.click(id);
    assert.deepEqual([await page.getAttribute(id, "aria-pressed"), await enabled(), await page.isVisible(mark)], ["false", true, false]);
  }
});

test("Leave deletes the session and keeps the preview", async (t) => {
  const { page, whip } = await open(t);
  await page.click("#join");
  await state(page, "live");
  await page.click("#leave");
  await state(page, "left");
  await page.waitForFunction(() => !document.getElementById("join").hidden);
  assert.deepEqual(whip().filter((r) => r.method === "DELETE").map((r) => r.pathname), ["/whip/guest1/session1"]);
  assert.equal(await page.evaluate(() => window.guestRelay.pc), null);
  assert.equal(await page.evaluate(() => document.activeElement.id), "join");
});

test("a page that goes away says in two ways that it closes, and not that its guest leaves", async (t) => {
  const { page, whip } = await open(t);
  await page.click("#join");
  await state(page, "live");
  await page.goto("about:blank");
  await until(() => whip().length >= 3);
  assert.deepEqual(
    whip().slice(1).map((r) => `${r.method} ${r.pathname}`).sort(),
    ["POST /whip/guest1/session1/leave", "POST /whip/guest1/session1/leave"],
  );
});

test("a lost connection is replaced without a click, in the same slot", async (t) => {
  const { page, receiver, offers, whip } = await open(t, { path: "/guest_join?guest=guest2" });
  await page.click("#join");
  await state(page, "live");
  await receiver.evaluate(() => window.sessions[0].close());
  await state(page, "reconnecting", 40_000);
  assert.equal(await page.textContent("#state"), "Connection lost, joining again …");
  await state(page, "live");
  assert.deepEqual(offers().map((r) => r.pathname), ["/whip/guest2", "/whip/guest2"]);
  assert.notEqual(offers()[0].body, offers()[1].body);
  // The mixer's input is kept only while nobody says goodbye.
  assert.deepEqual(whip().map((r) => [r.method, r.replaces]), [["POST", undefined], ["POST", "session1"]]);
  assert.equal(await page.textContent("#error"), "");
});

test("a connection that fails is replaced at once, without the patience that a disturbed one has", async (t) => {
  const { page, offers } = await open(t);
  await page.click("#join");
  await state(page, "live");
  // As long as a session lives that was a good one.
  await page.waitForTimeout(5_200);
  const failedAt = performance.now();
  await page.evaluate(() => {
    const { pc } = window.guestRelay;
    Object.defineProperty(pc, "connectionState", { value: "failed" });
    pc.dispatchEvent(new Event("connectionstatechange"));
  });
  await until(() => offers().length === 2);
  const waited = performance.now() - failedAt;
  assert.ok(waited < 2_000, `${waited} ms`);
  await state(page, "live");
});

for (const [status, words] of [
  [403, /producer has closed this guest slot/], [404, /does not exist/], [410, /ended your connection/],
  [406, /could not join: the offer has no H\.264/],
]) {
  test(`a refusal with ${status} is final`, async (t) => {
    const { page, offers } = await open(t, { refuse: [{ status, body: "the offer has no H.264\n" }] });
    await page.click("#join");
    assert.match(await alert(page), words);
    await state(page, "preview");
    await page.waitForTimeout(1500);
    assert.equal(offers().length, 1);
  });
}

test("trouble that may pass is told and tried again: no server, 503, 429", async (t) => {
  const { page, offers } = await open(t, {
    refuse: ["abort", { status: 503, body: "starting\n" }, { status: 429, headers: { "retry-after": "3" }, body: "wait\n" }],
  });
  await page.click("#join");
  await state(page, "reconnecting");
  assert.equal(await page.textContent("#state"), "Not connected, trying again …");
  await state(page, "live", 30_000);
  const told = (await seen(page)).errors.join("|");
  assert.match(told, /cannot be reached.*\(starting\).*Too many attempts/);
  assert.equal(await page.textContent("#error"), "");
  assert.equal(offers().length, 4);
});

test("a slot that somebody else took is given up after a while, not fought for", async (t) => {
  const { page, receiver, offers, refuse } = await open(t, { init: "Math.random = () => 0; window.realTimeout = setTimeout; " +
    "window.setTimeout = (f, ms) => window.realTimeout(f, ms >= 1000 && ms <= 15000 ? ms / 20 : ms);" });
  await page.click("#join");
  await state(page, "live");
  refuse.push(...Array(9).fill({ status: 409, body: "somebody else has joined as guest1\n" }));
  await receiver.evaluate(() => window.sessions[0].close());
  await state(page, "left", 30_000);
  assert.match(await alert(page), /Somebody else has joined/);
  assert.equal(offers().length, 1 + 5);
});

test("Leave ends the attempts to come back", async (t) => {
  const { page, offers } = await open(t, { refuse: Array(9).fill("abort") });
  await page.click("#join");
  await state(page, "reconnecting");
  await page.click("#leave");
  await state(page, "left");
  const sent = offers().length;
  await page.waitForTimeout(2500);
  assert.equal(offers().length, sent);
});

test("another camera is sent without a new session and is remembered after a reload", async (t) => {
  const { page, offers } = await open(t);
  await page.click("#join");
  await state(page, "live");
  const cameras = await page.$$eval("#camera option", (options) => options.map((o) => o.value));
  assert.equal(cameras.length, 3);
  const current = await page.inputValue("#camera");
  const other = cameras.find((id) => id !== current && id !== "none");
  await page.selectOption("#camera", other);
  await page.waitForFunction((id) => window.guestRelay.pc.getSenders().find((s) => s.track.kind === "video").track.getSettings().deviceId === id, other);
  assert.equal(offers().length, 1);
  await page.reload();
  await page.click("#start-preview");
  await state(page, "preview");
  assert.equal(await page.inputValue("#camera"), other);
});

test("what is muted stays muted when devices change", async (t) => {
  const { page } = await open(t);
  await page.click("#join");
  await state(page, "live");
  await page.click("#mute-mic");
  await page.click("#mute-camera");
  const before = await page.evaluate(() => window.guestRelay.pc.getSenders().map((s) => s.track.id));
  await page.check("#music");
  const other = await page.$eval("#camera", (select) => [...select.options].find((o) => !o.selected && o.value !== "none").value);
  await page.selectOption("#camera", other);
  await page.waitForFunction((before) => window.guestRelay.pc.getSenders().every((s) => !before.includes(s.track.id)), before);
  assert.deepEqual(await page.evaluate(() => window.guestRelay.pc.getSenders().map((s) => s.track.enabled)), [false, false]);
  assert.equal(await page.getAttribute("#mute-mic", "aria-pressed"), "true");
});

test("the slot comes from the link, or is chosen among the open ones", async (t) => {
  const { page, origin } = await open(t);
  assert.deepEqual(await page.$$eval("#guest option", (options) => options.map((o) => o.value)), ["guest1", "guest2"]);
  assert.equal(await page.inputValue("#guest"), "guest1");
  assert.ok(await page.isVisible("#guest"));
  await page.goto(`${origin}/guest_join?guest=guest2`);
  await page.waitForFunction(() => document.getElementById("guest").value === "guest2");
  assert.ok(!(await page.isVisible("#guest")));
  assert.equal(await page.textContent("#slot"), "Guest 2");
});

test("every control has a name, a size for fingers, and the keyboard reaches it in order", async (t) => {
  const { page } = await open(t);
  await page.click("#start-preview");
  await state(page, "preview");
  for (const [role, name] of [
    ["button", "Mute microphone"], ["button", "Turn camera off"], ["button", "Join Stream"],
    ["combobox", "Guest slot"], ["combobox", "Camera"], ["combobox", "Microphone"],
  ]) {
    const box = await page.getByRole(role, { name, exact: true }).boundingBox();
    assert.ok(box.width >= 24 && box.height >= 24, name);
  }
  assert.equal(await page.getAttribute("#state", "role"), "status");
  assert.equal(await page.getAttribute("#error", "role"), "alert");
  await page.focus("#mute-mic");
  const order = ["mute-mic"];
  for (let i = 0; i < 6; i += 1) {
    await page.keyboard.press("Tab");
    order.push(await page.evaluate(() => document.activeElement.id));
  }
  assert.deepEqual(order, ["mute-mic", "mute-camera", "join", "guest", "camera", "microphone", "music"]);
});

test("the page speaks Norwegian to Norwegians, and has all its words in both languages", async (t) => {
  const { page } = await open(t, { locale: "nb-NO" });
  assert.equal(await page.evaluate(() => document.documentElement.lang), "nb");
  assert.equal(await page.textContent("#join"), "Bli med i sendingen");
  const keys = await page.evaluate(async () => {
    const { tables } = await import("/static/strings.js");
    return { en: Object.keys(tables.en).sort(), nb: Object.keys(tables.nb).sort() };
  });
  assert.deepEqual(keys.nb, keys.en);
  const english = await open(t);
  assert.equal(await english.page.textContent("#join"), "Join Stream");
});
