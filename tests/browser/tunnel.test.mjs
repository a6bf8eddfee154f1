// A tunnel behind a real network that doesn't let WebSockets through: a library that knows nothing of it talks to its own
// server, which here is the one under test, by the class alone.
//
//   TAUTLINE_PROGRAM   the server's program; it is started once more here, with a tunnel to the server under test

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { after, before, test } from 'node:test';

import { front } from './front.mjs';
import { eventually, freshRoom, launch, publish, server } from './harness.mjs';

const upTo = (count) => Array.from({ length: count }, (_, n) => n + 1);

let folder, child, tunnels, browser;
before(async () => {
  const program = process.env.TAUTLINE_PROGRAM;
  assert.ok(program, 'TAUTLINE_PROGRAM is not set; `cargo xtask test browser` does that');
  folder = mkdtempSync(join(tmpdir(), 'tautline-tunnel-'));
  const file = join(folder, 'config.toml');
  writeFileSync(
    file,
    `[http_server]\naddress = "127.0.0.1"\nport = 0\n
[[tunnels]]\nname = "sdk"\nupstream = "${server.replace(/^http/, 'ws').replace(/\/$/, '')}/connection/websocket"\n`,
  );
  child = spawn(program, ['serve', '--config', file], { stdio: ['ignore', 'ignore', 'pipe'] });
  for await (const line of createInterface({ input: child.stderr })) {
    const found = /127\.0\.0\.1:\d+/.exec(line);
    if (found && line.includes('listening')) {
      tunnels = `http://${found[0]}`;
      break;
    }
  }
  assert.ok(tunnels, 'the server says where it listens');
  child.stderr.resume();
  browser = await launch();
});
after(async () => {
  await browser?.close();
  child?.kill();
  rmSync(folder, { recursive: true, force: true });
});

for (const upgrades of ['pass', 'refuse', 'strip']) {
  test(`through a network that will ${upgrades} WebSockets, text and binary alike`, async (t) => {
    const site = await front(t, { upgrades, target: tunnels });
    for (const path of ['/tab', '/tab.protobuf']) {
      const context = await browser.newContext();
      t.after(() => context.close());
      const page = await context.newPage();
      await page.goto(site.url + path);
      await page.waitForFunction(() => globalThis.ready);
      const channel = freshRoom();
      const protobuf = path.endsWith('protobuf');
      await page.evaluate(
        ([channel, protobuf]) => {
          globalThis.sockets = [];
          const Socket = class extends tautline.TautlineSocket {
            constructor(...given) {
              super(...given);
              sockets.push(this);
            }
          };
          globalThis.seen = [];
          const text = (data) => (protobuf ? JSON.parse(new TextDecoder().decode(data)) : data);
          globalThis.pack = (data) => (protobuf ? new TextEncoder().encode(JSON.stringify(data)) : data);
          const address = `${location.origin.replace('http', 'ws')}/tunnel/sdk`;
          globalThis.client = new Centrifuge(address, { websocket: Socket, minReconnectDelay: 5, maxReconnectDelay: 100 });
          const subscription = client.newSubscription(channel);
          subscription.on('publication', ({ data }) => seen.push(text(data)));
          subscription.on('subscribed', () => (globalThis.subscribed = true));
          subscription.subscribe();
          client.connect();
        },
        [channel, protobuf],
      );
      await eventually('it is subscribed', () => page.evaluate(() => globalThis.subscribed ?? false), Boolean);
      for (const n of upTo(5)) await publish(channel, n);
      await page.evaluate((channel) => client.publish(channel, pack(6)), channel);
      const seen = await eventually('all', () => page.evaluate(() => seen), ({ length }) => length >= 6);
      assert.deepEqual(seen, upTo(6));
      const [carrier, protocol] = await page.evaluate(() => [sockets.at(-1).carrier, sockets.at(-1).protocol]);
      assert.equal(carrier, upgrades === 'pass' ? 'websocket' : 'stream');
      assert.equal(protocol, protobuf ? 'centrifuge-protobuf' : '');
    }
    assert.ok(site.seen.some((path) => path.endsWith('/tunnel/sdk')));
  });
}

test('a page of another site gets nothing, and the server behind hears nothing', async (t) => {
  const site = await front(t, { target: tunnels });
  const context = await browser.newContext();
  t.after(() => context.close());
  const page = await context.newPage();
  await page.goto(`${site.url}/tab`);
  await page.waitForFunction(() => globalThis.ready);
  // This page's origin is not the host that it asks.
  const code = await page.evaluate((address) => {
    const socket = new tautline.TautlineSocket(`${address.replace('http', 'ws')}/tunnel/sdk`);
    return new Promise((resolve) => (socket.onclose = ({ code }) => resolve(code)));
  }, tunnels);
  assert.equal(code, 1006);
});
