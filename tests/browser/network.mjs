// Chromium on bad networks: what loses, what is narrow, and a limit that several guests share.
//
// The datagrams pass `loadgen proxy`. The page learns its port in the place of the daemon's, because the SDP answer is
// changed on its way to the page; the daemon's own port is named nowhere else.

import { setTimeout as sleep } from "node:timers/promises";
import { Guest, openBrowser } from "./guest.mjs";
import { decode, notIncreasing, probe } from "./recording.mjs";
import * as servers from "./servers.mjs";
import { program, until } from "./stage.mjs";

const SEED = 20_251_125;
/** Per direction: a round trip of 60 ms. */
const LOSS = ["--loss", "3%", "--delay-ms", "30"];
const LOSS_SECONDS = 60;
const MAX_MISSING_SHARE = 0.02;
/** What the next packet repeats of the sound is not enough here, some has to be asked for. */
const BURSTS = ["--loss", "6%", "--burst", "2", "--delay-ms", "30", "--jitter-ms", "10"];
const BURSTS_SECONDS = 20;
/** Less than the picture would take. */
const NARROW_KBPS = 700;
const NARROW = ["--rate-kbps", `${NARROW_KBPS}`, "--queue-ms", "400", "--delay-ms", "20"];
const NARROW_SECONDS = 20;
const NARROW_MIN_FRAMES_PER_SECOND = 20;
/** A picture that stands this long is frozen to whoever looks at it. */
const FROZEN_SECONDS = 0.5;
/** Chromium probes for a higher rate every few seconds only. */
const LIMIT_HEEDED_MS = 30_000;

function require(holds, what) {
  if (!holds) throw new Error(what);
}

/** A daemon that publishes to an ingest, configured by variables too, and a browser. */
async function scene(stage, environment = {}) {
  stage.environment = environment;
  const server = await servers.ingest(stage);
  const daemon = await stage.startDaemon(`rtmp://127.0.0.1:${server.port}/${server.target}`);
  const browser = await openBrowser(stage);
  return { server, daemon, browser };
}

/** Forwards the media of `guest` through `loadgen proxy` with these options. */
async function behind(stage, daemon, guest, network) {
  const addresses = ["--listen", "127.0.0.1:0", "--to", `127.0.0.1:${daemon.rtcPort}`];
  const proxy = stage.start("proxy", program("LOADGEN"), ["proxy", ...addresses, "--seed", `${SEED}`, ...network]);
  const port = await until("the proxy to listen", 5_000, () => {
    require(proxy.running, `the proxy ended (${proxy.exit}):\n${proxy.log()}`);
    const said = proxy.log().match(/listening on 127\.0\.0\.1:(\d+)/);
    return said ? Number(said[1]) : undefined;
  });
  await guest.page.route("**/whip/**", async (route) => {
    const response = await route.fetch();
    const body = await response.text();
    const there = new RegExp(`( 127\\.0\\.0\\.1 )${daemon.rtcPort}( typ host)`, "g");
    const detour = body.replace(there, `$1${port}$2`);
    // Without it the guest would take the clean way, and every check would pass.
    if (route.request().method() === "POST" && response.status() === 201 && detour === body) return route.abort();
    await route.fulfill({ response, body: detour });
  });
}

/** What Chromium says of its sending, and of what we reported: of both kinds, and its estimate of the path. */
function sending(guest) {
  return guest.page.evaluate(async () => {
    const reports = [...(await window.guestRelay.pc.getStats()).values()];
    const of = (kind) => {
      const sent = reports.find((each) => each.type === "outbound-rtp" && each.kind === kind);
      const remote = reports.find((each) => each.type === "remote-inbound-rtp" && each.kind === kind);
      return { ...sent, lost: remote?.packetsLost ?? 0 };
    };
    const pair = reports.find((each) => each.type === "candidate-pair" && each.nominated);
    return { audio: of("audio"), video: of("video"), estimate: pair?.availableOutgoingBitrate };
  });
}

function requireHealthy({ server, daemon }) {
  require(daemon.running && !/panicked at/.test(daemon.log()), `the daemon: ${daemon.exit ?? "panicked"}`);
  require(!/VIOLATION|REFUSED/.test(server.server.log()), "the ingest complained, see its log");
}

async function leaves(guest, { server }) {
  await guest.leave();
  await until("the RTMP connection to end", 5_000, () => new RegExp(`${guest.id}: closed`).test(server.server.log()));
}

/** What the guest's encoder made is what the recording holds. */
export async function behindLoss(stage) {
  const { server, daemon, browser } = await scene(stage);
  const guest = await Guest.open(browser, daemon, "guest1");
  await behind(stage, daemon, guest, LOSS);
  await guest.join();
  await sleep(LOSS_SECONDS * 1_000);
  // The last frames reach the server before the guest says goodbye.
  await guest.pauseVideo();
  await sleep(500);
  const { framesEncoded, packetsLost } = await guest.video();
  await leaves(guest, { server });
  requireHealthy({ server, daemon });

  const file = await server.finish("guest1");
  const { video, audio } = await probe(file);
  for (const [kind, { dts }] of Object.entries({ video, audio })) {
    require(notIncreasing(dts) === undefined, `${kind} dts: ${notIncreasing(dts)}`);
  }
  const { complaint, frames } = await decode(file);
  require(complaint === "", `ffmpeg -xerror: ${complaint}`);
  require(packetsLost > 0, "the network lost nothing");
  const missing = Math.abs(framesEncoded - frames);
  const seen = `${frames} of ${framesEncoded} frames that Chromium encoded`;
  require(missing <= framesEncoded * MAX_MISSING_SHARE, seen);
  return { recorded: seen, "opus packets": audio.dts.length, "reported lost": packetsLost, seed: SEED };
}

