// `node with_daemon.mjs [NODE OPTION...] SCRIPT.mjs`: runs a script against a daemon of its own, whose address is in BASE_URL.

import { spawn } from "node:child_process";
import { Stage } from "./stage.mjs";

const stage = new Stage("with-daemon");
process.once("SIGTERM", () => stage.strike().finally(() => process.exit(1)));
try {
  // Nothing listens there: what is tested does not get as far as RTMP.
  const daemon = await stage.startDaemon("rtmp://127.0.0.1:9/{guest_id}");
  const script = spawn(process.execPath, process.argv.slice(2), {
    stdio: "inherit",
    env: { ...process.env, BASE_URL: daemon.url },
  });
  stage.defer(() => script.kill());
  process.exitCode = await new Promise((resolve) => script.once("exit", (code) => resolve(code ?? 1)));
} finally {
  await stage.strike();
}
