// The three RTMP servers that the path must satisfy. Each start returns
// `{ name, port, target, finish }`: `target` is the path part of the daemon's
// relay.output, `finish(guest)` ends the server and names the recording.

import fs from "node:fs";
import path from "node:path";
import { freeTcpPort, listens, program, until } from "./stage.mjs";

async function listening(server, port) {
  await until(`${server.name} to listen`, 10_000, () => {
    if (!server.running) throw new Error(`${server.name} ended (${server.exit}):\n${server.log()}`);
    return listens(port);
  });
}

function newestRecording(dir, guest) {
  const found = fs
    .readdirSync(dir, { recursive: true })
    .filter((name) => name.includes(guest) && name.endsWith(".flv"))
    .map((name) => path.join(dir, name))
    .sort((a, b) => fs.statSync(a).mtimeMs - fs.statSync(b).mtimeMs);
  if (found.length === 0) throw new Error(`no recording of ${guest} in ${dir}`);
  return found.at(-1);
}

/** tests/ingest: refuses what MediaMTX refuses. */
export async function ingest(stage, port) {
  port ??= await freeTcpPort();
  const dir = stage.file("ingest");
  fs.mkdirSync(dir, { recursive: true });
  const server = stage.start("ingest", program("INGEST"), ["--listen", `127.0.0.1:${port}`, "--flv-dir", dir]);
  await listening(server, port);
  const finish = async (guest) => {
    await server.stop();
    if (!server.log().includes(`${guest}: ready, H264`))
      throw new Error(`the ingest never called ${guest} ready:\n${server.log()}`);
    return newestRecording(dir, guest);
  };
  return { name: "ingest", port, target: "{guest_id}", server, finish };
}

/** FFmpeg as the server of one connection, copying what it reads into a file. */
export async function ffmpeg(stage) {
  const port = await freeTcpPort();
  const file = stage.file("ffmpeg.flv");
  const server = stage.start("ffmpeg", program("FFMPEG"), [
    "-nostdin",
    "-v",
    "warning",
    "-y",
    "-listen",
    "1",
    "-f",
    "flv",
    "-i",
    `rtmp://127.0.0.1:${port}/live/guest1`,
    "-c",
    "copy",
    "-f",
    "flv",
    file,
  ]);
  await listening(server, port);
  const finish = async () => {
    // It ends when its publisher does, with a line about the lost connection.
    await until("ffmpeg to end after its publisher", 10_000, () => !server.running);
    const said = server
      .log()
      .split("\n")
      .filter((line) => line.trim() && !/Error during demuxing: (I\/O|Input\/output) error/.test(line));
    if (server.exit !== 0 || said.length > 0)
      throw new Error(`ffmpeg -listen ended ${server.exit}: ${said.join(" / ")}`);
    return file;
  };
  return { name: "ffmpeg", port, target: "live/{guest_id}", server, finish };
}

/** nginx-rtmp, which records tag bodies as they came. */
export async function nginx(stage) {
  const port = await freeTcpPort();
  const dir = stage.file("nginx");
  fs.mkdirSync(dir, { recursive: true });
  const config = stage.file("nginx.conf");
  fs.writeFileSync(
    config,
    `
    load_module ${program("NGINX_RTMP_MODULE")};
    daemon off;
    master_process off;
    pid ${dir}/nginx.pid;
    error_log ${dir}/error.log notice;
    events {}
    rtmp {
      access_log off; # by default a file in a directory that only an installed nginx has
      server {
        listen 127.0.0.1:${port};
        chunk_size 4096;
        application live { live on; record all; record_path ${dir}; record_suffix .flv; }
      }
    }`,
  );
  const args = ["-p", dir, "-e", `${dir}/error.log`, "-c", config];
  // nginx takes a variable NGINX for sockets that it is to inherit.
  const server = stage.start("nginx", program("NGINX"), args, { env: { ...process.env, NGINX: undefined } });
  await listening(server, port);
  const finish = async (guest) => {
    await server.stop("SIGQUIT");
    return newestRecording(dir, guest);
  };
  return { name: "nginx-rtmp", port, target: "live/{guest_id}", server, finish };
}

const SFU_APP_ID = "0123456789abcdef0123456789abcdef";
const SFU_SECRET = "a-secret-that-no-log-may-show";

/**
 * tests/sfu-sim: the simulated Cloudflare Realtime SFU. Returns the lines of
 * configuration that lead there, `secret`, `snapshot()` of what it holds, and
 * `inject()` for its faults.
 */
export async function sfuSim(stage) {
  const port = await freeTcpPort();
  const args = ["--listen", `127.0.0.1:${port}`, "--app-id", SFU_APP_ID, "--secret-env", "SFU_SECRET"];
  const server = stage.start("sfu-sim", program("SFU_SIM"), args, { env: { ...process.env, SFU_SECRET } });
  await listening(server, port);
  const api = `http://127.0.0.1:${port}/v1`;
  return {
    config: `cloudflare: { calls_app_id: "${SFU_APP_ID}", calls_api_token: "${SFU_SECRET}", api_base: "${api}" }`,
    secret: SFU_SECRET,
    snapshot: async () => (await fetch(`http://127.0.0.1:${port}/control/sessions`)).json(),
    inject: async (fault) => {
      const reply = await fetch(`http://127.0.0.1:${port}/control`, { method: "POST", body: JSON.stringify(fault) });
      if (!reply.ok) throw new Error(`${JSON.stringify(fault)}: ${await reply.text()}`);
    },
  };
}
