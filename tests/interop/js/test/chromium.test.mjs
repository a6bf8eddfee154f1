// Chromium's WebSocket and WebSocketStream as clients of our server, from a page with an origin.
//
//   CHROMIUM   the browser

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer } from 'node:http';
import { after, before, describe, test } from 'node:test';

import { chromium } from 'playwright-core';

import { COMPRESSIONS, DEADLINE, messages, ourServers, within } from './support.mjs';

const texts = messages().filter((message) => typeof message === 'string');

let servers, site, browser, page, origin;
before(async () => {
  servers = await ourServers();
  site = createServer((_, response) => {
    response.setHeader('content-type', 'text/html');
    response.end('<!doctype html><title>interop</title>');
  });
  site.listen(0, '127.0.0.1');
  await once(site, 'listening');
  origin = `http://127.0.0.1:${site.address().port}`;
  browser = await chromium.launch({
    executablePath: process.env.CHROMIUM,
    args: ['--no-sandbox', '--disable-gpu', '--no-first-run', '--disable-background-networking'],
  });
  page = await browser.newPage();
  page.setDefaultTimeout(DEADLINE);
  await page.goto(origin);
});
after(async () => {
  await browser?.close();
  site?.close();
  servers?.stop();
});

/** Runs a function in the page; it has no deadline of its own there. */
function evaluate(...what) {
  return within('the page', page.evaluate(...what));
}

for (const compression of COMPRESSIONS) {
  describe(`Chromium and our server "${compression}"`, () => {
    test('WebSocket: every message comes back, and the end is clean', async () => {
      const seen = await evaluate(async ([url, texts]) => {
        const ws = new WebSocket(url, ['other', 'chat.v2']);
        ws.binaryType = 'arraybuffer';
        const event = (name) =>
          new Promise((resolve, reject) => {
            // First, so that a close which is waited for is none that came too early.
            ws.addEventListener(name, resolve, { once: true });
            ws.addEventListener('close', ({ code, reason }) =>
              reject(new Error(`closed before ${name}: ${code} ${reason}`)),
            );
          });
        await event('open');
        const { extensions, protocol } = ws;
        for (const text of texts) {
          ws.send(text);
          const answer = await event('message');
          if (answer.data !== text) throw new Error(`text of ${text.length}`);
          const bytes = new TextEncoder().encode(text).reverse();
          ws.send(bytes);
          const back = new Uint8Array((await event('message')).data);
          if (back.length !== bytes.length || back.some((byte, at) => byte !== bytes[at]))
            throw new Error(`${bytes.length} bytes`);
        }
        const closed = event('close');
        ws.close(4001, 'enough');
        const { code, reason, wasClean } = await closed;
        return { extensions, protocol, code, reason, wasClean };
      }, [`${servers.addresses[compression]}/echo`, texts]);
      const agreed = seen.extensions.startsWith('permessage-deflate');
      assert.equal(agreed, compression !== 'plain', seen.extensions);
      assert.equal(seen.protocol, 'chat.v2');
      assert.deepEqual([seen.code, seen.reason, seen.wasClean], [4001, '', true]);
    });

    test('WebSocketStream: back pressure and all, in both directions', async () => {
      const seen = await evaluate(async (url) => {
        const stream = new WebSocketStream(url, { protocols: ['chat.v1'] });
        const { readable, writable, extensions, protocol } = await stream.opened;
        const [reader, writer] = [readable.getReader(), writable.getWriter()];
        const messages = [];
        for (let at = 0; at < 200; at += 1)
          messages.push(at % 2 ? `text ${at} ${'ü'.repeat(at * 20)}` : new Uint8Array(at * 50).fill(at));
        const writing = (async () => {
          for (const message of messages) await writer.write(message);
        })();
        for (const message of messages) {
          const { value } = await reader.read();
          const same =
            typeof message === 'string'
              ? value === message
              : value.byteLength === message.length && new Uint8Array(value).every((b, i) => b === message[i]);
          if (!same) throw new Error(`not the same: ${typeof message} of ${message.length}`);
        }
        await writing;
        stream.close({ closeCode: 4002, reason: 'done' });
        const { closeCode, reason } = await stream.closed;
        return { extensions, protocol, closeCode, reason };
      }, `${servers.addresses[compression]}/echo`);
      const agreed = seen.extensions.startsWith('permessage-deflate');
      assert.equal(agreed, compression !== 'plain', seen.extensions);
      assert.deepEqual([seen.protocol, seen.closeCode, seen.reason], ['chat.v1', 4002, '']);
    });
  });
}

/** How a connection to `url` ends that the page itself doesn't close. */
function ending(url) {
  return evaluate(
    (url) =>
      new Promise((resolve) => {
        const ws = new WebSocket(url);
        let opened = false;
        ws.onopen = () => (opened = true);
        ws.onclose = ({ code, reason, wasClean }) => resolve({ opened, code, reason, wasClean });
      }),
    url,
  );
}

test("the server's code and reason come through", async () => {
  const seen = await ending(`${servers.addresses.deflate}/close?4321=because`);
  assert.deepEqual(seen, { opened: true, code: 4321, reason: 'because', wasClean: true });
});

test('a connection that is cut off is seen to be', async () => {
  const { opened, code, wasClean } = await ending(`${servers.addresses.plain}/torn?whole`);
  assert.deepEqual([opened, code, wasClean], [true, 1006, false]);
});

test('our pings are answered', async () => {
  const answer = await evaluate(
    (url) =>
      new Promise((resolve, reject) => {
        const ws = new WebSocket(url);
        ws.onopen = () => ws.send('are you there?');
        ws.onmessage = ({ data }) => {
          ws.close();
          resolve(data);
        };
        ws.onerror = () => reject(new Error('it failed'));
      }),
    `${servers.addresses.deflate}/pings`,
  );
  assert.equal(answer, 'are you there?');
});

test('pages of another origin are kept out', async () => {
  const refused = await ending(`${servers.addresses.plain}/only?http://elsewhere.test`);
  assert.deepEqual([refused.opened, refused.code], [false, 1006]);
  const opened = await evaluate(
    (url) =>
      new Promise((resolve) => {
        const ws = new WebSocket(url);
        ws.onopen = () => {
          ws.close();
          resolve(true);
        };
        ws.onerror = () => resolve(false);
      }),
    `${servers.addresses.plain}/only?${origin}`,
  );
  assert.ok(opened, 'its own origin may connect');
});

test('a refusal is one', async () => {
  const { opened, code } = await ending(`${servers.addresses.plain}/refused`);
  assert.deepEqual([opened, code], [false, 1006]);
});
