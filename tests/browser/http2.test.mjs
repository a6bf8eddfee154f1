// Over TLS a browser speaks HTTP/2, and its WebSockets go by it too (RFC 8441): whatever a page opens shares one
// connection, with nothing set up for it.
//
//   TAUTLINE_PROGRAM   the server's program; it is started once more here, with a certificate of the test's own

import assert from 'node:assert/strict';
import { execFileSync, spawn } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { after, before, test } from 'node:test';
import { fileURLToPath } from 'node:url';

import { eventually, freshRoom, launch } from './harness.mjs';

const sdk = fileURLToPath(new URL('node_modules/centrifuge/dist/centrifuge.js', import.meta.url));

/** More than a browser would open by HTTP/1.1. */
const STREAMS = 20;

const config = (folder) => `
[http_server]
address = "127.0.0.1"
port = 0
[http_server.tls]
enabled = true
cert_pem = "${folder}/cert.pem"
key_pem = "${folder}/key.pem"
[http_api]
key = "dev"
[prometheus]
enabled = true
[client]
allow_anonymous_connect_without_token = true
[channel.without_namespace]
history_size = 100
history_ttl = "60s"
force_recovery = true
allow_subscribe_for_client = true
allow_subscribe_for_anonymous = true
allow_publish_for_client = true
allow_publish_for_anonymous = true
`;

let folder, child, origin, browser;
before(async () => {
  const program = process.env.TAUTLINE_PROGRAM;
  assert.ok(program, 'TAUTLINE_PROGRAM is not set; `cargo xtask test browser` does that');
  folder = mkdtempSync(join(tmpdir(), 'tautline-http2-'));
  const subject = ['-subj', '/CN=127.0.0.1', '-addext', 'subjectAltName=IP:127.0.0.1'];
  const files = ['-out', join(folder, 'cert.pem'), '-keyout', join(folder, 'key.pem')];
  const curve = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1'];
  const form = ['req', '-x509', '-nodes', '-days', '7'];
  execFileSync('openssl', [...form, ...curve, ...subject, ...files], { stdio: 'ignore' });
  const file = join(folder, 'config.toml');
  writeFileSync(file, config(folder));
  child = spawn(program, ['serve', '--config', file], { stdio: ['ignore', 'ignore', 'pipe'] });
  for await (const line of createInterface({ input: child.stderr })) {
    const found = /127\.0\.0\.1:\d+/.exec(line);
    if (found && line.includes('listening')) {
      origin = `https://${found[0]}`;
      break;
    }
  }
  assert.ok(origin, 'the server says where it listens');
  child.stderr.resume();
  // The certificate is the test's own.
  browser = await launch(['--ignore-certificate-errors']);
});
after(async () => {
  await browser?.close();
  child?.kill();
  if (folder) rmSync(folder, { recursive: true });
});

/** A page that came by HTTP/2, in a profile of its own. */
async function page(t) {
  const context = await browser.newContext({ bypassCSP: true, ignoreHTTPSErrors: true });
  t.after(() => context.close());
  const page = await context.newPage();
  await page.goto(`${origin}/health`);
  const [{ nextHopProtocol }] = await page.evaluate(() =>
    performance.getEntriesByType('navigation').map(({ nextHopProtocol }) => ({ nextHopProtocol })),
  );
  assert.equal(nextHopProtocol, 'h2');
  return page;
}

/** What the server counts, asked for by the page: that is no connection more. */
async function metric(page, name) {
  const text = await page.evaluate(async () => (await fetch('/metrics')).text());
  const line = text.split('\n').find((line) => line.startsWith(`tautline_${name} `));
  return Number(line?.split(' ').at(-1) ?? 0);
}

const sockets = (page) => metric(page, 'http2_streams_total{kind="websocket"}');
const connections = (page) => metric(page, 'http2_num_connections');

/** Publishes as a backend would, over the same connection. */
async function publish(page, channel, data) {
  const status = await page.evaluate(
    async ([channel, data]) => {
      const headers = { 'x-api-key': 'dev' };
      const body = JSON.stringify({ channel, data });
      return (await fetch('/api/publish', { method: 'POST', headers, body })).status;
    },
    [channel, data],
  );
  assert.equal(status, 200);
}

