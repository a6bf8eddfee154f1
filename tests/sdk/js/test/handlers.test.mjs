// A server with code behind it (crates/server/examples/sdk_handlers.rs): calls, messages, and what code
// decides of connections, subscriptions and publications.

import assert from 'node:assert/strict';
import { describe, test } from 'node:test';

import { Centrifuge } from 'centrifuge';
import { Centrifuge as ProtobufCentrifuge } from 'centrifuge/build/protobuf';
import { WebSocket } from 'ws';

import { HANDLERS, collect, freshChannel, next, until } from './support.mjs';

const encoder = new TextEncoder();
const encodings = [
  {
    name: 'JSON',
    make: (options) => new Centrifuge(HANDLERS, { websocket: WebSocket, ...options }),
    pack: (value) => value,
    unpack: (value) => value,
  },
  {
    name: 'Protobuf',
    make: (options) => new ProtobufCentrifuge(HANDLERS, { websocket: WebSocket, ...options }),
    pack: (value) => encoder.encode(JSON.stringify(value)),
    unpack: (bytes) => JSON.parse(new TextDecoder().decode(bytes)),
  },
];

for (const { name, make, pack, unpack } of encodings) {
  /** A client that is connected, with what it was told. */
  const connected = async (t, data = {}) => {
    const client = make({ data: pack(data) });
    t.after(() => client.disconnect());
    const told = next(client, 'connected');
    client.connect();
    return { client, context: await told };
  };

  describe(`handlers in code, over ${name}`, { concurrency: true }, () => {
    test('a call has its result', async (t) => {
      const { client, context } = await connected(t, { user: 'ann' });
      assert.deepEqual(unpack(context.data), { welcome: true });
      const value = { text: 'häh? 🦀', list: [1, [2.5]] };
      assert.deepEqual(unpack((await client.rpc('echo', pack(value))).data), value);
      assert.equal(unpack((await client.rpc('whoami', pack(null))).data), 'ann');
    });

    test('a call fails with the error of its handler, which may be temporary', async (t) => {
      const { client } = await connected(t);
      const refused = (method, expected) => assert.rejects(client.rpc(method, pack(null)), expected);
      await refused('error', { code: 1000, message: 'no such thing', temporary: false });
      await refused('temporary', { code: 1001, message: 'later', temporary: true });
      await refused('nothing', { code: 104 });
    });

    test('a slow call stops no quick one', async (t) => {
      const { client } = await connected(t);
      const order = [];
      const call = async (method) => {
        await client.rpc(method, pack(1));
        order.push(method);
      };
      await Promise.all([call('slow'), call('echo')]);
      assert.deepEqual(order, ['echo', 'slow']);
    });

    test('what is sent reaches the handler, in order, and messages come back', async (t) => {
      const { client } = await connected(t);
      const messages = collect(client, 'message');
      for (let number = 0; number < 20; number += 1) await client.send(pack(number));
      await until(() => messages.length === 20, 'the messages');
      assert.deepEqual(messages.map(({ data }) => unpack(data)), [...Array(20).keys()]);
    });

    test('a handler ends a connection for good', async (t) => {
      const { client } = await connected(t);
      const ended = next(client, 'disconnected');
      client.rpc('kick', pack(null)).catch(() => {});
      const { code, reason } = await ended;
      assert.deepEqual([code, reason], [4501, 'enough']);
    });

    test('a client is refused: by an error, and by a disconnect', async (t) => {
      for (const [data, expected] of [[{ error: 1002 }, 1002], [{ disconnect: 4502 }, 4502]]) {
        const client = make({ data: pack(data) });
        t.after(() => client.disconnect());
        const ended = next(client, 'disconnected');
        client.connect();
        assert.equal((await ended).code, expected);
      }
    });

    test('a subscription is refused, or has data of its own', async (t) => {
      const { client } = await connected(t);
      const members = client.newSubscription(freshChannel('members'));
      const refused = next(members, 'unsubscribed');
      members.subscribe();
      assert.equal((await refused).code, 403);
      const open = client.newSubscription(freshChannel(), { data: pack([7]) });
      const begun = next(open, 'subscribed');
      open.subscribe();
      assert.deepEqual(unpack((await begun).data), [7]);
    });

    test('a publication is changed, taken away, or refused', async (t) => {
      const { client } = await connected(t, { user: 'ann' });
      const subscription = client.newSubscription(freshChannel());
      const begun = next(subscription, 'subscribed');
      const publications = collect(subscription, 'publication');
      subscription.subscribe();
      await begun;
      await assert.rejects(subscription.publish(pack('forbidden')), { code: 103 });
      await subscription.publish(pack('nothing'));
      await subscription.publish(pack('change'));
      await subscription.publish(pack('plain'));
      await until(() => publications.length === 2, 'two publications');
      assert.deepEqual(publications.map(({ data }) => unpack(data)), ['changed', 'plain']);
      assert.equal(publications[0].info.user, 'ann');
    });

    test('the server prolongs a connection as its handler says, and the client knows nothing of it', async (t) => {
      const { client } = await connected(t, { seconds: 1 });
      // Prolonged once, then let go: 3005, after which the SDK would come back.
      const ended = next(client, 'connecting');
      const begin = performance.now();
      assert.equal((await ended).code, 3005);
      assert.ok(performance.now() - begin > 1000, 'prolonged');
    });
  });
}
