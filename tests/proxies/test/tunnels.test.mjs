// Tunnels behind nginx, HAProxy and Caddy: by a WebSocket where the proxy passes one on, and over plain HTTP where it
// doesn't. What is sent comes back as it was, once and in order, and so does the end.
//
//   TAUTLINE_TUNNELS    where a server runs with tunnels.toml
//   TAUTLINE_UPSTREAM   host and port where its tunnel leads to: this test listens there

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { after, before, describe, test } from 'node:test';

import { WebSocket, WebSocketServer } from 'ws';

import { TautlineSocket } from '../../../packages/client/dist/index.js';
import { RECIPES, freePort, start, until } from '../support.mjs';

const SERVER = process.env.TAUTLINE_TUNNELS;
assert.ok(SERVER, 'TAUTLINE_TUNNELS says where a server runs with tunnels.toml; `cargo xtask test proxies` starts one');
const ADDRESS = new URL(SERVER).host;

/** How connections to the server behind ended. */
const ends = [];
let upstream;
before(async () => {
  const [host, port] = process.env.TAUTLINE_UPSTREAM.split(':');
  upstream = new WebSocketServer({ host, port: Number(port), handleProtocols: (offered) => offered.has('echo') && 'echo' });
  upstream.on('connection', (socket) => {
    socket.on('message', (data, isBinary) => {
      if (String(data) === 'close') socket.close(4007, 'enough');
      else socket.send(data, { binary: isBinary });
    });
    socket.on('close', (code, reason) => ends.push([code, String(reason)]));
  });
  await once(upstream, 'listening');
});
after(() => {
  for (const socket of upstream.clients) socket.terminate();
  upstream.close();
});

/** What is in between, and what carries a tunnel there when a WebSocket is tried first. */
const MIDDLES = {
  'nginx, with the recipe': { kind: 'nginx', text: (port) => RECIPES.nginx(port, ADDRESS), carrier: 'websocket' },
  'HAProxy, with the recipe': { kind: 'haproxy', text: (port) => RECIPES.haproxy(port, ADDRESS), carrier: 'websocket' },
  'Caddy, with the recipe': { kind: 'caddy', text: (port) => RECIPES.caddy(port, ADDRESS), carrier: 'websocket' },
  // Many WebSockets in a connection (RFC 8441).
  'HAProxy, which speaks HTTP/2 to the server': {
    kind: 'haproxy',
    text: (port) =>
      RECIPES.haproxy(port, `${ADDRESS} proto h2`, { 'balance leastconn': 'balance leastconn\n    http-reuse always' }),
    carrier: 'websocket',
  },
  'nginx with `proxy_pass` and nothing else': {
    kind: 'nginx',
    plain: true,
    text: async (port) => `server { listen 127.0.0.1:${port}; location / { proxy_pass http://${ADDRESS}; } }`,
    carrier: 'stream',
  },
  'nginx that buffers whatever it is told': {
    kind: 'nginx',
    plain: true,
    text: async (port) =>
      `server { listen 127.0.0.1:${port}; location / { proxy_pass http://${ADDRESS}; proxy_ignore_headers X-Accel-Buffering;
       proxy_buffers 64 64k; proxy_busy_buffers_size 128k; } }`,
    carrier: 'poll',
  },
};

const bytes = Buffer.from(Uint8Array.from({ length: 256 }, (_, n) => n));
const MESSAGES = ['', 'h\u00e4h? \u{1f980}\n', bytes, Buffer.alloc(0), 'y'.repeat(200_000), Buffer.alloc(127, 1), 'z'.repeat(128)];

for (const [title, { kind, text, plain, carrier }] of Object.entries(MIDDLES)) {
  describe(title, () => {
    let proxy, url;
    before(async () => {
      const port = await freePort();
      proxy = await start(kind, port, await text(port));
      url = `${plain ? 'ws' : 'wss'}://127.0.0.1:${port}/tunnel/echo`;
    });
    after(() => proxy?.stop());

    const open = async (t, options) => {
      const Socket = TautlineSocket.with({ storage: null, ...options });
      const socket = new Socket(url, 'echo');
      t.after(() => socket.close());
      socket.binaryType = 'arraybuffer';
      const got = [];
      socket.onmessage = ({ data }) => got.push(typeof data === 'string' ? data : Buffer.from(data));
      const closed = new Promise((resolve) => (socket.onclose = resolve));
      let isOver = null;
      closed.then((event) => (isOver = event));
      await until('it to open', () => {
        assert.equal(isOver, null, `it closed with ${isOver?.code}`);
        return socket.readyState === 1;
      });
      return { socket, got, closed };
    };

    // With a WebSocket tried first, and without.
    for (const [how, WebSocketOf] of [['a WebSocket tried first', WebSocket], ['plain HTTP', null]]) {
      test(`by ${how}, messages come as they are, and so does the end, both ways`, async (t) => {
        const one = await open(t, { WebSocket: WebSocketOf });
        for (const message of MESSAGES) one.socket.send(message);
        await until('all echoes', () => one.got.length >= MESSAGES.length);
        assert.deepEqual(one.got, MESSAGES);
        assert.equal(one.socket.protocol, 'echo');
        const carried = WebSocketOf ? carrier : carrier === 'poll' ? 'poll' : 'stream';
        // That an answer is held back is known when its first part hasn't come for a while.
        await until(`it to be carried by ${carried}`, () => one.socket.carrier === carried);
        ends.length = 0;
        one.socket.close(4001, 'bye');
        assert.deepEqual(await until('the server behind hears of it', () => ends[0]), [4001, 'bye']);
        const other = await open(t, { WebSocket: WebSocketOf });
        other.socket.send('close');
        const { code, reason } = await other.closed;
        assert.deepEqual([code, reason], [4007, 'enough']);
      });
    }

    test('a proxy that is killed is noticed at both ends', async (t) => {
      const { socket, got, closed } = await open(t, { WebSocket: carrier === 'websocket' ? WebSocket : null });
      socket.send('here');
      await until('an echo', () => got.length);
      ends.length = 0;
      await proxy.kill();
      if (carrier === 'websocket') {
        assert.equal((await closed).code, 1006);
        // Cut, and not closed.
        assert.deepEqual(await until('the server behind hears of it', () => ends[0]), [1006, '']);
        await proxy.start();
      } else {
        // Over plain HTTP the session outlives it.
        await proxy.start();
        socket.send('again');
        await until('another echo', () => got.length >= 2);
        assert.deepEqual(got, ['here', 'again']);
      }
    });
  });
}
