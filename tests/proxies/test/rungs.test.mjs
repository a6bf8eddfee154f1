// What comes through what is in between, by which rung, and that nothing is lost or doubled over cuts. The table of
// docs/behind-proxies.md says the same: UPDATE_TABLE=1 writes it.

import assert from 'node:assert/strict';
import { readFile, writeFile } from 'node:fs/promises';
import { randomUUID } from 'node:crypto';
import { connect } from 'node:net';
import { describe, test } from 'node:test';

import { hostile } from '../hostile.mjs';
import { ADDRESS, RECIPES, SERVER, api, freePort, sdk, start, until, upTo, whole } from '../support.mjs';

/** Publications while the line is cut in between. */
const COUNT = 60;
/** After so many of them. */
const EACH = 15;
/** How often something that cuts by itself has to have done so. */
const CUTS = 3;

const nginx = (text) => async (port) =>
  `server { listen 127.0.0.1:${port}; location / { proxy_pass http://${ADDRESS}; ${text} } }`;

/** What is in between. `cuts`: it cuts by itself. */
const MIDDLES = [
  { title: 'nothing' },
  { title: 'nginx, with the recipe', kind: 'nginx', text: RECIPES.nginx, tls: true },
  { title: 'HAProxy, with the recipe', kind: 'haproxy', text: RECIPES.haproxy, tls: true },
  { title: 'Caddy, with the recipe', kind: 'caddy', text: RECIPES.caddy, tls: true },
  { title: 'nginx with `proxy_pass` and nothing else', kind: 'nginx', text: nginx('') },
  {
    title: 'nginx that buffers whatever it is told',
    kind: 'nginx',
    text: nginx('proxy_ignore_headers X-Accel-Buffering; proxy_buffers 64 64k; proxy_busy_buffers_size 128k;'),
  },
  {
    title: 'HAProxy that cuts after a second of silence',
    kind: 'haproxy',
    cuts: true,
    text: async (port) => `
defaults
    mode http
    timeout connect 5s
    timeout client 1s
    timeout server 1s
frontend web
    bind 127.0.0.1:${port}
    default_backend one
backend one
    server one ${ADDRESS}
`,
  },
  { title: 'something that strips `Upgrade`', middle: { strip: true } },
  { title: 'something that refuses WebSockets', middle: { sockets: 'refuse' } },
  { title: 'something that never answers an upgrade', middle: { sockets: 'hang' } },
  { title: 'something that opens WebSockets and passes nothing on', middle: { sockets: 'mute' } },
  { title: 'something that speaks HTTP/1.0', middle: { http10: true } },
  { title: 'something that holds answers back until they are whole', middle: { strip: true, buffer: true } },
  { title: 'something that allows two connections', middle: { connections: 2 } },
  {
    title: 'something that allows two connections, and strips `Upgrade`',
    middle: { connections: 2, strip: true },
  },
  { title: 'something that cuts each connection after a second', middle: { cutAfter: 1000 }, cuts: true },
  {
    title: 'something that cuts each connection after a second, and strips `Upgrade`',
    middle: { cutAfter: 1000, strip: true },
    cuts: true,
  },
  { title: 'something that resets connections at random', middle: { resetAfter: 4096 }, cuts: true },
  {
    title: 'something that resets connections at random, and strips `Upgrade`',
    middle: { resetAfter: 4096, strip: true },
    cuts: true,
  },
  { title: 'something that adds 200 ms each way', middle: { latency: 200 } },
  { title: 'something that adds 200 ms each way, and strips `Upgrade`', middle: { latency: 200, strip: true } },
  {
    title: 'something that does all of this',
    middle: {
      strip: true,
      buffer: true,
      http10: true,
      connections: 2,
      latency: 100,
      cutAfter: 3000,
      resetAfter: 8192,
    },
    cuts: true,
  },
];

/** The lines of the table, as they were found out. */
const found = new Map();

describe('what is in between', { concurrency: 4 }, () => {
  for (const { title, ...rest } of MIDDLES) {
    test(title, async (t) => {
      const alone = await pass(t, rest, sdk);
      const both = await pass(t, rest, whole);
      assert.ok(both.rung, 'the whole ladder gets through');
      found.set(title, { alone: alone.rung ?? 'nothing', ...both });
    });
  }
});

