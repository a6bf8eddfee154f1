// The server API as a back end calls it.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { API_KEY, SERVER, api, apiResult, collect, connected, connectedAs, freshChannel, post, subscribed, until } from './support.mjs';

test('the key is taken from either header or the query, and needed', async () => {
  const body = { channel: freshChannel(), data: 1 };
  const status = async (path, headers) => (await post(path, body, headers)).status;
  assert.equal(await status('/api/publish', { 'x-api-key': API_KEY }), 200);
  assert.equal(await status('/api/publish', { authorization: `apikey ${API_KEY}` }), 200);
  assert.equal(await status(`/api/publish?api_key=${API_KEY}`, {}), 200);
  assert.equal(await status('/api/publish', {}), 401);
  assert.equal(await status('/api/publish', { 'x-api-key': `${API_KEY}x` }), 401);
  assert.equal(await status('/api/publish?api_key=', {}), 401);
});

test('what is not a call is told so by its status', async () => {
  const key = { 'x-api-key': API_KEY };
  assert.equal((await fetch(`${SERVER}/api/publish`, { headers: key })).status, 405);
  assert.equal((await post('/api/publish', '{', key)).status, 400);
  assert.equal((await post('/api/publish', '', key)).status, 400);
  assert.equal((await post('/api/publish', { channel: 1, data: 1 }, key)).status, 400);
  assert.equal((await post('/api/no_such_method', {}, key)).status, 404);
});

test('what the hub refuses comes as an error with its code', async () => {
  const code = async (method, body) => (await api(method, body)).error?.code;
  assert.equal(await code('publish', { channel: 'nope:x', data: 1 }), 102);
  assert.equal(await code('publish', { channel: '', data: 1 }), 107);
  assert.equal(await code('publish', { data: 1 }), 107);
  assert.equal(await code('publish', { channel: 'a' }), 107);
  assert.equal(await code('broadcast', { channels: [], data: 1 }), 107);
  assert.equal(await code('presence', { channel: 'typing:a' }), 108);
  assert.equal(await code('history', { channel: 'typing:a' }), 108);
});

test('in transport error mode the status says it', async () => {
  const headers = { 'x-api-key': API_KEY, 'x-centrifugo-error-mode': 'transport' };
  const response = await post('/api/publish', { channel: 'nope:x', data: 1 }, headers);
  assert.equal(response.status, 404);
  assert.deepEqual(await response.json(), { code: 102, message: 'unknown channel' });
});

test('null is data', async () => {
  assert.equal((await apiResult('publish', { channel: freshChannel(), data: null })).offset, 1);
});

test('broadcast publishes into each channel and answers for each', async (t) => {
  const channels = [freshChannel(), freshChannel()];
  const client = await connected(t);
  const seen = [];
  for (const channel of channels) seen.push(collect(await subscribed(client, channel)));
  const { responses } = await apiResult('broadcast', { channels: [channels[0], 'nope:x', channels[1]], data: 'all' });
  assert.deepEqual(responses.map(({ result }) => result?.offset), [1, undefined, 1]);
  assert.equal(responses[1].error.code, 102);
  await until(() => seen.every((list) => list.length === 1), 'the publication in both channels');
});

test('an idempotency key makes a retry harmless', async (t) => {
  const channel = freshChannel();
  const seen = collect(await subscribed(await connected(t), channel));
  const call = { channel, data: 'once', idempotency_key: 'order-17' };
  const first = await apiResult('publish', call);
  assert.deepEqual(await apiResult('publish', call), first);
  await apiResult('publish', { channel, data: 'after' });
  await until(() => seen.length >= 2, 'the publication after it');
  assert.deepEqual(seen.map(({ data }) => data), ['once', 'after']);
});

test('presence shows who is there', async (t) => {
  const channel = freshChannel();
  await subscribed(await connectedAs(t, 'Ann', 'ann'), channel);
  await subscribed(await connectedAs(t, 'Ann', 'ann'), channel);
  const { presence } = await apiResult('presence', { channel });
  assert.equal(Object.keys(presence).length, 2);
  for (const [client, info] of Object.entries(presence)) {
    assert.deepEqual(info, { user: 'ann', client, conn_info: { name: 'Ann' } });
  }
  assert.deepEqual(await apiResult('presence_stats', { channel }), { num_clients: 2, num_users: 1 });
  assert.deepEqual(await apiResult('presence_stats', { channel: freshChannel() }), { num_clients: 0, num_users: 0 });
});

test('info counts this node', async (t) => {
  await connected(t);
  const { nodes } = await apiResult('info', {});
  assert.equal(nodes.length, 1);
  assert.ok(nodes[0].num_clients >= 1);
  assert.ok(nodes[0].uid);
});

test('health says that all is well', async () => {
  const response = await fetch(`${SERVER}/health`);
  assert.equal(response.status, 200);
  assert.deepEqual(await response.json(), {});
});
