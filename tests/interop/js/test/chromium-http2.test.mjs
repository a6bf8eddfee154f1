// Chromium's WebSocket over HTTP/2 (RFC 8441): from a page which it got over the same connection.
//
//   CHROMIUM   the browser

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';

import { chromium } from 'playwright-core';

import { DEADLINE, messages, ourServers, within } from './support.mjs';

const texts = messages().filter((message) => typeof message === 'string');

let servers, browser, page, url;
before(async () => {
  servers = await ourServers();
  browser = await chromium.launch({
    executablePath: process.env.CHROMIUM,
    args: [
      '--no-sandbox',
      '--disable-gpu',
      '--no-first-run',
      '--disable-background-networking',
      // The certificate is the tests' own.
      '--ignore-certificate-errors',
    ],
  });
  const context = await browser.newContext({ ignoreHTTPSErrors: true });
  page = await context.newPage();
  page.setDefaultTimeout(DEADLINE);
  const { host } = new URL(servers.addresses['http2-tls']);
  const response = await page.goto(`https://${host}/page`);
  assert.equal(response.status(), 200);
  url = `wss://${host}`;
});
after(async () => {
  await browser?.close();
  servers?.stop();
});

/** Runs a function in the page; it has no deadline of its own there. */
function evaluate(...what) {
  return within('the page', page.evaluate(...what));
}

test('its WebSockets share the connection of the page', async () => {
  const said = await evaluate(async (url) => {
    const talk = () =>
      new Promise((resolve, reject) => {
        const ws = new WebSocket(url);
        ws.onmessage = ({ data }) => resolve(data);
        ws.onclose = ({ code }) => reject(new Error(`closed: ${code}`));
      });
    return [await talk(), ...(await Promise.all([talk(), talk(), talk()]))];
  }, `${url}/connection`);
  assert.match(said[0], /^HTTP\/2 on connection \d+$/);
  assert.deepEqual(new Set(said).size, 1, said.join(', '));
});

test('every message comes back, on many streams at once, and the end is clean', async () => {
  const all = await evaluate(
    async ([url, texts]) => {
      const talk = async () => {
        const ws = new WebSocket(url, ['other', 'chat.v2']);
        ws.binaryType = 'arraybuffer';
        const event = (name) =>
          new Promise((resolve, reject) => {
            // First, so that a close which is waited for is none that came too early.
            ws.addEventListener(name, resolve, { once: true });
            ws.addEventListener('close', ({ code }) =>
              reject(new Error(`closed before ${name}: ${code}`)),
            );
          });
        await event('open');
        const { extensions, protocol } = ws;
        for (const text of texts) {
          ws.send(text);
          if ((await event('message')).data !== text) throw new Error(`text of ${text.length}`);
          const bytes = new TextEncoder().encode(text).reverse();
          ws.send(bytes);
          const back = new Uint8Array((await event('message')).data);
          if (back.length !== bytes.length || back.some((byte, at) => byte !== bytes[at]))
            throw new Error(`${bytes.length} bytes`);
        }
        const closed = event('close');
        ws.close(4001, 'enough');
        const { code, wasClean } = await closed;
        return { deflated: extensions.startsWith('permessage-deflate'), protocol, code, wasClean };
      };
      return Promise.all(Array.from({ length: 4 }, talk));
    },
    [`${url}/echo`, texts],
  );
  for (const seen of all)
    assert.deepEqual(seen, { deflated: true, protocol: 'chat.v2', code: 4001, wasClean: true });
});

test('WebSocketStream: back pressure and all', async () => {
  const length = await evaluate(async (url) => {
    const { readable, writable } = await new WebSocketStream(url).opened;
    const [reader, writer] = [readable.getReader(), writable.getWriter()];
    // What compresses like a bomb would be refused as one.
    const block = new Uint8Array(1 << 20).map((_, at) => (at * at) >> 7);
    const writing = (async () => {
      for (let at = 0; at < 16; at += 1) await writer.write(block);
    })();
    let length = 0;
    while (length < 16 << 20) length += (await reader.read()).value.byteLength;
    await writing;
    return length;
  }, `${url}/echo`);
  assert.equal(length, 16 << 20);
});

/** How a connection ends that the page itself doesn't close. */
function ending(path) {
  return evaluate(
    (url) =>
      new Promise((resolve) => {
        const ws = new WebSocket(url);
        let opened = false;
        ws.onopen = () => (opened = true);
        ws.onclose = ({ code, reason, wasClean }) => resolve({ opened, code, reason, wasClean });
      }),
    `${url}${path}`,
  );
}

test("the server's code and reason come through", async () => {
  const seen = await ending('/close?4321=because');
  assert.deepEqual(seen, { opened: true, code: 4321, reason: 'because', wasClean: true });
});

test('a refusal is an error, and the others go on', async () => {
  const { opened, code } = await ending('/refused');
  assert.deepEqual([opened, code], [false, 1006]);
  const after = await ending('/close?1000=');
  assert.deepEqual(after, { opened: true, code: 1000, reason: '', wasClean: true });
});

test('a connection that is cut off is seen to be', async () => {
  const { opened, code, wasClean } = await ending('/torn?whole');
  assert.deepEqual([opened, code, wasClean], [true, 1006, false]);
});
