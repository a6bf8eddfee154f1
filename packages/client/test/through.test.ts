// What gets through a hostile proxy, by which rung, and that nothing is lost or doubled on the way.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test, type TestContext } from 'node:test';
import { Centrifuge } from 'centrifuge';
import { WebSocket as NodeSocket } from 'ws';
import { createClient, TautlineSocket, type SocketOptions } from '../src/index';
import { api, isUpgrade, proxy, store, until, type Deed } from './proxy';

const WebSocket = NodeSocket as unknown as NonNullable<SocketOptions['WebSocket']>;
const QUICK = { WebSocket, openTimeout: 300, silenceTimeout: 300 };
/** Where nothing is waited for in vain: a busy machine is no reason to take another way. */
const PATIENT = { WebSocket, openTimeout: 60_000, silenceTimeout: 60_000 };
const FAST = { minReconnectDelay: 5, maxReconnectDelay: 50 };

/** An SDK client whose only transport is the class. */
function client(t: TestContext, url: string, options: SocketOptions) {
  const made = new Centrifuge(url.replace('http', 'ws') + '/connection/websocket', {
    websocket: TautlineSocket.with({ ...QUICK, ...options }),
    ...FAST,
  });
  t.after(() => made.disconnect());
  return made;
}

/** Subscribes, and collects. */
async function listen(made: Centrifuge, channel: string) {
  const data: unknown[] = [];
  const subscription = made.newSubscription(channel);
  subscription.on('publication', (publication) => data.push(publication.data));
  subscription.subscribe();
  made.connect();
  await until('the subscription', () => subscription.state === 'subscribed', 60_000);
  return data;
}

const upTo = (count: number) => Array.from({ length: count }, (_, n) => n);

for (const deed of ['refuse', 'strip', 'hang', 'mute'] as Deed[]) {
  test(`where a proxy will ${deed} WebSockets, the SDK comes by long-polling, and the site is remembered`, async (t) => {
    const { url, seen } = await proxy(t, (request) => (isUpgrade(request) ? deed : 'pass'));
    const storage = store();
    const upgrades = () => seen.filter((line) => line.includes('/connection/websocket')).length;
    const channel = `through-${crypto.randomUUID()}`;
    const first = client(t, url, { storage });
    const data = await listen(first, channel);
    for (const n of upTo(20)) await (n % 2 ? first.publish(channel, n) : api('publish', { channel, data: n }));
    await until('all', () => data.length >= 20);
    assert.deepEqual(data, upTo(20));
    assert.equal(upgrades(), 1);
    // Another page of the site doesn't try any more, until it was long enough ago.
    await listen(client(t, url, { storage }), channel);
    assert.equal(upgrades(), 1);
    // That was for a minute. Each time that it is so still, it is for twice as long.
    const remembered = () => Number([...storage.map.values()][0]?.split('|')[2]) / 60_000;
    for (const minutes of [1, 2, 4, 8, 16, 30, 30]) {
      assert.equal(remembered(), minutes);
      for (const [key, value] of storage.map) storage.setItem(key, value.replace(/\|\d+/, `|${Date.now() - 1}`));
      const before = upgrades();
      const made = client(t, url, { storage });
      await listen(made, channel);
      assert.equal(upgrades(), before + 1);
      made.disconnect();
    }
  });
}

/** What a proxy does, by the rows of docs/client.md. */
const answersWait = (request: string) => /"stream":true|\/connection\/(http_stream|sse)/.test(request);
const upgrades = (deed: Deed) => (request: string) => (isUpgrade(request) ? deed : 'pass');
const ROWS: Record<string, [(request: string) => Deed, SocketOptions?]> = {
  'nothing': [() => 'pass'],
  'refuses them': [upgrades('refuse')],
  'strips `Upgrade`': [upgrades('strip')],
  'never answers': [upgrades('hang'), { openTimeout: 2000 }],
  'opens them, and carries nothing': [upgrades('mute'), { silenceTimeout: 300 }],
  'refuses streaming and SSE too': [(request) => (/\/connection\/(websocket|http_stream|sse)/.test(request) ? 'refuse' : 'pass')],
  'does one of these, and holds answers back': [
    (request) => (answersWait(request) ? 'hold back' : upgrades('refuse')(request)),
    { openTimeout: 300 },
  ],
};

/** What a request that carries messages is called there. */
function rung(request: string): string | undefined {
  const [, door] = /^\S+ \/connection\/(\w+)/.exec(request) ?? [];
  if (door === 'poll' && !request.includes('"poll":')) return undefined;
  if (door === 'poll') return request.includes('"stream":true') ? 'HTTP, streamed' : 'long-polling';
  return { websocket: 'WebSocket', http_stream: 'HTTP streaming', sse: 'SSE' }[door ?? ''];
}

