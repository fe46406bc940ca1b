// The whole path on one machine: Chromium with fake devices -> the guest page
// -> the daemon -> an RTMP server. Run through tests/scripts/e2e.sh; names of checks as
// arguments run only those.

import fs from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { Guest, openBrowser } from "./guest.mjs";
import { metricsAreSound } from "./metrics.mjs";
import { behindLoss, burstsOfLoss, guestsShareTheTotal, narrowLink } from "./network.mjs";
import { decode, notIncreasing, probe, rate } from "./recording.mjs";
import { RtmpTap } from "./rtmp_tap.mjs";
import * as servers from "./servers.mjs";
import { Stage, droppedDatagrams, freeTcpPort, program, until } from "./stage.mjs";

const MEDIA_SECONDS = 20;
const MIN_FRAMES_PER_SECOND = 25;
const OPUS_PACKETS_PER_SECOND = [48, 52];
const CHECK_LIMIT_MS = 120_000;

const HOSTILE_DATAGRAMS = 200_000;
const HOSTILE_SEED = 20_251_218;
const MAX_MEMORY_GROWTH_KIB = 2_048;

const OUTAGE_MS = 3_000;
/** The daemon finds a server that is back within 2 s; the rest is for the keyframe and a busy machine. */
const MAX_SERVER_RETURN_MS = 3_000;
/** From the start of the daemon after a crash to the guest's first picture. */
const MAX_CRASH_RETURN_MS = 5_000;
/** How long after the end of a fault at the SFU a guest may stay away. */
const MAX_RECOVERY_MS = 10_000;

function require(holds, what) {
  if (!holds) throw new Error(what);
}

/** A server with a tap before it, and a daemon, configured by `further` too, that publishes to the tap. */
async function relayInto(stage, startServer, ...further) {
  const server = await startServer(stage);
  const tap = new RtmpTap(server.port, await freeTcpPort());
  await tap.open();
  stage.defer(() => tap.close());
  const daemon = await stage.startDaemon(`rtmp://127.0.0.1:${tap.port}/${server.target}`, ...further);
  return { server, tap, daemon };
}

async function firstFrame(tap, guest) {
  return until(`the first frame of ${guest} at the RTMP server`, 15_000, () => tap.of(guest), 5);
}

function requireHealthy(daemon, tap) {
  require(daemon.running, `the daemon ended (${daemon.exit})`);
  require(!/panicked at/.test(daemon.log()), "the daemon panicked");
  const wrong = tap.connections.flatMap((each) => each.errors);
  require(wrong.length === 0, `on the wire: ${wrong.slice(0, 3).join("; ")}`);
}

/** Brings a guest's frame counters to rest: what the browser sent, what passed the tap. */
async function frameCounts(tap, guests) {
  await Promise.all(guests.map((guest) => guest.pauseVideo()));
  await sleep(1_000);
  const counts = [];
  for (const guest of guests) {
    const video = await guest.video();
    counts.push({
      sent: video.framesSent,
      arrived: tap.of(guest.id).video.frames,
      connection: tap.of(guest.id),
      lost: video.packetsLost,
    });
  }
  await Promise.all(guests.map((guest) => guest.resumeVideo()));
  return counts;
}

function requireEveryFrame(id, before, after) {
  const sent = after.sent - before.sent;
  const arrived = after.arrived - before.arrived;
  require(before.connection === after.connection, `${id}: the RTMP connection changed`);
  require(sent > 0 && arrived === sent, `${id}: Chromium sent ${sent} frames, ${arrived} arrived`);
  return `${arrived} of ${sent} frames`;
}

/** Sooner than the service gives up a session whose peer is gone without a word (30 s), or that never had one (10 s). */
const SFU_SESSION_LIMIT_MS = 6_000;
/** What a daemon that was killed had pulled, nobody closes: the service does. */
const SFU_ORPHAN_LIMIT_MS = 40_000;

