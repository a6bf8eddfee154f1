// Libraries that know nothing of Tautline, with their own servers behind tunnels, where no WebSocket gets through.
//
//   TAUTLINE_TUNNELS    where a server runs with tunnels.toml
//   TAUTLINE_UPSTREAM   host and port where its tunnels lead to: this test listens there

import assert from 'node:assert/strict';
import http from 'node:http';
import { after, before, test, type TestContext } from 'node:test';
import { Aedes } from 'aedes';
import { buildSchema, type ExecutionResult } from 'graphql';
import { createClient } from 'graphql-ws';
import { useServer } from 'graphql-ws/use/ws';
import mqtt from 'mqtt';
import { WebSocket as NodeSocket, WebSocketServer, createWebSocketStream } from 'ws';
import { WebsocketProvider } from 'y-websocket';
import { docs, setupWSConnection } from 'y-websocket/bin/utils';
import * as Y from 'yjs';
import { TautlineSocket, type SocketOptions } from '../src/index';
import { isUpgrade, proxy, setting, store, until, type Deed } from './proxy';

/** One of `ws`, which has no types. */
type Socket = any;

const WebSocket = NodeSocket as unknown as NonNullable<SocketOptions['WebSocket']>;
const SERVER = setting('TAUTLINE_TUNNELS');

const site = http.createServer();
const broker = await Aedes.createBroker();
/** What came of echoed messages, and how their connections ended. */
const echoed: (string | Buffer)[] = [];
const ends: [number, string][] = [];

before(async () => {
  const graphql = new WebSocketServer({ noServer: true, handleProtocols: () => 'graphql-transport-ws' });
  const schema = buildSchema('type Query { hello: String } type Subscription { count: Int }');
  const roots = {
    query: { hello: () => 'world' },
    subscription: {
      async *count() {
        for (const count of [1, 2, 3]) yield { count };
      },
    },
  };
  useServer({ schema, roots }, graphql);
  const plain = new WebSocketServer({ noServer: true, handleProtocols: (offered: Set<string>) => offered.has('mqtt') && 'mqtt' });
  const echo = (socket: Socket) => {
    socket.on('message', (data: Buffer, isBinary: boolean) => {
      const message = isBinary ? data : String(data);
      echoed.push(message);
      if (message === 'close') socket.close(4007, 'enough');
      else socket.send(message);
    });
    socket.on('close', (code: number, reason: Buffer) => ends.push([code, String(reason)]));
  };
  site.on('upgrade', (request, socket, head) => {
    const [, name] = String(request.url).split(/[/?]/);
    const server = name === 'graphql' ? graphql : plain;
    server.handleUpgrade(request, socket, head, (opened: Socket) => {
      if (name === 'docs') {
        // The room is what is behind the tunnel's name.
        request.url = String(request.url).replace('/docs', '');
        setupWSConnection(opened, request);
      } else if (name === 'mqtt') broker.handle(createWebSocketStream(opened));
      else if (name === 'echo') echo(opened);
      else server.emit('connection', opened, request);
    });
  });
  const [host, port] = setting('TAUTLINE_UPSTREAM').split(':');
  await new Promise<void>((resolve) => site.listen(Number(port), host, resolve));
});

after(() => {
  docs.forEach((doc: Y.Doc) => doc.destroy());
  broker.close();
  site.closeAllConnections();
  site.close();
});

/**
 * The class behind a proxy, with sockets of Node.js, and those that were made of it. It waits for long before it takes another
 * way, as the machine may be busy, unless something never comes.
 */
async function behind(t: TestContext, mood: (request: string) => Deed, openTimeout = 60_000) {
  const through = await proxy(t, mood, SERVER);
  const made: TautlineSocket[] = [];
  const Base = TautlineSocket.with({ WebSocket, storage: store(), openTimeout });
  const Socket = class extends Base {
    constructor(url: string | URL, protocols?: string | string[], more?: SocketOptions) {
      super(url, protocols, more);
      made.push(this);
    }
  };
  const carriers = () => [...new Set(made.map(({ carrier }) => carrier))];
  return { Socket, made, carriers, url: `${through.url.replace('http', 'ws')}/tunnel` };
}