test('docs/client.md says what the SDK comes by', async (t) => {
  const [, ...rows] = readFileSync('../../docs/client.md', 'utf8')
    .split('\n')
    .filter((line) => line.startsWith('| ') && line.split(' | ').length === 4);
  const told = rows.map((row) => row.slice(2).split(' | ').slice(0, 3)).filter(([title]) => title! in ROWS);
  assert.deepEqual(told.map(([title]) => title), Object.keys(ROWS));
  for (const [title, ...names] of told) {
    const [mood, options] = ROWS[title!]!;
    const found = [];
    for (const alone of [true, false]) {
      let last: string | undefined;
      const { url } = await proxy(t, (request) => {
        last = rung(request) ?? last;
        return mood(request);
      });
      const socket = { ...PATIENT, ...options, storage: store() };
      const made = alone ? client(t, url, socket) : createClient(Centrifuge, url, { ...FAST, socket });
      t.after(() => made.disconnect());
      const channel = `row-${crypto.randomUUID()}`;
      const data = await listen(made, channel);
      await api('publish', { channel, data: 1 });
      await until('it', () => data.length > 0);
      found.push(last);
      made.disconnect();
    }
    assert.deepEqual(found, names, title);
  }
});

const forbidden = () => {
  throw new DOMException('The operation is insecure.', 'SecurityError');
};
const STORES = {
  'there is no storage': null,
  'the storage is forbidden': { getItem: forbidden, setItem: forbidden, removeItem: forbidden },
  'the storage is full': { getItem: () => null, setItem: forbidden, removeItem: () => {} },
};

for (const [what, storage] of Object.entries(STORES)) {
  test(`where ${what}, the page itself remembers: one silent WebSocket, then the other way`, async (t) => {
    const { url, seen } = await proxy(t, (request) => (isUpgrade(request) ? 'mute' : 'pass'));
    const upgrades = () => seen.filter((line) => line.includes('/connection/websocket')).length;
    await listen(client(t, url, { storage }), 'news');
    await listen(client(t, url, { storage }), 'news');
    assert.equal(upgrades(), 1);
    const made = createClient(Centrifuge, url, { ...FAST, socket: { ...QUICK, storage } });
    t.after(() => made.disconnect());
    await listen(made, 'news');
    assert.equal(upgrades(), 1);
  });
}

test('where nothing is in the way it is a WebSocket, and nothing is remembered', async (t) => {
  const { url, seen } = await proxy(t, () => 'pass');
  const storage = store();
  await listen(client(t, url, { ...PATIENT, storage }), 'news');
  assert.deepEqual([seen.length, storage.map.size], [1, 0]);
});

test('what was remembered and is not so any more is forgotten', async (t) => {
  const { url, seen } = await proxy(t, (request) => (isUpgrade(request) ? 'pass' : 'refuse'));
  const storage = store();
  storage.setItem(`tautline.carrier ${new URL(url).host}`, `poll|${Date.now() + 60_000}`);
  await listen(client(t, url, { storage }), 'news');
  assert.deepEqual([seen.length, storage.map.size], [2, 0]);
});

test('an address that is wrong is told, and no other way is tried', async (t) => {
  const warn = t.mock.method(console, 'warn', () => {});
  for (const query of ['chanel=a', '', 'channel=a&since=zzz', 'channel=a&channel=a']) {
    const { url, seen } = await proxy(t, () => 'pass');
    const storage = store();
    const socket = new TautlineSocket(`${url}/ws?${query}`, [], { ...QUICK, storage });
    const code = await new Promise((resolve) => (socket.onclose = (event) => resolve(event.code)));
    assert.deepEqual([code, storage.map.size], [1006, 0]);
    assert.ok(seen.every((line) => !line.includes('/connection/poll')), seen.join());
  }
  assert.match(String(warn.mock.calls[0]?.arguments[0]), /there is no parameter `chanel`/);
});

test('a server that is away is no reason to remember anything', async (t) => {
  const held = await proxy(t, () => 'refuse');
  const storage = store();
  const socket = new TautlineSocket(`${held.url}/connection/websocket`, [], { ...QUICK, storage });
  const code = await new Promise((resolve) => (socket.onclose = (event) => resolve(event.code)));
  assert.deepEqual([code, storage.map.size, held.seen.length], [1006, 0, 2]);
});