/** Once all guests have left: no session is left over, no rule of the API was broken, the secret was told to nobody. */
async function requireCleanSfu(sfu, daemon, limitMs = SFU_SESSION_LIMIT_MS) {
  const isEmpty = async () => (await sfu.snapshot()).sessions.length === 0;
  await until("the SFU's sessions to be closed", limitMs, isEmpty);
  const { violations } = await sfu.snapshot();
  require(violations.length === 0, `at the SFU: ${JSON.stringify(violations.slice(0, 3))}`);
  require(!daemon.log().includes(sfu.secret), "the app's secret stands in the log");
}

/** 20 s into one server, and all that can be said about the recording. */
function recordsInto(startServer, { remote = false } = {}) {
  return async (stage) => {
    const sfu = remote ? await servers.sfuSim(stage) : undefined;
    const { server, tap, daemon } = await relayInto(stage, startServer, sfu?.config ?? "");
    const browser = await openBrowser(stage);
    const guest = await Guest.open(browser, daemon, "guest1", remote ? "calls" : "direct");
    const joinedAt = await guest.join();
    const connection = await firstFrame(tap, "guest1");
    await sleep(MEDIA_SECONDS * 1_000);
    const encoded = await guest.video();
    await guest.leave();
    await until("the RTMP connection to end", 5_000, () => connection.closed);
    requireHealthy(daemon, tap);
    require(guest.errors.length === 0, `the page threw: ${guest.errors[0]}`);
    require(tap.connections.length === 1, `${tap.connections.length} RTMP connections were made`);
    require(connection.video.firstIsKey, "the first frame is no keyframe");
    if (sfu) await requireCleanSfu(sfu, daemon);

    const file = await server.finish("guest1");
    const { video, audio } = await probe(file);
    require(video?.stream.codec_name === "h264", `video is ${video?.stream.codec_name}`);
    require(audio?.stream.codec_name === "opus", `audio is ${audio?.stream.codec_name}`);
    const size = `${video.stream.width}x${video.stream.height}`;
    require(size === "1280x720", `the picture is ${size}`);
    require(audio.stream.sample_rate === "48000", `audio runs at ${audio.stream.sample_rate} Hz`);
    for (const [kind, { dts }] of Object.entries({ video, audio })) {
      require(notIncreasing(dts) === undefined, `${kind} dts: ${notIncreasing(dts)}`);
    }
    const seconds = video.dts.at(-1) - video.dts[0];
    require(seconds > MEDIA_SECONDS - 2, `only ${seconds.toFixed(1)} s were recorded`);
    const framesPerSecond = rate(video.dts, 1);
    const seen = `${framesPerSecond.toFixed(1)} frames/s, of ${encoded.framesEncoded} that Chromium encoded in about ${MEDIA_SECONDS} s`;
    if (framesPerSecond < MIN_FRAMES_PER_SECOND) {
      // What Chromium had no time to encode says nothing about the way behind it.
      const encodedEnough = encoded.framesEncoded >= MIN_FRAMES_PER_SECOND * MEDIA_SECONDS;
      throw Object.assign(new Error(seen), { machineTooBusy: !encodedEnough });
    }
    const packetsPerSecond = rate(audio.dts);
    const [least, most] = OPUS_PACKETS_PER_SECOND;
    require(packetsPerSecond >= least && packetsPerSecond <= most, `${packetsPerSecond.toFixed(1)} Opus packets/s`);
    require(connection.video.frames ===
      video.dts.length, `${connection.video.frames} frames on the wire, ${video.dts.length} recorded`);
    const { complaint, frames } = await decode(file);
    require(complaint === "", `ffmpeg -xerror: ${complaint}`);
    require(frames === video.dts.length, `${frames} of ${video.dts.length} frames decoded`);
    return {
      "first frame": `${connection.video.firstAt - joinedAt} ms`,
      picture: size,
      "frames/s": framesPerSecond.toFixed(1),
      "opus/s": packetsPerSecond.toFixed(1),
      dts: "increasing",
      decoded: `${frames} frames`,
    };
  };
}

