// Connecting, being told who one is, coming back, and being told not to.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { RawConnection, connected, connectedAs, freshChannel, newClient, next, subscribed } from './support.mjs';

test('connects without a token', async (t) => {
  const client = newClient(t);
  const done = next(client, 'connected');
  client.connect();
  const context = await done;
  assert.equal(context.transport, 'websocket');
  assert.match(context.client, /^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/);
});

test('the connect result carries what SDKs need', async (t) => {
  const connection = new RawConnection(t);
  const result = await connection.connect();
  assert.ok(result.version, 'a version');
  assert.ok(result.ping > 0, 'a ping interval in seconds');
  assert.equal(result.pong, true);
  assert.notEqual(result.expires, true);
});

test('every connection has its own client id', async (t) => {
  const ids = new Set();
  for (let n = 0; n < 5; n += 1) {
    const connection = new RawConnection(t);
    ids.add((await connection.connect()).client);
  }
  assert.equal(ids.size, 5);
});

test('connects with a token, and is that user', async (t) => {
  const channel = freshChannel();
  const client = await connectedAs(t, 'Ann', 'user-ann');
  const subscription = await subscribed(client, channel);
  const { clients } = await subscription.presence();
  const [info] = Object.values(clients);
  assert.equal(info.user, 'user-ann');
  assert.deepEqual(info.connInfo, { name: 'Ann' });
});

test('an invalid token ends in 3500, for good', async (t) => {
  for (const token of ['nonsense', 'a.b.c', 'eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhIn0.AAAA']) {
    const client = newClient(t, { token });
    const done = next(client, 'disconnected');
    client.connect();
    const context = await done;
    assert.equal(context.code, 3500, token);
    assert.equal(context.reason, 'invalid token');
    assert.equal(client.state, 'disconnected');
  }
});

test('an unsigned token is an invalid token', async (t) => {
  const part = (value) => Buffer.from(JSON.stringify(value)).toString('base64url');
  const token = `${part({ alg: 'none', typ: 'JWT' })}.${part({ sub: 'root' })}.`;
  const client = newClient(t, { token });
  const done = next(client, 'disconnected');
  client.connect();
  assert.equal((await done).code, 3500);
});

test('comes back after the line was cut', async (t) => {
  const client = await connected(t);
  const connecting = next(client, 'connecting');
  const again = next(client, 'connected');
  client.line.cut();
  assert.equal((await connecting).code, 1, 'transport closed');
  await again;
  assert.equal(client.state, 'connected');
});

test('disconnects when asked, and connects again', async (t) => {
  const client = await connected(t);
  const gone = next(client, 'disconnected');
  client.disconnect();
  assert.equal((await gone).code, 0);
  const again = next(client, 'connected');
  client.connect();
  await again;
});

test('a page of another origin is refused before the upgrade', async (t) => {
  const refused = new RawConnection(t, { origin: 'https://evil.example' });
  const status = await new Promise((resolve, reject) => {
    refused.socket.on('unexpected-response', (request, response) => {
      response.resume();
      resolve(response.statusCode);
    });
    refused.socket.on('open', () => reject(new Error('the upgrade was accepted')));
  });
  assert.equal(status, 403);
});
