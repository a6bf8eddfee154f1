// What tokens, patterns and the server's own filters let a subscriber do and see.

import assert from 'node:assert/strict';
import { describe, test } from 'node:test';

import { CONFIGURED, apiResult, collect, configuredClient, configuredConnected, freshChannel, next, subscribed, token, until } from './support.mjs';

const publish = (channel, data, tags) => apiResult('publish', { channel, data, tags }, CONFIGURED);
const rights = (name = '') => `rights:${name}${freshChannel()}`;

/** The code with which a subscription is refused. */
async function refusal(client, channel) {
  const subscription = client.newSubscription(channel);
  const refused = next(subscription, 'unsubscribed');
  subscription.subscribe();
  return (await refused).code;
}

for (const protobuf of [false, true]) {
  describe(`rights in ${protobuf ? 'Protobuf' : 'JSON'}`, { concurrency: true }, () => {
    const value = ({ data }) => (protobuf ? JSON.parse(new TextDecoder().decode(data)) : data);
    const pack = (data) => (protobuf ? new TextEncoder().encode(JSON.stringify(data)) : data);

    test('the capabilities of a token open channels, and no others', async (t) => {
      const caps = [
        { channels: ['rights:read_*'], match: 'wildcard', allow: ['sub', 'hst'] },
        { channels: ['^rights:[a-z]+_'], match: 'regex', allow: ['sub', 'pub', 'prs'] },
      ];
      const client = await configuredConnected(t, 'ann', { protobuf, token: token({ sub: 'ann', caps }) });
      const reader = await subscribed(client, rights('read_'));
      assert.equal((await reader.history({ limit: 1 })).offset, 0);
      await assert.rejects(reader.publish(pack(1)), { code: 103 });
      await assert.rejects(reader.presence(), { code: 103 });
      const writer = await subscribed(client, rights('write_'));
      const seen = collect(writer);
      await writer.publish(pack('hello'));
      await until(() => seen.length, 'the publication');
      assert.equal(value(seen[0]), 'hello');
      assert.equal(Object.keys((await writer.presence()).clients).length, 1);
      await assert.rejects(writer.history(), { code: 103 });
      assert.equal(await refusal(client, rights()), 103);
    });

    test('a subscription token says what may be done in its channel', async (t) => {
      const client = await configuredConnected(t, 'ann', { protobuf });
      const channel = rights();
      const subscription = await subscribed(client, channel, { token: token({ sub: 'ann', channel, allow: ['pub', 'hst'] }) });
      await subscription.publish(pack(1));
      assert.deepEqual((await subscription.history({ limit: 5 })).publications.map(value), [1]);
      await assert.rejects(subscription.presence(), { code: 103 });
    });

    test('a token changes options of the namespace for its subscriptions', async (t) => {
      const [ours, theirs] = [rights(), rights()];
      const override = { presence: { value: false }, force_recovery: { value: true } };
      const client = configuredClient(t, 'ann', { protobuf, token: token({ sub: 'ann', subs: { [ours]: { override } } }) });
      const [came, seen] = [collect(client, 'subscribed'), collect(client)];
      client.connect();
      await until(() => came.length, 'the subscription of the server');
      assert.equal(came[0].recoverable, true);
      const subscription = client.newSubscription(theirs, { token: token({ sub: 'ann', channel: theirs, override }) });
      const active = next(subscription, 'subscribed');
      subscription.subscribe();
      assert.equal((await active).recoverable, true);
      for (const channel of [ours, theirs]) {
        assert.deepEqual((await apiResult('presence', { channel }, CONFIGURED)).presence, {});
      }
      const connecting = next(client, 'connecting');
      client.line.cut();
      await connecting;
      await publish(ours, 'missed');
      await until(() => seen.length, 'what was missed');
      assert.deepEqual([value(seen[0]), came[1].recovered], ['missed', true]);
    });

    test('a pattern gives a channel its options, and its user', async (t) => {
      const client = await configuredConnected(t, 'ann', { protobuf });
      await subscribed(client, '/users/ann/orders');
      assert.equal(await refusal(client, '/users/ben/orders'), 103);
      assert.equal(await refusal(client, `/${freshChannel()}`), 102);
    });

    test('an imposed filter is narrowed by a filter of the client, and never widened', async (t) => {
      const channel = `owned:${freshChannel()}`;
      const reader = async (tagsFilter) => {
        const client = await configuredConnected(t, 'ann', { protobuf });
        const subscription = await subscribed(client, channel, { tagsFilter });
        return { client, subscription, seen: collect(subscription) };
      };
      const either = (key, ...values) => ({ op: 'or', nodes: values.map((val) => ({ key, cmp: 'eq', val })) });
      const all = await reader();
      const narrow = await reader(either('kind', 'a'));
      const wide = await reader(either('owner', 'ann', 'ben'));
      await publish(channel, 1, { owner: 'ann', kind: 'a' });
      await publish(channel, 2, { owner: 'ben', kind: 'a' });
      await publish(channel, 3, { owner: 'ann', kind: 'b' });
      await publish(channel, 4);
      const missing = next(all.subscription, 'subscribing');
      all.client.line.cut();
      await missing;
      await publish(channel, 5, { owner: 'ben', kind: 'a' });
      await publish(channel, 6, { owner: 'ann', kind: 'a' });
      await until(() => narrow.seen.length === 2 && wide.seen.length === 3 && all.seen.length === 3, 'what is theirs');
      assert.deepEqual([all, narrow, wide].map(({ seen }) => seen.map(value)), [[1, 3, 6], [1, 6], [1, 3, 6]]);
      const page = await wide.subscription.history({ limit: 100 });
      assert.deepEqual(page.publications.map(value), [1, 3, 6]);
    });
  });
}