/** Two guests at once; one leaves and the other keeps every frame. */
async function oneOfTwoLeaves(stage) {
  const { tap, daemon } = await relayInto(stage, servers.ingest);
  const browser = await openBrowser(stage);
  const stays = await Guest.open(browser, daemon, "guest1");
  const leaves = await Guest.open(browser, daemon, "guest2");
  await stays.join();
  await leaves.join();
  const staying = await firstFrame(tap, "guest1");
  const leaving = await firstFrame(tap, "guest2");
  await sleep(3_000);
  const [before] = await frameCounts(tap, [stays]);
  await sleep(3_000);
  await leaves.leave();
  await until("the leaver's RTMP connection to end", 5_000, () => leaving.closed);
  await sleep(3_000);
  const [after] = await frameCounts(tap, [stays]);
  const kept = requireEveryFrame("guest1", before, after);
  require(!staying.closed, "the connection of the guest who stayed ended too");
  require((await stays.state()) === "live", `the page of the guest who stayed says ${await stays.state()}`);
  requireHealthy(daemon, tap);
  return { kept };
}

/** The RTMP server dies and comes back; the guest notices nothing. */
async function serverRestarts(stage) {
  const { server, tap, daemon } = await relayInto(stage, servers.ingest);
  const browser = await openBrowser(stage);
  const guest = await Guest.open(browser, daemon, "guest1");
  await guest.join();
  const first = await firstFrame(tap, "guest1");
  await sleep(4_000);
  await guest.watchStates();
  await tap.close();
  await server.server.stop("SIGKILL");
  await sleep(OUTAGE_MS);
  await servers.ingest(stage, server.port);
  await tap.open();
  const backAt = Date.now();
  const second = await until(
    "a frame after the restart",
    15_000,
    () => {
      const connection = tap.of("guest1");
      return connection !== first && connection;
    },
    5,
  );
  const away = second.video.firstAt - backAt;
  await sleep(4_000);
  const states = await guest.seenStates();
  require(states.join() === "connection connected,page live", `the page went through: ${states.join(", ")}`);
  require(second.video.firstIsKey, "the first frame after the restart is no keyframe");
  require(second.video.firstDts < 1_000, `timestamps start at ${second.video.firstDts} ms after the restart`);
  require(second.video.frames > 3 * MIN_FRAMES_PER_SECOND, `${second.video.frames} frames in 4 s after the restart`);
  require(!second.closed, "the second connection ended");
  require(away <= MAX_SERVER_RETURN_MS, `first frame ${away} ms after the server was back`);
  requireHealthy(daemon, tap);
  return { "down for": `${OUTAGE_MS} ms`, "first frame after": `${away} ms`, page: "stayed connected" };
}

/**
 * Hostile datagrams of every length and shape while a guest is live: from
 * strangers' sockets, then from the very socket of a second guest.
 */
async function hostileDatagrams(stage) {
  const { tap, daemon } = await relayInto(stage, servers.ingest);
  const browser = await openBrowser(stage);
  const guest = await Guest.open(browser, daemon, "guest1");
  await guest.join();
  await firstFrame(tap, "guest1");
  const loadgen = (name, args) => stage.start(name, program("LOADGEN"), args);
  const second = loadgen("guest2", [
    "publish",
    "--url",
    `${daemon.url}/whip/guest2`,
    "--hostile",
    `${HOSTILE_DATAGRAMS}`,
    "--seed",
    `${HOSTILE_SEED}`,
  ]);
  await firstFrame(tap, "guest2");
  await sleep(3_000);
  const [before] = await frameCounts(tap, [guest]);
  const memoryBefore = daemon.memoryKib("VmRSS");
  const droppedBefore = droppedDatagrams(daemon.rtcPort);

  const strangers = loadgen("strangers", [
    "hostile",
    "--to",
    `127.0.0.1:${daemon.rtcPort}`,
    "--count",
    `${HOSTILE_DATAGRAMS}`,
    "--seed",
    `${HOSTILE_SEED}`,
  ]);
  require((await strangers.exited) === 0, `the flood did not go out:\n${strangers.log()}`);
  await sleep(5_000);

  const memoryAfter = daemon.memoryKib("VmRSS");
  const dropped = droppedDatagrams(daemon.rtcPort) - droppedBefore;
  const [after] = await frameCounts(tap, [guest]);
  const kept = requireEveryFrame("guest1", before, after);
  require(after.lost === before.lost, `${after.lost - before.lost} packets were reported lost`);
  require((await guest.state()) === "live", `the page says ${await guest.state()}`);
  const connection = tap.of("guest2");
  const framesBefore = connection.video.frames;
  await sleep(2_000);
  const frames = connection.video.frames - framesBefore;
  require(frames >= 2 * MIN_FRAMES_PER_SECOND, `guest2 brought ${frames} frames in 2 s after its own flood`);
  require(second.running, `guest2 ended (${second.exit}):\n${second.log()}`);
  const growth = memoryAfter - memoryBefore;
  require(growth <= MAX_MEMORY_GROWTH_KIB, `resident memory grew by ${growth} KiB`);
  requireHealthy(daemon, tap);
  return {
    datagrams: `2 x ${HOSTILE_DATAGRAMS}, seed ${HOSTILE_SEED}, ${dropped} dropped by the kernel`,
    kept,
    "memory growth": `${growth} KiB`,
  };
}

