// The recipes of deploy/, as they stand there but for addresses and certificates: every door and every rung comes
// through, at once and in both directions.

import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { connect } from 'node:http2';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';

import { EventSource } from 'eventsource';
import { WebSocket } from 'ws';

import { RECIPES, SERVER, api, freePort, polling, recipe, sdk, start, until } from '../support.mjs';

/** Where each says how long a side may be silent. Caddy ends nothing for that. */
const SILENCE = {
  nginx: ['nginx/tautline.conf', /proxy_(?:read|send)_timeout (\d+)s;/g, 2],
  haproxy: ['haproxy/haproxy.cfg', /timeout (?:client|server|tunnel) (\d+)s/g, 3],
};

for (const kind of Object.keys(RECIPES)) {
  describe(`the recipe for ${kind}`, () => {
    let proxy, url;
    before(async () => {
      const port = await freePort();
      proxy = await start(kind, port, await RECIPES[kind](port));
      url = `https://127.0.0.1:${port}`;
    });
    after(() => proxy?.stop());

    for (const rung of ['websocket', 'http_stream', 'sse', 'poll']) {
      test(`${rung} comes through, both ways`, async (t) => {
        const client = rung === 'poll' ? polling(url) : sdk(url, [rung]);
        t.after(() => client.disconnect());
        const channel = `recipe-${randomUUID()}`;
        const data = [];
        const subscription = client.newSubscription(channel);
        subscription.on('publication', (publication) => data.push(publication.data));
        subscription.subscribe();
        client.connect();
        await until('the subscription', () => subscription.state === 'subscribed');
        await subscription.publish('up');
        await api('publish', { channel, data: 'down' });
        await until('both', () => data.length >= 2);
        assert.deepEqual(data, ['up', 'down']);
      });
    }

    test('so do the doors for clients without an SDK', async (t) => {
      const channel = `recipe-${randomUUID()}`;
      const seen = { ws: [], events: [], lines: [], http2: [] };
      const ws = new WebSocket(`${url.replace('https', 'wss')}/ws?channel=${channel}`);
      t.after(() => ws.terminate());
      ws.on('message', (data) => seen.ws.push(JSON.parse(data)));
      const events = new EventSource(`${url}/events?channel=${channel}`);
      t.after(() => events.close());
      events.onmessage = ({ data }) => seen.events.push(JSON.parse(data));
      const stop = new AbortController();
      t.after(() => stop.abort());
      const collect = (into) => {
        let rest = '';
        return (text) => {
          const lines = (rest + text).split('\n');
          rest = lines.pop();
          for (const line of lines) if (line.includes('"data":')) into.push(JSON.parse(line).data);
        };
      };
      const lines = await fetch(`${url}/lines?channel=${channel}`, { signal: stop.signal });
      (async () => {
        const take = collect(seen.lines);
        for await (const chunk of lines.body) take(Buffer.from(chunk).toString());
      })().catch(() => {});
      // As browsers ask.
      const http2 = connect(url);
      t.after(() => http2.destroy());
      const request = http2.request({ ':path': `/lines?channel=${channel}` });
      request.on('data', (chunk) => take2(chunk.toString()));
      const take2 = collect(seen.http2);
      request.end();

      await until('the subscriptions', async () => (await api('presence_stats', { channel })).num_clients === 4);
      const waiting = fetch(`${url}/history?channel=${channel}&wait=50`).then((answer) => answer.json());
      const published = await fetch(`${url}/publish?channel=${channel}`, { method: 'POST', body: '{"n":1}' });
      assert.equal(published.status, 200, await published.text());
      for (const [door, data] of Object.entries(seen)) {
        await until(door, () => data.length >= 1);
        assert.deepEqual(data, [{ n: 1 }], door);
      }
      // The page before the first is whole or waited for: either way it has come.
      assert.ok((await waiting).publications.length <= 1);
    });

    test('what is for the backend stays inside', async () => {
      for (const [path, method] of [
        ['/api', 'POST'],
        ['/api/publish', 'POST'],
        ['/metrics', 'GET'],
      ]) {
        const body = method === 'POST' ? '{"channel":"a","data":1}' : undefined;
        const answer = await fetch(url + path, { method, body, headers: { 'x-api-key': 'dev' } });
        assert.equal(answer.status, 404, path);
        const direct = await fetch(SERVER + path, { method, body, headers: { 'x-api-key': 'dev' } });
        assert.notEqual(direct.status, 404, `${path}, without the proxy`);
      }
    });

    test('pages of the site may connect, others are refused', async () => {
      const own = new WebSocket(`${url.replace('https', 'wss')}/connection/websocket`, { origin: url });
      await once(own, 'open');
      own.terminate();
      const other = new WebSocket(`${url.replace('https', 'wss')}/connection/websocket`, { origin: 'https://evil.test' });
      other.on('error', () => {});
      const [, refusal] = await once(other, 'unexpected-response');
      assert.equal(refusal.statusCode, 403);
      for (const [origin, status] of [[url, 200], ['https://evil.test', 403]]) {
        const answer = await fetch(`${url}/connection/poll`, {
          method: 'POST',
          headers: { origin },
          body: '{"open":1}',
        });
        assert.equal(answer.status, status, origin);
      }
    });

    if (SILENCE[kind]) {
      test('a line on which nobody speaks stays for longer than two pings', async () => {
        const answer = await fetch(`${SERVER}/connection/poll`, {
          method: 'POST',
          body: '{"open":1}\n{"id":1,"connect":{}}',
        });
        const ping = Number(/"ping":(\d+)/.exec(await answer.text())[1]);
        assert.ok(ping > 0);
        const [path, pattern, count] = SILENCE[kind];
        const told = [...(await recipe(path, {})).matchAll(pattern)].map(([, seconds]) => Number(seconds));
        assert.equal(told.length, count);
        for (const seconds of told) assert.ok(seconds > 2 * ping, `${seconds} s, and a ping each ${ping} s`);
      });
    }

    if (kind === 'nginx') {
      test('what it logs has no tokens', async (t) => {
        const folder = await mkdtemp(join(tmpdir(), 'tautline-proxies-log-'));
        t.after(() => rm(folder, { recursive: true, force: true }));
        const [port, log] = [await freePort(), join(folder, 'access.log')];
        const changes = { 'access_log /var/log/nginx/access.log': `access_log ${log}` };
        const logging = await start(kind, port, await RECIPES.nginx(port, undefined, changes));
        t.after(() => logging.stop());
        await (await fetch(`https://127.0.0.1:${port}/history?channel=logged&token=secret-token`)).text();
        const lines = await until('the line', () => readFile(log, 'utf8').catch(() => ''));
        assert.match(lines, /"GET \/history HTTP\/1\.1" \d+ /);
        assert.doesNotMatch(lines, /secret-token/);
      });
    }

    if (kind === 'haproxy') {
      test('a WebSocket comes through over HTTP/2 (RFC 8441)', async (t) => {
        const http2 = connect(url);
        t.after(() => http2.destroy());
        const [settings] = await once(http2, 'remoteSettings');
        assert.equal(settings.enableConnectProtocol, true);
        const channel = `recipe-${randomUUID()}`;
        const stream = http2.request({
          ':method': 'CONNECT',
          ':protocol': 'websocket',
          ':path': `/ws?channel=${channel}`,
          'sec-websocket-version': '13',
        });
        const [headers] = await once(stream, 'response');
        assert.equal(headers[':status'], 200);
        await until('the subscription', async () => (await api('presence_stats', { channel })).num_clients === 1);
        await api('publish', { channel, data: 'over h2' });
        const [frame] = await once(stream, 'data');
        // A whole text message (RFC 6455 section 5.2), not masked.
        assert.deepEqual([frame[0], frame.subarray(2).toString()], [0x81, '"over h2"']);
      });
    }
  });
}
