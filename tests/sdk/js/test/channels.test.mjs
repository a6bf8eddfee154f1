// Subscribing, publishing, presence, and who comes and goes.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { apiResult, collect, connected, connectedAs, freshChannel, newClient, next, subscribed, until } from './support.mjs';

test('what one publishes, all subscribers get, the publisher too', async (t) => {
  const channel = freshChannel();
  const ann = await connectedAs(t, 'Ann', 'ann');
  const ben = await connectedAs(t, 'Ben', 'ben');
  const toAnn = collect(await subscribed(ann, channel));
  const subscription = await subscribed(ben, channel);
  const toBen = collect(subscription);

  await subscription.publish({ text: 'hello' });
  await until(() => toAnn.length && toBen.length, 'the publication at both');

  for (const [publication] of [toAnn, toBen]) {
    assert.deepEqual(publication.data, { text: 'hello' });
    assert.equal(publication.channel, channel);
    assert.equal(publication.offset, 1);
    assert.equal(publication.info.user, 'ben');
    assert.deepEqual(publication.info.connInfo, { name: 'Ben' });
  }
});

test('a client may publish without being subscribed', async (t) => {
  const channel = freshChannel();
  const seen = collect(await subscribed(await connected(t), channel));
  const other = await connected(t);
  await other.publish(channel, 'from outside');
  await until(() => seen.length, 'the publication');
  assert.equal(seen[0].data, 'from outside');
});

test('what the HTTP API publishes arrives, with its tags and nobody as its author', async (t) => {
  const channel = freshChannel();
  const seen = collect(await subscribed(await connected(t), channel));
  const { offset, epoch } = await apiResult('publish', { channel, data: { n: 1 }, tags: { lang: 'en' } });
  assert.equal(offset, 1);
  assert.ok(epoch);
  await until(() => seen.length, 'the publication');
  assert.deepEqual(seen[0].data, { n: 1 });
  assert.deepEqual(seen[0].tags, { lang: 'en' });
  assert.equal(seen[0].info, undefined);
});

test('publications keep their order', async (t) => {
  const channel = freshChannel();
  const readers = [];
  for (let n = 0; n < 4; n += 1) readers.push(collect(await subscribed(await connected(t), channel)));
  const author = await connected(t);
  const sent = [];
  for (let n = 0; n < 200; n += 1) sent.push(author.publish(channel, n));
  await Promise.all(sent);
  for (const seen of readers) {
    await until(() => seen.length >= 200, 'all publications');
    assert.deepEqual(seen.map(({ data }) => data), [...Array(200).keys()]);
    assert.deepEqual(seen.map(({ offset }) => offset), [...Array(200).keys()].map((n) => n + 1));
  }
});

test('a channel without history has no offsets', async (t) => {
  const channel = `typing:${freshChannel()}`;
  const subscription = await subscribed(await connected(t), channel);
  const seen = collect(subscription);
  await subscription.publish({});
  await until(() => seen.length, 'the publication');
  assert.equal(seen[0].offset, undefined);
  assert.equal(subscription.position, undefined);
});

test('publications of other channels stay away', async (t) => {
  const client = await connected(t);
  const mine = freshChannel();
  const seen = collect(await subscribed(client, mine));
  await client.publish(freshChannel(), 'not for you');
  await client.publish(mine, 'for you');
  await until(() => seen.length, 'the publication');
  assert.deepEqual(seen.map(({ data }) => data), ['for you']);
});

test('presence lists connections, and the statistics count users once', async (t) => {
  const channel = freshChannel();
  const ann = await connectedAs(t, 'Ann', 'ann');
  const subscription = await subscribed(ann, channel);
  await subscribed(await connectedAs(t, 'Ann', 'ann'), channel);
  const ben = await connectedAs(t, 'Ben', 'ben');
  await subscribed(ben, channel);

  const { clients } = await subscription.presence();
  assert.deepEqual(Object.values(clients).map(({ user }) => user).sort(), ['ann', 'ann', 'ben']);
  for (const [id, info] of Object.entries(clients)) assert.equal(info.client, id);
  assert.deepEqual(await subscription.presenceStats(), { numClients: 3, numUsers: 2 });

  ben.disconnect();
  const left = async () => (await subscription.presenceStats()).numClients === 2;
  await until(left, 'the one who left to be gone from presence', 2000);
});

