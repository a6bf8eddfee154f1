// The promise: whatever the line does, a subscriber gets each publication once and in order.
//
// Eight subscribers of one channel have to reconnect and recover 200 times in all, at seeded
// random moments and after each of the breaks below, while 10,000 publications come from two
// authors: the HTTP API and another client. The authors never run further ahead of the slowest
// subscriber than history can bridge (1,000 publications, of which a reply to a subscribe command
// has room for 300), so a slow machine makes the test slow, not wrong.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { apiResult, connected, freshChannel, newClient, next, seeded, subscribed, until } from './support.mjs';

const PUBLICATIONS = 10_000;
const SUBSCRIBERS = 8;
const BREAKS_EACH = 25;
const WINDOW = 900;

const seed = Number(process.env.SEED ?? Math.floor(Math.random() * 2 ** 32));

/** How a line breaks. Each is done to the client that has just got a publication. */
const breaks = {
  /** In the middle of handling a frame: the rest of it may still be delivered, or not. */
  now: (line) => line.cut(),
  /** After the frame was handled. */
  soon: (line) => setImmediate(() => line.cut()),
  /** Twice: the second time as soon as the next connection opens. */
  onOpen: (line) => {
    line.cutAt = 'open';
    line.cut();
  },
  /** Twice: the second time with the replies to connect and subscribe already on their way. */
  onReply: (line) => {
    line.cutAt = 'message';
    line.cut();
  },
  /** With a frame of publications on its way, which is lost. */
  onMessage: (line) => {
    line.cutAt = 'message';
  },
};

/** Which break happens after how many publications, in that order. */
function plan(random) {
  const kinds = Object.keys(breaks);
  // Not in the last tenth, so that every break still has publications to recover after it.
  const moments = Array.from({ length: BREAKS_EACH }, () => random() * PUBLICATIONS * 0.9);
  return moments
    .sort((a, b) => a - b)
    .map((after) => ({ after, kind: kinds[Math.floor(random() * kinds.length)] }));
}

class Subscriber {
  constructor(t, name, channel, breaksToCome) {
    this.name = name;
    this.client = newClient(t);
    this.line = this.client.line;
    this.subscription = this.client.newSubscription(channel);
    this.breaksToCome = breaksToCome;
    this.seen = [];
    this.problems = [];
    this.resubscribed = 0;
    this.recoveredPublications = 0;
    this.broken = false;
    this.subscription.on('subscribed', (context) => this.#onSubscribed(context));
    this.subscription.on('publication', (publication) => this.#onPublication(publication));
    this.subscription.on('unsubscribed', (context) => this.#problem('unsubscribed', context));
    this.client.on('disconnected', (context) => {
      if (context.code !== 0) this.#problem('disconnected', context);
    });
  }

  async start() {
    const done = next(this.subscription, 'subscribed');
    this.subscription.subscribe();
    this.client.connect();
    await done;
  }

  #problem(what, context) {
    this.problems.push(`${this.name}, after ${this.seen.length} publications: ${what} ${JSON.stringify(context)}`);
  }

  #onSubscribed(context) {
    if (this.broken) {
      this.broken = false;
      this.resubscribed += 1;
      if (!context.wasRecovering || !context.recovered) this.#problem('not recovered', context);
      if (context.hasRecoveredPublications) this.recoveredPublications += 1;
    }
  }

  #onPublication({ offset, data }) {
    this.seen.push({ offset, data });
    if (offset !== this.seen.length) this.#problem('out of order', { offset });
    // One break after the other: the line has to be back before it breaks again.
    if (this.broken || this.subscription.state !== 'subscribed') return;
    const due = this.breaksToCome[0];
    if (!due || this.seen.length < due.after) return;
    this.breaksToCome.shift();
    this.broken = true;
    breaks[due.kind](this.line);
  }
}

