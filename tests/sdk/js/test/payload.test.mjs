// Payloads belong to the application: what goes in comes out, byte for byte.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { RawConnection, apiResult, collect, connected, freshChannel, post, subscribed, until } from './support.mjs';

const payloads = {
  null: null,
  false: false,
  zero: 0,
  'an empty string': '',
  'an empty object': {},
  'an empty list': [],
  'a float': 0.1,
  'the largest safe integer': Number.MAX_SAFE_INTEGER,
  'every kind of quote': `"'\`\\/\b\f\n\r\t\u0000\u001f`,
  'markup': '<script>alert("&amp;")</script>',
  'unicode of one to four bytes': 'aß水🪢 \u2028\u2029 e\u0301 👩‍👩‍👧 \ufeff',
  'keys that mean something elsewhere': { id: 7, push: { pub: 1 }, error: { code: 1 }, __proto: 1, '': '' },
  'a nested one': Array.from({ length: 60 }).reduce((inner, _, n) => ({ [n]: [inner] }), 'deep'),
  'a big one': 'x水'.repeat(15_000),
};

test('any JSON value arrives as it was published, live and from history', async (t) => {
  const channel = freshChannel();
  const client = await connected(t);
  const subscription = await subscribed(client, channel);
  const seen = collect(subscription);
  for (const [index, [what, data]] of Object.entries(payloads).entries()) {
    await subscription.publish(data);
    await until(() => seen.length > index, what);
    assert.deepEqual(seen[index].data, data, what);
  }
  const { publications } = await subscription.history({ limit: 100 });
  assert.deepEqual(publications.map(({ data }) => data), Object.values(payloads));
});

test('any JSON value arrives as the HTTP API published it', async (t) => {
  const channel = freshChannel();
  const seen = collect(await subscribed(await connected(t), channel));
  for (const data of Object.values(payloads)) await apiResult('publish', { channel, data });
  await until(() => seen.length === Object.keys(payloads).length, 'all of them');
  assert.deepEqual(seen.map(({ data }) => data), Object.values(payloads));
});

// What JSON.parse would not give back: the text itself has to survive.
const texts = ['1.0', '1e400', '-0', '12345678901234567890', '{"b":1,"a":2,"b":3}', '"\\u0041\\/"', '[ 1 , 2 ]'];

test('numbers, escapes and key order are not rewritten on the way', async (t) => {
  const channel = freshChannel();
  const connection = new RawConnection(t);
  await connection.connect();
  await connection.call({ id: 2, subscribe: { channel } });
  for (const text of texts) {
    const response = await post('/api/publish', `{"channel":"${channel}","data":${text}}`, { 'x-api-key': 'dev' });
    assert.ok((await response.json()).result, text);
    connection.send(`{"id":${connection.lines.length + 100},"publish":{"channel":"${channel}","data":${text}}}`);
  }
  const pushes = () => connection.lines.filter((line) => line.includes('"pub"'));
  await until(() => pushes().length === texts.length * 2, 'all publications');
  for (const text of texts) {
    const exact = pushes().filter((line) => line.includes(`"data":${text}`));
    assert.equal(exact.length, 2, `${text} in ${pushes().join('\n')}`);
  }
});

test('a payload with line breaks stays one line of the protocol', async (t) => {
  const channel = freshChannel();
  const connection = new RawConnection(t);
  await connection.connect();
  await connection.call({ id: 2, subscribe: { channel } });
  const body = `{"channel":"${channel}","data":{\n  "a": [\n1,\r\n2]\n}}`;
  const response = await post('/api/publish', body, { 'x-api-key': 'dev' });
  assert.ok((await response.json()).result);
  const push = await until(() => connection.lines.find((line) => line.includes('"pub"')), 'the publication');
  assert.deepEqual(JSON.parse(push).push.pub.data, { a: [1, 2] });
});
