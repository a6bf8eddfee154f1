// What a backend does to connections and subscriptions, as the SDK's application hears of it.

import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { describe, test } from 'node:test';

import { CONFIGURED, RawConnection, api, apiResult, collect, configuredClient, configuredConnected, freshChannel, inSeconds, next, subscribed, token, until } from './support.mjs';

/** A user nobody else is, so that nobody else's connections are meant. */
const freshUser = () => `user-${randomUUID()}`;

const call = (method, body) => apiResult(method, body, CONFIGURED);

/** A connected client that can always make itself a new token. */
async function connectedAs(t, user, options) {
  return configuredConnected(t, user, { getToken: async () => token({ sub: user }), ...options });
}

const COMES_BACK = [3000, 3001, 3004, 3005, 3006, 3008, 3009, 3010, 3011, 3012, 3013, 3014, 3499, 4000, 4499];
const STAYS_AWAY = [3500, 3501, 3502, 3503, 3504, 3505, 3506, 3507, 3508, 3509, 3999, 4500, 4999];

describe('a disconnect by the backend', { concurrency: true }, () => {
  for (const code of COMES_BACK) {
    test(`with ${code} makes the client come back`, async (t) => {
      const user = freshUser();
      const client = await connectedAs(t, user);
      const ended = collect(client, 'disconnected');
      const [connecting, again] = [next(client, 'connecting'), next(client, 'connected')];
      await call('disconnect', { user, disconnect: { code, reason: 'because' } });
      assert.deepEqual(await connecting, { code, reason: 'because' });
      await again;
      assert.deepEqual(ended, []);
    });
  }

  for (const code of STAYS_AWAY) {
    test(`with ${code} is the end`, async (t) => {
      const user = freshUser();
      const client = await connectedAs(t, user);
      const attempts = collect(client, 'connecting');
      const ended = next(client, 'disconnected');
      await call('disconnect', { user, disconnect: { code } });
      const { code: told, reason } = await ended;
      assert.equal(told, code);
      assert.ok(reason, 'a reason that is not empty');
      assert.deepEqual(attempts, []);
      assert.equal(client.state, 'disconnected');
    });
  }

  test('is 3503 unless the backend says otherwise', async (t) => {
    const user = freshUser();
    const client = await connectedAs(t, user);
    const ended = next(client, 'disconnected');
    await call('disconnect', { user });
    assert.deepEqual(await ended, { code: 3503, reason: 'force disconnect' });
  });

  test('is for all connections of a user but those to be spared', async (t) => {
    const user = freshUser();
    const ids = [];
    const clients = [];
    for (let n = 0; n < 6; n += 1) {
      const client = configuredClient(t, user);
      client.on('connected', ({ client: id }) => (ids[n] = id));
      client.connect();
      clients.push(client);
    }
    await until(() => ids.filter(Boolean).length === 6, 'all connections');
    const other = await connectedAs(t, freshUser());
    const ended = clients.map((client) => collect(client, 'disconnected'));
    await call('disconnect', { user, client: ids[5] });
    await until(() => ended[5].length === 1, 'the end of the one that was named');
    // Somebody else's connection isn't meant, whatever its id.
    await call('disconnect', { user: freshUser(), client: ids[4] });
    await call('disconnect', { user, whitelist: [ids[0], ids[1]] });
    await until(() => ended.slice(2).every((list) => list.length === 1), 'the end of the others');
    assert.equal(clients[0].state, 'connected');
    assert.equal(clients[1].state, 'connected');
    assert.equal(other.state, 'connected');
    await call('disconnect', { client: ids[0] });
    await until(() => ended[0].length === 1, 'the end of a connection of whatever user');
  });

  test('that SDKs would misread is refused', async () => {
    const code = async (disconnect) => (await api('disconnect', { user: 'x', disconnect }, CONFIGURED)).error?.code;
    assert.equal(await code({ code: 1000 }), 107);
    assert.equal(await code({ code: 5000 }), 107);
    assert.equal(await code({ code: 4500, reason: '{"reconnect":true}' }), 107);
    assert.equal(await code({ code: 4500, reason: 'x'.repeat(124) }), 107);
  });
});

