// The TypeScript package in a real browser: it falls down by itself where WebSockets are blocked, and all tabs share
// one connection, whichever of them is closed.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { after, before, test } from 'node:test';
import { fileURLToPath } from 'node:url';

import { connectionsOf, eventually, freshRoom, launch, publish, server } from './harness.mjs';

const sdk = fileURLToPath(new URL('node_modules/centrifuge/dist/centrifuge.js', import.meta.url));
const built = new URL('../../packages/client/dist/index.js', import.meta.url);

/** Tabs that are open at a time, and how often the one with the connection is closed. */
const TABS = 10;
const CLOSINGS = 100;

let browser;
before(async () => {
  browser = await launch();
});
after(() => browser.close());

/** A tab with both packages: `Centrifuge` and `tautline`. */
async function tab(context) {
  const page = await context.newPage();
  await page.goto(`${server}/health`);
  await page.addScriptTag({ path: sdk });
  const source = JSON.stringify(readFileSync(built, 'utf8'));
  await page.evaluate(`import(URL.createObjectURL(new Blob([${source}], { type: 'text/javascript' })))
    .then((module) => { globalThis.tautline = module; })`);
  return page;
}

async function profile(t) {
  const context = await browser.newContext({ bypassCSP: true });
  t.after(() => context.close());
  return context;
}

/** What the server counts, by a name of its metrics. */
async function metric(name) {
  const text = await (await fetch(new URL('/metrics', server))).text();
  return Number(new RegExp(`^${name} (\\d+)`, 'm').exec(text)?.[1]);
}

const upTo = (count) => Array.from({ length: count }, (_, n) => n + 1);

/** Joins in a tab as `identity`, and collects what comes in `channel`. */
async function join(page, identity, channel, token) {
  await page.evaluate(
    ([identity, channel, origin, token]) => {
      const seen = (globalThis.seen = { data: [], subscribed: [], out: false });
      globalThis.shared = new tautline.SharedClient({
        identity,
        client: () =>
          tautline.createClient(Centrifuge, origin, {
            minReconnectDelay: 5,
            maxReconnectDelay: 100,
            ...(token ? { token } : {}),
          }),
      });
      shared.addEventListener('logout', () => (seen.out = true));
      globalThis.subscription = shared.subscribe(channel);
      subscription.addEventListener('publication', ({ data }) => seen.data.push(data.data));
      subscription.addEventListener('subscribed', ({ data }) => seen.subscribed.push(data.recovered));
    },
    [identity, channel, server, token],
  );
  await eventually('it is subscribed', () => seenBy(page), ({ subscribed }) => subscribed.length > 0);
}

const seenBy = (page) => page.evaluate(() => ({ ...globalThis.seen, state: shared.state, leads: shared.leads }));

for (const [title, mode] of [['blocked', 'refuse'], ['silent', 'mute']]) {
  test(`where WebSockets are ${title}, npm centrifuge gets through with the class alone`, async (t) => {
    const page = await tab(await profile(t));
    const channel = freshRoom();
    await page.evaluate(
      ([channel, origin, mode]) => {
        const Real = WebSocket;
        // What the page's network does to sockets; the doors of HTTP are the server's own.
        globalThis.tried = 0;
        const Blocked = function (url, protocols) {
          globalThis.tried += 1;
          if (mode === 'refuse') return new Real('ws://127.0.0.1:1/', protocols);
          const socket = new Real(url, protocols);
          socket.addEventListener('message', (event) => event.stopImmediatePropagation());
          return socket;
        };
        const seen = (globalThis.seen = { data: [] });
        globalThis.client = new Centrifuge(`${origin.replace('http', 'ws')}/connection/websocket`, {
          websocket: tautline.TautlineSocket.with({ WebSocket: Blocked, silenceTimeout: 500 }),
          minReconnectDelay: 5,
          maxReconnectDelay: 100,
        });
        const subscription = client.newSubscription(channel);
        subscription.on('publication', ({ data }) => seen.data.push(data));
        subscription.on('subscribed', () => (seen.subscribed = true));
        subscription.subscribe();
        client.connect();
      },
      [channel, server, mode],
    );
    const seen = () => page.evaluate(() => ({ ...globalThis.seen, tried: globalThis.tried }));
    await eventually('it is subscribed', seen, ({ subscribed }) => subscribed);
    for (const n of upTo(5)) await publish(channel, n);
    await page.evaluate((channel) => client.publish(channel, 6), channel);
    const { data, tried } = await eventually('all', seen, ({ data }) => data.length >= 6);
    assert.deepEqual([data, tried], [upTo(6), 1]);
  });
}

