// The mixer's input never ends, and never shows who has left: one GStreamer pipeline reads guest1 from an RTMP server
// (nginx-rtmp, which keeps players of a stream that nobody publishes) from before the daemon runs, through everything
// that happens in a show. The daemon is installed and upgraded as `make deploy` does it on the board.
//
//   a guest joins and leaves            black at most 0.5 s after they have left
//   another one has sound only          black all the time, and sound
//   a third one joins, and is gone      their picture for relay.hold_seconds, then black
//   a page joins; an upgrade            the page comes again by itself
//   broken upgrades                     which end at once, or before they are ready, and are taken back
//   the page's guest leaves             black at most 0.5 s after that
//
// Until here: one pipeline, no EOS, no error, and never 1.5 s between two decoded pictures. Then
//
//   kill -9                             a new publication, so EOS; a picture again within 3 s and a keyframe
//
// tests/ingest is sent the same bytes, each connection of the daemon, and has its ledger: one connection a slot, two with
// that of after the kill, timestamps that increase, one audio start each.
//
// Run through tests/scripts/e2e.sh.

import fs from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { Board, anotherVersion, brokenVersion } from "./board.mjs";
import { Guest, openBrowser } from "./guest.mjs";
import { RtmpTap } from "./rtmp_tap.mjs";
import { Screen, seconds } from "./screen.mjs";
import * as servers from "./servers.mjs";
import { Stage, freeTcpPort, program, until } from "./stage.mjs";

const MAX_GAP = 1.5;
const MAX_AFTER_LEAVE = 0.5;
const MAX_CRASH_RETURN = 3;
/** An idle slot has one a second. */
const KEYFRAME = 1;
const HOLD = 3;
const SLOTS = ["guest1", "guest2"];
/** So many Opus packets with sound in them in the 3 s of a guest who has no camera. */
const MIN_SOUNDS = 75;
/** How long a page may take to come again after a restart: it is not what is judged here. */
const PAGE_RETURN_MS = 20_000;

class Scenario {
  failures = [];
  facts = [];
  #began = seconds();

  constructor(stage, screen, board) {
    Object.assign(this, { stage, screen, board });
  }

  require(holds, what) {
    if (!holds) this.failures.push(what);
  }

  /** Time since the beginning, for a person. */
  when(at) {
    return `at ${(at - this.#began).toFixed(2)} s`;
  }

  note(text) {
    this.facts.push(`${(seconds() - this.#began).toFixed(2).padStart(6)} s  ${text}`);
  }

  /** A guest who moves on the screen since `from`. */
  async moves(who, from, limitMs = 10_000) {
    await until(`${who} on the screen`, limitMs, () => this.screen.moves(from), 20).catch((error) => {
      this.failures.push(error.message);
    });
  }

  /** From `from` on, and MAX_AFTER_LEAVE of grace, nothing but black: what stands then, and what comes until `to`. */
  requireBlack(who, from, to) {
    const since = from + MAX_AFTER_LEAVE;
    const stands = this.screen.shown(since);
    const late = this.screen.between(since, to).filter(({ black }) => !black);
    const last = this.screen.pictures.findLast(({ at, black }) => at <= to && !black);
    const first = this.screen.pictures.find(({ at }) => at > (last?.at ?? 0) && at <= to);
    this.require(stands?.black, `${who}: ${MAX_AFTER_LEAVE} s later, ${this.when(since)}, they are still seen`);
    this.require(late.length === 0, `${who}: ${late.length} pictures that are not black up to ${this.when(late.at(-1)?.at)}`);
    this.note(`${who}: ${first ? `black after ${(first.at - from).toFixed(2)} s` : "never black"}`);
  }

  /** loadgen as a guest, who ends as `how` says after `length` seconds; when they had, of the monotonic clock. */
  async guest(name, length, ...how) {
    const url = `${this.board.url}/whip/guest1`;
    const guest = this.stage.start(name, program("LOADGEN"), ["publish", "--url", url, "--seconds", `${length}`, ...how], {
      stdio: ["ignore", "pipe", "inherit"],
    });
    let endedAt;
    guest.child.stdout.on("data", (text) => {
      if (`${text}`.includes("guest1 ended:")) endedAt = seconds();
    });
    await until(`${name} to end`, (length + 10) * 1_000, () => endedAt, 5);
    return endedAt;
  }

