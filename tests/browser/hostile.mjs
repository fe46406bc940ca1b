// Hostile datagrams: random bytes, and bytes shaped like STUN, DTLS, RTP and
// RTCP, of every length from 0 to 1500. The sequence is a function of the seed.

import dgram from 'node:dgram';
import { setTimeout as sleep } from 'node:timers/promises';

const MAX_LEN = 1500;
/** Sent per turn of a millisecond timer: bursts that fit a default socket buffer. */
const BURST = 20;

/** xorshift32: small, and the same everywhere. */
function* randomWords(seed) {
  let word = seed >>> 0 || 1;
  for (;;) {
    word ^= word << 13;
    word ^= word >>> 17;
    word ^= word << 5;
    word >>>= 0;
    yield word;
  }
}

function fill(buffer, words) {
  let at = 0;
  for (; at + 4 <= buffer.length; at += 4) buffer.writeUInt32LE(words.next().value, at);
  if (at < buffer.length) buffer.fill(words.next().value & 0xff, at);
}

/** Writes as much of `head` as fits. */
function overlay(buffer, head) {
  Buffer.from(head).copy(buffer, 0, 0, Math.min(head.length, buffer.length));
}

const SHAPES = {
  random() {},
  stun(buffer, word) {
    // Binding request, success, indication or error; the length right half of the time.
    const type = [0x0001, 0x0101, 0x0011, 0x0111][word & 3];
    const length = word & 4 ? Math.max(0, buffer.length - 20) : (word >>> 8) & 0xffff;
    overlay(buffer, [type >> 8, type & 0xff, length >> 8, length & 0xff, 0x21, 0x12, 0xa4, 0x42]);
    // An attribute: USERNAME, MESSAGE-INTEGRITY, FINGERPRINT or XOR-MAPPED-ADDRESS.
    if (buffer.length >= 24) buffer.writeUInt32BE([0x00060000, 0x00080014, 0x80280004, 0x00200008][(word >>> 4) & 3] + (word & 8 ? word >>> 24 : 0), 20);
  },
  dtls(buffer, word) {
    // Any content type of 20-63, DTLS 1.2 or 1.0, epoch 0 or 1; a handshake body for type 22.
    const type = word & 1 ? 22 : 20 + ((word >>> 1) % 44);
    const length = word & 2 ? Math.max(0, buffer.length - 13) : (word >>> 8) & 0xffff;
    overlay(buffer, [type, 0xfe, word & 4 ? 0xfd : 0xff, 0, (word >>> 3) & 1, 0, 0, 0, 0, (word >>> 16) & 0xff, (word >>> 24) & 0xff, length >> 8, length & 0xff]);
    if (buffer.length > 13) buffer[13] = [1, 2, 3, 11, 12, 13, 14, 16, 20][word % 9];
  },
  rtp(buffer, word) {
    // Version 2; padding, extension and CSRC bits as they fall; a payload type in use.
    overlay(buffer, [0x80 | (word & 0x3f), (word >>> 8) & 0xff]);
    if (buffer.length > 1 && buffer[1] % 128 >= 64 && buffer[1] % 128 < 96) buffer[1] ^= 0x40;
  },
  rtcp(buffer, word) {
    const words = word & 0x40 ? Math.max(0, buffer.length / 4 - 1) & 0xffff : (word >>> 16) & 0xffff;
    overlay(buffer, [0x80 | (word & 0x3f), 200 + ((word >>> 8) % 8), words >> 8, words & 0xff]);
  },
};

/** Yields `count` datagrams; after 1501 per shape every length has been seen. */
export function* hostileDatagrams(count, seed) {
  const words = randomWords(seed);
  const shapes = Object.values(SHAPES);
  for (let index = 0; index < count; index += 1) {
    const length = Math.floor(index / shapes.length) % (MAX_LEN + 1);
    const datagram = Buffer.alloc(length);
    fill(datagram, words);
    shapes[index % shapes.length](datagram, words.next().value);
    yield datagram;
  }
}

/** Sends them from one socket; resolves to how many the kernel took. */
export async function sendHostile(port, count, seed) {
  const socket = dgram.createSocket('udp4');
  let sent = 0;
  let burst = 0;
  for (const datagram of hostileDatagrams(count, seed)) {
    await new Promise((resolve) => {
      socket.send(datagram, port, '127.0.0.1', (error) => {
        if (!error) sent += 1;
        resolve();
      });
    });
    burst += 1;
    if (burst === BURST) {
      burst = 0;
      await sleep(1);
    }
  }
  await new Promise((resolve) => socket.close(resolve));
  return sent;
}