/** Puts it in between, and sends a client through. */
async function pass(t, { kind, text, tls = false, middle = {}, cuts = false }, make) {
  let real;
  if (kind) {
    const port = await freePort();
    real = await start(kind, port, await text(port));
    t.after(() => real.stop());
  }
  // Where it can't see what is asked for, it is of no use.
  const tap = tls ? null : await hostile(real ? `http://127.0.0.1:${real.port}` : SERVER, middle);
  if (tap) t.after(() => tap.close());
  const client = make(tap?.url ?? `https://127.0.0.1:${real.port}`);
  t.after(() => client.disconnect());

  const channel = `middle-${randomUUID()}`;
  const data = [];
  const gaps = [];
  let connects = 0;
  let transport;
  client.on('connected', (context) => {
    connects += 1;
    transport = context.transport;
  });
  const subscription = client.newSubscription(channel);
  subscription.on('publication', (publication) => data.push(publication.data));
  subscription.on('subscribed', ({ wasRecovering, recovered }) => {
    if (wasRecovering && !recovered) gaps.push(data.length);
  });
  const from = performance.now();
  subscription.subscribe();
  client.connect();

  const doors = () => tap?.seen.filter((path) => path.startsWith('/connection/')) ?? [];
  // Nothing gets through if each rung was tried, and then each once more, or the same again and again.
  const inVain = () => {
    const times = ['websocket', 'http_stream', 'sse'].map((rung) => doors().filter((door) => door.endsWith(`/${rung}`)).length);
    return make === sdk && connects === 0 && (Math.min(...times) >= 2 || Math.max(...times) >= 3);
  };
  await until('the subscription', () => subscription.state === 'subscribed' || inVain());
  if (subscription.state !== 'subscribed') {
    client.disconnect();
    return { rung: null };
  }
  const seconds = (performance.now() - from) / 1000;
  const path = doors();
  // With TLS it is the client's word, and of ours what its sockets say: one that is a WebSocket to it may be a poll.
  const word = transport === 'websocket' && client.opened?.count === 0 ? 'poll' : transport;
  const rung = path.length > 0 ? path.at(-1).replace('/connection/', '') : word;
  const before = [...new Set(path.map((path) => path.replace('/connection/', '')))].filter((door) => door !== rung);

  // The way up, as often as it takes: what was published twice is no fault of the line.
  const up = `up-${channel}`;
  for (let done = false; !done; ) {
    done = await client.publish(up, 1).then(
      () => true,
      (error) => (error.temporary || [1, 2, 3, 6, 11].includes(error.code) ? false : assert.fail(JSON.stringify(error))),
    );
  }
  const { publications } = await api('history', { channel: up, limit: 10 });
  assert.ok(publications.length >= 1, 'what the client published is there');

  let published = 0;
  const publish = async (count) => {
    for (let n = 0; n < count; n += 1) await api('publish', { channel, data: (published += 1) });
  };
  if (cuts) {
    const cutsSoFar = () => (real ? connects - 1 : tap.cuts);
    const first = cutsSoFar();
    for (let round = 1; round <= CUTS || cutsSoFar() < first + CUTS; round += 1) {
      await publish(EACH);
      await until('what was published', () => data.length >= published);
      if (round > 200) assert.fail('it never cuts');
      const next = first + Math.min(round, CUTS);
      // With nothing to carry there is nothing to reset.
      if (!middle.resetAfter || middle.cutAfter) await until('a cut', () => cutsSoFar() >= next);
    }
    await publish(EACH);
  } else {
    while (published < COUNT) {
      await publish(EACH);
      await until('what was published', () => data.length >= published);
      // Missed, most of it.
      if (tap) tap.cut();
      else await real.kill();
      await publish(EACH);
      if (!tap) await real.start();
    }
  }
  await until('all of it', () => data.length >= published);
  assert.deepEqual(data, upTo(published), 'each once, in order');
  assert.deepEqual(gaps, [], 'each time it was recovered');
  if (middle.connections) await isRefused(t, tap, middle.connections);
  client.disconnect();
  return { rung, before, seconds };
}

/** Sees that it takes no more connections than it says: those of the client are there, and as many besides. */
async function isRefused(t, tap, most) {
  const before = tap.refused;
  const others = Array.from({ length: most }, () => connect(Number(new URL(tap.url).port), '127.0.0.1').on('error', () => {}));
  t.after(() => others.forEach((socket) => socket.destroy()));
  await until('one connection too many', () => tap.refused > before);
  others.forEach((socket) => socket.destroy());
}

const TABLE = new URL('../../../docs/behind-proxies.md', import.meta.url);
const BEGIN = '<!-- the table: written by `UPDATE_TABLE=1 cargo xtask test proxies` -->\n';
const END = '<!-- the end of the table -->';
const NAMES = { websocket: 'WebSocket', http_stream: 'HTTP streaming', sse: 'SSE', poll: 'long-polling', nothing: '–' };

test('docs/behind-proxies.md says what was found', async () => {
  assert.equal(found.size, MIDDLES.length, 'something came through each');
  const text = await readFile(TABLE, 'utf8');
  const [head, rest] = text.split(BEGIN);
  const [table, tail] = rest.split(END);
  if (process.env.UPDATE_TABLE) {
    const lines = MIDDLES.map(({ title }) => line(title, found.get(title)));
    const heading = '| in between | npm `centrifuge` alone | with the whole ladder | tried before | after |\n|---|---|---|---|--:|\n';
    await writeFile(TABLE, `${head}${BEGIN}${heading}${lines.join('')}${END}${tail}`);
    return;
  }
  // Times are those of one run; what is said otherwise is so each time.
  const told = (line) => line.split('|').slice(1, 5).join('|');
  assert.deepEqual(
    table.split('\n').slice(2, -1).map(told),
    MIDDLES.map(({ title }) => told(line(title, found.get(title)))),
    'UPDATE_TABLE=1 writes it',
  );
});

function line(title, { alone, rung, before, seconds }) {
  const tried = before.map((name) => NAMES[name]).join(', ') || '–';
  const wait = seconds < 1 ? 'at once' : `${Math.round(seconds)} s`;
  return `| ${title} | ${NAMES[alone]} | ${NAMES[rung]} | ${tried} | ${wait} |\n`;
}
