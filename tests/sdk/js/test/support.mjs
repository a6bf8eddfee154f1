// What the suites share: the server under test, SDK clients whose connection can be cut, a plain
// protocol connection for what the SDK would never send, and waiting with a deadline.

import assert from 'node:assert/strict';
import { createHmac, randomUUID } from 'node:crypto';

import { Centrifuge } from 'centrifuge';
import { Centrifuge as ProtobufCentrifuge } from 'centrifuge/build/protobuf';
import { WebSocket } from 'ws';

/** Where a server is; ../../README.md says how to start it by hand. */
export function server(variable) {
  const url = process.env[variable];
  if (!url) throw new Error(`${variable} is not set: let \`cargo xtask test sdk\` start the servers, or see README.md`);
  return url.replace(/\/$/, '');
}

const endpointOf = (url) => `${url.replace(/^http/, 'ws')}/connection/websocket`;

/** A `tautline dev`. */
export const SERVER = server('TAUTLINE_URL');
export const ENDPOINT = endpointOf(SERVER);
/** A server with the options of ../../server.toml. */
export const CONFIGURED = server('TAUTLINE_CONFIGURED_URL');
/** A server with handlers in code, ../../../../crates/server/examples/sdk_handlers.rs. */
export const HANDLERS = endpointOf(server('TAUTLINE_HANDLERS_URL'));
/** What tokens for it are signed with; the file has the same. */
const SECRET = 'the tests sign with this, and with nothing else';
const AUDIENCE = 'sdk-tests';
export const API_KEY = process.env.TAUTLINE_API_KEY ?? 'dev';

/** Patience with a loaded machine, not an expectation of speed. */
const DEADLINE = 10_000;

/** A channel nobody used before, so that tests cannot meet. */
export const freshChannel = (prefix = 'sdk') => `${prefix}-${randomUUID()}`;

