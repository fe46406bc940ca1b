// Chromium on a network that loses packets: what the guest's encoder made is
// what the recording holds.
//
// The datagrams pass `loadgen proxy`. The page learns its port in the place of
// the daemon's, because the SDP answer is changed on its way to the page; the
// daemon's own port is named nowhere else.

import { setTimeout as sleep } from "node:timers/promises";
import { Guest, openBrowser } from "./guest.mjs";
import { decode, notIncreasing, probe } from "./recording.mjs";
import * as servers from "./servers.mjs";
import { program, until } from "./stage.mjs";

const MEDIA_SECONDS = 60;
/** Per direction: a round trip of 60 ms. */
const NETWORK = ["--loss", "3%", "--delay-ms", "30"];
const SEED = 20_251_125;
const MAX_MISSING_SHARE = 0.02;

function require(holds, what) {
  if (!holds) throw new Error(what);
}

/** A bad network in front of a UDP port of this machine; returns the port that leads through it. */
async function networkTo(stage, port) {
  const args = ["--listen", "127.0.0.1:0", "--to", `127.0.0.1:${port}`, "--seed", `${SEED}`, ...NETWORK];
  const proxy = stage.start("proxy", program("LOADGEN"), ["proxy", ...args]);
  return until("the proxy to listen", 5_000, () => {
    require(proxy.running, `the proxy ended (${proxy.exit}):\n${proxy.log()}`);
    const said = proxy.log().match(/listening on 127\.0\.0\.1:(\d+)/);
    return said ? Number(said[1]) : undefined;
  });
}

/** Has each answer to the page name `to` where it names the port `from`. */
async function redirect(guest, from, to) {
  await guest.page.route("**/whip/**", async (route) => {
    const response = await route.fetch();
    const body = await response.text();
    const there = new RegExp(`( 127\\.0\\.0\\.1 )${from}( typ host)`, "g");
    await route.fulfill({ response, body: body.replace(there, `$1${to}$2`) });
  });
}

export async function behindLoss(stage) {
  const server = await servers.ingest(stage);
  const daemon = await stage.startDaemon(`rtmp://127.0.0.1:${server.port}/${server.target}`);
  const port = await networkTo(stage, daemon.rtcPort);
  const browser = await openBrowser(stage);
  const guest = await Guest.open(browser, daemon, "guest1");
  await redirect(guest, daemon.rtcPort, port);
  await guest.join();
  await sleep(MEDIA_SECONDS * 1_000);
  // The last frames reach the server before the guest says goodbye.
  await guest.pauseVideo();
  await sleep(500);
  const { framesEncoded, packetsLost } = await guest.video();
  await guest.leave();
  await until("the RTMP connection to end", 5_000, () => /guest1: closed/.test(server.server.log()));
  require(daemon.running && !/panicked at/.test(daemon.log()), `the daemon: ${daemon.exit ?? "panicked"}`);
  require(!/VIOLATION|REFUSED/.test(server.server.log()), "the ingest complained, see its log");

  const file = await server.finish("guest1");
  const { video, audio } = await probe(file);
  for (const [kind, { dts }] of Object.entries({ video, audio })) {
    require(notIncreasing(dts) === undefined, `${kind} dts: ${notIncreasing(dts)}`);
  }
  const { complaint, frames } = await decode(file);
  require(complaint === "", `ffmpeg -xerror: ${complaint}`);
  const missing = Math.abs(framesEncoded - frames);
  const seen = `${frames} of ${framesEncoded} frames that Chromium encoded`;
  require(missing <= framesEncoded * MAX_MISSING_SHARE, seen);
  return { recorded: seen, "opus packets": audio.dts.length, "reported lost": packetsLost, seed: SEED };
}