describe('an unsubscribe by the backend', { concurrency: true }, () => {
  for (const code of [2000, 2100, 2499]) {
    test(`with ${code} is the end of the subscription`, async (t) => {
      const user = freshUser();
      const client = await connectedAs(t, user);
      const channel = freshChannel();
      const subscription = await subscribed(client, channel);
      const [again, ended] = [collect(subscription, 'subscribing'), next(subscription, 'unsubscribed')];
      await call('unsubscribe', { user, channel, unsubscribe: { code, reason: 'because' } });
      const { code: told, reason } = await ended;
      assert.deepEqual([told, reason], [code, 'because']);
      assert.deepEqual(again, []);
      assert.deepEqual((await call('presence', { channel })).presence, {});
    });
  }

  for (const code of [2500, 2501, 2502, 2600, 2999]) {
    test(`with ${code} makes the client subscribe again`, async (t) => {
      const user = freshUser();
      const client = await connectedAs(t, user);
      const channel = `kept:${freshChannel()}`;
      const subscription = await subscribed(client, channel);
      const seen = collect(subscription);
      const [subscribing, again] = [next(subscription, 'subscribing'), next(subscription, 'subscribed')];
      await call('unsubscribe', { user, channel, unsubscribe: { code } });
      await call('publish', { channel, data: 'meanwhile' });
      assert.equal((await subscribing).code, code);
      await again;
      await call('publish', { channel, data: 'after' });
      await until(() => seen.at(-1)?.data === 'after', 'the publication after it');
      // What the client knew of the channel is worth nothing after 2502.
      if (code !== 2502) assert.deepEqual(seen.map(({ data }) => data), ['meanwhile', 'after']);
    });
  }

  test('with 2502 makes the client forget token and position, so that it begins anew', async (t) => {
    const user = freshUser();
    const client = await connectedAs(t, user);
    for (const [code, reason, forgets] of [[2501, 'subscription expired', false], [2502, 'state invalidated', true]]) {
      const channel = `tickets:${freshChannel()}`;
      let tokens = 0;
      const getToken = async () => {
        tokens += 1;
        return token({ sub: user, channel });
      };
      const subscription = await subscribed(client, channel, { getToken });
      await call('publish', { channel, data: 1 });
      const seen = collect(subscription);
      const [subscribing, again] = [next(subscription, 'subscribing'), next(subscription, 'subscribed')];
      assert.equal(tokens, 1);
      await call('unsubscribe', { user, channel, unsubscribe: { code } });
      await call('publish', { channel, data: 2 });
      assert.deepEqual(await subscribing, { channel, code, reason });
      const { wasRecovering, recovered } = await again;
      // It asks to recover from an epoch that no server has, so that the application learns that it has to begin anew.
      assert.deepEqual([wasRecovering, recovered], [true, !forgets]);
      if (forgets) assert.equal(tokens, 2, 'another token');
      await call('publish', { channel, data: 3 });
      await until(() => seen.at(-1)?.data === 3, 'the publication after it');
      // It may have subscribed before the second was published, or after.
      assert.equal(new Set(seen.map(({ data }) => data)).size, seen.length);
      if (!forgets) assert.deepEqual(seen.map(({ data }) => data).filter((data) => data > 1), [2, 3]);
    }
  });

  test('is 2000 unless the backend says otherwise, and only for who is subscribed', async (t) => {
    const user = freshUser();
    const client = await connectedAs(t, user);
    const [one, other] = [freshChannel(), freshChannel()];
    const [first, second] = [await subscribed(client, one), await subscribed(client, other)];
    const ended = next(first, 'unsubscribed');
    await call('unsubscribe', { user, channel: one });
    const { code, reason } = await ended;
    assert.deepEqual([code, reason], [2000, 'server unsubscribe']);
    assert.equal(second.state, 'subscribed');
    assert.equal((await api('unsubscribe', { user, channel: '' }, CONFIGURED)).error.code, 107);
    assert.equal((await api('unsubscribe', { user, channel: 'nope:x' }, CONFIGURED)).error.code, 102);
  });
});

