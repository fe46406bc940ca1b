// The processes of a test: started here, ended here by their own pid, their
// output kept in one directory that is named when something fails.
//
// Everything listens on 127.0.0.1, on ports the kernel chose a moment earlier.

import { spawn } from "node:child_process";
import dgram from "node:dgram";
import fs from "node:fs";
import net from "node:net";
import os from "node:os";
import path from "node:path";
import { setTimeout as sleep } from "node:timers/promises";

const STOP_GRACE_MS = 5_000;

/** The program a test needs, by the name of the variable that tests/scripts/e2e.sh sets. */
export function program(variable) {
  const found = process.env[variable];
  if (!found) throw new Error(`${variable} is not set: run this through tests/scripts/e2e.sh`);
  return found;
}

/** Resolves to what `probe` returns as soon as that is neither false nor undefined. */
export async function until(what, limitMs, probe, everyMs = 50) {
  const deadline = Date.now() + limitMs;
  for (;;) {
    const value = await probe();
    if (value !== undefined && value !== false) return value;
    if (Date.now() > deadline) throw new Error(`waited ${limitMs} ms for ${what}`);
    await sleep(everyMs);
  }
}

export async function freeTcpPort() {
  const server = net.createServer();
  await new Promise((resolve, reject) => server.once("error", reject).listen(0, "127.0.0.1", resolve));
  const { port } = server.address();
  await new Promise((resolve) => server.close(resolve));
  return port;
}

export async function freeUdpPort() {
  const socket = dgram.createSocket("udp4");
  await new Promise((resolve, reject) => socket.once("error", reject).bind(0, "127.0.0.1", resolve));
  const { port } = socket.address();
  await new Promise((resolve) => socket.close(resolve));
  return port;
}

/** Whether something accepts TCP connections on the port. */
export function accepts(port) {
  return new Promise((resolve) => {
    const socket = net.connect(port, "127.0.0.1");
    socket.once("connect", () => {
      socket.destroy();
      resolve(true);
    });
    socket.once("error", () => resolve(false));
  });
}

/** Whether the kernel has a TCP listener on the port; unlike accepts() it connects to nothing. */
export function listens(port) {
  const local = `0100007F:${port.toString(16).toUpperCase().padStart(4, "0")}`;
  return fs
    .readFileSync("/proc/net/tcp", "utf8")
    .split("\n")
    .some((line) => {
      const [, address, , state] = line.trim().split(/\s+/);
      return address === local && state === "0A";
    });
}

/** Datagrams that the kernel dropped because the socket on this port was not read in time. */
export function droppedDatagrams(port) {
  const local = `:${port.toString(16).toUpperCase().padStart(4, "0")}`;
  const columns = fs
    .readFileSync("/proc/net/udp", "utf8")
    .split("\n")
    .map((line) => line.trim().split(/\s+/));
  return Number(columns.find(([, address]) => address?.endsWith(local))?.at(-1) ?? 0);
}

class Process {
  constructor(name, child, logFile) {
    this.name = name;
    this.child = child;
    this.pid = child.pid;
    this.logFile = logFile;
    this.stopping = false;
    this.exited = new Promise((resolve) => {
      child.once("error", (error) => resolve(`could not start: ${error.message}`));
      child.once("exit", (code, signal) => resolve(signal ?? code));
    });
    this.exited.then((how) => {
      this.exit = how;
    });
  }

  get running() {
    return this.exit === undefined;
  }

  log() {
    return fs.readFileSync(this.logFile, "utf8");
  }

  /** Ends the process by its pid and resolves to its exit code or signal. */
  async stop(signal = "SIGTERM") {
    this.stopping = true;
    if (this.running) this.child.kill(signal);
    const how = await Promise.race([this.exited, sleep(STOP_GRACE_MS, undefined, { ref: false })]);
    if (this.running) {
      this.child.kill("SIGKILL");
      await this.exited;
      throw new Error(`${this.name} did not end ${STOP_GRACE_MS} ms after ${signal}`);
    }
    return how;
  }

  /** A line of /proc/PID/status in KiB, such as VmRSS or RssAnon. */
  memoryKib(field) {
    const status = fs.readFileSync(`/proc/${this.pid}/status`, "utf8");
    return Number(status.match(new RegExp(`^${field}:\\s+(\\d+) kB`, "m"))[1]);
  }
}

/** One test's directory and processes. */
export class Stage {
  constructor(name) {
    const root = process.env.E2E_DIR ?? fs.mkdtempSync(path.join(os.tmpdir(), "guest-relay-e2e-"));
    this.dir = path.join(root, name);
    fs.rmSync(this.dir, { recursive: true, force: true });
    fs.mkdirSync(this.dir, { recursive: true });
    this.closers = [];
    /** Variables that configure the daemon beside its file. */
    this.environment = {};
  }

  file(name) {
    return path.join(this.dir, name);
  }

  /** Has `close` called when the stage is struck, last in, first out. */
  defer(close) {
    this.closers.push(close);
  }

  start(name, command, args, options = {}) {
    const logFile = this.file(`${name}.log`);
    const log = fs.openSync(logFile, "a");
    const child = spawn(command, args, { stdio: ["ignore", log, log], ...options });
    fs.closeSync(log);
    const process = new Process(name, child, logFile);
    this.defer(async () => {
      if (process.running) await process.stop();
    });
    return process;
  }

  /**
   * Starts the daemon with a config file of its own and waits until it answers.
   * `output` is the RTMP target, with `{guest_id}` in it; `further` are more
   * lines of configuration. Unless the stage's `holdSeconds` say otherwise, a
   * guest who leaves is gone at once: a recording then ends where the guest did.
   */
  async startDaemon(output, ...further) {
    const httpPort = await freeTcpPort();
    const rtcPort = await freeUdpPort();
    const config = [
      "guests:",
      '  guest1: { name: "Guest 1", enabled: true }',
      '  guest2: { name: "Guest 2", enabled: true }',
      `http: { listen: "127.0.0.1:${httpPort}" }`,
      `rtc: { listen: "127.0.0.1:${rtcPort}", stun_server: none }`,
      `relay: { output: "${output}", hold_seconds: ${this.holdSeconds ?? 0}, state_file: "${this.file("state.json")}" }`,
      "log: { level: info }",
      ...further,
      "",
    ];
    fs.writeFileSync(this.file("config.yml"), config.join("\n"), { mode: 0o600 });
    const url = `http://localhost:${httpPort}`;
    return Object.assign(await this.bootDaemon(url), { url, rtcPort });
  }

  /** Starts the daemon with the config file that is there, for the first time or again. */
  async bootDaemon(url) {
    const env = { ...process.env, ...this.environment };
    const daemon = this.start("guest-relay", program("GUEST_RELAY"), ["--config", this.file("config.yml")], { env });
    await until("the daemon to answer /healthz", 10_000, async () => {
      if (!daemon.running) throw new Error(`the daemon ended (${daemon.exit}):\n${daemon.log()}`);
      return fetch(`${url}/healthz`).then(
        (reply) => reply.ok,
        () => false,
      );
    });
    return daemon;
  }

  /** Ends everything; the first error met is thrown after all of it is done. */
  async strike() {
    let first;
    for (const close of this.closers.reverse()) {
      try {
        await close();
      } catch (error) {
        first ??= error;
      }
    }
    this.closers = [];
    if (first) throw first;
  }
}
