// One connection for all tabs when tabs do what browsers have them do: hang, freeze, go into the back-forward cache and
// come back, log out meanwhile; and the same with a shared worker.

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { chromium } from 'playwright-core';

import { front } from './front.mjs';
import { DEADLINE, connectionsOf, eventually, freshRoom, launch, launching, publish } from './harness.mjs';

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

async function open(context, site) {
  const page = await context.newPage();
  page.setDefaultTimeout(DEADLINE);
  await page.goto(`${site.url}/tab`);
  await page.waitForFunction(() => globalThis.ready);
  return page;
}

/** Joins in a tab, and collects what comes in `channel`. */
async function join(page, identity, channel, { worker = false } = {}) {
  await page.evaluate(
    ([identity, channel, worker]) => {
      const seen = (globalThis.seen = { data: [], subscribed: [], out: false });
      const SharedClient = tautline.SharedClient;
      globalThis.shared = new SharedClient({
        identity,
        client: () => makeClient(identity),
        patience: 500,
        ...(worker ? { worker: (name) => new SharedWorker('/worker.js', { type: 'module', name }) } : {}),
      });
      shared.addEventListener('logout', () => (seen.out = true));
      globalThis.subscription = shared.subscribe(channel);
      subscription.addEventListener('publication', ({ data }) => seen.data.push(data.data));
      subscription.addEventListener('subscribed', ({ data }) => seen.subscribed.push(data.recovered));
    },
    [identity, channel, worker],
  );
  await eventually('it is subscribed', () => seenBy(page), ({ subscribed }) => subscribed.length > 0);
}

const seenBy = (page) => page.evaluate(() => ({ ...globalThis.seen, state: shared.state, leads: shared.leads }));

/** Waits until a tab has exactly these. */
async function hasAll(page, expected) {
  const seen = await eventually('all of it', () => seenBy(page), ({ data }) => data.length >= expected.length);
  assert.deepEqual(seen.data, expected);
  assert.ok(seen.subscribed.every(Boolean), 'each time it was recovered');
}

async function leaderOf(tabs) {
  const leads = await eventually(
    'a tab to lead',
    () => Promise.all(tabs.map((page) => page.evaluate(() => shared.leads))),
    (all) => all.filter(Boolean).length === 1,
  );
  return tabs[leads.indexOf(true)];
}

/** Tabs of one login, of which the first leads. */
async function tabsOf(t, count, options) {
  const [site, context, channel] = [await front(t), await profile(t), freshRoom()];
  t.after(site.wake);
  const identity = `${channel.replace('t-', 'ann-')} login`;
  const tabs = [];
  for (let n = 0; n < count; n += 1) {
    tabs.push(await open(context, site));
    await join(tabs[n], identity, channel, options);
  }
  return { site, context, channel, identity, tabs };
}

test('a leader that hangs is replaced; nothing is lost, and it follows when it wakes', async (t) => {
  const { site, channel, tabs } = await tabsOf(t, 3);
  const [hung, ...others] = tabs;
  assert.equal(await leaderOf(tabs), hung);
  await publish(channel, 1);
  for (const page of tabs) await hasAll(page, [1]);
  const hangs = hung.evaluate(() => {
    const request = new XMLHttpRequest();
    request.open('GET', '/hang', false);
    request.send();
  });
  await eventually('the page to hang', () => site.hanging.length, (count) => count === 1);
  for (const n of [2, 3]) await publish(channel, n);
  await leaderOf(others);
  await publish(channel, 4);
  for (const page of others) await hasAll(page, upTo(4));
  site.wake();
  await hangs;
  await hasAll(hung, upTo(4));
  await publish(channel, 5);
  for (const page of tabs) await hasAll(page, upTo(5));
  assert.notEqual(await leaderOf(tabs), hung);
  await eventually('one connection', () => connectionsOf(channel), (count) => count === 1);
});

test('a tab that hung itself takes nobody for dead', async (t) => {
  const { site, channel, identity, tabs } = await tabsOf(t, 3);
  const [leader, hung, third] = tabs;
  // How often somebody asked for a sign of life is how long it took.
  await leader.evaluate((name) => {
    globalThis.asks = 0;
    globalThis.heard = new BroadcastChannel(name);
    heard.onmessage = ({ data }) => (asks += data.kind === 'ask');
  }, `tautline ${identity}`);
  const asks = () => leader.evaluate(() => asks);
  const more = async (count) => {
    const before = await asks();
    await eventually('signs of life', asks, (now) => now >= before + count);
  };
  // It hangs with its question on the way: the answer is there when it wakes, behind its timer.
  await hung.evaluate(() => {
    const { postMessage } = BroadcastChannel.prototype;
    BroadcastChannel.prototype.postMessage = function (message) {
      postMessage.call(this, message);
      if (message.kind !== 'ask' || globalThis.wasHung) return;
      globalThis.wasHung = true;
      queueMicrotask(() => {
        const request = new XMLHttpRequest();
        request.open('GET', '/hang', false);
        request.send();
      });
    };
  });
  await eventually('the page to hang', () => site.hanging.length, (count) => count === 1);
  await more(4);
  await publish(channel, 1);
  site.wake();
  for (const page of [leader, hung, third]) await hasAll(page, [1]);
  await more(4);
  assert.equal(await leaderOf(tabs), leader);
});

