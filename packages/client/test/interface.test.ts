// The interface, as the WebSockets standard has it, whatever carries the connection.

import assert from 'node:assert/strict';
import { test, type TestContext } from 'node:test';
import { runInNewContext } from 'node:vm';
import { WebSocket as NodeSocket } from 'ws';
import { TautlineSocket, type SocketOptions } from '../src/index';
import { SERVER, store, until } from './proxy';

const WebSocket = NodeSocket as unknown as NonNullable<SocketOptions['WebSocket']>;
const URL_OF = (path: string) => SERVER.replace('http', 'ws') + path;
const ENDPOINT = URL_OF('/connection/websocket');

function open(t: TestContext, carrier: string, url = ENDPOINT, protocols?: string | string[]) {
  const options = { WebSocket: carrier === 'poll' ? null : WebSocket, storage: store() };
  const socket = new TautlineSocket(url, protocols, options);
  t.after(() => socket.close());
  return socket;
}

const once = (socket: EventTarget, type: string) =>
  new Promise<any>((resolve) => socket.addEventListener(type, resolve, { once: true }));

const named = (name: string) => (error: unknown) => error instanceof DOMException && error.name === name;

test('what a constructor refuses, and what it makes of URLs', () => {
  const options = { WebSocket: null, storage: null, fetch: () => new Promise<never>(() => {}) };
  const make = (url: string, protocols?: string | Iterable<string>) => new TautlineSocket(url, protocols, options);
  assert.throws(() => new (TautlineSocket as any)(), TypeError);
  make('ws://host/ws', new Set(['a', 'A'])).close();
  assert.throws(() => make('ws://host/ws', new Set(['a', 'a b'])), named('SyntaxError'));
  for (const bad of ['nowhere', 'ftp://host/', 'ws://host/#there', 'ws://host/#', 'ws://:x/']) {
    assert.throws(() => make(bad), named('SyntaxError'), bad);
  }
  for (const bad of ['', 'a b', 'ä', 'a,b', ['a', 'a'], ['a', '']]) {
    assert.throws(() => make('ws://host/ws', bad), named('SyntaxError'), String(bad));
  }
  for (const [given, made] of [
    ['http://host/connection/poll', 'ws://host/connection/poll'],
    ['HTTPS://Host:443/connection/poll?a=b', 'wss://host/connection/poll?a=b'],
    ['ws://host:80/ws', 'ws://host/ws'],
  ]) {
    const socket = make(given!);
    assert.equal(socket.url, made);
    assert.deepEqual([socket.readyState, socket.bufferedAmount, socket.protocol, socket.extensions, socket.binaryType], [0, 0, '', '', 'blob']);
    socket.close();
    assert.equal(socket.readyState, 2);
  }
  const { CONNECTING, OPEN, CLOSING, CLOSED } = TautlineSocket;
  const constants: any[] = [TautlineSocket, TautlineSocket.prototype, make('ws://host/ws')];
  for (const place of constants) {
    assert.equal(place.CLOSED, 3);
    assert.throws(() => (place.CLOSED = 7), TypeError);
  }
  assert.equal(String(make('ws://host/ws')), '[object WebSocket]');
  assert.deepEqual([CONNECTING, OPEN, CLOSING, CLOSED], [0, 1, 2, 3]);
  assert.deepEqual([CONNECTING, OPEN, CLOSING, CLOSED], (({ CONNECTING: a, OPEN: b, CLOSING: c, CLOSED: d }) => [a, b, c, d])(make('ws://host/ws')));
});

