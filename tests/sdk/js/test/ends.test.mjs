// How the server ends connections and subscriptions by itself, each with its code.

import assert from 'node:assert/strict';
import { describe, test } from 'node:test';

import { CONFIGURED, RawConnection, collect, configuredConnected, freshChannel, inSeconds, next, subscribed, token, until } from './support.mjs';

const raw = (t, options) => new RawConnection(t, { url: CONFIGURED, ...options });

describe('the server ends', { concurrency: true }, () => {
  test('a connection whose token was not refreshed: 3005, which reconnects', async (t) => {
    const connection = raw(t, { pongs: true });
    const result = await connection.connect({ token: token({ sub: 'ann', exp: inSeconds(2) }) });
    assert.equal(result.expires, true);
    assert.ok(result.ttl > 0);
    assert.deepEqual(await connection.close(), { code: 3005, reason: 'connection expired' });
  });

  test('a connection that is refreshed with an expired token: 3005', async (t) => {
    const connection = raw(t);
    await connection.connect({ token: token({ sub: 'ann', exp: inSeconds(600) }) });
    connection.send(JSON.stringify({ id: 2, refresh: { token: token({ sub: 'ann', exp: inSeconds(-10) }) } }));
    assert.equal((await connection.close()).code, 3005);
  });

  test('a subscription whose token was not refreshed: an unsubscribe push with 2501', async (t) => {
    const connection = raw(t, { pongs: true });
    await connection.connect({ token: token({ sub: 'ann' }) });
    const channel = `closed:${freshChannel()}`;
    const subscribe = { channel, token: token({ sub: 'ann', channel, exp: inSeconds(2) }) };
    const reply = await connection.call({ id: 2, subscribe });
    assert.equal(reply.subscribe.expires, true);
    assert.ok(reply.subscribe.ttl > 0);
    const find = () => connection.lines.map((line) => JSON.parse(line)).find(({ push }) => push?.unsubscribe);
    const { push } = await until(find, 'the end of the subscription');
    assert.deepEqual(push, { channel, unsubscribe: { code: 2501, reason: 'subscription expired' } });
  });

  test('a connection that does not answer pings: 3012, which reconnects', async (t) => {
    const connection = raw(t);
    const result = await connection.connect({ token: token({ sub: 'ann' }) });
    assert.deepEqual([result.ping, result.pong], [2, true]);
    assert.equal((await connection.close()).code, 3012);
    assert.ok(connection.lines.includes('{}'), 'a ping');
  });

  test('a connection that never connects: 3502, for good', async (t) => {
    const connection = await raw(t).opened();
    assert.equal((await connection.close()).code, 3502);
  });

  test('a connection that sends where nobody listens: 3508, for good', async (t) => {
    const client = await configuredConnected(t, 'ann');
    const ended = next(client, 'disconnected');
    await client.send({ hello: 1 });
    assert.equal((await ended).code, 3508);
  });

  test('a connection that answers a ping which nobody sent: 3501, for good', async (t) => {
    const connection = raw(t);
    await connection.connect({ token: token({ sub: 'ann' }) });
    connection.send('{}');
    assert.equal((await connection.close()).code, 3501);
  });

  test('a connection with a message that is too long: 1009, for good', async (t) => {
    const client = await configuredConnected(t, 'ann');
    const ended = next(client, 'disconnected');
    client.publish(freshChannel(), 'x'.repeat(70_000)).catch(() => {});
    // The SDK's own code for it.
    assert.equal((await ended).code, 3);
  });

  test('nothing as long as pings are answered', async (t) => {
    let refreshes = 0;
    const getToken = async () => {
      refreshes += 1;
      return token({ sub: 'ann', exp: inSeconds(3) });
    };
    const client = await configuredConnected(t, 'ann', { token: await getToken(), getToken });
    const attempts = collect(client, 'connecting');
    // Six seconds of the server's time, in which pings were due three times.
    await until(() => refreshes >= 3, 'two refreshes');
    await subscribed(client, freshChannel());
    assert.deepEqual(attempts, []);
  });
});
