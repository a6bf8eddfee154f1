// Node's `ws` as the client of our server.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { after, before, describe, test } from 'node:test';

import { WebSocket } from 'ws';

import { COMPRESSIONS, messages, ourServers, within } from './support.mjs';

/** What `ws` offers: its own default, nothing, or to take no context over. */
const OFFERS = {
  default: { threshold: 0 },
  none: false,
  'no takeover': {
    threshold: 0,
    clientNoContextTakeover: true,
    serverNoContextTakeover: true,
  },
  'small windows': { threshold: 0, clientMaxWindowBits: 9, serverMaxWindowBits: 9 },
};

let servers;
before(async () => {
  servers = await ourServers();
});
after(() => servers.stop());

/** An open connection to a path of one of our servers. */
async function open(compression, path, { offer = 'default', protocols = [], ...options } = {}) {
  const ws = new WebSocket(servers.addresses[compression] + path, protocols, {
    perMessageDeflate: OFFERS[offer],
    maxPayload: 4 << 20,
    ...options,
  });
  ws.on('error', () => {});
  await within('open', once(ws, 'open'));
  return ws;
}

/** Sends a message and waits for what comes next. */
async function roundTrip(ws, send) {
  const answer = once(ws, 'message');
  send();
  const [data, isBinary] = await within('an answer', answer);
  return isBinary ? data : data.toString();
}

async function close(ws, code, reason) {
  const closed = once(ws, 'close');
  ws.close(code, reason);
  const [got, text] = await within('close', closed);
  return [got, text.toString()];
}

for (const compression of COMPRESSIONS) {
  for (const offer of Object.keys(OFFERS)) {
    describe(`ws with the offer "${offer}", our server "${compression}"`, () => {
      test('agrees on compression where both want it', async () => {
        const ws = await open(compression, '/echo', { offer });
        const agreed = ws.extensions.startsWith('permessage-deflate');
        assert.equal(agreed, compression !== 'plain' && offer !== 'none');
        ws.terminate();
      });

      test('gets every message back', async () => {
        const ws = await open(compression, '/echo', { offer });
        for (const message of messages()) {
          const answer = await roundTrip(ws, () => ws.send(message));
          assert.equal(typeof answer, typeof message);
          assert.ok(
            typeof message === 'string' ? answer === message : message.equals(answer),
            `${message.length} of ${typeof message}`,
          );
        }
        assert.deepEqual(await close(ws, 1000, ''), [1000, '']);
      });

      test('may send fragments, with a ping between them', async () => {
        const ws = await open(compression, '/echo', { offer });
        const pong = once(ws, 'pong');
        const parts = ['one ', 'message ', '', 'in five ', 'parts'];
        const answer = await roundTrip(ws, () => {
          parts.forEach((part, at) => {
            ws.send(part, { fin: at === parts.length - 1 });
            if (at === 1) ws.ping('between');
          });
        });
        assert.equal(answer, parts.join(''));
        const [payload] = await within('a pong', pong);
        assert.equal(payload.toString(), 'between');
        ws.terminate();
      });
    });
  }
}

test('our pings are answered', async () => {
  const ws = await open('deflate', '/pings');
  const ping = once(ws, 'ping');
  assert.equal(await roundTrip(ws, () => ws.send('are you there?')), 'are you there?');
  const [payload] = await within('a ping', ping);
  assert.equal(payload.toString(), 'are you there?');
  assert.deepEqual(await close(ws, 1000), [1000, '']);
});

test('codes and reasons go both ways', async () => {
  // The answer to a Close has its code.
  assert.deepEqual(await close(await open('deflate', '/echo'), 4001, 'enough'), [4001, '']);
  assert.deepEqual(await close(await open('deflate', '/echo'), 1001), [1001, '']);
  assert.deepEqual(await close(await open('deflate', '/echo')), [1005, '']);
  for (const [code, reason] of [
    [1000, ''],
    [1001, 'later'],
    [3000, 'a-reason'],
    [4999, 'x'.repeat(123)],
  ]) {
    const ws = new WebSocket(`${servers.addresses.plain}/close?${code}=${reason}`);
    const [got, text] = await within('close', once(ws, 'close'));
    assert.deepEqual([got, text.toString()], [code, reason]);
  }
});

test('a connection that is cut off is seen to be', async () => {
  // Listening from the start: all of it may come at once.
  const ws = new WebSocket(`${servers.addresses.plain}/torn?whole`);
  const seen = [];
  ws.on('message', (data) => seen.push(data.toString()));
  ws.on('error', () => {});
  const [code] = await within('close', once(ws, 'close'));
  assert.deepEqual([seen, code], [['whole'], 1006]);
});

test("subprotocols are chosen by the client's preference", async () => {
  for (const [protocols, chosen] of [
    [['chat.v1', 'chat.v2'], 'chat.v1'],
    [['other', 'chat.v2'], 'chat.v2'],
    [[], ''],
  ]) {
    const ws = await open('plain', '/echo', { protocols });
    assert.equal(ws.protocol, chosen);
    ws.terminate();
  }
});

/** The answer to a request that is not accepted. */
async function refusal(path, options = {}) {
  const ws = new WebSocket(servers.addresses.plain + path, options);
  ws.on('error', () => {});
  const [, response] = await within('a refusal', once(ws, 'unexpected-response'));
  let body = '';
  for await (const chunk of response) body += chunk;
  return { status: response.statusCode, headers: response.headers, body };
}

test('refusals say why', async () => {
  const { status, headers, body } = await refusal('/refused');
  assert.deepEqual([status, body], [401, 'no token\n']);
  assert.equal(headers['www-authenticate'], 'Bearer realm="interop"');
});

test('an origin that is not allowed is refused', async () => {
  const path = '/only?http://good.test';
  const { status, body } = await refusal(path, { origin: 'http://evil.test' });
  assert.deepEqual([status, body], [403, 'this origin is not allowed\n']);
  const ws = await open('plain', path, { origin: 'http://good.test' });
  ws.terminate();
});

test('a version that nobody speaks is refused with ours', async () => {
  const { status, headers } = await refusal('/echo', { protocolVersion: 8 });
  assert.deepEqual([status, headers['sec-websocket-version']], [426, '13']);
});

test('a message beyond our limit is refused with 1009', async () => {
  const ws = await open('plain', '/echo');
  const closed = once(ws, 'close');
  ws.send(Buffer.alloc((4 << 20) + 1));
  const [code, reason] = await within('close', closed);
  assert.equal(code, 1009);
  assert.match(reason.toString(), /limit/);
});