/** The SFU's session of guest1, as the daemon tells it. */
async function remoteSession(daemon) {
  const { sessions } = await (await fetch(`${daemon.url}/api/calls/sessions`)).json();
  return sessions.guest1;
}

/** The daemon is killed while a remote guest is live; started again it brings the guest back, whose page sees nothing. */
async function daemonCrashes(stage) {
  const sfu = await servers.sfuSim(stage);
  const { tap, daemon } = await relayInto(stage, servers.ingest, sfu.config);
  const browser = await openBrowser(stage);
  const guest = await Guest.open(browser, daemon, "guest1", "calls");
  await guest.join();
  const first = await firstFrame(tap, "guest1");
  await sleep(4_000);
  await guest.watchStates();
  const session = await remoteSession(daemon);
  await daemon.stop("SIGKILL");
  const startedAt = Date.now();
  const again = Object.assign(await stage.bootDaemon(daemon.url), { url: daemon.url });
  const second = await until(
    "a frame after the crash",
    15_000,
    () => {
      const connection = tap.of("guest1");
      return connection !== first && connection;
    },
    5,
  );
  const away = second.video.firstAt - startedAt;
  await sleep(4_000);
  const states = await guest.seenStates();
  require(states.join() === "connection connected,page live", `the page went through: ${states.join(", ")}`);
  require((await guest.page.textContent("#error")) === "", "the page shows an error");
  require(guest.errors.length === 0, `the page threw: ${guest.errors[0]}`);
  require((await remoteSession(again)) === session, "the guest had to publish anew");
  require(second.video.frames > 3 * MIN_FRAMES_PER_SECOND, `${second.video.frames} frames in 4 s after the crash`);
  require(away <= MAX_CRASH_RETURN_MS, `first frame ${away} ms after the daemon was started again`);
  await guest.leave();
  await until("the RTMP connection to end", 5_000, () => second.closed);
  await requireCleanSfu(sfu, again, SFU_ORPHAN_LIMIT_MS);
  requireHealthy(again, tap);
  return { "first frame after": `${away} ms`, page: "saw nothing" };
}

/** A live remote guest whose RTMP connection is `connection`. */
async function liveRemoteGuest(stage, holdSeconds) {
  stage.holdSeconds = holdSeconds;
  const sfu = await servers.sfuSim(stage);
  const { tap, daemon } = await relayInto(stage, servers.ingest, sfu.config);
  const browser = await openBrowser(stage);
  const guest = await Guest.open(browser, daemon, "guest1", "calls");
  await guest.join();
  const connection = await firstFrame(tap, "guest1");
  await sleep(3_000);
  return { sfu, tap, daemon, browser, guest, connection };
}

/** Waits for the pace of a guest's pictures: the last one of a guest who is away is repeated once a second. */
async function picturesFlow(connection, limitMs) {
  const startedAt = Date.now();
  let before = connection.video.frames;
  await until("pictures at a guest's pace", limitMs, async () => {
    await sleep(500);
    const frames = connection.video.frames - before;
    before = connection.video.frames;
    return frames >= 5;
  });
  return Date.now() - startedAt;
}