test('a cut connection leaves presence too', async (t) => {
  const channel = freshChannel();
  const subscription = await subscribed(await connected(t), channel);
  const other = await connected(t, { minReconnectDelay: 60_000, maxReconnectDelay: 60_000 });
  await subscribed(other, channel);
  assert.equal((await subscription.presenceStats()).numClients, 2);
  other.line.cut();
  const left = async () => (await subscription.presenceStats()).numClients === 1;
  await until(left, 'the cut connection to be gone from presence', 2000);
});

test('join and leave are told to those who stay', async (t) => {
  const channel = freshChannel();
  const ann = await connectedAs(t, 'Ann', 'ann');
  const subscription = ann.newSubscription(channel);
  const joins = collect(subscription, 'join');
  const leaves = collect(subscription, 'leave');
  const active = next(subscription, 'subscribed');
  subscription.subscribe();
  await active;
  await until(() => joins.length === 1, 'her own join');

  const ben = await connectedAs(t, 'Ben', 'ben');
  await subscribed(ben, channel);
  await until(() => joins.length === 2, "Ben's join");
  ben.disconnect();
  await until(() => leaves.length === 1, "Ben's leave");

  assert.deepEqual(joins.map(({ info }) => info.user), ['ann', 'ben']);
  assert.deepEqual(joins[1].info.connInfo, { name: 'Ben' });
  assert.equal(leaves[0].info.user, 'ben');
  assert.equal(leaves[0].info.client, joins[1].info.client);
});

test('subscribing and unsubscribing in a loop leaves nothing behind', async (t) => {
  const channel = freshChannel();
  const client = await connected(t);
  const subscription = client.newSubscription(channel);
  const seen = collect(subscription);
  const errors = collect(subscription, 'error');
  for (let n = 0; n < 100; n += 1) {
    subscription.subscribe();
    subscription.unsubscribe();
  }
  subscription.subscribe();
  await until(() => subscription.state === 'subscribed', 'the last subscribe');

  const watcher = await subscribed(await connected(t), channel);
  const clients = async (count) => (await watcher.presenceStats()).numClients === count;
  await until(() => clients(2), 'presence to be the two', 2000);
  await watcher.publish('once');
  await until(() => seen.length, 'the publication');

  subscription.unsubscribe();
  await until(() => clients(1), 'presence to be the watcher alone', 2000);
  await watcher.publish('to the watcher alone');
  await client.rpc('marker', {}).catch(() => {});
  assert.deepEqual(seen.map(({ data }) => data), ['once']);
  assert.deepEqual(errors, []);
});

test('unsubscribing waits for nothing and resubscribing works each time', async (t) => {
  const channel = freshChannel();
  const client = await connected(t);
  const subscription = client.newSubscription(channel);
  const seen = collect(subscription);
  for (let n = 0; n < 20; n += 1) {
    const active = next(subscription, 'subscribed');
    subscription.subscribe();
    await active;
    await subscription.publish(n);
    await until(() => seen.length === n + 1, `publication ${n}`);
    subscription.unsubscribe();
  }
  assert.deepEqual(seen.map(({ data }) => data), [...Array(20).keys()]);
});

test('subscribing before connecting goes out with the connect command', async (t) => {
  const channel = freshChannel();
  const client = newClient(t);
  const active = Promise.all([0, 1, 2].map((n) => {
    const subscription = client.newSubscription(`${channel}-${n}`);
    const done = next(subscription, 'subscribed');
    subscription.subscribe();
    return done;
  }));
  client.connect();
  await active;
});