type Way = [string, (request: string) => Deed, string, number?];

const isStream = (request: string) => /"stream":true/.test(request);
const blocked = (deed: Deed) => (request: string) => (isUpgrade(request) ? deed : 'pass');
const WAYS: Way[] = [
  ['nothing is in the way', () => 'pass', 'websocket'],
  ['WebSockets are refused', blocked('refuse'), 'stream'],
  ['upgrades are stripped', blocked('strip'), 'stream'],
  ['WebSockets get no answer', blocked('hang'), 'stream', 2000],
  ['answers are held back too', (request) => (isStream(request) ? 'hold back' : blocked('refuse')(request)), 'poll', 300],
];

for (const [what, mood, carrier, openTimeout] of WAYS) {
  test(`y-websocket where ${what}: two documents become one`, async (t) => {
    const { Socket, carriers, url } = await behind(t, mood, openTimeout);
    const room = `room-${crypto.randomUUID()}`;
    const join = () => {
      const doc = new Y.Doc();
      const options = { WebSocketPolyfill: Socket as unknown as typeof globalThis.WebSocket, disableBc: true };
      const provider = new WebsocketProvider(`${url}/docs`, room, doc, options);
      t.after(() => {
        provider.destroy();
        doc.destroy();
      });
      return doc.getText('text');
    };
    const [one, two] = [join(), join()];
    one.insert(0, 'taut');
    await until('the word', () => two.toString() === 'taut');
    two.insert(4, 'line');
    await until('the other half', () => one.toString() === 'tautline');
    // A document that takes many requests, and then some answers.
    const long = 'x'.repeat(300_000);
    one.insert(0, long);
    await until('all of it', () => two.length === long.length + 8);
    assert.ok(docs.has(room));
    assert.deepEqual(carriers(), [carrier]);
  });

  test(`mqtt.js where ${what}: what is published comes to who subscribed, once and in order`, async (t) => {
    const { Socket, made, carriers, url } = await behind(t, mood, openTimeout);
    const client = mqtt.connect(`${url}/mqtt`, {
      forceNativeWebSocket: true,
      createWebsocket: (address: string, protocols: string[]) => new Socket(address, protocols),
      reconnectPeriod: 0,
    });
    t.after(() => client.end(true));
    const seen: string[] = [];
    client.on('message', (_, message) => seen.push(String(message)));
    const topic = `news/${crypto.randomUUID()}`;
    await client.subscribeAsync(topic, { qos: 1 });
    const expected = Array.from({ length: 50 }, (_, n) => `häh? 🦀 ${n}`);
    for (const message of expected) client.publish(topic, message, { qos: 1 });
    await until('all', () => seen.length >= expected.length);
    assert.deepEqual(seen, expected);
    assert.deepEqual([carriers(), made[0]?.protocol], [[carrier], 'mqtt']);
  });

  test(`graphql-ws where ${what}: a query is answered, a subscription goes on until it is over`, async (t) => {
    const { Socket, carriers, url } = await behind(t, mood, openTimeout);
    const client = createClient({ url: `${url}/graphql`, webSocketImpl: Socket, retryAttempts: 0, lazyCloseTimeout: 5_000 });
    t.after(() => client.dispose());
    const all = async (query: string) => {
      const results: ExecutionResult[] = [];
      for await (const result of client.iterate({ query })) results.push(result as ExecutionResult);
      return results.map(({ data }) => ({ ...data }));
    };
    assert.deepEqual(await all('{ hello }'), [{ hello: 'world' }]);
    assert.deepEqual(await all('subscription { count }'), [{ count: 1 }, { count: 2 }, { count: 3 }]);
    assert.deepEqual(carriers(), [carrier]);
  });
}