test('a leader that is told it will be frozen hands over, and joins again when it is thawed', async (t) => {
  const { channel, tabs } = await tabsOf(t, 3);
  const [frozen, ...others] = tabs;
  assert.equal(await leaderOf(tabs), frozen);
  // A headless browser freezes nothing: the word is ours, and that nothing comes to the page afterwards is what is seen.
  await frozen.evaluate(() => document.dispatchEvent(new Event('freeze')));
  await leaderOf(others);
  for (const n of upTo(3)) await publish(channel, n);
  for (const page of others) await hasAll(page, upTo(3));
  await eventually('one connection', () => connectionsOf(channel), (count) => count === 1);
  assert.deepEqual((await seenBy(frozen)).data, []);
  await frozen.evaluate(() => document.dispatchEvent(new Event('resume')));
  await publish(channel, 4);
  for (const page of tabs) await hasAll(page, upTo(4));
  await eventually('one connection', () => connectionsOf(channel), (count) => count === 1);
});

/** A browser with its back-forward cache, which playwright otherwise turns off. */
async function caching(t) {
  const own = await chromium.launch({ ...launching(), ignoreDefaultArgs: ['--disable-back-forward-cache'] });
  t.after(() => own.close());
  return own.newContext();
}

for (const out of [false, true]) {
  test(`a leader in the back-forward cache ${out ? 'learns there of the logout' : 'misses nothing'}`, async (t) => {
    const [site, context, channel] = [await front(t), await caching(t), freshRoom()];
    const identity = `${channel.replace('t-', 'ann-')} login`;
    const [kept, other] = [await open(context, site), await open(context, site)];
    for (const page of [kept, other]) await join(page, identity, channel);
    await publish(channel, 1);
    for (const page of [kept, other]) await hasAll(page, [1]);
    await kept.evaluate(() => addEventListener('pageshow', ({ persisted }) => (globalThis.wasKept = persisted)));
    await kept.goto(`${site.url}/elsewhere`);
    await leaderOf([other]);
    await publish(channel, 2);
    await hasAll(other, [1, 2]);
    if (out) await other.evaluate(() => shared.logout());
    await kept.evaluate(() => history.back());
    await eventually(
      'the page to be back',
      () => kept.evaluate(() => globalThis.wasKept ?? null).catch(() => null),
      (was) => was === true,
    );
    if (out) {
      const seen = await eventually('the logout', () => seenBy(kept), ({ out }) => out);
      assert.deepEqual([seen.data, seen.state], [[1], 'closed']);
      assert.equal(await connectionsOf(channel), 0);
    } else {
      await publish(channel, 3);
      for (const page of [kept, other]) await hasAll(page, [1, 2, 3]);
    }
  });
}

test('with a shared worker ten tabs have one connection, whichever of them is closed', async (t) => {
  const { site, context, channel, identity, tabs } = await tabsOf(t, 10, { worker: true });
  let published = 0;
  let most = 0;
  for (let closed = 0; closed < 30; closed += 1) {
    for (let n = 0; n < 3; n += 1) await publish(channel, (published += 1));
    most = Math.max(most, await connectionsOf(channel));
    // Without a word: nothing of the page runs any more.
    await tabs.shift().close();
    const fresh = await open(context, site);
    await join(fresh, identity, channel, { worker: true });
    tabs.push(fresh);
    await publish(channel, (published += 1));
  }
  for (const page of tabs) {
    const { data, leads, subscribed } = await eventually('all of it', () => seenBy(page), ({ data }) => data.at(-1) === published);
    assert.deepEqual(data, Array.from(data, (_, i) => data[0] + i));
    assert.deepEqual([leads, subscribed.every(Boolean)], [false, true]);
  }
  assert.deepEqual([most, await connectionsOf(channel)], [1, 1]);
});

test('a tab takes the place of a worker that ends, and nothing is lost', async (t) => {
  const { channel, identity, tabs } = await tabsOf(t, 3, { worker: true });
  await publish(channel, 1);
  for (const page of tabs) await hasAll(page, [1]);
  await tabs[0].evaluate((name) => new BroadcastChannel(`test ${name}`).postMessage('end'), `tautline ${identity}`);
  await leaderOf(tabs);
  for (const n of [2, 3]) await publish(channel, n);
  for (const page of tabs) await hasAll(page, [1, 2, 3]);
  await eventually('one connection', () => connectionsOf(channel), (count) => count === 1);
});

test('a logout ends the worker of that login, and nothing of it reaches another', async (t) => {
  const { site, context, channel, identity, tabs } = await tabsOf(t, 2, { worker: true });
  const other = await open(context, site);
  const theirs = channel.replace('t-', 'u-');
  const ben = identity.replace('ann', 'ben');
  await join(other, ben, theirs, { worker: true });
  await publish(channel, 'for ann');
  for (const page of tabs) await hasAll(page, ['for ann']);
  await tabs[0].evaluate(() => shared.logout());
  const told = await eventually('the other tab is told', () => seenBy(tabs[1]), ({ out }) => out);
  assert.equal(told.state, 'closed');
  await eventually('ann is gone', () => connectionsOf(channel), (count) => count === 0);
  assert.equal(await connectionsOf(theirs), 1);
  // Ben logs in where ann was; and ann, again.
  await join(tabs[0], ben, theirs, { worker: true });
  await publish(channel, 'for ann, later');
  await publish(theirs, 'for ben');
  for (const page of [tabs[0], other]) await hasAll(page, ['for ben']);
  assert.deepEqual((await seenBy(tabs[1])).data, ['for ann']);
  await join(tabs[1], identity, channel, { worker: true });
  await publish(channel, 'for ann, again');
  await hasAll(tabs[1], ['for ann, again']);
  assert.equal(await connectionsOf(channel), 1);
});