/** Reloading the page and joining again is one guest to the mixer. */
async function guestReloads(stage) {
  const { sfu, tap, daemon, guest, connection } = await liveRemoteGuest(stage, 15);
  await guest.page.reload();
  await guest.page.waitForFunction(() => ["idle", "preview"].includes(document.documentElement.dataset.state));
  await guest.join();
  const back = await picturesFlow(connection, 10_000);
  require(tap.connections.length === 1 && !connection.closed, "the RTMP connection was dropped");
  await guest.leave();
  await requireCleanSfu(sfu, daemon);
  requireHealthy(daemon, tap);
  return { "pictures after": `${back} ms`, "RTMP connections": tap.connections.length };
}

/** The tab is closed: the input is released after the hold, and the tracks are closed before the SFU would collect them. */
async function tabCloses(stage) {
  const { sfu, tap, daemon, guest, connection } = await liveRemoteGuest(stage, 3);
  const closedAt = Date.now();
  await guest.page.close({ runBeforeUnload: true });
  await until("the SFU's sessions to end", 5_000, async () => (await sfu.snapshot()).sessions.length === 0);
  const cleared = Date.now() - closedAt;
  require(!connection.closed, "the input was released before the hold was over");
  await until("the input to be released", 8_000, () => connection.closed);
  const released = Date.now() - closedAt;
  require(released >= 2_900, `released after ${released} ms`);
  await requireCleanSfu(sfu, daemon);
  requireHealthy(daemon, tap);
  return { "SFU empty after": `${cleared} ms`, "released after": `${released} ms` };
}

/** A second page takes the slot: the mixer's input goes on, and the first page says what has happened. */
async function slotIsTaken(stage) {
  const { sfu, tap, daemon, browser, guest, connection } = await liveRemoteGuest(stage, 15);
  const other = await Guest.open(browser, daemon, "guest1", "calls");
  await other.join();
  const told = async () => /Somebody else has joined/.test(await guest.page.textContent("#error"));
  await until("the first page to say so", 10_000, told);
  await picturesFlow(connection, 10_000);
  require((await other.state()) === "live", `the second page says ${await other.state()}`);
  require(tap.connections.length === 1 && !connection.closed, "the RTMP connection was dropped");
  await guest.leave();
  require((await other.state()) === "live", "the first page's goodbye ended the second one's session");
  await other.leave();
  await requireCleanSfu(sfu, daemon);
  requireHealthy(daemon, tap);
  return { "first page": "was told", "RTMP connections": tap.connections.length };
}

/** The SFU loses the guest's session without a word: the page comes back by itself, in the same publication. */
async function sfuLosesGuest(stage) {
  const { sfu, tap, daemon, guest, connection } = await liveRemoteGuest(stage, 15);
  const session = await remoteSession(daemon);
  await sfu.inject({ fault: "kill_session", session });
  const lostAt = Date.now();
  await until("another session", MAX_RECOVERY_MS, async () => {
    const now = await remoteSession(daemon);
    return now && now !== session;
  });
  await picturesFlow(connection, MAX_RECOVERY_MS);
  const away = Date.now() - lostAt;
  require(away <= MAX_RECOVERY_MS, `live again after ${away} ms`);
  require(tap.connections.length === 1 && !connection.closed, "the RTMP connection was dropped");
  await guest.leave();
  await requireCleanSfu(sfu, daemon);
  requireHealthy(daemon, tap);
  return { "live again after": `${away} ms` };
}