for (const transport of ['websocket', 'http_stream', 'sse']) {
  test(`npm centrifuge by ${transport} shares the page's connection`, async (t) => {
    const its = await page(t);
    await its.addScriptTag({ path: sdk });
    const channel = freshRoom();
    const before = await sockets(its);
    await its.evaluate(
      ([transport, channel]) => {
        const scheme = transport === 'websocket' ? 'wss' : 'https';
        const endpoint = `${scheme}://${location.host}/connection/${transport}`;
        globalThis.client = new Centrifuge([{ transport, endpoint }], {
          emulationEndpoint: `${location.origin}/emulation`,
        });
        const seen = (globalThis.seen = { data: [], transport: undefined, subscribed: false });
        client.on('connected', ({ transport }) => (seen.transport = transport));
        const subscription = client.newSubscription(channel);
        subscription.on('subscribed', () => (seen.subscribed = true));
        subscription.on('publication', ({ data }) => seen.data.push(data));
        subscription.subscribe();
        client.connect();
      },
      [transport, channel],
    );
    const seen = () => its.evaluate(() => globalThis.seen);
    await eventually('it is subscribed', seen, ({ subscribed }) => subscribed);
    const count = 20;
    for (let n = 0; n < count; n += 2) {
      await publish(its, channel, n);
      await its.evaluate(([channel, n]) => client.publish(channel, n), [channel, n + 1]);
    }
    const heard = await eventually('all', seen, ({ data }) => data.length >= count);
    assert.deepEqual(heard.data, Array.from({ length: count }, (_, n) => n));
    assert.equal(heard.transport, transport);
    assert.equal((await sockets(its)) - before, transport === 'websocket' ? 1 : 0);
    assert.equal(await connections(its), 1);
  });
}

test('a page may have more streams open than HTTP/1.1 has connections', async (t) => {
  const its = await page(t);
  const channel = freshRoom();
  const before = await sockets(its);
  await its.evaluate(
    ([channel, count]) => {
      const seen = (globalThis.seen = { open: 0, data: [] });
      for (let n = 0; n < count; n += 1) {
        const isSocket = n % 2 === 0;
        const line = isSocket
          ? new WebSocket(`wss://${location.host}/ws?channel=${channel}`)
          : new EventSource(`/events?channel=${channel}`);
        line.onopen = () => (seen.open += 1);
        line.onmessage = ({ data }) => seen.data.push(JSON.parse(data));
      }
    },
    [channel, STREAMS],
  );
  const seen = () => its.evaluate(() => globalThis.seen);
  await eventually('all are open', seen, ({ open }) => open === STREAMS);
  const clients = () => metric(its, 'node_num_clients');
  await eventually('all are subscribed', clients, (count) => count === STREAMS);
  await publish(its, channel, 'to all');
  const { data } = await eventually('all hear it', seen, ({ data }) => data.length === STREAMS);
  assert.deepEqual([...new Set(data)], ['to all']);
  assert.equal((await sockets(its)) - before, STREAMS / 2);
  assert.equal(await connections(its), 1);
});

// The last: there is no server behind it.
test('when the server ends, the SDK is told and comes back as soon as it can', async (t) => {
  const its = await page(t);
  await its.addScriptTag({ path: sdk });
  await its.evaluate(() => {
    const seen = (globalThis.seen = { connected: 0, codes: [] });
    const client = new Centrifuge(`wss://${location.host}/connection/websocket`);
    client.on('connected', () => (seen.connected += 1));
    client.on('connecting', ({ code }) => seen.codes.push(code));
    client.connect();
  });
  const seen = () => its.evaluate(() => globalThis.seen);
  await eventually('it is connected', seen, ({ connected }) => connected === 1);
  const ended = new Promise((resolve) => child.once('exit', resolve));
  child.kill('SIGTERM');
  const { codes } = await eventually('it is told', seen, ({ codes }) => codes.length > 1);
  assert.equal(codes[1], 3001);
  assert.equal(await ended, 0);
});
