// The board without a board: cross/install.sh below a directory of the stage, and tests/deploy/systemctl.py in systemd's
// place. Needs root, as on the board: the daemon runs as a user of its own.

import { spawn } from "node:child_process";
import fs from "node:fs";
import path from "node:path";
import { freeTcpPort, freeUdpPort, program, until } from "./stage.mjs";

const SYSTEMCTL = path.resolve("tests/deploy/systemctl.py");
const INSTALL_LIMIT_MS = 40_000;
/** How long cross/install.sh waits for /healthz before it goes back. */
const HEALTHY_WITHIN_SECONDS = 5;

export class Board {
  /** `settings`: variables that configure the daemon beside cross/config.r58.yml. */
  static async prepare(stage, settings) {
    if (process.getuid() !== 0) throw new Error("needs root, as on the board: the daemon runs as a user of its own");
    const board = new Board();
    board.stage = stage;
    board.root = stage.file("board");
    fs.chmodSync(path.dirname(stage.dir), 0o755); // the daemon's user comes through
    for (const name of ["etc/systemd/system", "run", "tmp", "usr", "var/lib"])
      fs.mkdirSync(path.join(board.root, name), { recursive: true });
    fs.writeFileSync(path.join(board.root, "etc/passwd"), "root:x:0:0:root:/root:/bin/sh\n");
    fs.writeFileSync(path.join(board.root, "etc/group"), "root:x:0:\n");
    const http = `127.0.0.1:${await freeTcpPort()}`;
    board.url = `http://${http}`;
    board.environment = {
      // The system's own Python for the stand-in: it is started a dozen times, and a version manager's takes its time.
      PATH: `${path.dirname(program("GST_PYTHON"))}:${process.env.PATH}`,
      ROOT: board.root,
      SYSTEMCTL,
      HEALTHY_WITHIN_SECONDS: String(HEALTHY_WITHIN_SECONDS),
      GUEST_RELAY_HTTP_LISTEN: http,
      GUEST_RELAY_RTC_LISTEN: `127.0.0.1:${await freeUdpPort()}`,
      GUEST_RELAY_RTC_STUN_SERVER: "none",
      GUEST_RELAY_RELAY_STATE_FILE: path.join(board.root, "var/lib/guest-relay/state.json"),
      ...settings,
    };
    stage.defer(() => board.stop());
    return board;
  }

  /** `make deploy` of the file `binary` from where it has come to the board; whether it is in force, and what was said. */
  async install(binary) {
    const staging = fs.mkdtempSync(path.join(this.stage.dir, "staging-"));
    fs.copyFileSync(binary, path.join(staging, "guest-relay"));
    for (const name of ["guest-relay.service", "config.r58.yml"])
      fs.copyFileSync(path.join("cross", name), path.join(staging, name));
    const { code, log } = await this.#run("bash", "cross/install.sh", "install", staging);
    fs.rmSync(staging, { recursive: true });
    return { inForce: code === 0, log };
  }

  /** kill -9 of the daemon; its pid. */
  kill() {
    const calls = fs.readFileSync(path.join(this.root, "run/calls.log"), "utf8");
    const pid = Number(calls.match(/started (\d+)/g).at(-1).split(" ")[1]);
    process.kill(pid, "SIGKILL");
    return pid;
  }

  async stop() {
    await this.#run(SYSTEMCTL, "stop");
  }

  /** The daemon's log since the first install. */
  journal() {
    return fs.readFileSync(path.join(this.root, "run/journal.log"), "utf8");
  }

  async #run(command, ...args) {
    const file = this.stage.file("board.log");
    const log = fs.openSync(file, "a");
    const from = fs.statSync(file).size;
    const child = spawn(command, args, { stdio: ["ignore", log, log], env: this.environment });
    fs.closeSync(log);
    let code;
    child.once("error", (error) => {
      code = error.message;
    });
    child.once("exit", (status, signal) => {
      code = status ?? signal;
    });
    await until(`${command} ${args[0]}`, INSTALL_LIMIT_MS, () => code !== undefined, 10);
    return { code, log: fs.readFileSync(file, "utf8").slice(from) };
  }
}

/** Another version: the daemon with some bytes behind it. */
export function anotherVersion(stage, number) {
  const file = stage.file(`guest-relay-${number}`);
  fs.copyFileSync(program("GUEST_RELAY"), file);
  fs.appendFileSync(file, String(number));
  return file;
}

/** A version that passes every check that can be made beforehand, and does `how`, shell, when it is started. */
export function brokenVersion(stage, name, how) {
  const file = stage.file(`guest-relay-${name}`);
  const answers = `case "$*" in *--version*|*--check-config*) exec ${program("GUEST_RELAY")} "$@";; esac`;
  fs.writeFileSync(file, `#!/bin/sh\n${answers}\n${how}\n`, { mode: 0o755 });
  return file;
}