describe('a subscription by the backend', { concurrency: true }, () => {
  test('is there for all connections of a user, with its data, and gone when it is taken back', async (t) => {
    const user = freshUser();
    const channel = freshChannel();
    const clients = [];
    for (let n = 0; n < 4; n += 1) clients.push(await connectedAs(t, user));
    const [came, seen, went] = ['subscribed', 'publication', 'unsubscribed'].map((event) => clients.map((client) => collect(client, event)));
    await call('subscribe', { user, channel, data: { welcome: true }, info: 'vip' });
    await until(() => came.every((list) => list.length === 1), 'the subscription, everywhere');
    assert.deepEqual([came[0][0].channel, came[0][0].data], [channel, { welcome: true }]);
    await call('publish', { channel, data: 'hello' });
    await until(() => seen.every((list) => list.length === 1), 'the publication, everywhere');
    const { presence } = await call('presence', { channel });
    assert.equal(Object.keys(presence).length, 4);
    assert.ok(Object.values(presence).every(({ user: who, chan_info }) => who === user && chan_info === 'vip'));
    // Again is the same as once.
    await call('subscribe', { user, channel });
    await call('unsubscribe', { user, channel });
    await until(() => went.every((list) => list.length === 1), 'the end of it, everywhere');
    assert.ok(came.every((list) => list.length === 1));
    assert.equal((await call('presence_stats', { channel })).num_clients, 0);
  });

  test('begins where it is told to, and is recovered when the line was cut', async (t) => {
    const user = freshUser();
    const channel = `kept:${freshChannel()}`;
    const { offset, epoch } = await call('publish', { channel, data: 1 });
    for (const data of [2, 3]) await call('publish', { channel, data });
    const client = await connectedAs(t, user);
    const [came, seen] = [collect(client, 'subscribed'), collect(client)];
    await call('subscribe', { user, channel, recover_since: { offset, epoch } });
    await until(() => seen.length === 2, 'what was missed');
    const connecting = next(client, 'connecting');
    client.line.cut();
    await connecting;
    await call('publish', { channel, data: 4 });
    await until(() => seen.length === 3, 'what was missed while the line was down');
    assert.deepEqual(seen.map(({ data }) => data), [2, 3, 4]);
    assert.deepEqual([came[1].wasRecovering, came[1].recovered], [true, true]);
  });

  test('needs no permission, and may be different from the namespace', async (t) => {
    const user = freshUser();
    const client = await connectedAs(t, user);
    const channel = `closed:${freshChannel()}`;
    const came = next(client, 'subscribed');
    await call('subscribe', { user, channel, override: { presence: { value: false } } });
    await came;
    assert.deepEqual((await call('presence', { channel })).presence, {});
    const { num_clients } = (await call('channels', { pattern: `${channel.slice(0, 12)}*` })).channels[channel];
    assert.equal(num_clients, 1);
  });

  test('to one channel too many ends the connection with 3505', async (t) => {
    const user = freshUser();
    const client = await connectedAs(t, user);
    const ended = next(client, 'disconnected');
    for (let n = 0; n < 6; n += 1) await call('subscribe', { user, channel: freshChannel() });
    assert.equal((await ended).code, 3505);
  });
});

describe('a refresh by the backend', { concurrency: true }, () => {
  test('that says expired makes the client come back with another token', async (t) => {
    const user = freshUser();
    let tokens = 0;
    const getToken = async () => {
      tokens += 1;
      return token({ sub: user });
    };
    const client = await connectedAs(t, user, { token: '', getToken });
    const [connecting, again] = [next(client, 'connecting'), next(client, 'connected')];
    await call('refresh', { user, expired: true });
    assert.equal((await connecting).code, 3005);
    await again;
    assert.ok(tokens >= 1);
  });

  test('is pushed to the client, and moves the end of its connection', async (t) => {
    const user = freshUser();
    const connection = new RawConnection(t, { url: CONFIGURED, pongs: true });
    await connection.connect({ token: token({ sub: user, exp: inSeconds(600) }) });
    const pushes = () => connection.lines.map((line) => JSON.parse(line)).flatMap(({ push }) => push?.refresh ?? []);
    await call('refresh', { user });
    await until(() => pushes().length === 1, 'the first push');
    assert.deepEqual(pushes()[0], {});
    await call('refresh', { user, expire_at: inSeconds(1) });
    await until(() => pushes().length === 2, 'the second push');
    assert.equal(pushes()[1].expires, true);
    assert.ok(pushes()[1].ttl >= 1);
    assert.deepEqual(await connection.close(), { code: 3005, reason: 'connection expired' });
  });

  test('shows the connection differently', async (t) => {
    const user = freshUser();
    const channel = freshChannel();
    await subscribed(await connectedAs(t, user), channel);
    await call('refresh', { user, info: { name: 'Ann' } });
    const [{ conn_info }] = Object.values((await call('presence', { channel })).presence);
    assert.deepEqual(conn_info, { name: 'Ann' });
  });
});
