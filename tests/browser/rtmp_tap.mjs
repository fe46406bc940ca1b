// A TCP tap before an RTMP server: passes every byte on and reads along.
//
// It understands just enough of RTMP 1.0 sections 5.2-5.3 and of the FLV tag
// bodies to say when each audio and video frame passed, with which timestamp:
// a reader of the wire that shares no code with the daemon and is the same
// for every server behind it.

import net from "node:net";
import { RtmpCopy } from "./rtmp_copy.mjs";

const HANDSHAKE_LEN = 1 + 1536 + 1536;
const HEADER_LEN = [11, 7, 3, 0];
const EXTENDED = 0xffffff;
const SET_CHUNK_SIZE = 1;
const AUDIO = 8;
const VIDEO = 9;
const COMMAND = 20;

/** Cuts the client's half of an RTMP connection into messages. */
export class ChunkReader {
  #handshake = HANDSHAKE_LEN;
  #chunkSize = 128;
  #pending = Buffer.alloc(0);
  #streams = new Map();

  /** Calls `onMessage(typeId, timestamp, payload)` for each complete message. */
  push(bytes, onMessage) {
    const skip = Math.min(this.#handshake, bytes.length);
    this.#handshake -= skip;
    if (skip === bytes.length) return;
    this.#pending = Buffer.concat([this.#pending, bytes.subarray(skip)]);
    let used = 0;
    for (;;) {
      const taken = this.#chunk(this.#pending.subarray(used), onMessage);
      if (taken === 0) break;
      used += taken;
    }
    this.#pending = this.#pending.subarray(used);
  }

  /** Reads one chunk; returns its length, or 0 when it is not all there. */
  #chunk(bytes, onMessage) {
    if (bytes.length < 3) return 0;
    const format = bytes[0] >> 6;
    let csid = bytes[0] & 0x3f;
    let at = 1;
    if (csid === 0) {
      csid = 64 + bytes[1];
      at = 2;
    } else if (csid === 1) {
      csid = 64 + bytes[1] + 256 * bytes[2];
      at = 3;
    }
    const stream = this.#streams.get(csid) ?? { timestamp: 0, delta: 0, length: 0, type: 0, parts: [], have: 0 };
    if (bytes.length < at + HEADER_LEN[format]) return 0;
    const next = { ...stream };
    let field = 0;
    if (format < 3) {
      field = bytes.readUIntBE(at, 3);
      next.extended = field === EXTENDED;
    }
    if (format < 2) {
      next.length = bytes.readUIntBE(at + 3, 3);
      next.type = bytes[at + 6];
    }
    at += HEADER_LEN[format];
    if (next.extended) {
      if (bytes.length < at + 4) return 0;
      if (format < 3) field = bytes.readUInt32BE(at);
      at += 4;
    }
    const starts = stream.have === 0;
    if (format === 0) {
      next.timestamp = field;
      next.delta = field;
    } else if (format < 3) {
      next.delta = field;
      next.timestamp = (stream.timestamp + field) >>> 0;
    } else if (starts) {
      next.timestamp = (stream.timestamp + stream.delta) >>> 0;
    }
    const take = Math.min(this.#chunkSize, next.length - stream.have);
    if (bytes.length < at + take) return 0;
    next.parts = [...stream.parts, Buffer.from(bytes.subarray(at, at + take))];
    next.have = stream.have + take;
    if (next.have === next.length) {
      const payload = Buffer.concat(next.parts);
      next.parts = [];
      next.have = 0;
      if (next.type === SET_CHUNK_SIZE) this.#chunkSize = payload.readUInt32BE(0) & 0x7fffffff;
      onMessage(next.type, next.timestamp, payload);
    }
    this.#streams.set(csid, next);
    return at + take;
  }
}

/** What one connection carried so far. Times are milliseconds of the wall clock. */
class Connection {
  openedAt = Date.now();
  guest = undefined;
  closed = false;
  errors = [];
  video = {
    frames: 0,
    keyFrames: 0,
    headers: 0,
    firstAt: undefined,
    firstIsKey: undefined,
    firstDts: undefined,
    lastDts: undefined,
  };
  audio = { frames: 0, headers: 0, firstAt: undefined, firstDts: undefined, lastDts: undefined };

  message(type, dts, payload) {
    if (type === COMMAND) {
      this.guest ??= payload.toString("latin1").match(/guest\d+/)?.[0];
    } else if (type === VIDEO && (payload[0] & 0x0f) === 7) {
      if (payload[1] === 0) this.video.headers += 1;
      else if (payload[1] === 1) this.#frame("video", dts, payload[0] >> 4 === 1);
    } else if (type === AUDIO && payload[0] >> 4 === 9) {
      if ((payload[0] & 0x0f) === 0) this.audio.headers += 1;
      else if ((payload[0] & 0x0f) === 1) this.#frame("audio", dts, false);
    }
  }

  #frame(kind, dts, isKey) {
    const track = this[kind];
    if (track.frames === 0) {
      track.firstAt = Date.now();
      track.firstIsKey = isKey;
      track.firstDts = dts;
    } else if (dts <= track.lastDts) {
      this.errors.push(`${kind} dts ${dts} after ${track.lastDts}`);
    }
    track.lastDts = dts;
    track.frames += 1;
    if (isKey) track.keyFrames += 1;
  }
}

/**
 * The tap: listens on its own port, connects to `serverPort` for each client.
 * With `copyPort` the server there is sent all that a client says, too.
 */
export class RtmpTap {
  connections = [];
  #sockets = new Set();
  #server;

  constructor(serverPort, port, copyPort) {
    this.serverPort = serverPort;
    this.port = port;
    this.copyPort = copyPort;
  }

  async open() {
    this.#server = net.createServer((client) => this.#connect(client));
    await new Promise((resolve, reject) => {
      this.#server.once("error", reject).listen(this.port, "127.0.0.1", resolve);
    });
  }

  /** Refuses from now on, and cuts what is open, as a killed server does. */
  async close() {
    const closed = new Promise((resolve) => this.#server.close(resolve));
    for (const socket of this.#sockets) socket.destroy();
    await closed;
  }

  /** The newest connection of a guest that has brought a video frame. */
  of(guest) {
    return this.connections.findLast((each) => each.guest === guest && each.video.frames > 0);
  }

  #connect(client) {
    const connection = new Connection();
    const reader = new ChunkReader();
    this.connections.push(connection);
    client.setNoDelay(true);
    const server = net.connect(this.serverPort, "127.0.0.1");
    server.setNoDelay(true);
    const copy = this.copyPort && new RtmpCopy(this.copyPort);
    if (copy) client.on("close", () => copy.end());
    for (const [from, to] of [
      [client, server],
      [server, client],
    ]) {
      this.#sockets.add(from);
      from.on("close", () => {
        this.#sockets.delete(from);
        connection.closed = true;
        to.end();
      });
      from.on("error", () => to.destroy());
    }
    server.on("data", (bytes) => client.write(bytes));
    client.on("data", (bytes) => {
      server.write(bytes);
      copy?.push(bytes);
      try {
        reader.push(bytes, (type, dts, payload) => connection.message(type, dts, payload));
      } catch (error) {
        connection.errors.push(`not RTMP: ${error.message}`);
      }
    });
    client.on("end", () => server.end());
    server.on("end", () => client.end());
  }
}