test('messages, sizes and kinds are as they were, and so are the codes of a Close, both ways', async (t) => {
  for (const mood of [() => 'pass' as Deed, blocked('refuse')]) {
    const { Socket, url } = await behind(t, mood);
    const open = async () => {
      const socket = new Socket(`${url}/echo`);
      socket.binaryType = 'arraybuffer';
      const got: unknown[] = [];
      socket.onmessage = ({ data }) => got.push(typeof data === 'string' ? data : Buffer.from(data as ArrayBuffer));
      const closed = new Promise<CloseEvent>((resolve) => (socket.onclose = resolve));
      await new Promise((resolve) => (socket.onopen = resolve));
      return { socket, got, closed };
    };
    const bytes = Buffer.from(Uint8Array.from({ length: 256 }, (_, n) => n));
    const messages = ['', 'häh? 🦀\n', bytes, Buffer.alloc(0), 'y'.repeat(200_000), Buffer.alloc(127, 1), 'z'.repeat(128)];
    const one = await open();
    for (const message of messages) one.socket.send(message === bytes ? new Blob([bytes]) : message);
    await until('all echoes', () => one.got.length >= messages.length);
    assert.deepEqual(one.got, messages);
    assert.equal(one.socket.bufferedAmount, 0);
    ends.length = 0;
    one.socket.close(4001, 'bye');
    // The reason is what the other side answers with, which needn't be that of the question.
    const { code, wasClean } = await one.closed;
    assert.deepEqual([code, wasClean], [4001, true]);
    assert.deepEqual(await until('the server hears of it', () => ends[0]), [4001, 'bye']);
    const other = await open();
    other.socket.send('close');
    const told = await other.closed;
    assert.deepEqual([told.code, told.reason, told.wasClean], [4007, 'enough', true]);
  }
});

test('connections killed at random: no message is lost, doubled or out of order, either way', async (t) => {
  let state = 20_261_126;
  const below = (most: number) => (state = (state * 48_271) % 2_147_483_647) % most;
  let losses = 0;
  const { Socket, carriers, url } = await behind(t, (request) => {
    if (isUpgrade(request)) return 'refuse';
    if (!/"(poll|send)":/.test(request) || below(2) === 0) return 'pass';
    losses += 1;
    return (['refuse', 'lose the answer', 'cut the answer'] as const)[below(3)]!;
  });
  const socket = new Socket(`${url}/echo`);
  socket.binaryType = 'arraybuffer';
  const got: unknown[] = [];
  socket.onmessage = ({ data }) => got.push(typeof data === 'string' ? data : Buffer.from(data as ArrayBuffer));
  await new Promise((resolve) => (socket.onopen = resolve));
  echoed.length = 0;
  const messages = Array.from({ length: 400 }, (_, n) => {
    const text = `${n} ${'x'.repeat(below(20) === 0 ? below(90_000) : below(300))}`;
    return n % 3 ? text : Buffer.from(text);
  });
  for (const [n, message] of messages.entries()) {
    socket.send(message);
    // Not all of them in one request.
    if (n % 20 === 0) await until('some to come', () => got.length >= n - 20);
  }
  await until('all', () => got.length >= messages.length, 60_000);
  assert.deepEqual(got, messages);
  assert.deepEqual(echoed, messages);
  assert.ok(losses > 20, `${losses} losses`);
  assert.equal(carriers()[0], 'stream');
  socket.close();
});

test('a WebSocket that opens and carries nothing is found out when its library gives it up', async (t) => {
  const { Socket, url } = await behind(t, blocked('mute'));
  const first = new Socket(`${url}/echo`, [], { silenceTimeout: 0 });
  await new Promise((resolve) => (first.onopen = resolve));
  first.send('hello?');
  first.close();
  const second = new Socket(`${url}/echo`);
  const got: unknown[] = [];
  second.onmessage = ({ data }) => got.push(data);
  await new Promise((resolve) => (second.onopen = resolve));
  second.send('hello!');
  await until('an echo', () => got.length);
  assert.deepEqual([got, second.carrier], [['hello!'], 'stream']);
  second.close();
});
