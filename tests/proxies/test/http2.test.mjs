// Proxies that speak HTTP/2 to the server, without TLS (prior knowledge): many clients share a few connections, and
// where the proxy knows RFC 8441, their WebSockets do too.

import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { after, before, describe, test } from 'node:test';

import { WebSocket } from 'ws';

import { ADDRESS, RECIPES, SERVER, api, freePort, polling, sdk, start, until } from '../support.mjs';

/** What of a recipe changes, and which rungs come through. */
const PROXIES = {
  haproxy: {
    text: (port) =>
      RECIPES.haproxy(port, `${ADDRESS} proto h2`, {
        // Else it shares connections among requests that it could repeat, and WebSockets are none.
        'balance leastconn': 'balance leastconn\n    http-reuse always',
      }),
    rungs: ['websocket', 'http_stream', 'sse', 'poll'],
  },
  // Its client of HTTP/2 has no extended CONNECT.
  caddy: {
    text: (port) =>
      RECIPES.caddy(port, `h2c://${ADDRESS}`),
    rungs: ['http_stream', 'sse', 'poll'],
  },
};

/** What the server counts. */
async function metric(name) {
  const text = await (await fetch(`${SERVER}/metrics`)).text();
  const line = text.split('\n').find((line) => line.startsWith(`tautline_${name} `));
  return Number(line?.split(' ').at(-1) ?? 0);
}

const streams = (kind) => metric(`http2_streams_total{kind="${kind}"}`);

for (const [kind, { text, rungs }] of Object.entries(PROXIES)) {
  describe(`${kind}, which speaks HTTP/2 to the server`, () => {
    let proxy, url;
    before(async () => {
      const port = await freePort();
      proxy = await start(kind, port, await text(port));
      url = `https://127.0.0.1:${port}`;
    });
    after(() => proxy?.stop());

    for (const rung of rungs) {
      test(`${rung} comes through, both ways`, async (t) => {
        const stream = rung === 'websocket' ? 'websocket' : 'request';
        const before = await streams(stream);
        const client = rung === 'poll' ? polling(url) : sdk(url, [rung]);
        t.after(() => client.disconnect());
        const channel = `http2-${randomUUID()}`;
        const data = [];
        const subscription = client.newSubscription(channel);
        subscription.on('publication', (publication) => data.push(publication.data));
        subscription.subscribe();
        client.connect();
        await until('the subscription', () => subscription.state === 'subscribed');
        await subscription.publish('up');
        await api('publish', { channel, data: 'down' });
        await until('both', () => data.length >= 2);
        assert.deepEqual(data, ['up', 'down']);
        assert.ok((await streams(stream)) > before, 'it came by HTTP/2');
      });
    }

    if (rungs.includes('websocket')) {
      test('many WebSockets share few connections', async (t) => {
        const count = 50;
        const channel = `http2-${randomUUID()}`;
        const heard = [];
        for (let n = 0; n < count; n += 1) {
          const ws = new WebSocket(`${url.replace('https', 'wss')}/ws?channel=${channel}`);
          t.after(() => ws.terminate());
          ws.on('message', (data) => heard.push(JSON.parse(data)));
        }
        await until('all', async () => (await api('presence_stats', { channel })).num_clients === count);
        assert.ok((await metric('http2_num_connections')) < count);
        await api('publish', { channel, data: 'all' });
        await until('all hear it', () => heard.length === count);
        assert.deepEqual([...new Set(heard)], ['all']);
      });
    }
  });
}