/** Joining while the API refuses us, does not know the app, or cannot be reached: words on the page, then live by itself. */
async function apiIsIll(stage) {
  const sfu = await servers.sfuSim(stage);
  const { tap, daemon } = await relayInto(stage, servers.ingest, sfu.config);
  const browser = await openBrowser(stage);
  const facts = {};
  for (const [fault, words] of [
    ["wrong_secret", /not set up correctly/],
    ["unknown_app", /not set up correctly/],
    ["no_service", /cannot reach Cloudflare/],
  ]) {
    const guest = await Guest.open(browser, daemon, "guest1", "calls");
    await sfu.inject({ fault });
    await guest.page.click("#join");
    await until(`${fault} on the page`, 10_000, async () => words.test(await guest.page.textContent("#error")));
    const { guests } = await (await fetch(`${daemon.url}/api/guests`)).json();
    require(guests[0].problem, `${fault}: the producer is told nothing`);
    await sleep(4_000);
    await sfu.inject({ fault: "none" });
    const endedAt = Date.now();
    await until("the page to be live", MAX_RECOVERY_MS, async () => (await guest.state()) === "live");
    facts[fault] = `live ${Date.now() - endedAt} ms after its end`;
    require((await guest.page.textContent("#error")) === "", "the page still shows an error");
    await guest.leave();
  }
  await requireCleanSfu(sfu, daemon);
  requireHealthy(daemon, tap);
  return facts;
}

const CHECKS = {
  "into ingest": recordsInto(servers.ingest),
  "into ffmpeg": recordsInto(servers.ffmpeg),
  "into nginx-rtmp": recordsInto(servers.nginx),
  "through the SFU into ingest": recordsInto(servers.ingest, { remote: true }),
  "through the SFU into ffmpeg": recordsInto(servers.ffmpeg, { remote: true }),
  "the daemon crashes": daemonCrashes,
  "a remote guest reloads": guestReloads,
  "a remote guest closes the tab": tabCloses,
  "a remote guest's slot is taken": slotIsTaken,
  "the SFU loses a guest": sfuLosesGuest,
  "the SFU's API is ill": apiIsIll,
  "one of two guests leaves": oneOfTwoLeaves,
  "the RTMP server restarts": serverRestarts,
  "hostile datagrams": hostileDatagrams,
  "behind a network that loses": behindLoss,
  "behind bursts of loss": burstsOfLoss,
  "behind a narrow link": narrowLink,
  "guests share the total": guestsShareTheTotal,
  "Prometheus reads the metrics": metricsAreSound,
};

function limited(work, limitMs) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`did not end within ${limitMs} ms`)), limitMs);
  });
  return Promise.race([work, late]).finally(() => clearTimeout(timer));
}

const wanted = process.argv.slice(2);
let failed = 0;
let passed = 0;
let onStage;
process.once("SIGTERM", async () => {
  await onStage?.strike().catch(() => {});
  process.exit(1);
});

/** Plays one check and strikes its stage. */
async function play(name, check) {
  const stage = new Stage(name.replaceAll(" ", "-"));
  onStage = stage;
  try {
    const facts = await limited(check(stage), CHECK_LIMIT_MS);
    await stage.strike();
    return { facts };
  } catch (error) {
    await stage.strike().catch((late) => fs.appendFileSync(stage.file("strike.log"), `${late.stack}\n`));
    return { error, logs: stage.dir };
  }
}

for (const [name, check] of Object.entries(CHECKS)) {
  if (wanted.length > 0 && !wanted.some((each) => name.includes(each))) continue;
  let outcome = await play(name, check);
  if (outcome.error?.machineTooBusy) {
    console.log(`again ${name.padEnd(28)} Chromium had too little of this machine: ${outcome.error.message}`);
    outcome = await play(`${name} again`, check);
  }
  const { facts, error, logs } = outcome;
  if (error) {
    failed += 1;
    console.log(`FAIL  ${name.padEnd(28)} ${error.message.split("\n").join("\n      ")}\n      logs: ${logs}`);
  } else {
    passed += 1;
    const told = Object.entries(facts).map(([key, value]) => `${key}: ${value}`);
    console.log(`ok    ${name.padEnd(28)} ${told.join(" | ")}`);
  }
}
if (passed + failed === 0) {
  console.log(`no check is called ${wanted.join(" or ")}; there are: ${Object.keys(CHECKS).join(", ")}`);
  failed = 1;
}
process.exitCode = failed === 0 ? 0 : 1;