test(`${TABS} tabs have one connection, and lose and double nothing while its tab is closed ${CLOSINGS} times`, async (t) => {
  const context = await profile(t);
  const channel = freshRoom();
  const connections = () => connectionsOf(channel);
  const tabs = [];
  for (let n = 0; n < TABS; n += 1) {
    tabs.push(await tab(context));
    await join(tabs[n], channel, channel);
  }
  assert.equal(await connections(), 1);

  let published = 0;
  let ends = false;
  let most = 0;
  const backend = (async () => {
    while (!ends) {
      await publish(channel, (published += 1));
      if (published % 10 === 0) most = Math.max(most, await connections());
      await new Promise((resolve) => setTimeout(resolve, 2));
    }
  })();
  const check = ({ data }) => {
    const [first] = data;
    assert.deepEqual(data, Array.from(data, (_, i) => first + i));
  };
  for (let closed = 0; closed < CLOSINGS; closed += 1) {
    const leader = await eventually(
      'a tab to lead',
      async () => {
        const leads = await Promise.all(tabs.map((page) => page.evaluate(() => shared.leads)));
        return leads.indexOf(true);
      },
      (index) => index >= 0,
    );
    const [page] = tabs.splice(leader, 1);
    // What it has lost or doubled so far would go with it.
    const sofar = published;
    check(await eventually('what was published', () => seenBy(page), ({ data }) => data.at(-1) >= sofar));
    // Without a word: nothing of the page runs any more.
    await page.close();
    const last = published;
    const fresh = await tab(context);
    await join(fresh, channel, channel);
    tabs.push(fresh);
    await eventually(
      'somebody hears what comes after',
      () => seenBy(tabs[0]),
      ({ data }) => data.at(-1) > last,
    );
  }
  ends = true;
  await backend;
  for (const page of tabs) {
    const seen = await eventually('all of it', () => seenBy(page), ({ data }) => data.at(-1) === published);
    check(seen);
    assert.ok(seen.subscribed.every(Boolean), 'each time it was recovered');
  }
  await eventually('one connection', connections, (now) => now === 1);
  // The one that ends, and the one that begins.
  assert.ok(most <= 2, `at most ${most} connections`);
  console.log(`${CLOSINGS} leaders closed, ${published} publications, at most ${most} connections at a time`);
});

test('the subscriptions of tabs are their own, and the last one ends it at the server', async (t) => {
  const context = await profile(t);
  const channel = freshRoom();
  const [one, two] = [await tab(context), await tab(context)];
  const before = await metric('tautline_node_num_subscriptions');
  for (const page of [one, two]) await join(page, channel, channel);
  const subscriptions = () => metric('tautline_node_num_subscriptions');
  assert.equal(await subscriptions(), before + 1);
  await one.evaluate(() => subscription.unsubscribe());
  await publish(channel, 1);
  await eventually('the other has it', () => seenBy(two), ({ data }) => data.length === 1);
  assert.deepEqual((await seenBy(one)).data, []);
  assert.equal(await subscriptions(), before + 1);
  // A page that comes later goes on from where it was.
  const answer = await one.evaluate(async (channel) => {
    await shared.publish(channel, 2);
    const { publications } = await shared.history(channel, { limit: 10 });
    return publications.map(({ data }) => data);
  }, channel);
  assert.deepEqual(answer, [1, 2]);
  await one.evaluate((channel) => {
    globalThis.rewound = [];
    const again = shared.subscribe(channel, { offset: 0, epoch: subscription.position.epoch });
    again.addEventListener('publication', ({ data }) => rewound.push(data.data));
  }, channel);
  const rewound = await eventually('both', () => one.evaluate(() => rewound), ({ length }) => length >= 2);
  assert.deepEqual(rewound, [1, 2]);
  await eventually('both, once', () => seenBy(two), ({ data }) => data.length >= 2);
  assert.deepEqual((await seenBy(two)).data, [1, 2]);
  await two.close();
  await one.evaluate(() => shared.close());
  await eventually('none', subscriptions, (now) => now === before);
});

test('a logout closes all tabs of that login, and nothing of it reaches another', async (t) => {
  const context = await profile(t);
  const channel = freshRoom();
  const [one, two, other] = [await tab(context), await tab(context), await tab(context)];
  const token = async (user) => {
    const response = await fetch(new URL('/dev/token', server), {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({ name: user, user }),
    });
    return (await response.json()).token;
  };
  const [alice, bob] = [`alice ${channel}`, `bob ${channel}`];
  for (const page of [one, two]) await join(page, alice, channel, await token('alice'));
  const bobs = channel.replace('t-', 'u-');
  await join(other, bob, bobs, await token('bob'));
  assert.deepEqual([await connectionsOf(channel), await connectionsOf(bobs)], [1, 1]);
  await publish(channel, 'for alice');
  for (const page of [one, two]) await eventually('it', () => seenBy(page), ({ data }) => data.length === 1);

  await one.evaluate(() => shared.logout());
  const gone = await eventually('the other tab is told', () => seenBy(two), ({ out }) => out);
  assert.equal(gone.state, 'closed');
  await eventually('alice is gone', () => connectionsOf(channel), (now) => now === 0);
  // Somebody else logs in where alice was.
  await join(one, bob, bobs, await token('bob'));
  await publish(channel, 'for alice, later');
  await publish(bobs, 'for bob');
  await eventually('it', () => seenBy(one), ({ data }) => data.length === 1);
  assert.deepEqual((await seenBy(one)).data, ['for bob']);
  assert.deepEqual((await seenBy(two)).data, ['for alice']);
  await eventually('it', () => seenBy(other), ({ data }) => data.length === 1);
  assert.deepEqual((await seenBy(other)).data, ['for bob']);
  assert.equal(await connectionsOf(bobs), 1);
});
