// GET /metrics as Prometheus' own parser and linter take it, while a guest is live.

import { spawnSync } from "node:child_process";
import { setTimeout as sleep } from "node:timers/promises";
import { Guest, openBrowser } from "./guest.mjs";
import * as servers from "./servers.mjs";
import { program } from "./stage.mjs";

/** Some are measured late: the A/V skew takes reports of both tracks, RTMP's round trip a ping. */
const ALL_MEASURED_MS = 30_000;
const LOOK_EVERY_MS = 500;
/** What cannot be read of the process is left out with its name, so these cannot be missed by what the text says. */
const OF_THE_PROCESS = [
  "process_cpu_seconds_total",
  "process_resident_memory_bytes",
  "process_resident_anonymous_bytes",
  "process_open_fds",
  "process_max_fds",
  "process_threads",
  "process_start_time_seconds",
];

function require(holds, what) {
  if (!holds) throw new Error(what);
}

async function metrics(daemon) {
  const reply = await fetch(`${daemon.url}/metrics`);
  require(reply.ok, `GET /metrics: ${reply.status}`);
  return reply.text();
}

/** What promtool made of it: how many samples each family has. Throws what it finds wrong. */
function asPrometheusReads(text) {
  const said = spawnSync(program("PROMTOOL"), ["check", "metrics", "--extended"], { input: text, encoding: "utf8" });
  const findings = (said.error?.message ?? said.stderr).trim();
  require(said.status === 0 && findings === "", `promtool (${said.status}): ${findings}`);
  const rows = said.stdout.matchAll(/^([a-z]\S*) +(\d+) +[\d.]+%\s*$/gm);
  return new Map([...rows].map(([, family, samples]) => [family, Number(samples)]));
}

/** Each family that is described has samples, and promtool finds nothing to say about them. */
export async function metricsAreSound(stage) {
  const server = await servers.ingest(stage);
  const daemon = await stage.startDaemon(`rtmp://127.0.0.1:${server.port}/${server.target}`);
  asPrometheusReads(await metrics(daemon));
  const guest = await Guest.open(await openBrowser(stage), daemon, "guest1");
  await guest.join();
  const deadline = Date.now() + ALL_MEASURED_MS;
  for (;;) {
    const text = await metrics(daemon);
    const read = asPrometheusReads(text);
    const described = [...text.matchAll(/^# HELP (\S+)/gm)].map(([, family]) => family);
    const missing = [...described, ...OF_THE_PROCESS].filter((family) => !read.has(family));
    if (missing.length === 0) {
      const samples = [...read.values()].reduce((sum, each) => sum + each, 0);
      const written = text.split("\n").filter((line) => line !== "" && !line.startsWith("#")).length;
      require(samples === written, `promtool read ${samples} of ${written} samples`);
      return { families: read.size, samples, promtool: "finds nothing" };
    }
    require(Date.now() < deadline, `no samples of ${missing.join(", ")}`);
    await sleep(LOOK_EVERY_MS);
  }
}
