// Reading a channel's past, page by page, both ways.

import assert from 'node:assert/strict';
import { before, test } from 'node:test';

import { api, apiResult, connected, freshChannel, subscribed } from './support.mjs';

const TOTAL = 25;
const channel = freshChannel('history');
const offsets = (page) => page.publications.map(({ offset }) => offset);
const range = (from, to) => Array.from({ length: to - from + 1 }, (_, n) => from + n);

before(async () => {
  for (let n = 1; n <= TOTAL; n += 1) await apiResult('publish', { channel, data: { n } });
});

test('without a limit there is the position alone', async (t) => {
  const subscription = await subscribed(await connected(t), channel);
  const page = await subscription.history();
  assert.deepEqual(page.publications, []);
  assert.equal(page.offset, TOTAL);
  assert.equal(page.epoch, subscription.position.epoch);
});

test('from the oldest on, page by page', async (t) => {
  const subscription = await subscribed(await connected(t), channel);
  const { epoch } = subscription.position;
  const first = await subscription.history({ limit: 10 });
  assert.deepEqual(offsets(first), range(1, 10));
  assert.deepEqual(first.publications[0].data, { n: 1 });
  const second = await subscription.history({ limit: 10, since: { offset: 10, epoch } });
  assert.deepEqual(offsets(second), range(11, 20));
  const third = await subscription.history({ limit: 10, since: { offset: 20, epoch } });
  assert.deepEqual(offsets(third), range(21, 25));
  const end = await subscription.history({ limit: 10, since: { offset: 25, epoch } });
  assert.deepEqual(offsets(end), []);
  for (const page of [first, second, third, end]) assert.equal(page.offset, TOTAL);
});

test('from the newest back, page by page', async (t) => {
  const subscription = await subscribed(await connected(t), channel);
  const { epoch } = subscription.position;
  const back = (limit, since) =>
    subscription.history({ limit, reverse: true, ...(since && { since: { offset: since, epoch } }) });
  assert.deepEqual(offsets(await back(10)), range(16, 25).reverse());
  assert.deepEqual(offsets(await back(10, 16)), range(6, 15).reverse());
  assert.deepEqual(offsets(await back(10, 6)), range(1, 5).reverse());
  assert.deepEqual(offsets(await back(10, 1)), []);
});

test('the HTTP API reads the same history, all of it with limit -1', async (t) => {
  const all = await apiResult('history', { channel, limit: -1 });
  assert.deepEqual(offsets(all), range(1, TOTAL));
  assert.equal(all.offset, TOTAL);
  const part = await apiResult('history', { channel, limit: 3, since: { offset: 4, epoch: all.epoch } });
  assert.deepEqual(offsets(part), [5, 6, 7]);
  const newest = await apiResult('history', { channel, limit: 2, reverse: true });
  assert.deepEqual(offsets(newest), [25, 24]);
});

test('another epoch is an unrecoverable position', async (t) => {
  const subscription = await subscribed(await connected(t), channel);
  const since = { offset: 1, epoch: 'anotherone' };
  await assert.rejects(subscription.history({ limit: 1, since }), { code: 112 });
  assert.equal((await api('history', { channel, limit: 1, since })).error.code, 112);
});

test('an author is kept in history, a skipped publication is not', async (t) => {
  const quiet = freshChannel('history');
  const client = await connected(t);
  const subscription = await subscribed(client, quiet);
  await apiResult('publish', { channel: quiet, data: 'not kept', skip_history: true });
  await subscription.publish('kept');
  const page = await subscription.history({ limit: 10 });
  assert.deepEqual(page.publications.map(({ data }) => data), ['kept']);
  assert.deepEqual(offsets(page), [1]);
  assert.ok(page.publications[0].info.client);
});

test('a subscription can begin in the past', async (t) => {
  const client = await connected(t);
  const position = (await subscribed(client, channel)).position;
  const reader = await connected(t);
  const subscription = reader.newSubscription(channel, { since: { offset: 20, epoch: position.epoch } });
  const seen = [];
  subscription.on('publication', ({ offset }) => seen.push(offset));
  const context = await new Promise((resolve) => {
    subscription.on('subscribed', resolve);
    subscription.subscribe();
  });
  assert.equal(context.wasRecovering, true);
  assert.equal(context.recovered, true);
  await reader.rpc('barrier', null).catch(() => {});
  assert.deepEqual(seen, range(21, 25));
});

test('a position that history does not hold is said to be lost', async (t) => {
  const reader = await connected(t);
  const subscription = reader.newSubscription(channel, { since: { offset: 3, epoch: 'anotherone' } });
  const context = await new Promise((resolve) => {
    subscription.on('subscribed', resolve);
    subscription.subscribe();
  });
  assert.equal(context.wasRecovering, true);
  assert.equal(context.recovered, false);
  assert.equal(context.streamPosition.offset, TOTAL);
});
