// What a subscription may have besides its channel: patches, filters by tags, the newest publication.

import assert from 'node:assert/strict';
import { describe, test } from 'node:test';

import { CONFIGURED, apiResult, collect, configuredConnected, freshChannel, next, until } from './support.mjs';

const publish = (channel, data, tags) => apiResult('publish', { channel, data, tags }, CONFIGURED);

/** Half a kibibyte of which little changes, cut at odd places by letters of several bytes. */
const document = (n) => ({ device: `pompa-${n % 3}`, state: ['działa', 'stoi', '水'][n % 3], n, log: 'zażółć 🪢 '.repeat(24) });

for (const protobuf of [false, true]) {
  describe(protobuf ? 'in Protobuf' : 'in JSON', { concurrency: true }, () => {
    /** Data as the application wrote it: in Protobuf it comes as bytes. */
    const value = ({ data }) => (protobuf ? JSON.parse(new TextDecoder().decode(data)) : data);
    const ann = (t, options) => configuredConnected(t, 'ann', { protobuf, ...options });

    /** A subscription whose publications from before its first event are seen too. */
    async function watched(client, channel, options) {
      const subscription = client.newSubscription(channel, options);
      const [seen, active] = [collect(subscription), collect(subscription, 'subscribed')];
      subscription.subscribe();
      await until(() => active.length, 'the subscription');
      return { seen, active };
    }

    test('publications come as patches, but for the first', async (t) => {
      const channel = `delta:${freshChannel()}`;
      const client = await ann(t);
      const sizes = [];
      client.line.live.on('message', (frame) => sizes.push(frame.length ?? frame.byteLength));
      const { seen } = await watched(client, channel, { delta: 'fossil' });
      sizes.length = 0;
      for (let n = 0; n < 12; n += 1) {
        await publish(channel, document(n));
        await until(() => seen.length > n, `publication ${n}`);
      }
      assert.deepEqual(seen.map(value), [...Array(12).keys()].map(document));
      // Pings are a few bytes.
      const large = sizes.filter((size) => size > 300);
      assert.equal(large.length, 1, `one whole publication among frames of ${sizes}`);
    });

    test('patches come together again after the line was cut', async (t) => {
      const channel = `delta:${freshChannel()}`;
      const client = await ann(t);
      const { seen } = await watched(client, channel, { delta: 'fossil' });
      for (let round = 0; round < 3; round += 1) {
        await publish(channel, document(3 * round));
        await until(() => seen.length > 3 * round, 'the publication');
        const connecting = next(client, 'connecting');
        client.line.cut();
        await connecting;
        await publish(channel, document(3 * round + 1));
        await publish(channel, document(3 * round + 2));
        await until(() => seen.length > 3 * round + 2, 'what was missed');
      }
      assert.deepEqual(seen.map(value), [...Array(9).keys()].map(document));
    });

    test('what was missed comes as patches, and so does what follows it', async (t) => {
      const channel = `delta:${freshChannel()}`;
      const client = await ann(t);
      const { seen, active } = await watched(client, channel, { delta: 'fossil' });
      await publish(channel, document(0));
      await until(() => seen.length === 1, 'the first');
      client.disconnect();
      for (let n = 1; n < 13; n += 1) await publish(channel, document(n));
      const sizes = [];
      client.once('connecting', () => {
        const { live } = client.line;
        setImmediate(() => (client.line.live ?? live).on('message', (frame) => sizes.push(frame.length ?? frame.byteLength)));
      });
      client.connect();
      await until(() => seen.length === 13, 'what was missed');
      await publish(channel, document(13));
      await until(() => seen.length === 14, 'what follows');
      assert.equal(active[1].recovered, true);
      assert.deepEqual(seen.map(value), [...Array(14).keys()].map(document));
      const bytes = sizes.reduce((sum, size) => sum + size, 0);
      const whole = Buffer.byteLength(JSON.stringify(document(0)));
      assert.ok(bytes > whole && bytes < 5 * whole, `13 publications of ${whole} bytes in frames of ${sizes}`);
    });

    test('the publisher may ask for a patch', async (t) => {
      const channel = `asked:${freshChannel()}`;
      const client = await ann(t);
      const sizes = [];
      client.line.live.on('message', (frame) => sizes.push(frame.length ?? frame.byteLength));
      const { seen } = await watched(client, channel, { delta: 'fossil' });
      for (const [n, delta] of [true, true, false, true].entries()) {
        sizes.length = 0;
        await apiResult('publish', { channel, data: document(n), delta }, CONFIGURED);
        await until(() => seen.length > n, `publication ${n}`);
        assert.equal(Math.max(...sizes) < 300, delta && n > 0, `publication ${n} in ${sizes} bytes`);
      }
      assert.deepEqual(seen.map(value), [...Array(4).keys()].map(document));
    });

    test('a filter lets through what it names, live and recovered', async (t) => {
      const channel = `filtered:${freshChannel()}`;
      const client = await ann(t);
      const tagsFilter = { op: 'or', nodes: [{ key: 'lang', cmp: 'eq', val: 'pl' }, { key: 'level', cmp: 'gte', val: '5' }] };
      const { seen, active } = await watched(client, channel, { tagsFilter });
      await publish(channel, 1, { lang: 'pl' });
      await publish(channel, 2, { lang: 'en', level: '4' });
      await publish(channel, 3, { lang: 'en', level: '5' });
      await publish(channel, 4);
      await until(() => seen.length === 2, 'what passes');
      client.disconnect();
      await publish(channel, 5, { lang: 'en' });
      await publish(channel, 6, { lang: 'pl' });
      client.connect();
      await until(() => seen.length === 3, 'what was missed and passes');
      assert.equal(active[1].recovered, true);
      assert.deepEqual(seen.map(value), [1, 3, 6]);
    });

    test('a filter where none is allowed is 107', async (t) => {
      const client = await ann(t);
      const subscription = client.newSubscription(`kept:${freshChannel()}`, { tagsFilter: { key: 'a', cmp: 'ex' } });
      const refused = next(subscription, 'unsubscribed');
      subscription.subscribe();
      assert.equal((await refused).code, 107);
    });

    test('a cache gives the newest, asked for or not', async (t) => {
      const client = await ann(t);
      const name = freshChannel();
      const [cache, auto] = [`cache:${name}`, `autocache:${name}`];
      for (const channel of [cache, auto]) for (const data of [1, 2]) await publish(channel, data);
      const asked = await watched(client, cache, { since: { offset: 0, epoch: '' } });
      await until(() => asked.seen.length === 1, 'the newest');
      const unasked = await watched(client, auto);
      await until(() => unasked.seen.length === 1, 'the newest, unasked');
      client.disconnect();
      for (const channel of [cache, auto]) for (const data of [3, 4]) await publish(channel, data);
      client.connect();
      await until(() => asked.seen.length === 2 && unasked.seen.length === 2, 'the newest of both');
      assert.deepEqual([asked.seen.map(value), unasked.seen.map(value)], [[2, 4], [2, 4]]);
    });
  });
}
