// nginx and HAProxy in front of our server, configured as the library's guide says.
//
//   NGINX, HAPROXY   the programs

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { connect, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';

import { WebSocket } from 'ws';

import { DEADLINE, messages, ourServers, within } from './support.mjs';

const GUIDE = new URL('../../../../crates/websocket/src/manual/deploying.md', import.meta.url);

/** The one block of the guide in this language. */
async function fromGuide(language) {
  const blocks = (await readFile(GUIDE, 'utf8')).split('```');
  const block = blocks.filter((block) => block.startsWith(`${language}\n`));
  assert.equal(block.length, 1, `the guide has one configuration of ${language}`);
  return block[0].slice(language.length + 1);
}

/** With our server's address and a port that the proxy can have. */
function adapted(configuration, server, port, listen) {
  assert.ok(configuration.includes('127.0.0.1:9001') && configuration.includes(listen));
  return configuration
    .replaceAll('127.0.0.1:9001', server)
    .replace(listen, listen.replace(/:?80/, `127.0.0.1:${port}`));
}

const PROXIES = {
  nginx: {
    program: process.env.NGINX ?? 'nginx',
    arguments: (folder) => ['-p', folder, '-c', join(folder, 'conf'), '-e', 'stderr'],
    configuration: async (folder, server, port) => `
      daemon off; master_process off; worker_processes 1; pid ${folder}/pid; error_log stderr;
      events { worker_connections 128; }
      http {
        access_log off;
        client_body_temp_path ${folder}/body; proxy_temp_path ${folder}/proxy;
        fastcgi_temp_path ${folder}/fastcgi; uwsgi_temp_path ${folder}/uwsgi; scgi_temp_path ${folder}/scgi;
        ${adapted(await fromGuide('nginx'), server, port, 'listen 80')}
      }`,
  },
  haproxy: {
    program: process.env.HAPROXY ?? 'haproxy',
    arguments: (folder) => ['-db', '-f', join(folder, 'conf')],
    configuration: async (_, server, port) =>
      adapted(await fromGuide('haproxy'), server, port, 'bind :80'),
  },
};

let servers;
before(async () => {
  servers = await ourServers();
});
after(() => servers.stop());

/** A port that nobody has at the moment. */
async function freePort() {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address();
  await new Promise((resolve) => server.close(resolve));
  return port;
}

async function listening(port) {
  const end = Date.now() + DEADLINE;
  for (;;) {
    const socket = connect(port, '127.0.0.1');
    const connected = await new Promise((resolve) => {
      socket.once('connect', () => resolve(true));
      socket.once('error', () => resolve(false));
    });
    socket.destroy();
    if (connected) return;
    assert.ok(Date.now() < end, 'the proxy listens');
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

for (const [name, proxy] of Object.entries(PROXIES)) {
  describe(`behind ${name}`, () => {
    let folder, child, url;
    before(async () => {
      folder = await mkdtemp(join(tmpdir(), 'interop-'));
      const port = await freePort();
      const server = servers.addresses.deflate.replace('ws://', '');
      await writeFile(join(folder, 'conf'), await proxy.configuration(folder, server, port));
      child = spawn(proxy.program, proxy.arguments(folder), { stdio: ['ignore', 'inherit', 'pipe'] });
      let complaints = '';
      child.stderr.on('data', (data) => (complaints += data));
      const ended = once(child, 'exit').then(([code]) => {
        throw new Error(`${name} ended with ${code}: ${complaints}`);
      });
      ended.catch(() => {});
      await Promise.race([listening(port), ended]);
      url = `ws://127.0.0.1:${port}`;
    });
    after(async () => {
      child?.kill();
      await rm(folder, { recursive: true, force: true });
    });

    test('every message comes back, compressed', async () => {
      const ws = new WebSocket(`${url}/echo`, ['chat.v1'], { perMessageDeflate: { threshold: 0 } });
      await within('open', once(ws, 'open'));
      assert.ok(ws.extensions.startsWith('permessage-deflate'), ws.extensions);
      assert.equal(ws.protocol, 'chat.v1');
      for (const message of messages()) {
        ws.send(message);
        const [data, isBinary] = await within('an answer', once(ws, 'message'));
        const answer = isBinary ? data : data.toString();
        assert.ok(isBinary ? answer.equals(message) : answer === message, `${message.length}`);
      }
      const closed = once(ws, 'close');
      ws.close(4001, 'enough');
      assert.equal((await within('close', closed))[0], 4001);
    });

    test('pings, and the code of our Close, come through', async () => {
      const ws = new WebSocket(`${url}/pings`);
      const ping = once(ws, 'ping');
      await within('open', once(ws, 'open'));
      ws.send('are you there?');
      assert.equal((await within('a ping', ping))[0].toString(), 'are you there?');
      ws.terminate();
      const closing = new WebSocket(`${url}/close?4321=because`);
      const [code, reason] = await within('close', once(closing, 'close'));
      assert.deepEqual([code, reason.toString()], [4321, 'because']);
    });

    test('a refusal comes through, and so does the origin', async () => {
      for (const [path, status, text] of [
        ['/refused', 401, 'no token\n'],
        ['/only?http://good.test', 403, 'this origin is not allowed\n'],
      ]) {
        const ws = new WebSocket(url + path, { origin: 'http://evil.test' });
        ws.on('error', () => {});
        const [, response] = await within('a refusal', once(ws, 'unexpected-response'));
        let body = '';
        for await (const chunk of response) body += chunk;
        assert.deepEqual([response.statusCode, body], [status, text]);
      }
    });
  });
}