for (const stream of [true, false]) {
  test(`requests and answers that get lost lose nothing and double nothing, ${stream ? 'streamed' : 'polled'}`, async (t) => {
    let count = 0;
    const deeds: Deed[] = ['pass', 'lose the answer', 'pass', 'cut the answer', 'refuse', 'pass'];
    let losses = 0;
    const { url } = await proxy(t, (request) => {
      if (!/"(poll|send)":/.test(request)) return 'pass';
      const deed = deeds[count++ % deeds.length]!;
      if (deed !== 'pass') losses += 1;
      return deed;
    });
    const channel = `lossy-${crypto.randomUUID()}`;
    const made = client(t, url, { WebSocket: null, storage: null, stream });
    let connects = 0;
    made.on('connected', () => (connects += 1));
    const data = await listen(made, channel);
    for (const n of upTo(60)) {
      if (n % 2) await made.publish(channel, n);
      else await api('publish', { channel, data: n });
    }
    await until('all', () => data.length >= 60);
    assert.deepEqual(data, upTo(60));
    // By the session's own means: the SDK saw none of it.
    assert.equal(connects, 1);
    assert.ok(losses > 20, `${losses} losses`);
  });
}

test('an answer goes on with what comes: one request for all of it', async (t) => {
  const { url, seen } = await proxy(t, () => 'pass');
  const socket = TautlineSocket.with({ WebSocket: null, storage: null });
  const made = new Centrifuge(`${url.replace('http', 'ws')}/connection/websocket`, { websocket: socket, ...FAST });
  t.after(() => made.disconnect());
  const channel = `flows-${crypto.randomUUID()}`;
  const data = await listen(made, channel);
  const before = seen.length;
  for (const n of upTo(20)) {
    await api('publish', { channel, data: n });
    await until('it', () => data.length > n);
  }
  assert.deepEqual([data, seen.length - before], [upTo(20), 0]);
});

test('where answers are held back it polls for whole ones, and remembers that', async (t) => {
  const isStream = (request: string) => /"stream":true/.test(request);
  const through = await proxy(t, (request) => (isStream(request) ? 'hold back' : 'pass'));
  const storage = store();
  const channel = `held-${crypto.randomUUID()}`;
  const open = async () => {
    const socket = new TautlineSocket(`${through.url}/connection/websocket`, [], { ...QUICK, WebSocket: null, storage });
    t.after(() => socket.close());
    const lines: string[] = [];
    socket.onmessage = ({ data }) => lines.push(data);
    await new Promise((resolve) => (socket.onopen = resolve));
    socket.send(`{"id":1,"connect":{}}\n{"id":2,"subscribe":{"channel":"${channel}"}}`);
    await until('the subscription', () => lines.some((line) => line.includes('"subscribe"')));
    await api('publish', { channel, data: 'through' });
    await until('it', () => lines.some((line) => line.includes('"through"')));
    assert.equal(socket.carrier, 'poll');
  };
  await open();
  await until('it is remembered', () => storage.map.size);
  assert.equal([...storage.map.values()][0]?.split('|')[0], 'buffered');
  let asked = false;
  through.mood = (request) => {
    asked ||= isStream(request);
    return 'pass';
  };
  await open();
  assert.equal(asked, false);
});

for (const [rung, blocked] of [
  ['websocket', /^$/],
  ['http_stream', /websocket/],
  ['poll', /websocket|http_stream|sse/],
] as const) {
  test(`the ladder ends at ${rung} where what is above is refused, and starts there next time`, async (t) => {
    const through = await proxy(t, (request) =>
      blocked.test(request.slice(0, request.indexOf('\r\n'))) ? 'refuse' : 'pass',
    );
    const storage = store();
    const make = () => {
      const made = createClient(Centrifuge, through.url, { ...FAST, socket: { ...QUICK, storage } });
      t.after(() => made.disconnect());
      return made;
    };
    const channel = `ladder-${crypto.randomUUID()}`;
    const first = make();
    const data = await listen(first, channel);
    await first.publish(channel, 0);
    await api('publish', { channel, data: 1 });
    await until('both', () => data.length === 2);
    assert.ok(through.seen.some((line) => line.includes(`/connection/${rung}`)));
    through.seen.length = 0;
    await listen(make(), channel);
    assert.ok(through.seen.every((line) => !blocked.test(line)), through.seen.join());
  });
}

test('the ladder gets through a WebSocket that opens and is silent', async (t) => {
  const { url } = await proxy(t, (request) => (isUpgrade(request) ? 'mute' : 'pass'));
  const made = createClient(Centrifuge, url, { ...FAST, socket: { ...QUICK, storage: store() } });
  t.after(() => made.disconnect());
  await listen(made, 'news');
});
