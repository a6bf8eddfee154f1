// Subscriptions that the server makes: those which a token names.

import assert from 'node:assert/strict';
import { describe, test } from 'node:test';

import { CONFIGURED, apiResult, collect, configuredClient, configuredConnected, freshChannel, next, token, until } from './support.mjs';

describe('the channels of a token', { concurrency: true }, () => {
  test('are subscribed to when the connection is there, with their data', async (t) => {
    const channel = freshChannel();
    const subs = { [channel]: { data: { welcome: true } } };
    const client = configuredClient(t, 'ann', { token: token({ sub: 'ann', subs }) });
    const [subscriptions, seen] = [collect(client, 'subscribed'), collect(client)];
    client.connect();
    await until(() => subscriptions.length, 'the subscription');
    assert.equal(subscriptions[0].channel, channel);
    assert.deepEqual(subscriptions[0].data, { welcome: true });
    await apiResult('publish', { channel, data: 'hello' }, CONFIGURED);
    await until(() => seen.length, 'the publication');
    assert.deepEqual([seen[0].channel, seen[0].data], [channel, 'hello']);
  });

  test('are recovered after the line was cut', async (t) => {
    const channel = `kept:${freshChannel()}`;
    const client = configuredClient(t, 'ann', { token: token({ sub: 'ann', channels: [channel] }) });
    const [subscriptions, seen] = [collect(client, 'subscribed'), collect(client)];
    client.connect();
    await until(() => subscriptions.length, 'the subscription');
    for (let round = 1; round <= 3; round += 1) {
      const connecting = next(client, 'connecting');
      client.line.cut();
      await connecting;
      await apiResult('publish', { channel, data: round }, CONFIGURED);
      await until(() => seen.length === round, `publication ${round}`);
      const { wasRecovering, recovered } = subscriptions[round];
      assert.deepEqual({ wasRecovering, recovered }, { wasRecovering: true, recovered: true });
    }
    assert.deepEqual(seen.map(({ data }) => data), [1, 2, 3]);
  });

  test('are gone when the next token has them no more', async (t) => {
    const [stays, goes] = [freshChannel(), freshChannel()];
    const channels = [stays, goes];
    const client = await configuredConnected(t, 'ann', { token: token({ sub: 'ann', channels }) });
    const gone = next(client, 'unsubscribed');
    client.setToken(token({ sub: 'ann', channels: [stays] }));
    client.line.cut();
    assert.equal((await gone).channel, goes);
  });

  test('of an unknown namespace end the connection with 102', async (t) => {
    const client = configuredClient(t, 'ann', { token: token({ sub: 'ann', channels: ['nope:x'] }) });
    const ended = next(client, 'disconnected');
    client.connect();
    assert.equal((await ended).code, 102);
  });
});