/** Lost sound comes back with the packet after it, or because it is asked for. */
export async function burstsOfLoss(stage) {
  const { server, daemon, browser } = await scene(stage, { GUEST_RELAY_LOG_LEVEL: "debug" });
  const guest = await Guest.open(browser, daemon, "guest1");
  await behind(stage, daemon, guest, BURSTS);
  await guest.join();
  await sleep(BURSTS_SECONDS * 1_000);
  const { audio, video } = await sending(guest);
  await leaves(guest, { server });
  requireHealthy({ server, daemon });
  require(audio.lost > 0 && video.lost > 0, `the network lost ${audio.lost} and ${video.lost} packets`);
  require(audio.retransmittedPacketsSent > 0, "Chromium sent no sound again");
  require(video.retransmittedPacketsSent > 0, "Chromium sent no picture again");
  const [, heard] = daemon.log().match(/audio: TrackStats \{.*?StreamStats \{ (.*?) \}/);
  const counted = Object.fromEntries(heard.split(", ").map((each) => each.split(": ")));
  const back = Number(counted.redundant) + Number(counted.recovered);
  require(Number(counted.redundant) > 0 && Number(counted.recovered) > 0, `sound did not come back: ${heard}`);
  require(Number(counted.given_up) * 20 <= back, `too much sound was given up: ${heard}`);
  return {
    sound: `${counted.redundant} back by redundancy, ${counted.recovered} by request, ${counted.given_up} given up`,
    picture: `${video.lost} packets lost, ${video.retransmittedPacketsSent} sent again`,
    seed: SEED,
  };
}

/** The picture gets coarser, and neither stops nor breaks. */
export async function narrowLink(stage) {
  const { server, daemon, browser } = await scene(stage);
  const guest = await Guest.open(browser, daemon, "guest1");
  await behind(stage, daemon, guest, NARROW);
  await guest.join();
  await sleep(5_000);
  const { video: before } = await sending(guest);
  await sleep(NARROW_SECONDS * 1_000);
  const { video: after } = await sending(guest);
  await leaves(guest, { server });
  requireHealthy({ server, daemon });
  const { video: recorded } = await probe(await server.finish("guest1"));
  const since = recorded.dts.at(-1) - NARROW_SECONDS;
  const pictures = recorded.dts.filter((each) => each >= since);
  const longest = Math.max(...pictures.slice(1).map((each, index) => each - pictures[index]));
  const sent = after.packetsSent - before.packetsSent;
  const lost = after.lost - before.lost;
  const framesPerSecond = (after.framesSent - before.framesSent) / NARROW_SECONDS;
  const kbps = (8 * (after.bytesSent - before.bytesSent)) / NARROW_SECONDS / 1_000;
  const requests = after.pliCount - before.pliCount;
  const seen = `${kbps.toFixed(0)} kbit/s, ${framesPerSecond.toFixed(1)} frames/s, ${lost} of ${sent} packets lost, ${requests} PLIs`;
  require(kbps < NARROW_KBPS && kbps > NARROW_KBPS / 4, seen);
  require(framesPerSecond >= NARROW_MIN_FRAMES_PER_SECOND, seen);
  require(lost <= sent / 50, seen);
  const arrived = `${(pictures.length / NARROW_SECONDS).toFixed(1)} frames/s, the longest for ${(1_000 * longest).toFixed(0)} ms`;
  require(pictures.length >= NARROW_MIN_FRAMES_PER_SECOND * NARROW_SECONDS && longest < FROZEN_SECONDS, arrived);
  return { picture: seen, "at the server": arrived };
}

/** Chromium's estimate, whatever the network would bear, does not exceed what a guest is told. */
export async function guestsShareTheTotal(stage) {
  const { server, daemon, browser } = await scene(stage, { GUEST_RELAY_RTC_TOTAL_BITRATE_KBPS: "2000" });
  const staying = await Guest.open(browser, daemon, "guest1");
  const leaving = await Guest.open(browser, daemon, "guest2");
  const estimates = [];
  const settles = async (guest, least, most) => {
    const what = `${guest.id} to estimate ${least} to ${most} bit/s, after ${estimates.join(", ")}`;
    const settled = async () => {
      const { estimate } = await sending(guest);
      return estimate > least && estimate <= most && estimate;
    };
    const estimate = await until(what, LIMIT_HEEDED_MS, settled, 250);
    estimates.push(`${guest.id} ${Math.round(estimate / 1_000)} kbit/s`);
  };
  await staying.join();
  await settles(staying, 1_000_000, 2_000_000);
  await leaving.join();
  await Promise.all([settles(staying, 500_000, 1_000_000), settles(leaving, 500_000, 1_000_000)]);
  await leaving.leave();
  await settles(staying, 1_000_000, 2_000_000);
  requireHealthy({ server, daemon });
  return { "one, two, one again": estimates.join(", ") };
}
