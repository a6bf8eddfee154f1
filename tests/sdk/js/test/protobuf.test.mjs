// The Protobuf build of the SDK: the same protocol in binary frames, where payloads are bytes.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { apiResult, collect, connected, connectedAs, devToken, freshChannel, newClient, next, subscribed, until } from './support.mjs';

const PROTOBUF = { protobuf: true };
const bytes = (value) => new TextEncoder().encode(JSON.stringify(value));
const text = (data) => new TextDecoder().decode(data);
const value = (data) => JSON.parse(text(data));

const binary = (t, name, user) => devToken(name, user).then((token) => connected(t, { ...PROTOBUF, token }));

test('the server agrees to the subprotocol', async (t) => {
  const client = await connected(t, PROTOBUF);
  assert.equal(client.line.live.protocol, 'centrifuge-protobuf');
});

test('publications go both ways between readers of Protobuf and of JSON', async (t) => {
  const channel = freshChannel();
  const ann = await binary(t, 'Ann', 'ann');
  const ben = await connectedAs(t, 'Ben', 'ben');
  const [annReads, benReads] = [await subscribed(ann, channel), await subscribed(ben, channel)];
  const [toAnn, toBen] = [collect(annReads), collect(benReads)];

  const data = { text: 'zażółć 水 🪢', list: [1, null, { deep: [true] }], big: 'x'.repeat(30_000) };
  await annReads.publish(bytes(data));
  await benReads.publish(data);
  await until(() => toAnn.length === 2 && toBen.length === 2, 'both publications at both');

  assert.deepEqual(toAnn.map((publication) => value(publication.data)), [data, data]);
  assert.deepEqual(toBen.map((publication) => publication.data), [data, data]);
  for (const seen of [toAnn, toBen]) {
    assert.deepEqual(seen.map(({ offset }) => Number(offset)), [1, 2]);
    assert.deepEqual(seen.map(({ info }) => info.user), ['ann', 'ben']);
  }
  assert.deepEqual(value(toAnn[1].info.connInfo), { name: 'Ben' });
});

test('payloads keep their bytes, and tags are there', async (t) => {
  const channel = freshChannel();
  const subscription = await subscribed(await connected(t, PROTOBUF), channel);
  const seen = collect(subscription);
  const written = '{ "b":1.0,\t"a":[ 1e400, "\\u00e9" ] }';
  await subscription.publish(new TextEncoder().encode(written));
  await apiResult('publish', { channel, data: [1], tags: { lang: 'en', empty: '' } });
  await until(() => seen.length === 2, 'both publications');
  assert.equal(text(seen[0].data), written);
  assert.deepEqual(seen[1].tags, { lang: 'en', empty: '' });
  assert.equal(seen[1].info, undefined);
});

test('what is not JSON is for nobody', async (t) => {
  const subscription = await subscribed(await connected(t, PROTOBUF), freshChannel());
  for (const data of [new Uint8Array(), new Uint8Array([0xff, 0]), new TextEncoder().encode('{')]) {
    await assert.rejects(subscription.publish(data), { code: 107 });
  }
  await subscription.publish(bytes({}));
});

test('presence, and who comes and goes', async (t) => {
  const channel = freshChannel();
  const ann = await subscribed(await binary(t, 'Ann', 'ann'), channel);
  const joins = collect(ann, 'join');
  const leaves = collect(ann, 'leave');
  const ben = await binary(t, 'Ben', 'ben');
  await subscribed(ben, channel);
  await subscribed(await binary(t, 'Ben', 'ben'), channel);

  const { clients } = await ann.presence();
  assert.deepEqual(Object.values(clients).map(({ user }) => user).sort(), ['ann', 'ben', 'ben']);
  const { numClients, numUsers } = await ann.presenceStats();
  assert.deepEqual([numClients, numUsers], [3, 2]);

  await until(() => joins.filter(({ info }) => info.user === 'ben').length === 2, 'both joins');
  ben.disconnect();
  await until(() => leaves.length, 'the leave');
  assert.equal(leaves[0].info.user, 'ben');
});

