// The class against the browser's own WebSocket: one script, whatever carries it, and the same to be seen of it.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import http from 'node:http';
import { after, before, test } from 'node:test';
import { WebSocketServer } from 'ws';

import { front } from './front.mjs';
import { launch, server } from './harness.mjs';
import { serve } from './program.mjs';

const SCRIPT = `'use strict';\n${readFileSync(new URL('interface.mjs', import.meta.url), 'utf8').replaceAll('export ', '')}`;

/** By what the class is made to carry it: its options. A busy machine is no reason to take another way. */
const PATIENT = { openTimeout: 60_000, silenceTimeout: 60_000 };
const CARRIERS = {
  websocket: PATIENT,
  stream: { ...PATIENT, WebSocket: null },
  poll: { ...PATIENT, WebSocket: null, stream: false },
};

/** What the server behind the tunnel was told, by everybody. */
const told = [];
let upstream, tunnels, browser;
before(async () => {
  upstream = await echo();
  tunnels = await serve(
    '[client]\nallow_anonymous_connect_without_token = true\n' +
      `[[tunnels]]\nname = "echo"\nupstream = "ws://127.0.0.1:${upstream.port}"\n`,
  );
  browser = await launch();
});
after(async () => {
  await browser?.close();
  tunnels?.stop();
  upstream?.close();
});

/** A server that says what it is told, and after a `!` does that. It takes the subprotocol `echo`, and nobody at `/refused`. */
async function echo() {
  const sockets = new WebSocketServer({ noServer: true, handleProtocols: (offered) => offered.has('echo') && 'echo' });
  const listener = http.createServer((request, response) => response.writeHead(404).end());
  listener.on('upgrade', (request, socket, head) => {
    if (request.url.endsWith('/refused')) socket.end('HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n');
    else sockets.handleUpgrade(request, socket, head, (opened) => sockets.emit('connection', opened));
  });
  sockets.on('connection', (socket) => {
    socket.on('error', () => {});
    socket.on('message', (data, isBinary) => {
      told.push({ text: data.toString().slice(0, 20), length: data.length });
      if (isBinary || data[0] !== 0x21) return socket.send(data, { binary: isBinary });
      const { code, reason, cut } = JSON.parse(data.toString().slice(1));
      if (cut) socket.terminate();
      else socket.close(code, reason);
    });
  });
  await new Promise((resolve) => listener.listen(0, '127.0.0.1', resolve));
  return { port: listener.address().port, close: () => listener.close() };
}

/** What a page sees that does what the script says, with the browser's class or ours. */
async function run(t, what, target, options) {
  const site = await front(t, { target });
  const context = await browser.newContext({ bypassCSP: true });
  t.after(() => context.close());
  const page = await context.newPage();
  await page.route('**/told', (route) => route.fulfill({ json: told.slice(-10) }));
  await page.goto(`${site.url}/tab`);
  await page.waitForFunction(() => globalThis.ready);
  await page.addScriptTag({ content: SCRIPT });
  const [log, carriers] = await page.evaluate(
    async ([what, site, options]) => {
      if (options === undefined) return [await globalThis[what](WebSocket, site), []];
      const carriers = new Set();
      const Socket = class extends tautline.TautlineSocket {
        constructor(...args) {
          super(...args);
          this.addEventListener('message', () => carriers.add(this.carrier));
        }
      };
      return [await globalThis[what](Socket, site, { ...options, storage: null }), [...carriers]];
    },
    [what, site.url, options],
  );
  return { log, carriers };
}

for (const [what, title] of [['use', 'through a tunnel'], ['talk', "at the server's own door"]]) {
  test(`the class does what the browser's does, ${title}`, async (t) => {
    const target = what === 'use' ? tunnels.url : server;
    const native = await run(t, what, target);
    if (process.env.SHOW_LOG) console.log(native.log.join('\n'));
    assert.ok(native.log.length > 10, native.log.join('\n'));
    for (const [carrier, options] of Object.entries(CARRIERS)) {
      const ours = await run(t, what, target, options);
      // Line by line first: what differs is seen at once.
      native.log.forEach((line, at) => assert.equal(ours.log[at], line, `${carrier}, line ${at}, behind ${native.log[at - 1]}`));
      assert.deepEqual(ours.log, native.log, carrier);
      assert.deepEqual(ours.carriers, [carrier]);
    }
  });
}
