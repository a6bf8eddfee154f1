// A site of the test's own before the server: it serves pages with both packages in them, hands all else on, and
// does to WebSockets and paths whatever the test says. So pages have an origin, a network and a shared worker as a
// real site's have.

import { createReadStream } from 'node:fs';
import http from 'node:http';
import net from 'node:net';
import { fileURLToPath } from 'node:url';

import { server } from './harness.mjs';

const here = (path) => fileURLToPath(new URL(path, import.meta.url));

const FILES = {
  '/sdk.js': here('node_modules/centrifuge/dist/centrifuge.js'),
  '/sdk.protobuf.js': here('node_modules/centrifuge/dist/centrifuge.protobuf.js'),
  '/client.js': here('../../packages/client/dist/index.js'),
};

/** The client of an identity, whose first word is its user; in a page as in a worker. */
const CLIENT = `
globalThis.makeClient = (identity) =>
  tautline.createClient(Centrifuge, location.origin, {
    minReconnectDelay: 5,
    maxReconnectDelay: 100,
    getToken: async () => {
      const user = identity.split(' ')[0];
      const body = JSON.stringify({ name: user, user });
      const headers = { 'content-type': 'application/json' };
      return (await (await fetch('/dev/token', { method: 'POST', headers, body })).json()).token;
    },
  });
`;

/** A page with the packages in it, once `ready`. */
const page = (sdk) => `<!doctype html><title>tab</title><script src="${sdk}"></script><script type="module">
import * as tautline from '/client.js';
globalThis.tautline = tautline;
${CLIENT}
globalThis.ready = true;
</script>`;

/** A shared worker which has the connection, and ends when it is told to. */
const WORKER = `
import '/sdk.js';
import * as tautline from '/client.js';
globalThis.tautline = tautline;
${CLIENT}
tautline.leadTabs({ client: (identity) => makeClient(identity) });
new BroadcastChannel('test ' + name).onmessage = () => close();
`;

const TEXTS = {
  '/tab': ['text/html', page('/sdk.js')],
  '/tab.protobuf': ['text/html', page('/sdk.protobuf.js')],
  '/elsewhere': ['text/html', '<!doctype html><title>elsewhere</title>'],
  '/worker.js': ['text/javascript', WORKER],
};

/**
 * The site, which ends with the test. `upgrades`: what becomes of WebSockets; `blocked`: a pattern of paths that get
 * 403; `target`: another server than the one under test. `/hang` gets no answer before `wake` is called.
 */
export async function front(t, { upgrades = 'pass', blocked = /^$/, target = server } = {}) {
  const { hostname, port } = new URL(target);
  const sockets = new Set();
  const hanging = [];
  const seen = [];
  const site = http.createServer((request, response) => {
    const { pathname } = new URL(request.url, 'http://site');
    seen.push(pathname);
    response.on('error', () => {});
    if (pathname in TEXTS) {
      const [type, text] = TEXTS[pathname];
      response.setHeader('content-type', type);
      response.end(text);
    } else if (pathname in FILES) {
      response.setHeader('content-type', 'text/javascript');
      createReadStream(FILES[pathname]).pipe(response);
    } else if (pathname === '/hang') {
      hanging.push(response);
    } else if (blocked.test(pathname)) {
      response.writeHead(403).end();
    } else {
      const { method, url: path, headers } = request;
      const onward = http.request({ hostname, port, method, path, headers }, (answer) => {
        response.writeHead(answer.statusCode, answer.headers);
        response.flushHeaders();
        answer.pipe(response);
      });
      onward.on('error', () => response.destroy());
      response.on('close', () => onward.destroy());
      request.pipe(onward);
    }
  });
  site.on('connection', (socket) => {
    sockets.add(socket);
    socket.on('error', () => socket.destroy()).on('close', () => sockets.delete(socket));
  });
  site.on('upgrade', (request, near, head) => {
    seen.push(`upgrade ${new URL(request.url, 'http://site').pathname}`);
    if (upgrades === 'refuse') {
      near.end('HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n');
      return;
    }
    const far = net.connect(Number(port), hostname);
    const fields = [];
    for (let i = 0; i < request.rawHeaders.length; i += 2) {
      const [name, value] = request.rawHeaders.slice(i, i + 2);
      // What a proxy does that doesn't know the field.
      if (upgrades !== 'strip' || !/^(upgrade|connection)$/i.test(name)) fields.push(`${name}: ${value}\r\n`);
    }
    far.write(`${request.method} ${request.url} HTTP/1.1\r\n${fields.join('')}\r\n`);
    far.write(head);
    far.on('error', () => near.destroy()).on('close', () => near.destroy());
    near.on('close', () => far.destroy());
    near.pipe(far);
    far.pipe(near);
  });
  await new Promise((resolve) => site.listen(0, '127.0.0.1', resolve));
  t.after(() => {
    for (const socket of sockets) socket.destroy();
    site.close();
  });
  const wake = () => {
    for (const response of hanging.splice(0)) response.end('awake');
  };
  return { url: `http://127.0.0.1:${site.address().port}`, seen, hanging, wake };
}
