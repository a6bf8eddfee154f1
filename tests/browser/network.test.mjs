// The TypeScript package behind a real network that doesn't let WebSockets through: a proxy of the test's own between the
// browser and the server.

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';

import { front } from './front.mjs';
import { eventually, freshRoom, launch, publish } from './harness.mjs';

let browser;
before(async () => {
  browser = await launch();
});
after(() => browser.close());

const upTo = (count) => Array.from({ length: count }, (_, n) => n + 1);

async function profile(t) {
  const context = await browser.newContext();
  t.after(() => context.close());
  return context;
}

for (const upgrades of ['refuse', 'strip']) {
  test(`a network that will ${upgrades} WebSockets: the class alone, and the ladder, in both encodings`, async (t) => {
    const site = await front(t, { upgrades });
    for (const path of ['/tab', '/tab.protobuf']) {
      for (const kind of ['class', 'ladder']) {
        // What got through is remembered: each has a browser that knows nothing.
        const page = await (await profile(t)).newPage();
        await page.goto(site.url + path);
        await page.waitForFunction(() => globalThis.ready);
        await getsThrough(page, kind, path.endsWith('protobuf'));
      }
    }
    assert.ok(site.seen.includes('upgrade /connection/websocket'));
    for (const door of ['/connection/poll', '/connection/http_stream']) assert.ok(site.seen.includes(door), door);
  });
}

test('a network that lets requests through and nothing else: the ladder ends at long-polling, in both encodings', async (t) => {
  const site = await front(t, { upgrades: 'strip', blocked: /http_stream|sse/ });
  for (const protobuf of [false, true]) {
    const context = await profile(t);
    const page = await context.newPage();
    await page.goto(`${site.url}/tab${protobuf ? '.protobuf' : ''}`);
    await page.waitForFunction(() => globalThis.ready);
    await getsThrough(page, 'ladder', protobuf);
  }
  assert.ok(site.seen.includes('/connection/poll'));
});

/** A client of the page's subscribes, and gets what it and others publish. */
async function getsThrough(page, kind, protobuf) {
  const channel = freshRoom();
  await page.evaluate(
    ([channel, kind, protobuf]) => {
      const options = { minReconnectDelay: 5, maxReconnectDelay: 100 };
      globalThis.client =
        kind === 'ladder'
          ? tautline.createClient(Centrifuge, location.origin, { ...options, protobuf })
          : new Centrifuge(`${location.origin.replace('http', 'ws')}/connection/websocket`, {
              ...options,
              websocket: tautline.TautlineSocket,
            });
      globalThis.seen = [];
      const text = (data) => (protobuf ? JSON.parse(new TextDecoder().decode(data)) : data);
      globalThis.pack = (data) => (protobuf ? new TextEncoder().encode(JSON.stringify(data)) : data);
      const subscription = client.newSubscription(channel);
      subscription.on('publication', ({ data }) => seen.push(text(data)));
      subscription.on('subscribed', () => (globalThis.subscribed = true));
      subscription.subscribe();
      client.connect();
    },
    [channel, kind, protobuf],
  );
  await eventually('it is subscribed', () => page.evaluate(() => globalThis.subscribed ?? false), Boolean);
  for (const n of upTo(5)) await publish(channel, n);
  await page.evaluate((channel) => client.publish(channel, pack(6)), channel);
  const seen = await eventually('all', () => page.evaluate(() => seen), ({ length }) => length >= 6);
  assert.deepEqual(seen, upTo(6));
}