test(
  `${SUBSCRIBERS * BREAKS_EACH} forced reconnects during ${PUBLICATIONS} publications: none lost, none twice, order kept`,
  { timeout: 240_000 },
  async (t) => {
    t.diagnostic(`SEED=${seed} repeats the moments and kinds of the breaks`);
    const random = seeded(seed);
    const channel = freshChannel('reconnect');
    const subscribers = Array.from(
      { length: SUBSCRIBERS },
      (_, n) => new Subscriber(t, `subscriber ${n}`, channel, plan(random)),
    );
    await Promise.all(subscribers.map((subscriber) => subscriber.start()));

    let sent = 0;
    const slowest = () => Math.min(...subscribers.map(({ seen }) => seen.length));
    const troubled = () => subscribers.some(({ problems }) => problems.length > 0);
    const author = async (name, publish) => {
      for (let n = 0; n < PUBLICATIONS / 2 && !troubled(); n += 1) {
        if (sent - slowest() >= WINDOW) {
          await until(() => sent - slowest() < WINDOW || troubled(), 'the slowest subscriber', 60_000);
        }
        sent += 1;
        await publish({ author: name, n });
      }
    };
    const writer = await connected(t);
    await Promise.all([
      author('api', (data) => apiResult('publish', { channel, data })),
      author('client', (data) => writer.publish(channel, data)),
    ]);
    const allOffsets = Array.from({ length: PUBLICATIONS }, (_, n) => n + 1);
    const complete = () => troubled() || slowest() >= PUBLICATIONS;
    await until(complete, 'every subscriber to have every publication', 60_000).catch(() => {});

    for (const { name, seen, problems, breaksToCome, resubscribed } of subscribers) {
      assert.deepEqual(problems.slice(0, 3), []);
      assert.deepEqual(seen.map(({ offset }) => offset), allOffsets, name);
      for (const from of ['api', 'client']) {
        const numbers = seen.filter(({ data }) => data.author === from).map(({ data }) => data.n);
        assert.deepEqual(numbers, [...Array(PUBLICATIONS / 2).keys()], `${name}: what ${from} wrote`);
      }
      assert.deepEqual(breaksToCome, [], name);
      assert.equal(resubscribed, BREAKS_EACH, name);
    }
    const sum = (pick) => subscribers.reduce((total, subscriber) => total + pick(subscriber), 0);
    const fruitful = sum((subscriber) => subscriber.recoveredPublications);
    t.diagnostic(
      `${sum(({ line }) => line.cuts)} cuts, ${sum(({ resubscribed }) => resubscribed)} recoveries, ` +
        `${fruitful} of them of at least one publication`,
    );
    assert.ok(fruitful > 100, 'most breaks have to miss something: else this tests little');
  },
);

test('what was published while the line was down is there when it is back', async (t) => {
  const channel = freshChannel('reconnect');
  const client = await connected(t);
  const subscription = await subscribed(client, channel);
  const seen = [];
  subscription.on('publication', ({ data }) => seen.push(data));
  await apiResult('publish', { channel, data: 0 });
  await until(() => seen.length === 1, 'the first publication');

  for (let round = 1; round <= 10; round += 1) {
    const connecting = next(client, 'connecting');
    const again = next(subscription, 'subscribed');
    client.line.cut();
    await connecting;
    const { offset } = await apiResult('publish', { channel, data: round });
    assert.equal(offset, round + 1);
    const context = await again;
    assert.equal(context.recovered, true);
    await until(() => seen.length > round, `publication ${round}`);
  }
  assert.deepEqual(seen, [...Array(11).keys()]);
});

test('whoever comes back gets all of it, however much', async (t) => {
  const MISSED = 950;
  const channel = freshChannel('reconnect');
  const client = await connected(t, { minReconnectDelay: 60_000, maxReconnectDelay: 60_000 });
  const subscription = await subscribed(client, channel);
  const seen = [];
  subscription.on('publication', ({ data }) => seen.push(data));
  const connecting = next(client, 'connecting');
  client.line.cut();
  await connecting;
  for (let n = 0; n < MISSED; n += 1) await apiResult('publish', { channel, data: n });

  const again = next(subscription, 'subscribed');
  client.disconnect();
  client.connect();
  const context = await again;
  assert.equal(context.recovered, true);
  // What fits into the reply comes with it, and the rest behind it, before anything newer.
  assert.ok(context.publications === undefined || context.publications.length < MISSED);
  await apiResult('publish', { channel, data: MISSED });
  await until(() => seen.length > MISSED, 'the newest publication');
  assert.deepEqual(seen, [...Array(MISSED + 1).keys()]);
});

test('more than history holds is said to be lost, never left out silently', async (t) => {
  const HISTORY_SIZE = 1000;
  const channel = freshChannel('reconnect');
  const client = await connected(t, { minReconnectDelay: 60_000, maxReconnectDelay: 60_000 });
  const subscription = await subscribed(client, channel);
  const seen = [];
  subscription.on('publication', ({ data }) => seen.push(data));
  const connecting = next(client, 'connecting');
  client.line.cut();
  await connecting;
  for (let n = 0; n <= HISTORY_SIZE; n += 1) await apiResult('publish', { channel, data: n });

  const again = next(subscription, 'subscribed');
  client.disconnect();
  client.connect();
  const context = await again;
  assert.equal(context.wasRecovering, true);
  assert.equal(context.recovered, false);
  assert.equal(context.streamPosition.offset, HISTORY_SIZE + 1);
  // What comes next is told again; what was lost is not made up for in part.
  await apiResult('publish', { channel, data: 'next' });
  await until(() => seen.length, 'the next publication');
  assert.deepEqual(seen, ['next']);
  // The newest are in history for an application that wants them.
  const page = await subscription.history({ limit: 300, reverse: true });
  assert.equal(page.publications.length, 300);
});
