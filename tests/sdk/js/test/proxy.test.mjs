// A server whose application is a backend over HTTP (../../proxy.toml). The backend is here, and believes no question
// that isn't signed: by the very code that docs/proxy.md has for those who write one.

import assert from 'node:assert/strict';
import { createHmac, timingSafeEqual } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { after, before, describe, test } from 'node:test';

import { collect, freshChannel, newClient, next, server, until } from './support.mjs';

const PROXIED = server('TAUTLINE_PROXIED_URL');
const BACKEND = new URL(server('TAUTLINE_BACKEND_URL'));

const chapter = readFileSync(new URL('../../../../docs/proxy.md', import.meta.url), 'utf8');
const [, example] = chapter.match(/```js\nimport [^\n]*\n([^]*?)```/);
const isGenuine = new Function('createHmac', 'timingSafeEqual', `${example}; return isGenuine;`)(
  createHmac,
  timingSafeEqual,
);

const answers = {
  connect: ({ data }, headers) => {
    if (data?.refuse) return { error: { code: 1002, message: 'not today' } };
    if (data?.kick) return { disconnect: { code: 4502, reason: 'go away' } };
    const user = headers.authorization?.replace('Bearer of ', '') ?? '';
    return { result: { user, data: { welcome: user }, channels: data?.channels, meta: { room: 7 } } };
  },
  subscribe: ({ channel, user, meta, data }) =>
    channel.startsWith('members') && user !== 'ann'
      ? { error: { code: 403, message: 'members only' } }
      : { result: { data: { room: meta.room, said: data } } },
  publish: ({ user, data }) => {
    if (data.text === 'forbidden') return { error: { code: 1003, message: 'forbidden' } };
    if (data.text === 'change') return { result: { data: { text: 'changed', by: user } } };
    return {};
  },
  rpc: ({ method, data, user }) => {
    if (method === 'echo') return { result: { data } };
    if (method === 'whoami') return { result: { data: user } };
    if (method === 'later') return { error: { code: 1001, message: 'later', temporary: true } };
    return { error: { code: 404, message: 'no such method' } };
  },
};

const backend = createServer(async (request, response) => {
  const chunks = [];
  for await (const chunk of request) chunks.push(chunk);
  const body = Buffer.concat(chunks);
  const { 'tautline-event': event, 'tautline-signature': signature } = request.headers;
  if (!isGenuine('the backend knows this, too', event, signature, body) || request.url !== `/${event}`) {
    response.writeHead(401).end();
    return;
  }
  response.end(JSON.stringify(answers[event](JSON.parse(body), request.headers)));
});

before(() => new Promise((resolve) => backend.listen(BACKEND.port, BACKEND.hostname, resolve)));
after(() => {
  backend.close();
  backend.closeAllConnections();
});

test('the example of the chapter believes its own server alone', () => {
  const now = Math.floor(Date.now() / 1000);
  const body = Buffer.from('{"client":"8a3f"}');
  const code = (time, secret = 's') => createHmac('sha256', secret).update(`${time}.rpc.`).update(body).digest('hex');
  assert.ok(isGenuine('s', 'rpc', `t=${now},v1=${code(now)}`, body));
  assert.ok(isGenuine('s', 'rpc', `t=${now},v1=${code(now, 'old')},v1=${code(now)}`, body));
  for (const [event, field, bytes] of [
    ['rpc', `t=${now - 301},v1=${code(now - 301)}`, body],
    ['rpc', `t=${now},v1=${code(now, 'other')}`, body],
    ['rpc', `t=${now}`, body],
    ['rpc', `v1=${code(now)}`, body],
    ['rpc', '', body],
    ['publish', `t=${now},v1=${code(now)}`, body],
    ['rpc', `t=${now},v1=${code(now)}`, Buffer.from('{}')],
  ]) {
    assert.ok(!isGenuine('s', event, field, bytes), field);
  }
});

for (const protobuf of [false, true]) {
  const pack = protobuf ? (value) => new TextEncoder().encode(JSON.stringify(value)) : (value) => value;
  const unpack = protobuf ? (bytes) => JSON.parse(new TextDecoder().decode(bytes)) : (value) => value;

  const connected = async (t, user, data = {}) => {
    const headers = { Authorization: `Bearer of ${user}` };
    const client = newClient(t, { url: PROXIED, protobuf, headers, data: pack(data) });
    const told = next(client, 'connected');
    const channels = collect(client, 'subscribed');
    client.connect();
    return { client, context: await told, channels };
  };

  describe(`a backend over HTTP, clients of ${protobuf ? 'Protobuf' : 'JSON'}`, { concurrency: true }, () => {
    test('it says who comes in, by what the application says in a header', async (t) => {
      const channel = freshChannel();
      const { client, context, channels } = await connected(t, 'ann', { channels: [channel] });
      assert.deepEqual(unpack(context.data), { welcome: 'ann' });
      await until(() => channels.length === 1, 'the subscription that the server makes');
      assert.equal(channels[0].channel, channel);
      assert.equal(unpack((await client.rpc('whoami', pack(null))).data), 'ann');
    });

    test('it refuses, by an error and by a disconnect', async (t) => {
      for (const [data, expected] of [[{ refuse: true }, 1002], [{ kick: true }, 4502]]) {
        const client = newClient(t, { url: PROXIED, protobuf, data: pack(data) });
        const ended = next(client, 'disconnected');
        client.connect();
        assert.equal((await ended).code, expected);
      }
    });

    test('it says who subscribes, and knows what it has stored', async (t) => {
      const { client } = await connected(t, 'bob');
      const members = client.newSubscription(freshChannel('members'));
      const refused = next(members, 'unsubscribed');
      members.subscribe();
      assert.equal((await refused).code, 403);
      const open = client.newSubscription(freshChannel(), { data: pack([1]) });
      const begun = next(open, 'subscribed');
      open.subscribe();
      assert.deepEqual(unpack((await begun).data), { room: 7, said: [1] });
    });

    test('it says what is published', async (t) => {
      const { client } = await connected(t, 'ann');
      const subscription = client.newSubscription(freshChannel('members'));
      const begun = next(subscription, 'subscribed');
      const publications = collect(subscription, 'publication');
      subscription.subscribe();
      await begun;
      await assert.rejects(subscription.publish(pack({ text: 'forbidden' })), { code: 1003 });
      await subscription.publish(pack({ text: 'change' }));
      await subscription.publish(pack({ text: 'plain' }));
      await until(() => publications.length === 2, 'two publications');
      const heard = publications.map(({ data }) => unpack(data));
      assert.deepEqual(heard, [{ text: 'changed', by: 'ann' }, { text: 'plain' }]);
    });

    test('it answers calls', async (t) => {
      const { client } = await connected(t, 'ann');
      const value = { text: 'häh? 🦀', list: [1, [2.5]] };
      assert.deepEqual(unpack((await client.rpc('echo', pack(value))).data), value);
      const refused = (method, expected) => assert.rejects(client.rpc(method, pack(null)), expected);
      await refused('later', { code: 1001, message: 'later', temporary: true });
      await refused('what', { code: 404 });
    });
  });
}
