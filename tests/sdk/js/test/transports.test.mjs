// The SDK's own ladder: WebSocket, HTTP streaming, server-sent events. Each by itself, with the line cut under it,
// and from one rung to the next, with a proxy in between that lets some of them through.

import assert from 'node:assert/strict';
import net from 'node:net';
import test from 'node:test';

import { Centrifuge } from 'centrifuge';
import { Centrifuge as ProtobufCentrifuge } from 'centrifuge/build/protobuf';
import { EventSource } from 'eventsource';
import { WebSocket } from 'ws';

import { SERVER, apiResult, collect, freshChannel, next, seeded, subscribed, until } from './support.mjs';

const PATHS = {
  websocket: '/connection/websocket',
  http_stream: '/connection/http_stream',
  sse: '/connection/sse',
};
const NAMES = Object.keys(PATHS);

/** A TCP proxy in front of the server that can be cut, and that hangs up on requests for `blocked` paths. */
async function proxy(t, blocked = []) {
  const lines = new Set();
  const seen = [];
  const { hostname, port } = new URL(SERVER);
  const listener = net.createServer((near) => {
    const far = net.connect(Number(port), hostname);
    const line = { near, far };
    lines.add(line);
    const end = () => {
      near.destroy();
      far.destroy();
      lines.delete(line);
    };
    for (const socket of [near, far]) socket.on('close', end).on('error', end);
    near.on('data', (bytes) => {
      const [first] = bytes.toString('latin1').split('\r\n', 1);
      const path = /^[A-Z]+ (\/[^ ?]*)[^ ]* HTTP/.exec(first)?.[1];
      if (path) seen.push(path);
      if (blocked.includes(path)) end();
      else far.write(bytes);
    });
    far.on('data', (bytes) => near.write(bytes));
  });
  await new Promise((resolve) => listener.listen(0, '127.0.0.1', resolve));
  const cut = () => {
    for (const { near, far } of lines) {
      near.destroy();
      far.destroy();
    }
  };
  t.after(() => {
    cut();
    listener.close();
  });
  return { url: `http://127.0.0.1:${listener.address().port}`, cut, seen };
}

/** A client that knows these transports only, in this order. */
function ladder(t, url, names, { protobuf = false, ...options } = {}) {
  const transports = names.map((transport) => ({
    transport,
    endpoint: (transport === 'websocket' ? url.replace(/^http/, 'ws') : url) + PATHS[transport],
  }));
  const client = new (protobuf ? ProtobufCentrifuge : Centrifuge)(transports, {
    emulationEndpoint: `${url}/emulation`,
    websocket: WebSocket,
    eventsource: EventSource,
    minReconnectDelay: 5,
    maxReconnectDelay: 100,
    ...options,
  });
  t.after(() => client.disconnect());
  return client;
}

async function up(client) {
  const done = next(client, 'connected');
  client.connect();
  return done;
}

const forms = NAMES.flatMap((name) => (name === 'sse' ? [[name, false]] : [[name, false], [name, true]]));

for (const [name, protobuf] of forms) {
  const title = `${name}, ${protobuf ? 'Protobuf' : 'JSON'}`;
  const encode = (value) => (protobuf ? new TextEncoder().encode(JSON.stringify(value)) : value);
  const decode = (data) => (protobuf ? JSON.parse(new TextDecoder().decode(data)) : data);

  test(`${title}: whatever an application does`, async (t) => {
    const { url } = await proxy(t);
    const client = ladder(t, url, [name], { protobuf });
    const { transport } = await up(client);
    assert.equal(transport, name);
    const channel = freshChannel();
    const subscription = await subscribed(client, channel);
    const seen = collect(subscription);
    await Promise.all([1, 2, 3].map((n) => subscription.publish(encode({ n }))));
    await apiResult('publish', { channel, data: { text: 'grüße \u{1f600} \u2028' } });
    await until(() => seen.length === 4, 'four publications');
    const texts = seen.map(({ data }) => decode(data));
    assert.deepEqual(texts[3], { text: 'grüße \u{1f600} \u2028' });
    const { clients } = await subscription.presence();
    assert.equal(Object.keys(clients).length, 1);
    const { publications } = await subscription.history({ limit: 10 });
    assert.equal(publications.length, 4);
    await assert.rejects(client.rpc('none', encode({})), { code: 108 });
    subscription.unsubscribe();
    await assert.rejects(client.publish(`unknown:${channel}`, encode(1)), { code: 102 });
    const gone = next(client, 'disconnected');
    client.disconnect();
    await gone;
    await until(async () => {
      const { num_clients } = await apiResult('presence_stats', { channel });
      return num_clients === 0;
    }, 'the server to see that it is gone');
  });

  test(`${title}: nothing is lost, nothing comes twice while the line is cut`, async (t) => {
    const seed = Number(process.env.SEED ?? 7);
    const random = seeded(seed);
    const line = await proxy(t);
    const client = ladder(t, line.url, [name], { protobuf });
    await up(client);
    const channel = freshChannel();
    const subscription = await subscribed(client, channel);
    const seen = collect(subscription);
    const recoveries = collect(subscription, 'subscribed');
    const count = 400;
    let cuts = 0;
    for (let n = 1; n <= count; n += 1) {
      await apiResult('publish', { channel, data: { n } });
      if (random() < 0.04) {
        cuts += 1;
        line.cut();
        if (random() < 0.5) await next(client, 'connected');
      }
    }
    await until(() => seen.length >= count, `${count} publications (SEED=${seed})`);
    assert.deepEqual(seen.map(({ data }) => decode(data).n), Array.from({ length: count }, (_, i) => i + 1));
    assert.ok(cuts > 5 && recoveries.length > 3, `${cuts} cuts, ${recoveries.length} recoveries`);
    assert.ok(recoveries.every(({ recovered }) => recovered));
  });
}

for (const [blocked, expected] of [
  [[], 'websocket'],
  [['websocket'], 'http_stream'],
  [['websocket', 'http_stream'], 'sse'],
]) {
  test(`with ${blocked.join(' and ') || 'nothing'} blocked it comes by ${expected}`, async (t) => {
    const { url, seen } = await proxy(t, blocked.map((name) => PATHS[name]));
    const client = ladder(t, url, NAMES);
    const { transport } = await up(client);
    assert.equal(transport, expected);
    const subscription = await subscribed(client, freshChannel());
    const publications = collect(subscription);
    await subscription.publish({ n: 1 });
    await until(() => publications.length === 1, 'its own publication');
    assert.deepEqual([...new Set(seen)].filter((path) => path !== '/emulation'), [
      ...blocked.map((name) => PATHS[name]),
      PATHS[expected],
    ]);
  });
}

test('a token that is no good is told as on a WebSocket', async (t) => {
  for (const name of NAMES) {
    const client = ladder(t, SERVER, [name], { token: 'x' });
    const gone = next(client, 'disconnected');
    client.connect();
    assert.equal((await gone).code, 3500, name);
  }
});
