// A second server for what a client sends to a first one: the bytes go there too, its replies are read and dropped.
//
// Only the handshake differs: C2 is the echo of the server's own S1 (RTMP 1.0 section 5.2.4), so the copy has its own.

import net from "node:net";

const C0_C1 = 1 + 1536;
const C2_END = C0_C1 + 1536;

export class RtmpCopy {
  #sent = 0;
  #replied = Buffer.alloc(0);
  /** What comes before the copy's server has said S1. */
  #waiting = [];
  #socket;

  constructor(port) {
    this.#socket = net.connect(port, "127.0.0.1");
    this.#socket.setNoDelay(true);
    this.#socket.on("error", () => this.#socket.destroy());
    this.#socket.on("data", (bytes) => this.#handleReply(bytes));
  }

  /** The next bytes of the client. */
  push(bytes) {
    const from = this.#sent;
    this.#sent += bytes.length;
    if (from < C0_C1) this.#socket.write(bytes.subarray(0, C0_C1 - from));
    if (this.#sent > C2_END) this.#afterHandshake(bytes.subarray(Math.max(0, C2_END - from)));
  }

  end() {
    this.#socket.end();
  }

  #afterHandshake(bytes) {
    if (this.#waiting) this.#waiting.push(bytes);
    else this.#socket.write(bytes);
  }

  #handleReply(bytes) {
    if (!this.#waiting) return;
    this.#replied = Buffer.concat([this.#replied, bytes]);
    if (this.#replied.length < C0_C1) return;
    this.#socket.write(this.#replied.subarray(1, C0_C1));
    for (const part of this.#waiting) this.#socket.write(part);
    this.#waiting = undefined;
  }
}
