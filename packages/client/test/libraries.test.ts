// Libraries that take a WebSocket constructor are given ours, and talk their own protocols to their own servers. There
// it is a WebSocket and nothing else: what doesn't get through isn't replaced, because those servers have no other door.
// Behind tunnels they have: `tunnel.test.ts`.

import assert from 'node:assert/strict';
import http from 'node:http';
import type { AddressInfo } from 'node:net';
import { test, type TestContext } from 'node:test';
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
import { store, until } from './proxy';

const WebSocket = NodeSocket as unknown as NonNullable<SocketOptions['WebSocket']>;

/** The class with sockets of Node.js, and those that were made of it. */
function watched() {
  const made: TautlineSocket[] = [];
  const storage = store();
  const Socket = class extends TautlineSocket.with({ WebSocket, storage }) {
    constructor(url: string | URL, protocols?: string | string[]) {
      super(url, protocols);
      made.push(this);
    }
  };
  return { Socket, made, storage };
}

/** A server of WebSockets that ends with the test. */
async function serve(t: TestContext, protocols: (offered: Set<string>) => string | false = () => false) {
  const site = http.createServer();
  const sockets = new WebSocketServer({ server: site, handleProtocols: protocols });
  await new Promise<void>((resolve) => site.listen(0, '127.0.0.1', resolve));
  t.after(() => {
    for (const socket of sockets.clients) socket.terminate();
    site.close();
  });
  return { sockets, url: `ws://127.0.0.1:${(site.address() as AddressInfo).port}` };
}

test('y-websocket: two documents become one', async (t) => {
  const { sockets, url } = await serve(t);
  sockets.on('connection', (socket: unknown, request: unknown) => setupWSConnection(socket, request));
  // It keeps its documents, with their timers, for ever.
  t.after(() => docs.forEach((doc: Y.Doc) => doc.destroy()));
  const { Socket, made } = watched();
  const join = () => {
    const doc = new Y.Doc();
    const options = { WebSocketPolyfill: Socket as unknown as typeof globalThis.WebSocket, disableBc: true };
    const provider = new WebsocketProvider(url, 'room', doc, options);
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
  assert.deepEqual(made.map(({ carrier, binaryType }) => [carrier, binaryType]), Array(2).fill(['websocket', 'arraybuffer']));
});

test('mqtt.js: what is published comes to who subscribed', async (t) => {
  const { sockets, url } = await serve(t, (offered) => offered.has('mqtt') && 'mqtt');
  const broker = await Aedes.createBroker();
  t.after(() => broker.close());
  sockets.on('connection', (socket: never) => broker.handle(createWebSocketStream(socket)));
  const { Socket, made } = watched();
  const client = mqtt.connect(url, {
    // Its own way for browsers; for Node.js it would take `ws`.
    forceNativeWebSocket: true,
    createWebsocket: (address: string, protocols: string[]) => new Socket(address, protocols),
    reconnectPeriod: 0,
  });
  t.after(() => client.end(true));
  const seen: string[] = [];
  client.on('message', (topic, message) => seen.push(`${topic} ${message}`));
  await client.subscribeAsync('news/#');
  await client.publishAsync('news/a', 'häh? 🦀', { qos: 1 });
  await until('the message', () => seen.length);
  assert.deepEqual(seen, ['news/a häh? 🦀']);
  assert.deepEqual(made.map(({ carrier, protocol }) => [carrier, protocol]), [['websocket', 'mqtt']]);
});

test('graphql-ws: a query is answered, a subscription goes on until it is over', async (t) => {
  const { sockets, url } = await serve(t, (offered) => offered.has('graphql-transport-ws') && 'graphql-transport-ws');
  const schema = buildSchema('type Query { hello: String } type Subscription { count: Int }');
  const roots = {
    query: { hello: () => 'world' },
    subscription: {
      async *count() {
        for (const count of [1, 2, 3]) yield { count };
      },
    },
  };
  const ends = useServer({ schema, roots }, sockets);
  t.after(() => ends.dispose());
  const { Socket, made } = watched();
  const client = createClient({ url, webSocketImpl: Socket, retryAttempts: 0 });
  t.after(() => client.dispose());
  const all = async (query: string) => {
    const results: ExecutionResult[] = [];
    for await (const result of client.iterate({ query })) results.push(result as ExecutionResult);
    return results.map(({ data }) => ({ ...data }));
  };
  assert.deepEqual(await all('{ hello }'), [{ hello: 'world' }]);
  assert.deepEqual(await all('subscription { count }'), [{ count: 1 }, { count: 2 }, { count: 3 }]);
  assert.ok(made.every(({ carrier }) => carrier === 'websocket'));
});

test('where WebSockets are refused, a socket to another server fails as any does, and nothing is remembered', async (t) => {
  const site = http.createServer((_, response) => response.writeHead(404).end());
  const seen: string[] = [];
  site.on('request', ({ url }) => seen.push(String(url)));
  site.on('upgrade', (_, near) => near.destroy());
  await new Promise<void>((resolve) => site.listen(0, '127.0.0.1', resolve));
  t.after(() => site.close());
  const { Socket, storage } = watched();
  const socket = new Socket(`ws://127.0.0.1:${(site.address() as AddressInfo).port}/graphql`, 'graphql-transport-ws');
  const closed = await new Promise<CloseEvent>((resolve) => (socket.onclose = resolve));
  assert.deepEqual([closed.code, closed.wasClean, socket.carrier], [1006, false, '']);
  assert.deepEqual([seen, storage.map.size], [[], 0]);
});
