// What the tests share: the server under test, real proxies that are started and stopped, SDK clients, and
// waiting for something with a deadline.
//
//   TAUTLINE_URL             where a server runs, as http://host:port (needed)
//   NGINX, HAPROXY, CADDY    the programs
//   TLS_CERT, TLS_KEY        a certificate for 127.0.0.1 that NODE_EXTRA_CA_CERTS trusts, and its key
//   TLS_BOTH                 both in one file

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { connect, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { Centrifuge } from 'centrifuge';
import { EventSource } from 'eventsource';
import { WebSocket } from 'ws';

import { TautlineSocket, createClient } from '../../packages/client/dist/index.js';

export const SERVER = server();
/** Where it is, without the scheme. */
export const ADDRESS = new URL(SERVER).host;

/** How long anything may take, in milliseconds. Far more than it needs: a busy machine is no failure. */
export const DEADLINE = 60_000;

/** Resolves with what `read` gives once that is something; fails with `what` at the deadline. */
export async function until(what, read) {
  for (const end = Date.now() + DEADLINE; ; ) {
    const value = await read();
    if (value) return value;
    if (Date.now() > end) assert.fail(`waited ${DEADLINE} ms for ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

/** A call of the server's HTTP API, past whatever is in between. */
export async function api(method, body) {
  const response = await fetch(`${SERVER}/api/${method}`, {
    method: 'POST',
    headers: { 'content-type': 'application/json', 'x-api-key': process.env.TAUTLINE_API_KEY ?? 'dev' },
    body: JSON.stringify(body),
  });
  const answer = await response.json();
  assert.ok(response.ok && answer.result, `${method}: ${JSON.stringify(answer)}`);
  return answer.result;
}

export const upTo = (count) => Array.from({ length: count }, (_, n) => n + 1);

/** What Node.js doesn't have of a browser. */
const BROWSER = { websocket: WebSocket, eventsource: EventSource, maxReconnectDelay: 2000 };

/** npm `centrifuge` with its own ladder, or part of it. */
export function sdk(url, rungs = ['websocket', 'http_stream', 'sse'], options = {}) {
  const transports = rungs.map((transport) => ({
    transport,
    endpoint: `${transport === 'websocket' ? url.replace(/^http/, 'ws') : url}/connection/${transport}`,
  }));
  return new Centrifuge(transports, { emulationEndpoint: `${url}/emulation`, ...BROWSER, ...options });
}

/** The same with what `@tautline/client` adds. How many WebSockets were opened for it is in `opened.count`. */
export function whole(url) {
  const opened = { count: 0 };
  const Counted = class extends WebSocket {
    constructor(...words) {
      super(...words);
      this.once('open', () => (opened.count += 1));
    }
  };
  const client = createClient(Centrifuge, url, { ...BROWSER, socket: { WebSocket: Counted, storage: storage() } });
  return Object.assign(client, { opened });
}

/** npm `centrifuge` over long-polling alone. */
export function polling(url) {
  const socket = TautlineSocket.with({ WebSocket: null, storage: null });
  return new Centrifuge(`${url.replace(/^http/, 'ws')}/connection/websocket`, { ...BROWSER, websocket: socket });
}

/** What a page of its own has. */
function storage() {
  const map = new Map();
  return {
    getItem: (key) => map.get(key) ?? null,
    setItem: (key, value) => void map.set(key, value),
    removeItem: (key) => void map.delete(key),
  };
}

/** Something listening on a port that the system chose, given back at once. */
export async function freePort() {
  const listener = createServer().listen(0, '127.0.0.1');
  await once(listener, 'listening');
  const { port } = listener.address();
  await new Promise((resolve) => listener.close(resolve));
  return port;
}

/** A recipe of deploy/, with each of `changes` made in it; each must be there to be made. */
export async function recipe(path, changes) {
  let text = await readFile(new URL(`../../deploy/${path}`, import.meta.url), 'utf8');
  for (const [from, to] of Object.entries(changes)) {
    assert.ok(text.includes(from), `${path} has ${from}`);
    text = text.replaceAll(from, to);
  }
  return text;
}

const KINDS = {
  nginx: {
    program: process.env.NGINX ?? 'nginx',
    arguments: (folder) => ['-p', folder, '-c', join(folder, 'conf'), '-e', 'stderr'],
    around: (folder, text) => `
      daemon off; master_process off; worker_processes 1; pid ${folder}/pid; error_log stderr;
      events { worker_connections 256; }
      http {
        access_log off;
        client_body_temp_path ${folder}/body; proxy_temp_path ${folder}/proxy;
        fastcgi_temp_path ${folder}/fastcgi; uwsgi_temp_path ${folder}/uwsgi; scgi_temp_path ${folder}/scgi;
        ${text}
      }`,
  },
  haproxy: {
    program: process.env.HAPROXY ?? 'haproxy',
    arguments: (folder) => ['-db', '-f', join(folder, 'conf')],
    around: (_, text) => text,
  },
  caddy: {
    program: process.env.CADDY ?? 'caddy',
    arguments: (folder) => ['run', '--adapter', 'caddyfile', '--config', join(folder, 'conf')],
    around: (folder, text) => `{
        admin off
        auto_https disable_redirects
        skip_install_trust
        storage file_system ${folder}
      }
      ${text}`,
  },
};

/** Starts a real proxy of this kind on `port`, and waits until it listens. */
export async function start(kind, port, text) {
  const { program, arguments: words, around } = KINDS[kind];
  const folder = await mkdtemp(join(tmpdir(), 'tautline-proxies-'));
  await writeFile(join(folder, 'conf'), around(folder, text));
  let child;
  const self = {
    port,
    async start() {
      child = spawn(program, words(folder), {
        stdio: ['ignore', 'ignore', 'pipe'],
        env: { ...process.env, HOME: folder },
      });
      let complaints = '';
      child.stderr.on('data', (data) => (complaints += data));
      const ended = once(child, 'exit').then(([code]) => {
        throw new Error(`${kind} ended with ${code}: ${complaints}`);
      });
      ended.catch(() => {});
      await Promise.race([until(`${kind} to listen`, () => listens(port)), ended]);
    },
    /** Ends it as a crash would. */
    async kill() {
      const gone = once(child, 'exit');
      child.kill('SIGKILL');
      await gone;
    },
    async stop() {
      await self.kill();
      await rm(folder, { recursive: true, force: true });
    },
  };
  await self.start();
  return self;
}

async function listens(port) {
  const socket = connect(port, '127.0.0.1');
  const connected = await new Promise((resolve) => {
    socket.once('connect', () => resolve(true)).once('error', () => resolve(false));
  });
  socket.destroy();
  return connected;
}

/** The recipes that are tested, on `port` and in front of the server, or of another; with further changes. */
export const RECIPES = {
  nginx: (port, address = ADDRESS, changes = {}) =>
    recipe('nginx/tautline.conf', {
      ...changes,
      'server 127.0.0.1:8000;': `server ${address};`,
      'listen 443 ssl http2;': `listen 127.0.0.1:${port} ssl http2;`,
      // Where there is no IPv6.
      '    listen [::]:443 ssl http2;\n': '',
      'server_name realtime.example.com;': 'server_name 127.0.0.1;',
      '/etc/letsencrypt/live/realtime.example.com/fullchain.pem': process.env.TLS_CERT,
      '/etc/letsencrypt/live/realtime.example.com/privkey.pem': process.env.TLS_KEY,
      ...('access_log /var/log/nginx/access.log' in changes
        ? {}
        : { 'access_log /var/log/nginx/access.log': 'access_log /dev/null' }),
    }),
  haproxy: (port, address = ADDRESS, changes = {}) =>
    recipe('haproxy/haproxy.cfg', {
      ...changes,
      // Who isn't root can't become anybody else.
      '    user haproxy\n    group haproxy\n    chroot /var/lib/haproxy\n': '',
      'server one 127.0.0.1:8000': `server one ${address}`,
      'bind :::443 v4v6 ssl': `bind 127.0.0.1:${port} ssl`,
      '/etc/haproxy/certs/realtime.example.com.pem': process.env.TLS_BOTH,
    }),
  caddy: (port, address = ADDRESS, changes = {}) =>
    recipe('caddy/Caddyfile', {
      ...changes,
      'reverse_proxy 127.0.0.1:8000': `reverse_proxy ${address}`,
      'realtime.example.com {\n': `https://127.0.0.1:${port} {\n\ttls ${process.env.TLS_CERT} ${process.env.TLS_KEY}\n`,
    }),
};

function server() {
  const url = process.env.TAUTLINE_URL;
  if (!url) {
    throw new Error(
      'TAUTLINE_URL is not set: these tests need a server such as `tautline dev`; `cargo xtask test proxies` starts one',
    );
  }
  return url.replace(/\/$/, '');
}
