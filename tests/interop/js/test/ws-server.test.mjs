// Node's `ws` as the server of our client.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { after, before, describe, test } from 'node:test';

import { WebSocketServer } from 'ws';

import { COMPRESSIONS, ourClient, within } from './support.mjs';

/** What `ws` agrees to. */
const SERVERS = {
  default: { threshold: 0 },
  none: false,
  'no takeover': {
    threshold: 0,
    serverNoContextTakeover: true,
    clientNoContextTakeover: true,
  },
  'small windows': { threshold: 0, serverMaxWindowBits: 9, clientMaxWindowBits: 9 },
};

const servers = {};
before(async () => {
  for (const [name, perMessageDeflate] of Object.entries(SERVERS)) {
    servers[name] = await serve({ perMessageDeflate });
  }
});
after(() => Object.values(servers).forEach(({ server }) => server.close()));

/** A server with the address it has. What it does with a connection is up to the test. */
async function serve(options) {
  const server = new WebSocketServer({
    host: '127.0.0.1',
    port: 0,
    maxPayload: 4 << 20,
    handleProtocols: (protocols) => (protocols.has('chat.v1') ? 'chat.v1' : false),
    ...options,
  });
  await once(server, 'listening');
  return { server, url: `ws://127.0.0.1:${server.address().port}/` };
}

/** Lets `act` play the server's part for the next connection. */
function connection(server, act) {
  return within(
    'a connection and its end',
    once(server, 'connection').then(async ([ws, request]) => {
      const closed = once(ws, 'close');
      act(ws, request);
      const [code, reason] = await closed;
      return [code, reason.toString()];
    }),
  );
}

const echo = (ws) => ws.on('message', (data, isBinary) => ws.send(data, { binary: isBinary }));

for (const [name] of Object.entries(SERVERS)) {
  for (const compression of COMPRESSIONS) {
    // Our client insists on compression where it offers it, so that it is seen to be used.
    if ((name === 'none') !== (compression === 'plain')) continue;
    describe(`ws with "${name}", our client offering "${compression}"`, () => {
      test('every message comes back', async () => {
        const { server, url } = servers[name];
        const ended = connection(server, echo);
        const said = await ourClient('echo', compression, url);
        assert.deepEqual(said, ['subprotocol chat.v1']);
        assert.deepEqual(await ended, [1000, '']);
      });
    });
  }
}

test('a fragmented message with a ping in it comes whole', async () => {
  const { server, url } = servers.default;
  connection(server, (ws) => {
    ws.send('in ', { fin: false });
    ws.ping('between');
    ws.send('', { fin: false });
    ws.send('parts');
    // Closed once the pong is here: it has to come.
    ws.on('pong', (payload) => ws.close(4000, `answered ${payload}`));
  });
  const said = await ourClient('closed', 'deflate', url);
  assert.deepEqual(said.slice(1), ['message in parts', 'closed 4000 answered between']);
});

test('our pings are answered', async () => {
  const { server, url } = servers.none;
  const ended = connection(server, () => {});
  await ourClient('ping', 'plain', url);
  assert.deepEqual(await ended, [1000, '']);
});

test('our code and reason come through', async () => {
  const { server, url } = servers.default;
  const ended = connection(server, () => {});
  await ourClient('close', 'deflate', url);
  assert.deepEqual(await ended, [4001, 'Auf Wiedersehen, Jürgen']);
});

test('the server\'s code and reason come through', async () => {
  const { server, url } = servers.none;
  for (const [code, reason, expected] of [
    [1000, '', 'closed 1000 '],
    [1013, 'come back later', 'closed 1013 come back later'],
    [undefined, undefined, 'closed without a code'],
  ]) {
    connection(server, (ws) => ws.close(code, reason));
    const said = await ourClient('closed', 'plain', url);
    // A terminal blank is lost on the way here.
    assert.equal(said.at(-1), expected.trimEnd());
  }
});

test('a refusal is read', async () => {
  const { server, url } = await serve({
    verifyClient: ({ origin }, decide) =>
      decide(origin !== 'http://interop.test', 403, 'not from there'),
  });
  const said = await ourClient('refused', 'plain', url);
  assert.deepEqual(said, ['refused 403 not from there']);
  server.close();
});