/** Resolves once `condition()` is truthy; fails with `what` at the deadline. */
export async function until(condition, what, ms = DEADLINE) {
  const end = performance.now() + ms;
  for (;;) {
    const value = await condition();
    if (value) return value;
    if (performance.now() > end) assert.fail(`waited ${ms} ms for ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

/** The next `name` event of an SDK object. Ask before causing it. */
export function next(emitter, name, ms = DEADLINE) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(
      () => reject(new Error(`waited ${ms} ms for the event "${name}"`)),
      ms,
    );
    emitter.once(name, (context) => {
      clearTimeout(timer);
      resolve(context);
    });
  });
}

/** A WebSocket class whose newest instance can be cut off, for the SDK's `websocket` option. */
export function cuttableWebSocket() {
  return class Cuttable extends WebSocket {
    static live = null;
    /** Set to 'open' or 'message': the next socket is cut at its first event of that kind. */
    static cutAt = null;
    static cuts = 0;

    static cut() {
      if (!this.live) throw new Error('there is no socket to cut');
      this.cuts += 1;
      this.live.terminate();
    }

    constructor(...args) {
      super(...args);
      Cuttable.live = this;
    }

    // `ws` hands every event to its listeners through here; what is swallowed here was on its
    // way when the line broke, and nothing can arrive after it.
    emit(event, ...args) {
      if (event === Cuttable.cutAt) {
        Cuttable.cutAt = null;
        Cuttable.cuts += 1;
        this.broken = true;
        this.terminate();
      }
      if (this.broken && event !== 'close' && event !== 'error') return true;
      return super.emit(event, ...args);
    }
  };
}

/** An SDK client, disconnected when the test ends; `client.line` is its WebSocket class. */
export function newClient(t, { url = SERVER, protobuf = false, ...options } = {}) {
  const line = cuttableWebSocket();
  const client = new (protobuf ? ProtobufCentrifuge : Centrifuge)(endpointOf(url), {
    websocket: line,
    minReconnectDelay: 5,
    maxReconnectDelay: 100,
    ...options,
  });
  client.line = line;
  t.after(() => client.disconnect());
  return client;
}

/** The same, connected. */
export async function connected(t, options) {
  const client = newClient(t, options);
  const done = next(client, 'connected');
  client.connect();
  await done;
  return client;
}

/** A connected client with a token: `POST /dev/token`. */
export async function connectedAs(t, name, user) {
  return connected(t, { token: await devToken(name, user) });
}

/** A token for the configured server, HS256; with `channel` among the claims, a subscription token. */
export function token(claims, secret = SECRET) {
  const part = (value) => Buffer.from(JSON.stringify(value)).toString('base64url');
  const text = `${part({ alg: 'HS256', typ: 'JWT' })}.${part({ aud: AUDIENCE, ...claims })}`;
  return `${text}.${createHmac('sha256', secret).update(text).digest('base64url')}`;
}

/** Unix time so many seconds from now, as claims have it: whole seconds, and never less than asked for. */
export const inSeconds = (seconds) => Math.ceil(Date.now() / 1000) + seconds;

/** A client of the configured server, not connected yet. */
export function configuredClient(t, user, options) {
  return newClient(t, { url: CONFIGURED, token: token({ sub: user }), ...options });
}

/** The same, connected. */
export async function configuredConnected(t, user, options) {
  const client = configuredClient(t, user, options);
  const done = next(client, 'connected');
  client.connect();
  await done;
  return client;
}

/** A subscription of `client`, active. */
export async function subscribed(client, channel, options) {
  const subscription = client.newSubscription(channel, {
    minResubscribeDelay: 5,
    maxResubscribeDelay: 100,
    ...options,
  });
  const done = next(subscription, 'subscribed');
  subscription.subscribe();
  subscription.position = (await done).streamPosition;
  return subscription;
}

/** Everything that arrives on a subscription, in order of arrival. */
export function collect(subscription, event = 'publication') {
  const seen = [];
  subscription.on(event, (context) => seen.push(context));
  return seen;
}

export async function devToken(name, user) {
  const response = await post('/dev/token', { name, user });
  assert.equal(response.status, 200);
  return (await response.json()).token;
}

export function post(path, body, headers = {}, url = SERVER) {
  return fetch(url + path, {
    method: 'POST',
    headers: { 'content-type': 'application/json', ...headers },
    body: typeof body === 'string' ? body : JSON.stringify(body),
  });
}

/** Calls a method of the server API and gives its whole answer. `body` may be raw text. */
export async function api(method, body, url = SERVER) {
  const response = await post(`/api/${method}`, body, { 'x-api-key': API_KEY }, url);
  assert.equal(response.status, 200, `${method} answered with status ${response.status}`);
  return response.json();
}

/** The same, for calls that have to succeed. */
export async function apiResult(method, body, url = SERVER) {
  const answer = await api(method, body, url);
  assert.ok(answer.result, `${method} answered ${JSON.stringify(answer)}`);
  return answer.result;
}

/** A bare protocol connection: frames out as given, lines in as they come. */
export class RawConnection {
  constructor(t, { url = SERVER, pongs = false, ...options } = {}) {
    this.lines = [];
    this.closed = null;
    this.socket = new WebSocket(endpointOf(url), options);
    this.socket.on('message', (data) => {
      const lines = data.toString().split('\n');
      this.lines.push(...lines);
      if (pongs && lines.includes('{}')) this.send('{}');
    });
    this.socket.on('close', (code, reason) => (this.closed = { code, reason: `${reason}` }));
    this.socket.on('error', (error) => (this.error = error));
    t.after(() => this.socket.terminate());
  }

  async opened() {
    await until(() => this.socket.readyState === WebSocket.OPEN, 'the WebSocket to open');
    return this;
  }

  send(text) {
    this.socket.send(text);
  }

  /** The reply to command `id`; pushes and pings in between stay in `lines`. */
  async reply(id) {
    const find = () => this.lines.map((line) => JSON.parse(line)).find((reply) => reply.id === id);
    return until(find, `the reply to command ${id}`);
  }

  async call(command) {
    this.send(JSON.stringify(command));
    return this.reply(command.id);
  }

  async connect(request = {}) {
    await this.opened();
    const reply = await this.call({ id: 1, connect: request });
    assert.ok(reply.connect, JSON.stringify(reply));
    return reply.connect;
  }

  async close() {
    return until(() => this.closed, 'the server to close the connection');
  }
}

/** A small seeded generator (mulberry32): a failing run can be repeated. */
export function seeded(seed) {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let z = Math.imul(state ^ (state >>> 15), state | 1);
    z ^= z + Math.imul(z ^ (z >>> 7), z | 61);
    return ((z ^ (z >>> 14)) >>> 0) / 2 ** 32;
  };
}
