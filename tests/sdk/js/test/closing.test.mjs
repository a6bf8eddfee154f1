// The end of a connection, byte by byte: browsers fail a connection on which anything follows the
// Close frame (RFC 6455 section 5.5.1), and say so to whoever looks into the console.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import net from 'node:net';
import { test } from 'node:test';

import { SERVER, freshChannel } from './support.mjs';

const TEXT = 1;
const CLOSE = 8;

/** A masked frame with a payload of at most 65,535 bytes; the mask is all zeros. */
function frame(opcode, payload) {
  const body = Buffer.from(payload);
  const length = body.length < 126 ? [0x80 | body.length] : [0x80 | 126, body.length >> 8, body.length & 255];
  return Buffer.concat([Buffer.from([0x80 | opcode, ...length, 0, 0, 0, 0]), body]);
}

/** The frames in what a server sent, which are whole and not masked. */
function frames(bytes) {
  const found = [];
  for (let at = 0; at < bytes.length; ) {
    let length = bytes[at + 1];
    let head = 2;
    if (length === 126) {
      length = bytes.readUInt16BE(at + 2);
      head = 4;
    }
    found.push({ opcode: bytes[at] & 15, text: bytes.toString('utf8', at + head, at + head + length) });
    at += head + length;
  }
  return found;
}

/** Opens a WebSocket, sends `sent` in one write, and gives the frames that came until the end. */
async function exchange(t, sent) {
  const { hostname, port, host } = new URL(SERVER);
  const socket = net.connect(Number(port), hostname);
  t.after(() => socket.destroy());
  socket.setTimeout(10_000, () => socket.destroy(new Error('the server did not end the connection')));
  socket.write(
    `GET /connection/websocket HTTP/1.1\r\nHost: ${host}\r\nUpgrade: websocket\r\n` +
      'Connection: Upgrade\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n',
  );
  let received = Buffer.alloc(0);
  socket.on('data', (data) => (received = Buffer.concat([received, data])));
  const head = () => received.indexOf('\r\n\r\n') + 4;
  while (head() < 4) await once(socket, 'data');
  assert.match(received.toString('latin1'), /^HTTP\/1.1 101 /);
  socket.end(sent);
  await once(socket, 'close');
  return frames(received.subarray(head()));
}

function assertEndsWithClose(got) {
  const place = got.findIndex(({ opcode }) => opcode === CLOSE);
  assert.notEqual(place, -1, 'there was no Close');
  assert.deepEqual(got.slice(place + 1), [], 'frames after the Close');
}

/** Connects, subscribes and publishes to itself, all in one frame. */
const publishing = (channel) =>
  frame(
    TEXT,
    [
      '{"id":1,"connect":{}}',
      `{"id":2,"subscribe":{"channel":"${channel}"}}`,
      `{"id":3,"publish":{"channel":"${channel}","data":"on its way"}}`,
    ].join('\n'),
  );

test('nothing follows the answer to a Close, whatever was on its way', async (t) => {
  const got = await exchange(t, Buffer.concat([publishing(freshChannel()), frame(CLOSE, [0x03, 0xe8])]));
  assertEndsWithClose(got);
});

test('nothing follows the Close with which a violation is answered', async (t) => {
  const reserved = frame(3, 'not a frame of RFC 6455');
  const got = await exchange(t, Buffer.concat([publishing(freshChannel()), reserved]));
  assertEndsWithClose(got);
});

test('nothing follows the Close with which the server ends a session', async (t) => {
  const nobodyHandles = frame(TEXT, '{"send":{"data":1}}');
  const got = await exchange(t, Buffer.concat([publishing(freshChannel()), nobodyHandles]));
  assertEndsWithClose(got);
});
