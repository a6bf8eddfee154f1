// A hostile proxy: TCP between a client and the server under test, which does to each request whatever its
// `mood` says.

import net from 'node:net';
import type { TestContext } from 'node:test';

export const SERVER = setting('TAUTLINE_URL');

/** What is done to a request, by its head and body so far. */
export type Deed =
  /** Nothing. */
  | 'pass'
  /** The connection is reset. */
  | 'refuse'
  /** No answer ever. */
  | 'hang'
  /** `Upgrade` and `Connection` are left out, as by a proxy that doesn't know them. */
  | 'strip'
  /** What comes after the head of the answer is swallowed. */
  | 'mute'
  /** The answer comes when it is whole. */
  | 'hold back'
  /** The server gets it, the client gets no answer. */
  | 'lose the answer'
  /** The client gets half of the answer. */
  | 'cut the answer';

export type Proxy = {
  url: string;
  /** Requests so far, by their first line. */
  seen: string[];
  mood: (request: string) => Deed;
  cut(): void;
};

/** A proxy that ends with the test. Each connection carries one request. */
export async function proxy(t: TestContext, mood: (request: string) => Deed, server = SERVER): Promise<Proxy> {
  const sockets = new Set<net.Socket>();
  const { hostname, port } = new URL(server);
  const listener = net.createServer((near) => {
    let head = '';
    let far: net.Socket | null = null;
    keep(near);
    near.on('data', (bytes) => {
      if (far !== null) {
        far.write(bytes);
        return;
      }
      head += bytes.toString('latin1');
      if (!isWhole(head)) return;
      self.seen.push(head.slice(0, head.indexOf('\r\n')));
      const deed = self.mood(head);
      if (deed === 'refuse') near.resetAndDestroy();
      if (deed === 'refuse' || deed === 'hang') return;
      far = net.connect(Number(port), hostname);
      keep(far);
      near.on('close', () => far?.destroy());
      let request = head;
      if (deed === 'strip') request = head.replace(/^(upgrade|connection):.*\r\n/gim, '');
      // One request a connection: then each is looked at.
      if (!/^upgrade:/im.test(request)) {
        request = request.replace(/^connection:.*\r\n/gim, '').replace('\r\n', '\r\nConnection: close\r\n');
      }
      far.write(Buffer.from(request, 'latin1'));
      let answered = 0;
      const held: Buffer[] = [];
      far.on('data', (answer) => {
        const whole = answered + answer.length;
        if (deed === 'hold back') held.push(answer);
        else if (deed === 'lose the answer') near.resetAndDestroy();
        else if (deed === 'cut the answer') {
          near.write(answer.subarray(0, answer.length - 2));
          near.end();
        } else if (deed !== 'mute' || answered === 0) near.write(answer.subarray(0, headEnd(answer, deed)));
        answered = whole;
      });
      far.on('end', () => near.end(Buffer.concat(held)));
    });
  });
  const keep = (socket: net.Socket) => {
    sockets.add(socket);
    socket.on('error', () => socket.destroy()).on('close', () => sockets.delete(socket));
  };
  await new Promise<void>((resolve) => listener.listen(0, '127.0.0.1', resolve));
  const cut = () => sockets.forEach((socket) => socket.destroy());
  t.after(() => {
    cut();
    listener.close();
  });
  const { port: own } = listener.address() as net.AddressInfo;
  const self: Proxy = { url: `http://127.0.0.1:${own}`, seen: [], mood, cut };
  return self;
}

function headEnd(answer: Buffer, deed: Deed): number {
  return deed === 'mute' ? answer.indexOf('\r\n\r\n') + 4 : answer.length;
}

/** Whether the head and as much body as it says are there. */
function isWhole(request: string): boolean {
  const end = request.indexOf('\r\n\r\n');
  const length = /^content-length: (\d+)/im.exec(request)?.[1] ?? '0';
  return end >= 0 && request.length >= end + 4 + Number(length);
}

/** What a variable of the environment says, without a slash at its end. */
export function setting(name: string): string {
  const value = process.env[name];
  if (!value) {
    throw new Error(
      `${name} is not set: these tests need servers such as \`tautline dev\`; \`cargo xtask test client\` starts them`,
    );
  }
  return value.replace(/\/$/, '');
}

export const isUpgrade = (request: string) => /^upgrade: websocket/im.test(request);

/** Resolves once `read` gives something; fails with `what` after a time that is far more than it needs. */
export async function until<T>(what: string, read: () => T | Promise<T>, deadline = 20_000): Promise<NonNullable<T>> {
  for (const end = Date.now() + deadline; ; ) {
    const value = await read();
    if (value) return value;
    if (Date.now() > end) throw new Error(`waited ${deadline / 1000} s for ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

/** A call of the server's HTTP API. */
export async function api(method: string, body: object): Promise<void> {
  const response = await fetch(`${SERVER}/api/${method}`, {
    method: 'POST',
    headers: { 'content-type': 'application/json', 'x-api-key': process.env.TAUTLINE_API_KEY ?? 'dev' },
    body: JSON.stringify(body),
  });
  const answer = (await response.json()) as { error?: unknown };
  if (!response.ok || answer.error) throw new Error(`${method}: ${JSON.stringify(answer)}`);
}

/** What a page's storage is in these tests. */
export function store(): Storage & { map: Map<string, string> } {
  const map = new Map<string, string>();
  return {
    map,
    getItem: (key: string) => map.get(key) ?? null,
    setItem: (key: string, value: string) => void map.set(key, value),
    removeItem: (key: string) => void map.delete(key),
  } as Storage & { map: Map<string, string> };
}