test('history, page by page and both ways', async (t) => {
  const channel = freshChannel();
  const subscription = await subscribed(await connected(t, PROTOBUF), channel);
  for (let n = 1; n <= 7; n += 1) await apiResult('publish', { channel, data: { n } });
  const page = async (options) => {
    const { publications, offset, epoch } = await subscription.history(options);
    assert.equal(Number(offset), 7);
    assert.ok(epoch);
    page.epoch = epoch;
    return publications.map(({ data, offset: at }) => {
      assert.deepEqual(value(data), { n: Number(at) });
      return Number(at);
    });
  };
  assert.deepEqual(await page(), []);
  assert.deepEqual(await page({ limit: 3 }), [1, 2, 3]);
  assert.deepEqual(await page({ limit: 9, since: { offset: 3, epoch: page.epoch } }), [4, 5, 6, 7]);
  assert.deepEqual(await page({ limit: 2, reverse: true }), [7, 6]);
});

test('what was missed is there when the line is back', async (t) => {
  const channel = freshChannel();
  const client = await connected(t, PROTOBUF);
  const subscription = await subscribed(client, channel);
  const seen = collect(subscription);
  const again = collect(subscription, 'subscribed');
  for (let round = 1; round <= 5; round += 1) {
    const down = next(client, 'connecting');
    client.line.cut();
    await down;
    for (let n = 0; n < 30; n += 1) await apiResult('publish', { channel, data: { round, n } });
    await until(() => again.length === round && seen.length === 30 * round, 'what was missed');
    assert.ok(again[round - 1].wasRecovering && again[round - 1].recovered);
  }
  assert.deepEqual(seen.map(({ offset }) => Number(offset)), [...Array(150).keys()].map((n) => n + 1));
});

test('many commands in one frame, and many publications in a row', async (t) => {
  const client = newClient(t, PROTOBUF);
  const channels = Array.from({ length: 20 }, () => freshChannel());
  const subscriptions = channels.map((channel) => client.newSubscription(channel));
  const done = subscriptions.map((subscription) => next(subscription, 'subscribed'));
  const seen = subscriptions.map((subscription) => collect(subscription));
  for (const subscription of subscriptions) subscription.subscribe();
  client.connect();
  await Promise.all(done);
  const sent = [];
  for (let n = 0; n < 200; n += 1) sent.push(client.publish(channels[n % 20], bytes(n)));
  await Promise.all(sent);
  await until(() => seen.every(({ length }) => length === 10), 'all publications');
  seen.forEach((publications, index) => {
    assert.deepEqual(publications.map(({ data }) => value(data)), [...Array(10).keys()].map((n) => n * 20 + index));
  });
});

test('refusals have their codes', async (t) => {
  const client = await connected(t, PROTOBUF);
  const refusal = async (channel) => {
    const subscription = client.newSubscription(channel);
    const ended = next(subscription, 'unsubscribed');
    subscription.subscribe();
    return (await ended).code;
  };
  assert.equal(await refusal('nope:x'), 102);
  assert.equal(await refusal('$private'), 103);
  await assert.rejects(client.rpc('anything', bytes({})), { code: 108 });
  await assert.rejects(client.history(freshChannel(), { limit: 1, since: { offset: 1, epoch: 'another' } }), { code: 112 });

  const stranger = newClient(t, { ...PROTOBUF, token: 'not.a.token' });
  const ended = next(stranger, 'disconnected');
  stranger.connect();
  assert.equal((await ended).code, 3500);
});

test('unsubscribing and subscribing again', async (t) => {
  const subscription = await subscribed(await connected(t, PROTOBUF), freshChannel());
  const seen = collect(subscription);
  for (let n = 1; n <= 10; n += 1) {
    subscription.unsubscribe();
    const done = next(subscription, 'subscribed');
    subscription.subscribe();
    await done;
    await subscription.publish(bytes(n));
    await until(() => seen.length === n, `publication ${n}`);
  }
  assert.equal((await subscription.presenceStats()).numClients, 1);
});