  // --- The show ------------------------------------------------------------------------------------------------------

  async joinAndLeave() {
    const joinedAt = seconds();
    const left = this.guest("guest who leaves", 3);
    await this.moves("the first guest", joinedAt);
    const leftAt = await left;
    await sleep(1_500);
    this.requireBlack("the first guest has left", leftAt, seconds());
    return leftAt;
  }

  async soundOnly(leftAt) {
    const clip = this.stage.file("sound.rtpdump");
    fs.copyFileSync("tests/loadgen/clips/chromium-360p30.rtpdump", clip);
    const sdp = fs.readFileSync("tests/loadgen/clips/chromium-360p30.sdp", "utf8");
    fs.writeFileSync(this.stage.file("sound.sdp"), sdp.replaceAll(/.*(video|H264).*\r?\n/g, ""));
    const from = seconds();
    const endedAt = await this.guest("guest without a camera", 3, "--clip", clip);
    await sleep(1_000);
    this.requireBlack("another guest, with sound only", leftAt, seconds());
    const heard = this.screen.sounds.filter((at) => at >= from && at <= endedAt).length;
    this.require(heard >= MIN_SOUNDS, `only ${heard} packets of sound came from the guest without a camera`);
    this.note(`sound only: ${heard} packets of sound`);
  }

  async holdRunsOut() {
    const joinedAt = seconds();
    const gone = this.guest("guest who is gone", 3, "--leave");
    await this.moves("the guest who joins again", joinedAt);
    const goneAt = await gone;
    await sleep((HOLD + 1.5) * 1_000);
    const stood = this.screen.shown(goneAt + HOLD - MAX_AFTER_LEAVE);
    this.require(stood && !stood.black, "the picture did not stand for the time of the hold");
    this.requireBlack("the hold is over", goneAt + HOLD, seconds());
  }

  async pageThroughUpgrades() {
    const browser = await openBrowser(this.stage);
    const joinedAt = seconds();
    const page = await Guest.open(browser, this.board, "guest1");
    await page.join();
    await this.moves("the page's guest", joinedAt);
    const good = anotherVersion(this.stage, 2);
    for (const [what, version, isGood] of [
      ["an upgrade", good, true],
      ["a version that ends at once", brokenVersion(this.stage, "ends", "exit 1"), false],
      ["a version that crashes before it is ready", brokenVersion(this.stage, "crashes", "sleep 0.3; kill -SEGV $$"), false],
    ]) {
      const from = seconds();
      const { inForce, log } = await this.board.install(version);
      const took = seconds() - from;
      this.require(inForce === isGood, `${what}: in force: ${inForce}: ${log}`);
      this.require(isGood || log.includes("the one before is back in force"), `${what}: the roll-back is not told: ${log}`);
      const installed = seconds();
      await this.moves(`the page's guest after ${what}`, installed, PAGE_RETURN_MS);
      this.note(`${what}: installed in ${took.toFixed(2)} s, the guest moves again after ${(seconds() - from).toFixed(2)} s`);
    }
    let leftAt;
    page.page.on("request", (request) => {
      if (request.method() === "DELETE") leftAt ??= seconds();
    });
    await page.leave();
    await sleep(1_500);
    this.require(leftAt, "the page left without a DELETE");
    this.requireBlack("the page's guest has left", leftAt ?? seconds(), seconds());
    this.require(page.errors.length === 0, `the page threw: ${page.errors[0]}`);
    await browser.close();
  }

  /** One pipeline, up to now. */
  requireUnbroken() {
    const { screen } = this;
    for (const { at, why, pictures } of screen.ends)
      this.failures.push(`${this.when(at)}, after ${pictures} pictures, the pipeline ended: ${why}`);
    const gap = screen.longestGap(seconds());
    this.require(gap.seconds <= MAX_GAP, `${this.when(gap.at)} no picture came for ${gap.seconds.toFixed(2)} s`);
    this.note(`${screen.pictures.length} pictures, the longest gap ${gap.seconds.toFixed(2)} s, ${this.when(gap.at)}`);
  }

