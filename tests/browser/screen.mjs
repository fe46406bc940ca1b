// What the mixer sees: every decoded picture of a publication, and when, by tests/browser/mixer_reader.py.
//
// Times are seconds of the monotonic clock, which the reader's process and this one share.

import path from "node:path";
import readline from "node:readline";
import { program } from "./stage.mjs";

const READER = path.resolve("tests/browser/mixer_reader.py");
/** Video black is 0 in grey; what an encoder makes of it is not far. */
const BLACK_MAX = 24;
/** An Opus packet of silence has 3 bytes; a browser's with sound in it some 100. */
const SILENCE_MAX_BYTES = 10;
/** A reader that ends is started again, as an operator would; this often at most. */
const READERS_MAX = 20;

export function seconds() {
  return Number(process.hrtime.bigint()) / 1e9;
}

export class Screen {
  /** Of each decoded picture: when, whether it is black, a digest. */
  pictures = [];
  /** When each Opus packet came that is not silence. */
  sounds = [];
  /** Each end of a reader: when, why, and how many pictures there had been. */
  ends = [];
  #stage;
  #url;

  constructor(stage, url) {
    this.#stage = stage;
    this.#url = url;
    this.#start(1);
  }

  /** Pictures that came in `from`..`to`. */
  between(from, to) {
    return this.pictures.filter(({ at }) => at >= from && at <= to);
  }

  /** The picture that stands at the time `at`. */
  shown(at) {
    return this.pictures.findLast((picture) => picture.at <= at);
  }

  /** Whether a guest is seen to move: so many different pictures since `from`, none of them black. */
  moves(from, count = 15) {
    const fresh = this.pictures.filter(({ at, black }) => at >= from && !black);
    return new Set(fresh.map(({ digest }) => digest)).size >= count;
  }

  /** The longest time without a new picture between the first one and `to`: { seconds, at }. */
  longestGap(to) {
    const times = this.pictures.map(({ at }) => at).filter((at) => at <= to);
    times.push(to);
    const gaps = times.slice(1).map((at, index) => ({ seconds: at - times[index], at: times[index] }));
    return gaps.reduce((longest, gap) => (gap.seconds > longest.seconds ? gap : longest), { seconds: 0, at: to });
  }

  #start(number) {
    const reader = this.#stage.start(`reader-${number}`, program("GST_PYTHON"), [READER, this.#url], {
      stdio: ["ignore", "pipe", "pipe"],
    });
    let said = "";
    reader.child.stderr.on("data", (text) => {
      said += text;
    });
    const lines = readline.createInterface({ input: reader.child.stdout });
    lines.on("line", (line) => this.#take(line));
    lines.on("close", () => {
      if (reader.stopping) return;
      if (said.trim()) this.ends.push({ at: seconds(), why: said.trim(), pictures: this.pictures.length });
      if (number < READERS_MAX) this.#start(number + 1);
    });
  }

  #take(line) {
    const [what, time, ...facts] = line.split(" ");
    const at = Number(time);
    if (what === "picture") this.pictures.push({ at, black: Number(facts[0]) <= BLACK_MAX, digest: facts[1] });
    else if (what === "sound") {
      if (Number(facts[0]) > SILENCE_MAX_BYTES) this.sounds.push(at);
    } else this.ends.push({ at, why: [what, ...facts].join(" "), pictures: this.pictures.length });
  }
}
