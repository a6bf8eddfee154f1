// Whoever can make an HTTP request gets through: the SDK falls down its ladder by itself where WebSockets are
// blocked, and a page with no library resumes by what its browser remembers.

import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import net from 'node:net';
import { after, before, test } from 'node:test';
import { fileURLToPath } from 'node:url';

import { eventually, freshRoom, launch, publish, server } from './harness.mjs';

/** What a page without a bundler loads: it isn't among what the package exports to Node.js. */
const sdk = fileURLToPath(new URL('node_modules/centrifuge/dist/centrifuge.js', import.meta.url));

let browser;
before(async () => {
  browser = await launch();
});
after(() => browser.close());

/** A TCP proxy that hangs up on requests whose head matches, and that can be cut. */
async function proxy(t, blocked) {
  const lines = new Set();
  const { hostname, port } = new URL(server);
  const listener = net.createServer((near) => {
    const far = net.connect(Number(port), hostname);
    const line = [near, far];
    lines.add(line);
    const end = () => {
      line.forEach((socket) => socket.destroy());
      lines.delete(line);
    };
    for (const socket of line) socket.on('close', end).on('error', end);
    near.on('data', (bytes) => {
      if (blocked?.test(bytes.toString('latin1'))) end();
      else far.write(bytes);
    });
    far.on('data', (bytes) => near.write(bytes));
  });
  await new Promise((resolve) => listener.listen(0, '127.0.0.1', resolve));
  const cut = () => [...lines].flat().forEach((socket) => socket.destroy());
  t.after(() => {
    cut();
    listener.close();
  });
  return { url: `http://127.0.0.1:${listener.address().port}`, cut };
}

/** A page of the server's own origin, with nothing on it. */
async function blank(t, url) {
  const context = await browser.newContext({ bypassCSP: true });
  t.after(() => context.close());
  const page = await context.newPage();
  await page.goto(`${url}/health`);
  return page;
}

for (const [title, blocked, expected] of [
  ['nothing is blocked', undefined, 'websocket'],
  ['upgrades are cut off', /^upgrade: websocket/im, 'http_stream'],
  ['upgrades and streaming requests are cut off', /^upgrade: websocket|\/connection\/http_stream/im, 'sse'],
]) {
  test(`where ${title}, the SDK comes by ${expected}`, async (t) => {
    const { url, cut } = await proxy(t, blocked);
    const page = await blank(t, url);
    await page.addScriptTag({ path: sdk });
    const channel = freshRoom();
    await page.evaluate(
      ([channel, origin]) => {
        const ladder = ['websocket', 'http_stream', 'sse'].map((transport) => ({
          transport,
          endpoint: `${transport === 'websocket' ? origin.replace('http', 'ws') : origin}/connection/${transport}`,
        }));
        const client = new Centrifuge(ladder, {
          emulationEndpoint: `${origin}/emulation`,
          minReconnectDelay: 5,
          maxReconnectDelay: 100,
        });
        const seen = (globalThis.seen = { transports: [], data: [], subscribed: 0 });
        client.on('connected', ({ transport }) => seen.transports.push(transport));
        const subscription = client.newSubscription(channel);
        subscription.on('subscribed', () => (seen.subscribed += 1));
        subscription.on('publication', ({ data }) => seen.data.push(data));
        subscription.subscribe();
        client.connect();
      },
      [channel, url],
    );
    const seen = () => page.evaluate(() => globalThis.seen);
    await eventually('it is subscribed', seen, ({ subscribed }) => subscribed === 1);
    await publish(channel, 1);
    await eventually('the first', seen, ({ data }) => data.length === 1);
    cut();
    await publish(channel, 2);
    await publish(channel, 3);
    const { transports, data } = await eventually('the others', seen, ({ data }) => data.length === 3);
    assert.deepEqual(data, [1, 2, 3]);
    assert.deepEqual([...new Set(transports)], [expected]);
  });
}

test('the ten lines of the book lose nothing while the line is cut at random', async (t) => {
  const { url, cut } = await proxy(t);
  const book = await readFile(new URL('../../docs/transports.md', import.meta.url), 'utf8');
  const [, block] = book.split('```html\n');
  const channel = freshRoom();
  const html = block.split('```')[0].replace('channel=news', `channel=${channel}`);
  assert.ok(html.includes(channel) && html.trim().split('\n').length <= 10);
  const context = await browser.newContext();
  t.after(() => context.close());
  const page = await context.newPage();
  const path = '/ten-lines.html';
  let loads = 0;
  await page.route(`**${path}`, (route) => {
    loads += 1;
    return route.fulfill({ contentType: 'text/html', body: html });
  });
  await page.goto(url + path);
  const listens = async () => {
    const response = await fetch(new URL(`/api/presence_stats`, server), {
      method: 'POST',
      headers: { 'x-api-key': process.env.TAUTLINE_API_KEY ?? 'dev' },
      body: JSON.stringify({ channel }),
    });
    return (await response.json()).result.num_clients;
  };
  const seen = () => page.locator('li').allTextContents();
  const random = seeded(7);
  let last = 0;
  for (let round = 0; round < 8; round += 1) {
    await eventually('it listens', listens, (count) => count === 1);
    // Some that come, then a cut in the middle of some that are missed at first.
    const [before, after] = [Math.floor(random() * 6), 1 + Math.floor(random() * 6)];
    for (let n = 0; n < before; n += 1) await publish(channel, { text: `${(last += 1)}` });
    cut();
    for (let n = 0; n < after; n += 1) await publish(channel, { text: `${(last += 1)}` });
    await eventually('all so far', seen, (texts) => texts.length >= last);
  }
  assert.deepEqual(await seen(), Array.from({ length: last }, (_, i) => `${i + 1}`));
  assert.equal(loads, 1);
});

/** A small seeded generator (mulberry32): a failing run can be repeated. */
function seeded(seed) {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let z = Math.imul(state ^ (state >>> 15), state | 1);
    z ^= z + Math.imul(z ^ (z >>> 7), z | 61);
    return ((z ^ (z >>> 14)) >>> 0) / 2 ** 32;
  };
}

test("a page's own WebSocket gets what is published, and publishes", async (t) => {
  const page = await blank(t, server);
  const channel = freshRoom();
  await page.evaluate((channel) => {
    globalThis.seen = [];
    const socket = new WebSocket(`${location.origin.replace('http', 'ws')}/ws?channel=${channel}`);
    socket.onmessage = ({ data }) => globalThis.seen.push(JSON.parse(data));
    socket.onopen = () => socket.send(JSON.stringify({ from: 'the page' }));
  }, channel);
  const seen = () => page.evaluate(() => globalThis.seen);
  await eventually('its own', seen, (data) => data.length === 1);
  await publish(channel, 'from the backend');
  const data = await eventually('both', seen, (data) => data.length === 2);
  assert.deepEqual(data, [{ from: 'the page' }, 'from the backend']);
});