  async crash() {
    const { screen } = this;
    const ends = screen.ends.length;
    const killedAt = seconds();
    this.board.kill();
    const limit = MAX_CRASH_RETURN + KEYFRAME;
    const found = () => screen.ends.length > ends && screen.pictures.find(({ at }) => at > screen.ends.at(-1).at);
    const back = await until("a picture after kill -9", 15_000, found, 20).catch((error) => {
      this.failures.push(error.message);
    });
    if (!back) return;
    const away = back.at - killedAt;
    this.require(away <= limit, `kill -9: the first picture came after ${away.toFixed(2)} s`);
    this.require(screen.ends.length === ends + 1, `kill -9: ${screen.ends.length - ends} readers ended`);
    this.note(`kill -9: ${screen.ends.at(-1).why} after ${(screen.ends.at(-1).at - killedAt).toFixed(2)} s, a picture after ${away.toFixed(2)} s`);
    // So that the new publication is one that its server has called ready.
    await sleep(3_000);
  }

  /** What tests/ingest has seen, once everything has ended. */
  requireLedger(log) {
    for (const slot of SLOTS) {
      const connections = log.match(new RegExp(`^\\S*${slot}: publishing from`, "gm")) ?? [];
      this.require(connections.length === 2, `${slot}: ${connections.length} connections, one before and one after kill -9 expected`);
      const was = [...log.matchAll(new RegExp(`^\\S*${slot}: was (.*)$`, "gm"))].map(([, facts]) => facts);
      this.require(was.length === connections.length, `${slot}: ${connections.length} connections, ${was.length} have ended`);
      for (const facts of was) {
        this.require(facts.includes("(1 audio starts)"), `${slot}: not one audio start: ${facts}`);
        this.note(`ledger of ${slot}: ${facts}`);
      }
    }
    // A process that is killed may be in the middle of one.
    const wrong = log.match(/.*(VIOLATION|REFUSED) .*/g)?.filter((line) => !/left in the middle of a message/.test(line)) ?? [];
    this.require(wrong.length === 0, `at the strict server: ${wrong.slice(0, 5).join("; ")}`);
  }
}

async function show(stage) {
  const nginx = await servers.nginx(stage);
  const ingest = await servers.ingest(stage);
  const tap = new RtmpTap(nginx.port, await freeTcpPort(), ingest.port);
  await tap.open();
  stage.defer(() => tap.close());
  const board = await Board.prepare(stage, {
    GUEST_RELAY_RELAY_OUTPUT: `rtmp://127.0.0.1:${tap.port}/${nginx.target}`,
    GUEST_RELAY_RELAY_IDLE: "slate",
    GUEST_RELAY_RELAY_HOLD_SECONDS: String(HOLD),
    GUEST_RELAY_HTTP_OFFERS_PER_MINUTE: "60",
  });
  const screen = new Screen(stage, `rtmp://127.0.0.1:${nginx.port}/live/guest1`);
  const scenario = new Scenario(stage, screen, board);
  try {
    const { inForce, log } = await board.install(anotherVersion(stage, 1));
    if (!inForce) throw new Error(`the install failed: ${log}`);
    await until("the first picture", 5_000, () => screen.pictures.length > 0).catch((error) => {
      scenario.failures.push(error.message);
    });
    const leftAt = await scenario.joinAndLeave();
    await scenario.soundOnly(leftAt);
    await scenario.holdRunsOut();
    await scenario.pageThroughUpgrades();
    scenario.requireUnbroken();
    await scenario.crash();
    await board.stop();
    await until("the strict server to have seen the end", 5_000, () => {
      const log = ingest.server.log();
      return (log.match(/: was /g) ?? []).length >= (log.match(/: publishing from/g) ?? []).length;
    });
    scenario.requireLedger(ingest.server.log());
    scenario.require(!/panicked at/.test(board.journal()), "the daemon panicked");
  } catch (error) {
    scenario.failures.push(error.stack);
  }
  return scenario;
}

const stage = new Stage("mixer");
process.once("SIGTERM", () => stage.strike().finally(() => process.exit(1)));
const { facts, failures } = await show(stage);
await stage.strike();
console.log(facts.join("\n"));
for (const failure of failures) console.log(`FAIL  ${failure.trim().split("\n").join("\n      ")}`);
console.log(failures.length === 0 ? "mixer: one pipeline, whoever came and went" : `mixer: logs are in ${stage.dir}`);
process.exitCode = failures.length === 0 ? 0 : 1;
