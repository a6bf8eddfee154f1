// Tokens: what they open, how they end, and how they are renewed in time.

import assert from 'node:assert/strict';
import { describe, test } from 'node:test';

import { CONFIGURED, apiResult, collect, configuredClient, configuredConnected, freshChannel, inSeconds, newClient, next, subscribed, token, until } from './support.mjs';

const closed = () => `closed:${freshChannel()}`;

/** How the connection of `client` ends. */
async function end(client) {
  const done = next(client, 'disconnected');
  client.connect();
  return done;
}

for (const protobuf of [false, true]) {
  const encoding = protobuf ? 'Protobuf' : 'JSON';
  describe(`connection tokens in ${encoding}`, { concurrency: true }, () => connectionTokens({ protobuf }));
  describe(`subscription tokens in ${encoding}`, { concurrency: true }, () => subscriptionTokens({ protobuf }));
}

function connectionTokens(encoding) {
  test('where one is needed, none is 3501', async (t) => {
    assert.equal((await end(newClient(t, { ...encoding, url: CONFIGURED }))).code, 3501);
  });

  test('one of another secret, or for another audience, is 3500', async (t) => {
    for (const bad of [token({ sub: 'ann' }, 'another secret'), token({ sub: 'ann', aud: 'somebody else' })]) {
      const client = newClient(t, { ...encoding, url: CONFIGURED, token: bad });
      const context = await end(client);
      assert.deepEqual([context.code, context.reason], [3500, 'invalid token']);
    }
  });

  test('an expired one is replaced, once', async (t) => {
    let asked = 0;
    const client = configuredClient(t, 'ann', {
      ...encoding,
      token: token({ sub: 'ann', exp: inSeconds(-10) }),
      getToken: async () => {
        asked += 1;
        return token({ sub: 'ann' });
      },
    });
    const done = next(client, 'connected');
    client.connect();
    await done;
    assert.equal(asked, 1);
  });

  test('one that is not valid yet is replaced too', async (t) => {
    const client = configuredClient(t, 'ann', {
      ...encoding,
      token: token({ sub: 'ann', nbf: inSeconds(600) }),
      getToken: async () => token({ sub: 'ann' }),
    });
    const done = next(client, 'connected');
    client.connect();
    await done;
  });

  test('a connection is refreshed before it expires, and stays the same', async (t) => {
    let asked = 0;
    const client = configuredClient(t, 'ann', {
      ...encoding,
      token: token({ sub: 'ann', exp: inSeconds(2) }),
      getToken: async () => {
        asked += 1;
        return token({ sub: 'ann', exp: inSeconds(asked < 2 ? 2 : 3600) });
      },
    });
    const attempts = collect(client, 'connecting');
    const done = next(client, 'connected');
    client.connect();
    await done;
    await until(() => asked >= 2, 'two refreshes');
    await subscribed(client, freshChannel());
    assert.equal(attempts.length, 1);
  });

  test('whoever is not given a new one is disconnected by the SDK', async (t) => {
    const client = configuredClient(t, 'ann', {
      ...encoding,
      token: token({ sub: 'ann', exp: inSeconds(2) }),
      getToken: async () => '',
    });
    // The SDK's own code for "unauthorized".
    assert.equal((await end(client)).code, 1);
  });

  test('a refresh with a token of somebody else is 3500', async (t) => {
    const client = configuredClient(t, 'ann', {
      ...encoding,
      token: token({ sub: 'ann', exp: inSeconds(2) }),
      getToken: async () => token({ sub: 'ben', exp: inSeconds(3600) }),
    });
    assert.equal((await end(client)).code, 3500);
  });

  test('a token without a user is an anonymous user', async (t) => {
    const client = newClient(t, { ...encoding, url: CONFIGURED, token: token({}) });
    const done = next(client, 'connected');
    client.connect();
    await done;
    // Where users may subscribe and anonymous ones may not.
    const subscription = client.newSubscription(freshChannel());
    const refused = next(subscription, 'unsubscribed');
    subscription.subscribe();
    assert.equal((await refused).code, 103);
  });
}

function subscriptionTokens(encoding) {
  test('one opens the channel it names', async (t) => {
    const channel = closed();
    const client = await configuredConnected(t, 'ann', encoding);
    const info = { role: 'guest' };
    const subscription = await subscribed(client, channel, { token: token({ sub: 'ann', channel, info }) });
    const seen = collect(subscription);
    await apiResult('publish', { channel, data: 'hello' }, CONFIGURED);
    await until(() => seen.length, 'the publication');
    const { clients } = await subscription.presence();
    const [{ user, chanInfo }] = Object.values(clients);
    assert.equal(user, 'ann');
    // In Protobuf it comes as bytes.
    assert.deepEqual(encoding.protobuf ? JSON.parse(new TextDecoder().decode(chanInfo)) : chanInfo, info);
  });

  test('an invalid one is 103 and leaves the connection alone', async (t) => {
    const channel = closed();
    const client = await configuredConnected(t, 'ann', encoding);
    const subscription = client.newSubscription(channel, { token: token({ sub: 'ann', channel }, 'another secret') });
    const refused = next(subscription, 'unsubscribed');
    subscription.subscribe();
    assert.equal((await refused).code, 103);
    assert.equal(client.state, 'connected');
  });

  test('one of another user, or for another channel, is 3500', async (t) => {
    const channel = closed();
    for (const foreign of [{ sub: 'ben', channel }, { sub: 'ann', channel: `${channel}x` }]) {
      const client = await configuredConnected(t, 'ann', encoding);
      const ended = next(client, 'disconnected');
      client.newSubscription(channel, { token: token(foreign) }).subscribe();
      assert.equal((await ended).code, 3500);
    }
  });

  test('an expired one is replaced, once', async (t) => {
    const channel = closed();
    let asked = 0;
    const options = {
      token: token({ sub: 'ann', channel, exp: inSeconds(-10) }),
      getToken: async (context) => {
        asked += 1;
        assert.equal(context.channel, channel);
        return token({ sub: 'ann', channel });
      },
    };
    await subscribed(await configuredConnected(t, 'ann', encoding), channel, options);
    assert.equal(asked, 1);
  });

  test('a subscription is refreshed before it expires, and stays the same', async (t) => {
    const channel = closed();
    let asked = 0;
    const lives = (seconds) => token({ sub: 'ann', channel, exp: inSeconds(seconds) });
    const subscription = await subscribed(await configuredConnected(t, 'ann', encoding), channel, {
      token: lives(2),
      getToken: async () => {
        asked += 1;
        return lives(asked < 2 ? 2 : 3600);
      },
    });
    const again = collect(subscription, 'subscribing');
    await until(() => asked >= 2, 'two refreshes');
    const seen = collect(subscription);
    await apiResult('publish', { channel, data: 'still here' }, CONFIGURED);
    await until(() => seen.length, 'the publication');
    assert.deepEqual(again, []);
  });

  test('whoever is not given one is unsubscribed by the SDK', async (t) => {
    const client = await configuredConnected(t, 'ann', encoding);
    const subscription = client.newSubscription(closed(), { getToken: async () => '' });
    const ended = next(subscription, 'unsubscribed');
    subscription.subscribe();
    assert.equal((await ended).code, 1);
    assert.equal(client.state, 'connected');
  });
}
