// What goes wrong, goes wrong with the code that SDKs act upon.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { RawConnection, collect, connected, connectedAs, devToken, freshChannel, newClient, next, subscribed } from './support.mjs';

/** Subscribes and gives the context of the final refusal. */
async function refusal(client, channel, options) {
  const subscription = client.newSubscription(channel, options);
  const done = next(subscription, 'unsubscribed');
  subscription.subscribe();
  return done;
}

test('an unknown namespace is 102', async (t) => {
  const client = await connected(t);
  assert.equal((await refusal(client, 'nope:x')).code, 102);
  await assert.rejects(client.publish('nope:x', {}), { code: 102, message: 'unknown channel' });
  await assert.rejects(client.history('nope:x', { limit: 1 }), { code: 102 });
  await assert.rejects(client.presence('nope:x'), { code: 102 });
  await assert.rejects(client.presenceStats('nope:x'), { code: 102 });
});

test('a private channel without a token is 103', async (t) => {
  const client = await connectedAs(t, 'Ann', 'ann');
  const context = await refusal(client, '$private');
  assert.equal(context.code, 103);
  assert.equal(context.reason, 'permission denied');
  assert.equal(client.state, 'connected');
});

test('a private channel with an invalid token is 103', async (t) => {
  const client = await connectedAs(t, 'Ann', 'ann');
  assert.equal((await refusal(client, '$private', { token: 'a.b.c' })).code, 103);
});

test('a connection token does not open a private channel', async (t) => {
  const client = await connectedAs(t, 'Ann', 'ann');
  const subscription = client.newSubscription('$private', { token: await devToken('Ann', 'ann') });
  const active = collect(subscription, 'subscribed');
  const outcome = Promise.race([next(subscription, 'unsubscribed'), next(client, 'disconnected')]);
  subscription.subscribe();
  // Its channel claim is not this channel: that ends the connection (or the subscription).
  assert.ok([103, 3500].includes((await outcome).code));
  assert.deepEqual(active, []);
});

test('a name that is too long or not ASCII is 107', async (t) => {
  const client = await connected(t);
  assert.equal((await refusal(client, 'x'.repeat(256))).code, 107);
  assert.equal((await refusal(client, 'zażółć')).code, 107);
  await assert.rejects(client.publish('x'.repeat(256), {}), { code: 107 });
  await subscribed(client, freshChannel().padEnd(255, 'x'));
});

test('what a namespace has not is 108', async (t) => {
  const client = await connected(t);
  const channel = `typing:${freshChannel()}`;
  await subscribed(client, channel);
  await assert.rejects(client.history(channel, { limit: 1 }), { code: 108, message: 'not available' });
  await assert.rejects(client.presence(channel), { code: 108 });
  await assert.rejects(client.presenceStats(channel), { code: 108 });
});

test('rpc is 108, also right after connecting', async (t) => {
  const client = newClient(t);
  client.connect();
  await assert.rejects(client.rpc('anything', { a: 1 }), { code: 108 });
  await assert.rejects(client.rpc('', null), { code: 108 });
  assert.equal(client.state, 'connected');
});

test('a second subscribe to a channel is 105', async (t) => {
  const connection = new RawConnection(t);
  await connection.connect();
  const channel = freshChannel();
  connection.send(
    `{"id":2,"subscribe":{"channel":"${channel}"}}\n{"id":3,"subscribe":{"channel":"${channel}"}}`,
  );
  assert.ok((await connection.reply(2)).subscribe);
  assert.deepEqual((await connection.reply(3)).error, { code: 105, message: 'already subscribed' });
  assert.ok((await connection.call({ id: 4, unsubscribe: { channel } })).unsubscribe);
  assert.ok((await connection.call({ id: 5, subscribe: { channel } })).subscribe);
  assert.ok((await connection.call({ id: 6, unsubscribe: { channel: freshChannel() } })).unsubscribe);
});

test('the channel after the last allowed one is 106', async (t) => {
  const connection = new RawConnection(t);
  await connection.connect();
  const channel = freshChannel();
  const subscribe = (n) => JSON.stringify({ id: n + 2, subscribe: { channel: `${channel}-${n}` } });
  connection.send(Array.from({ length: 129 }, (_, n) => subscribe(n)).join('\n'));
  const { code, message } = (await connection.reply(130)).error;
  assert.equal(code, 106);
  assert.match(message, /^limit exceeded: .*128 \(client\.channel_limit\)/);
  assert.ok((await connection.reply(129)).subscribe);
});

test('a publication without data is 107', async (t) => {
  const connection = new RawConnection(t);
  await connection.connect();
  const reply = await connection.call({ id: 2, publish: { channel: freshChannel() } });
  assert.equal(reply.error.code, 107);
});

test('a position that is gone is 112 for those who ask to be told so', async (t) => {
  const connection = new RawConnection(t);
  await connection.connect();
  const channel = freshChannel();
  const subscribe = { channel, recover: true, offset: 5, epoch: 'anotherone', flag: 2 };
  assert.equal((await connection.call({ id: 2, subscribe })).error.code, 112);
  assert.ok((await connection.call({ id: 3, subscribe: { channel } })).subscribe);
});

// Each of these is against the protocol, and ends the connection for good. The code and a
// reason that is not JSON are what makes SDKs stop instead of trying for ever.
const violations = [
  ['a command before connecting', false, '{"id":1,"subscribe":{"channel":"a"}}', 3501],
  ['what is not JSON', true, 'hello', 3501],
  ['an empty frame', true, '', 3501],
  ['a blank line between commands', true, '{"id":2,"presence":{"channel":"a"}}\n\n{"id":3,"presence":{"channel":"a"}}', 3501],
  ['a second connect', true, '{"id":2,"connect":{}}', 3501],
  ['a command that does not exist', true, '{"id":2,"dance":{}}', 3501],
  ['a subscribe without a channel', true, '{"id":2,"subscribe":{}}', 3501],
  ['a pong to no ping', true, '{}', 3501],
  ['a message that nobody handles', true, '{"send":{"data":1}}', 3508],
];
for (const [what, afterConnect, frame, code] of violations) {
  test(`${what} closes with ${code}`, async (t) => {
    const connection = new RawConnection(t);
    if (afterConnect) await connection.connect();
    else await connection.opened();
    connection.send(frame);
    const closed = await connection.close();
    assert.equal(closed.code, code);
    assert.ok(closed.reason, 'a reason');
    assert.throws(() => JSON.parse(closed.reason));
  });
}

test('a message over the limit closes with 1009', async (t) => {
  const connection = new RawConnection(t);
  await connection.connect();
  connection.send(JSON.stringify({ id: 2, publish: { channel: 'a', data: 'x'.repeat(70_000) } }));
  assert.equal((await connection.close()).code, 1009);
});

test('send, which nobody handles, ends an SDK client with 3508', async (t) => {
  const client = await connected(t);
  const gone = next(client, 'disconnected');
  await client.send({ hello: 1 });
  assert.equal((await gone).code, 3508);
});
