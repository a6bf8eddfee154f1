// A tunnel behind a real network that doesn't let WebSockets through: a library that knows nothing of it talks to its own
// server, which here is the one under test, by the class alone.
//
//   TAUTLINE_PROGRAM   the server's program; it is started once more here, with a tunnel to the server under test

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';

import { front } from './front.mjs';
import { eventually, freshRoom, launch, publish, server } from './harness.mjs';
import { serve } from './program.mjs';

const upTo = (count) => Array.from({ length: count }, (_, n) => n + 1);

let tunnels, browser;
before(async () => {
  const upstream = `${server.replace(/^http/, 'ws').replace(/\/$/, '')}/connection/websocket`;
  tunnels = await serve(`[[tunnels]]\nname = "sdk"\nupstream = "${upstream}"\n`);
  browser = await launch();
});
after(async () => {
  await browser?.close();
  tunnels?.stop();
});

for (const upgrades of ['pass', 'refuse', 'strip']) {
  test(`through a network that will ${upgrades} WebSockets, text and binary alike`, async (t) => {
    const site = await front(t, { upgrades, target: tunnels.url });
    for (const path of ['/tab', '/tab.protobuf']) {
      const context = await browser.newContext();
      t.after(() => context.close());
      const page = await context.newPage();
      await page.goto(site.url + path);
      await page.waitForFunction(() => globalThis.ready);
      const channel = freshRoom();
      const protobuf = path.endsWith('protobuf');
      await page.evaluate(
        ([channel, protobuf]) => {
          globalThis.sockets = [];
          const Socket = class extends tautline.TautlineSocket {
            constructor(...given) {
              super(...given);
              sockets.push(this);
            }
          };
          globalThis.seen = [];
          const text = (data) => (protobuf ? JSON.parse(new TextDecoder().decode(data)) : data);
          globalThis.pack = (data) => (protobuf ? new TextEncoder().encode(JSON.stringify(data)) : data);
          const address = `${location.origin.replace('http', 'ws')}/tunnel/sdk`;
          globalThis.client = new Centrifuge(address, { websocket: Socket, minReconnectDelay: 5, maxReconnectDelay: 100 });
          const subscription = client.newSubscription(channel);
          subscription.on('publication', ({ data }) => seen.push(text(data)));
          subscription.on('subscribed', () => (globalThis.subscribed = true));
          subscription.subscribe();
          client.connect();
        },
        [channel, protobuf],
      );
      await eventually('it is subscribed', () => page.evaluate(() => globalThis.subscribed ?? false), Boolean);
      for (const n of upTo(5)) await publish(channel, n);
      await page.evaluate((channel) => client.publish(channel, pack(6)), channel);
      const seen = await eventually('all', () => page.evaluate(() => seen), ({ length }) => length >= 6);
      assert.deepEqual(seen, upTo(6));
      const [carrier, protocol] = await page.evaluate(() => [sockets.at(-1).carrier, sockets.at(-1).protocol]);
      assert.equal(carrier, upgrades === 'pass' ? 'websocket' : 'stream');
      assert.equal(protocol, protobuf ? 'centrifuge-protobuf' : '');
    }
    assert.ok(site.seen.some((path) => path.endsWith('/tunnel/sdk')));
  });
}

test('a page of another site gets nothing, and the server behind hears nothing', async (t) => {
  const site = await front(t, { target: tunnels.url });
  const context = await browser.newContext();
  t.after(() => context.close());
  const page = await context.newPage();
  await page.goto(`${site.url}/tab`);
  await page.waitForFunction(() => globalThis.ready);
  // This page's origin is not the host that it asks.
  const code = await page.evaluate((address) => {
    const socket = new tautline.TautlineSocket(`${address.replace('http', 'ws')}/tunnel/sdk`);
    return new Promise((resolve) => (socket.onclose = ({ code }) => resolve(code)));
  }, tunnels.url);
  assert.equal(code, 1006);
});
