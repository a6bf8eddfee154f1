// Whom the server takes clients for that come through a proxy: two addresses are two, and one is one whatever it says of
// itself. All of 127.0.0.0/8 is this machine (RFC 1122, section 3.2.1.3), so clients have addresses of their own here.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { after, before, describe, test } from 'node:test';

import { WebSocket } from 'ws';

import { RECIPES, freePort, start, until } from '../support.mjs';

const needed = (name) => {
  assert.ok(process.env[name], `${name} is set: where a server with ${name === 'TAUTLINE_ADDRESSES' ? 'addresses' : 'addresses-announced'}.toml runs`);
  return new URL(process.env[name]).host;
};
const ADDRESSES = needed('TAUTLINE_ADDRESSES');
const ANNOUNCED = needed('TAUTLINE_ANNOUNCED');

/** HAProxy in front of a server, as a proxy of TCP that announces each connection by the PROXY protocol. */
const announcing = (version) => async (port) => `
  defaults
    mode tcp
    timeout connect 5s
    timeout client 75s
    timeout server 75s
  listen tautline
    bind 127.0.0.1:${port}
    server one ${ANNOUNCED} source 127.0.0.9 ${version}
`;

const WAYS = {
  'the recipe for nginx': ['nginx', (port) => RECIPES.nginx(port, ADDRESSES), 'wss'],
  'the recipe for HAProxy': ['haproxy', (port) => RECIPES.haproxy(port, ADDRESSES), 'wss'],
  'the recipe for Caddy': ['caddy', (port) => RECIPES.caddy(port, ADDRESSES), 'wss'],
  'HAProxy with the PROXY protocol, version 1': ['haproxy', announcing('send-proxy'), 'ws'],
  'HAProxy with the PROXY protocol, version 2': ['haproxy', announcing('send-proxy-v2'), 'ws'],
};

for (const [name, [kind, text, scheme]] of Object.entries(WAYS)) {
  describe(`behind ${name}`, () => {
    let proxy, url;
    before(async () => {
      const port = await freePort();
      proxy = await start(kind, port, await text(port));
      url = `${scheme}://127.0.0.1:${port}/connection/websocket`;
    });
    after(() => proxy?.stop());

    /** What comes of a WebSocket from this address: the socket, or the status of the refusal. */
    const open = async (localAddress, headers = {}) => {
      const socket = new WebSocket(url, { localAddress, headers, origin: url.replace(/^ws/, 'http').replace(/\/connection.*/, '') });
      socket.on('error', () => {});
      const [what, word] = await Promise.race([
        once(socket, 'open').then(() => ['open', socket]),
        once(socket, 'unexpected-response').then(([, response]) => ['status', response.statusCode]),
        once(socket, 'close').then(() => ['status', 'closed']),
      ]);
      if (what === 'status') socket.terminate();
      return word;
    };

    /** Whether somebody of this address gets in, once whoever was there before has gone. */
    const enter = async (address, headers) =>
      until(`room for ${address}`, async () => {
        const came = await open(address, headers);
        return came instanceof WebSocket && came;
      });

    test('two clients count as two addresses, and a second of one is refused', async (t) => {
      const one = await enter('127.0.0.2');
      t.after(() => one.terminate());
      const other = await open('127.0.0.3');
      assert.ok(other instanceof WebSocket, `refused with ${other}`);
      t.after(() => other.terminate());
      // Over TCP, connections that are one too many are closed before anything is read.
      for (const address of ['127.0.0.2', '127.0.0.3']) {
        const refused = await open(address);
        assert.ok([429, 'closed'].includes(refused), `${address}: ${refused}`);
      }
    });

    test('who says to be others is one all the same', async (t) => {
      const forged = (address) => ({ 'X-Forwarded-For': address, Forwarded: `for=${address}` });
      const one = await enter('127.0.0.4', forged('198.51.100.1'));
      t.after(() => one.terminate());
      for (const address of ['198.51.100.2', '127.0.0.5', '127.0.0.1', '198.51.100.3, 127.0.0.1', '"']) {
        const refused = await open('127.0.0.4', forged(address));
        assert.ok([429, 'closed'].includes(refused), `as ${address}: ${refused}`);
      }
      // And nobody is kept out in whose name somebody spoke.
      const real = await open('127.0.0.5');
      assert.ok(real instanceof WebSocket, `refused with ${real}`);
      real.terminate();
    });
  });
}