for (const carrier of ['websocket', 'poll']) {
  test(`${carrier}: commands go, replies come, and it closes as it is told`, async (t) => {
    const socket = open(t, carrier);
    assert.throws(() => socket.send('{}'), named('InvalidStateError'));
    await once(socket, 'open');
    assert.deepEqual([socket.readyState, socket.carrier], [1, carrier]);
    socket.send('{"id":1,"connect":{}}');
    const { data, origin } = await once(socket, 'message');
    assert.ok(JSON.parse(data.split('\n')[0]).connect.client, data);
    assert.equal(origin, new URL(ENDPOINT).origin);
    await until('all to be sent', () => socket.bufferedAmount === 0);
    // Halves go to the even one: 998.
    for (const code of [0, 998.5, 999, 1000.6, 1001, 1001.5, 1005, 2999, 2999.4, 5000, 4999.5, NaN]) {
      assert.throws(() => socket.close(code), named('InvalidAccessError'), String(code));
    }
    assert.throws(() => socket.close(3000, 'ä'.repeat(62)), named('SyntaxError'));
    assert.throws(() => (socket as any).send(), TypeError);
    assert.throws(() => socket.send(Symbol('a') as any), TypeError);
    assert.throws(() => socket.close(1000, Symbol('a') as any), TypeError);
    // Half of 4,320 and 4,321 is the even one; what it says besides, a server doesn't repeat.
    socket.close(4320.5, 'enough');
    assert.equal(socket.readyState, 2);
    socket.send('12345');
    assert.ok(socket.bufferedAmount >= 5);
    const closed = await once(socket, 'close');
    assert.deepEqual([closed.code, closed.reason, closed.wasClean, socket.readyState], [4320, '', true, 3]);
    socket.close();
  });

  test(`${carrier}: text, blobs, buffers and views keep their order`, async (t) => {
    const socket = open(t, carrier);
    const seen: string[] = [];
    socket.onmessage = ({ data }) => seen.push(...String(data).split('\n').filter((line) => line !== '{}'));
    await once(socket, 'open');
    const channel = `order-${crypto.randomUUID()}`;
    const bytes = (text: string) => new TextEncoder().encode(text);
    const publish = (n: number) => JSON.stringify({ id: n + 10, publish: { channel, data: n } });
    socket.send(`{"id":1,"connect":{}}\n{"id":2,"subscribe":{"channel":"${channel}"}}`);
    await until('the subscription', () => seen.length >= 2);
    const padded = bytes(`__${publish(3)}__`);
    // As of a page in a frame.
    const foreign = (text: string): ArrayBuffer => runInNewContext('Uint8Array.from(bytes).buffer', { bytes: bytes(text) });
    assert.ok(!(foreign('') instanceof ArrayBuffer));
    // The SDK's form of text is text; bytes are text to this session too where it is carried by requests.
    const forms = carrier === 'poll'
      ? [publish(0), new Blob([publish(1)]), bytes(publish(2)).buffer, padded.subarray(2, -2), foreign(publish(4))]
      : [publish(0), publish(1), publish(2), publish(3), publish(4)];
    for (const form of forms) socket.send(form);
    // What is sent is what it was then.
    padded.fill(0);
    const published = () => seen.map((line) => JSON.parse(line)).filter((line) => line.push?.pub).map((line) => line.push.pub.data);
    await until('all of them', () => published().length === 5);
    assert.deepEqual(published(), [0, 1, 2, 3, 4]);
  });

  test(`${carrier}: Protobuf comes as what binaryType says`, async (t) => {
    const socket = open(t, carrier, ENDPOINT, 'centrifuge-protobuf');
    // Command{id: 1, connect: ConnectRequest{}}, its length before it.
    const connect = new Uint8Array([4, 0x08, 1, 0x22, 0]);
    await once(socket, 'open');
    assert.equal(socket.protocol, 'centrifuge-protobuf');
    socket.binaryType = 'arraybuffer';
    socket.binaryType = 'nonsense' as BinaryType;
    socket.send(connect);
    const { data } = await once(socket, 'message');
    assert.ok(data instanceof ArrayBuffer);
    const reply = new Uint8Array(data);
    assert.equal(reply.length, reply[0]! + 1);
  });

  test(`${carrier}: the server's end has its code and reason`, async (t) => {
    const socket = open(t, carrier);
    await once(socket, 'open');
    socket.send('{"id":1,"connect":{}}\n{"id":1,"connect":{}}');
    const closed = await once(socket, 'close');
    assert.deepEqual([closed.code, closed.reason, closed.wasClean], [3501, 'bad request', true]);
  });

  test(`${carrier}: the plain door says and takes data`, async (t) => {
    const channel = `plain-${crypto.randomUUID()}`;
    const seen: unknown[] = [];
    const socket = open(t, carrier, URL_OF(`/ws?channel=${channel}&envelope=1`));
    socket.onmessage = ({ data }) => seen.push(JSON.parse(data));
    await once(socket, 'open');
    await until('the position', () => seen.length === 1);
    const { epoch, ...told } = seen[0] as any;
    assert.deepEqual(told, { event: 'subscribed', channel, offset: 0 });
    socket.send(JSON.stringify({ channel, data: { text: 'hello' } }));
    await until('its own word', () => seen.length === 2);
    const { offset, epoch: again, data } = seen[1] as any;
    assert.deepEqual([offset, again, data], [1, epoch, { text: 'hello' }]);

    const since = open(t, carrier, URL_OF(`/ws?channel=${channel}&since=0,${epoch}`));
    assert.equal((await once(since, 'message')).data, '{"text":"hello"}');
    since.send('no JSON');
    assert.equal((await once(since, 'close')).code, 4107);
    const exact = open(t, carrier, URL_OF(`/ws?channel=exact-${channel}`));
    await once(exact, 'open');
    exact.send('[9007199254740993,\n1e400]');
    assert.match((await once(exact, 'message')).data, /^\[9007199254740993, ?1e400\]$/);
    const gone = open(t, carrier, URL_OF(`/ws?channel=${channel}&since=7,other`));
    assert.equal((await once(gone, 'close')).code, 4112);
  });
}

test('what is asked for with a reason and no code is no code', async (t) => {
  // Browsers differ here, and take `undefined` for 0 or for nothing: the standard has the latter.
  const socket = open(t, 'poll');
  await once(socket, 'open');
  socket.close(undefined, 'why');
  const { code, reason, wasClean } = await once(socket, 'close');
  assert.deepEqual([code, reason, wasClean], [1005, '', true]);
});

test('handlers are events like others, in their place, and can be taken back', async (t) => {
  const socket = open(t, 'poll');
  const order: string[] = [];
  socket.onopen = () => assert.fail('was replaced');
  socket.addEventListener('open', () => order.push('listener'));
  socket.onopen = function (this: unknown) {
    assert.equal(this, socket);
    order.push('handler');
  };
  socket.onclose = () => assert.fail('was taken back');
  socket.onclose = null;
  assert.equal(socket.onclose, null);
  await once(socket, 'open');
  assert.deepEqual(order, ['handler', 'listener']);
});

test('closed while it connects, it fails', async (t) => {
  for (const carrier of ['websocket', 'poll']) {
    const socket = open(t, carrier);
    let errors = 0;
    socket.onerror = () => (errors += 1);
    socket.close();
    const { code, wasClean } = await once(socket, 'close');
    assert.deepEqual([code, wasClean, errors], [1006, false, 1]);
  }
});
