// A class with the browser's `WebSocket` interface (the WebSockets standard, section 3.1) that gets
// through: where a WebSocket doesn't, it carries the same to the same server over HTTP: by answers that go on, or by
// long-polling where those are held back.

import { Memory, localStore, type Store } from './memory';
import { PollLine, type PollOptions } from './poll';

/**
 * What a connection is carried by; the empty string while that isn't known. `stream` and `poll` are the same session:
 * the one is said once an answer has shown that it goes on.
 */
export type Carrier = '' | 'websocket' | 'stream' | 'poll';

export type SocketOptions = {
  /** The WebSocket to try first: the browser's, unless something else is given. `null`: none, only long-polling. */
  WebSocket?: (new (url: string, protocols?: string[]) => WebSocket) | null;
  /** The browser's `fetch`, unless something else is given. */
  fetch?: typeof fetch;
  /** Whether answers that go on are asked for where there is no WebSocket: yes. If not, each says one thing. */
  stream?: boolean;
  /** Milliseconds within which a WebSocket has to open, or an answer that goes on to begin. 3,000. */
  openTimeout?: number;
  /** Milliseconds within which the server's first message has to come after the first that was sent. 4,000. */
  silenceTimeout?: number;
  /**
   * Where it is remembered that WebSockets don't get through to a site: `localStorage`. `null`, and a store that
   * takes nothing: in memory, for as long as the page lives.
   */
  storage?: Store | null;
  /** For how many milliseconds at the most: half an hour. At first it is a minute; then a WebSocket is tried again. */
  remember?: number;
  /**
   * Whether a WebSocket that doesn't open is replaced by long-polling: yes. If not, the socket fails, and a
   * ladder around it can take a better rung; one that opens and carries nothing is replaced all the same.
   */
  replace?: boolean;
};

type Target = { url: string; kind: 'plain' | PollOptions['kind']; ws?: string };
type Payload = string | ArrayBufferLike | Blob | ArrayBufferView;

export class TautlineSocket extends EventTarget implements WebSocket {
  static get CONNECTING(): 0 {
    return 0;
  }
  static get OPEN(): 1 {
    return 1;
  }
  static get CLOSING(): 2 {
    return 2;
  }
  static get CLOSED(): 3 {
    return 3;
  }

  /** The same class with options that differ, for a library which takes a WebSocket constructor. */
  static with(options: SocketOptions): typeof TautlineSocket {
    const base = this;
    return class extends base {
      constructor(url: string | URL, protocols?: string | Iterable<string>, more?: SocketOptions) {
        super(url, protocols, { ...options, ...more });
      }
    };
  }

  readonly #url: URL;
  readonly #protocols: string[];
  readonly #options: SocketOptions;
  readonly #memory: Memory;
  readonly #handlers = new Map<string, { handler: Handler; listener: (event: Event) => void }>();
  #state: 0 | 1 | 2 | 3 = 0;
  #binaryType: BinaryType = 'blob';
  #carrier: Carrier = '';
  #protocol = '';
  #extensions = '';
  /** Bytes that were sent after the end: they count for ever, as the standard says. */
  #discarded = 0;

  #socket: WebSocket | null = null;
  #socketFailed = false;
  #line: PollLine | null = null;
  /** The line is a session of `/ws`. */
  #isPlain = false;
  /** Sizes of what waits for the line, oldest first; a command of ours has none. */
  #waiting: number[] = [];
  #waitingSize = 0;
  /** Blobs are read in their turn. */
  #turn: Promise<void> | null = null;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #heard = false;
  /** When the first message was sent to a server that has said nothing since; 0 for never. */
  #askedAt = 0;
  #asked: { code: number; reason: string } | null = null;
  readonly #goes = (event: Event) => {
    // Into the cache from which it may come back: then the line picks up again, or its session is over.
    if (!(event as PageTransitionEvent).persisted) this.#line?.drop(true);
  };

  /**
   * Begins to connect. A URL that ends in `/connection/poll` goes by long-polling at once; to one that
   * isn't of Tautline's doors (`/connection/websocket`, `/ws`, `/tunnel/…`) there is no way but a WebSocket.
   *
   * Throws a `SyntaxError` where a `WebSocket` does: for a URL of another scheme or with a fragment, and for
   * protocols that are no tokens, or come twice; a `TypeError` without a URL.
   */
  constructor(url: string | URL, protocols: string | Iterable<string> = [], options: SocketOptions = {}) {
    super();
    this.#url = parseUrl(url);
    this.#protocols = parseProtocols(protocols);
    this.#options = options;
    const { storage = localStore(), remember = REMEMBER } = options;
    this.#memory = new Memory(storage, remember);
    const target = this.#target();
    const direct = this.#url.pathname.endsWith(POLL) || options.WebSocket === null;
    if (target !== null && (direct || this.#memory.recall(this.#site()) === 'poll')) {
      this.#dialLine(target, direct);
    } else {
      this.#dialSocket(true);
    }
  }

  get CONNECTING(): 0 {
    return 0;
  }
  get OPEN(): 1 {
    return 1;
  }
  get CLOSING(): 2 {
    return 2;
  }
  get CLOSED(): 3 {
    return 3;
  }
  /** What it stands for. */
  get [Symbol.toStringTag](): string {
    return 'WebSocket';
  }

  get url(): string {
    return this.#url.href;
  }
  get readyState(): 0 | 1 | 2 | 3 {
    return this.#state;
  }
  /** What the connection is carried by. Not of the standard. */
  get carrier(): Carrier {
    return this.#carrier === 'poll' && this.#line?.streams ? 'stream' : this.#carrier;
  }
  get protocol(): string {
    return this.#protocol;
  }
  get extensions(): string {
    return this.#extensions;
  }
  get bufferedAmount(): number {
    return this.#discarded + (this.#socket?.bufferedAmount ?? 0) + this.#waitingSize;
  }
  get binaryType(): BinaryType {
    return this.#binaryType;
  }
  set binaryType(type: BinaryType) {
    // As with any enumeration of the platform, what isn't in it is ignored.
    if (type !== 'blob' && type !== 'arraybuffer') return;
    this.#binaryType = type;
    if (this.#socket !== null) this.#socket.binaryType = type;
  }

  get onopen(): ((this: WebSocket, event: Event) => unknown) | null {
    return this.#handler('open');
  }
  set onopen(handler: ((this: WebSocket, event: Event) => unknown) | null) {
    this.#setHandler('open', handler);
  }
  get onmessage(): ((this: WebSocket, event: MessageEvent) => unknown) | null {
    return this.#handler('message');
  }
  set onmessage(handler: ((this: WebSocket, event: MessageEvent) => unknown) | null) {
    this.#setHandler('message', handler as Handler | null);
  }
  get onerror(): ((this: WebSocket, event: Event) => unknown) | null {
    return this.#handler('error');
  }
  set onerror(handler: ((this: WebSocket, event: Event) => unknown) | null) {
    this.#setHandler('error', handler);
  }
  get onclose(): ((this: WebSocket, event: CloseEvent) => unknown) | null {
    return this.#handler('close');
  }
  set onclose(handler: ((this: WebSocket, event: CloseEvent) => unknown) | null) {
    this.#setHandler('close', handler as Handler | null);
  }

  /** Throws an `InvalidStateError` while it is connecting. After the end, what is sent is dropped, as the standard says. */
  send(data: Payload): void {
    if (arguments.length === 0) throw new TypeError('There is nothing to send.');
    const payload = copy(data);
    if (this.#state === 0) {
      throw new DOMException('The socket is still connecting: send when it is open.', 'InvalidStateError');
    }
    const size = sizeOf(payload);
    if (this.#state !== 1) {
      this.#discarded += size;
      return;
    }
    if (this.#socket !== null) {
      if (!this.#heard) this.#watchSilence();
      this.#askedAt ||= Date.now();
      this.#socket.send(payload);
      return;
    }
    this.#waitingSize += size;
    const isBlob = typeof payload === 'object' && 'size' in payload;
    if (isBlob || this.#turn !== null) {
      const before = this.#turn ?? Promise.resolve();
      const turn = before.then(async () => {
        this.#write(isBlob ? await payload.arrayBuffer() : payload, size);
        if (this.#turn === turn) this.#turn = null;
      });
      this.#turn = turn;
    } else {
      this.#write(payload, size);
    }
  }

  /** Throws an `InvalidAccessError` for a code that isn't 1000 or between 3000 and 4999, a `SyntaxError` for a reason beyond 123 bytes. */
  close(code?: number, reason?: string): void {
    const asked = code === undefined ? code : clamp(+code);
    const said = encode(reason === undefined ? '' : `${reason}`);
    if (asked !== undefined && asked !== 1000 && (asked < 3000 || asked > 4999)) {
      throw new DOMException(
        `The close code must be 1000, or between 3000 and 4999; it is ${asked}.`,
        'InvalidAccessError',
      );
    }
    if (said.length > 123) {
      throw new DOMException('The reason must not be longer than 123 bytes of UTF-8.', 'SyntaxError');
    }
    if (this.#state >= 2) return;
    if (this.#state === 0) {
      this.#state = 2;
      const { fail } = this.#detach();
      fail();
      setTimeout(() => this.#finish(1006, '', false));
      return;
    }
    this.#state = 2;
    this.#suspectSilence();
    // A server repeats the code, and no reason.
    this.#asked = { code: asked ?? 1005, reason: '' };
    if (this.#socket !== null) {
      if (asked === undefined) this.#socket.close();
      else this.#socket.close(asked, decode(said));
      // A line that carries nothing carries no Close either.
      this.#timer ??= setTimeout(() => this.#finish(1006, '', false), CLOSE_PATIENCE);
    } else {
      const close = asked === undefined ? {} : { code: asked, reason: decode(said) };
      void (this.#turn ?? Promise.resolve()).then(() => this.#line?.close(close));
    }
  }

  /** Tries a WebSocket; where it doesn't open, and `retry`, what is left is tried. */
  #dialSocket(retry: boolean): void {
    const Socket = this.#options.WebSocket ?? globalThis.WebSocket;
    const failed = () => {
      this.#socketFailed = true;
      const target = this.#target();
      if (!retry || target === null || !(this.#options.replace ?? true)) this.#finish(1006, '', false);
      else if (target.kind !== 'plain') this.#dialLine(target, false);
      else {
        // What is asked for in the address may be wrong: a line would not know.
        void this.#isWrong().then((isWrong) => {
          if (this.#state === 0 && isWrong) this.#finish(1006, '', false);
          else if (this.#state === 0) this.#dialLine(target, false);
        });
      }
    };
    if (Socket === undefined || Socket === null) {
      queueMicrotask(failed);
      return;
    }
    let socket: WebSocket;
    try {
      socket = new Socket(this.#url.href, this.#protocols);
    } catch {
      // Forbidden, say by a policy of the page: events come later, as everywhere.
      queueMicrotask(failed);
      return;
    }
    socket.binaryType = this.#binaryType;
    this.#socket = socket;
    const giveUp = () => {
      this.#detach().fail();
      failed();
    };
    this.#timer = setTimeout(giveUp, this.#options.openTimeout ?? OPEN_TIMEOUT);
    socket.onopen = () => {
      clearTimeout(this.#timer);
      this.#timer = undefined;
      // `ws` of Node.js takes only what it knows; browsers start with `blob`.
      socket.binaryType = this.#binaryType;
      this.#opened('websocket', socket.protocol, socket.extensions);
    };
    socket.onmessage = ({ data }) => {
      if (!this.#heard) {
        this.#heard = true;
        // Not the timer of a close.
        if (this.#state === 1) {
          clearTimeout(this.#timer);
          this.#timer = undefined;
        }
        if (this.#memory.recall(this.#site()) !== null) this.#memory.forget(this.#site());
      }
      this.#message(data);
    };
    socket.onclose = ({ code, reason, wasClean }) => {
      if (this.#state === 0) giveUp();
      else this.#finish(code, reason, wasClean);
    };
    // What there is to know about an error, its close says.
    socket.onerror = () => {};
  }

  /** Whether the server has something against the address: a plain request is told what, as a WebSocket is not. */
  async #isWrong(): Promise<boolean> {
    const { fetch = globalThis.fetch, openTimeout = OPEN_TIMEOUT } = this.#options;
    try {
      const url = this.#url.href.replace('ws', 'http');
      const response = await fetch.call(globalThis, url, { signal: AbortSignal.timeout(openTimeout) });
      if (response.status !== 400) return false;
      console.warn(`${url}: ${await response.text()}`);
      return true;
    } catch {
      return false;
    }
  }

  #dialLine(target: Target, direct: boolean): void {
    const { fetch = globalThis.fetch, stream = true, openTimeout = OPEN_TIMEOUT } = this.#options;
    const flows = `stream ${this.#site()}`;
    const line = new PollLine(target.url, {
      kind: target.kind === 'plain' ? 'json' : target.kind,
      protocols: this.#protocols,
      ws: target.ws,
      fetch,
      patience: LINE_PATIENCE,
      streams: stream && this.#memory.recall(flows) === null ? openTimeout : null,
    }, {
      buffered: () => this.#memory.keep(flows, 'buffered'),
      opened: (chosen) => {
        if (this.#line !== line) return line.drop();
        if (this.#socketFailed) this.#memory.keep(this.#site(), 'poll');
        globalThis.addEventListener?.('pagehide', this.#goes);
        const { kind } = target;
        const name = kind === 'tunnel' ? chosen : this.#protocols.find((name) => name === NAMES[kind]);
        this.#opened('poll', name ?? '', '');
      },
      message: (bytes, text) => {
        if (text) this.#message(decode(bytes));
        else {
          const data = bytes.slice().buffer;
          this.#message(this.#binaryType === 'blob' ? new Blob([data]) : data);
        }
      },
      sent: (frames) => {
        for (const size of this.#waiting.splice(0, frames)) this.#waitingSize -= size;
      },
      ended: (code, reason, clean) => {
        if (this.#line !== line) return;
        if (this.#state === 0 && !direct && !this.#socketFailed) {
          // What was remembered isn't so any more: the network is another, or the server away.
          this.#line = null;
          this.#memory.forget(this.#site());
          this.#dialSocket(false);
          return;
        }
        this.#finish(this.#asked?.code ?? code, this.#asked?.reason ?? reason, clean);
      },
    });
    this.#line = line;
    this.#isPlain = target.kind === 'plain';
  }

  #write(payload: string | ArrayBufferLike | ArrayBufferView, size: number): void {
    const bytes =
      typeof payload === 'string'
        ? encode(payload)
        : new Uint8Array(ArrayBuffer.isView(payload) ? payload.buffer.slice(payload.byteOffset, payload.byteOffset + payload.byteLength) : payload);
    this.#waiting.push(size);
    this.#line?.send(this.#isPlain ? oneLine(bytes) : bytes, typeof payload === 'string');
  }

  /** A socket that opened and carries nothing is no use: it fails, and the next one goes by the line at once. */
  #watchSilence(): void {
    // At the plain door, and behind a tunnel, a server may well have nothing to say.
    const target = this.#target();
    if (this.#timer !== undefined || target === null || target.kind === 'plain' || target.kind === 'tunnel') return;
    this.#timer = setTimeout(() => {
      this.#memory.keep(this.#site(), 'poll');
      const { fail } = this.#detach();
      fail();
      this.#finish(1006, '', false);
    }, this.#options.silenceTimeout ?? SILENCE_TIMEOUT);
  }

  /** Whoever closes a socket that has said nothing for so long may well do that because of it. */
  #suspectSilence(): void {
    const { silenceTimeout = SILENCE_TIMEOUT } = this.#options;
    const isSilent = this.#socket !== null && !this.#heard && this.#askedAt > 0;
    if (isSilent && this.#target() !== null && Date.now() - this.#askedAt >= silenceTimeout) {
      this.#memory.keep(this.#site(), 'poll');
    }
  }

  #opened(carrier: Carrier, protocol: string, extensions: string): void {
    if (this.#state !== 0) return;
    this.#state = 1;
    this.#carrier = carrier;
    this.#protocol = protocol;
    this.#extensions = extensions;
    this.dispatchEvent(new Event('open'));
  }

  #message(data: unknown): void {
    if (this.#state !== 1) return;
    this.dispatchEvent(new MessageEvent('message', { data, origin: this.#url.origin }));
  }

  #finish(code: number, reason: string, wasClean: boolean): void {
    if (this.#state === 3) return;
    this.#discarded += this.#waitingSize;
    this.#waitingSize = 0;
    this.#detach();
    this.#state = 3;
    if (!wasClean) this.dispatchEvent(new Event('error'));
    this.dispatchEvent(closeEvent(code, reason, wasClean));
  }

  /** Forgets what carries; `fail` ends that too. */
  #detach(): { fail: () => void } {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    globalThis.removeEventListener?.('pagehide', this.#goes);
    const [socket, line] = [this.#socket, this.#line];
    this.#socket = null;
    this.#line = null;
    if (socket !== null) {
      socket.onopen = socket.onmessage = socket.onclose = null;
      socket.onerror = () => {};
    }
    return {
      fail: () => {
        socket?.close();
        line?.drop();
      },
    };
  }

  /** Where the same is carried without a WebSocket, if anywhere. */
  #target(): Target | null {
    const { pathname, searchParams } = this.#url;
    const url = new URL(this.#url);
    url.protocol = url.protocol === 'wss:' ? 'https:' : 'http:';
    if (TUNNEL.test(pathname)) return { url: url.href, kind: 'tunnel' };
    const plain = pathname.endsWith('/ws');
    const door = plain ? '/ws' : pathname.endsWith(POLL) ? POLL : '/connection/websocket';
    if (!pathname.endsWith(door)) return null;
    url.pathname = pathname.slice(0, -door.length) + POLL;
    const ws = plain ? url.search.slice(1) : undefined;
    url.search = '';
    const format = searchParams.get('format') ?? searchParams.get('cf_protocol');
    const protobuf = this.#protocols.includes(NAMES.protobuf) || format === 'protobuf';
    if (ws !== undefined) return { url: url.href, kind: 'plain', ws };
    return { url: url.href, kind: protobuf ? 'protobuf' : 'json' };
  }

  #site(): string {
    return this.#url.host;
  }

  // Which type a handler has, its accessor says.
  #handler(type: string): any {
    return this.#handlers.get(type)?.handler ?? null;
  }

  #setHandler(type: string, handler: Handler | null): void {
    const known = this.#handlers.get(type);
    if (typeof handler !== 'function') {
      if (known !== undefined) this.removeEventListener(type, known.listener);
      this.#handlers.delete(type);
    } else if (known !== undefined) {
      // Keeps its place among the listeners, as the HTML standard has it.
      known.handler = handler;
    } else {
      const entry = { handler, listener: (event: Event) => void entry.handler.call(this, event) };
      this.#handlers.set(type, entry);
      this.addEventListener(type, entry.listener);
    }
  }
}

type Handler = (this: WebSocket, event: any) => unknown;

function parseUrl(url: string | URL): URL {
  if (url === undefined) throw new TypeError('There is no URL to connect to.');
  let parsed: URL;
  try {
    parsed = new URL(url, globalThis.location?.href);
  } catch {
    throw new DOMException(`The URL '${url}' is invalid.`, 'SyntaxError');
  }
  if (parsed.protocol === 'http:') parsed.protocol = 'ws:';
  if (parsed.protocol === 'https:') parsed.protocol = 'wss:';
  if (parsed.protocol !== 'ws:' && parsed.protocol !== 'wss:') {
    throw new DOMException(
      `The URL's scheme must be ws, wss, http or https; it is '${parsed.protocol.slice(0, -1)}'.`,
      'SyntaxError',
    );
  }
  if (parsed.href.includes('#')) {
    throw new DOMException(`The URL must have no fragment; it has '${parsed.hash}'.`, 'SyntaxError');
  }
  return parsed;
}

function parseProtocols(protocols: string | Iterable<string>): string[] {
  const isList = Object(protocols) === protocols && Symbol.iterator in (protocols as object);
  const list = Array.from(isList ? protocols : [protocols as string], (name) => `${name}`);
  for (const [i, name] of list.entries()) {
    if (!/^[!#$%&'*+\-.^_`|~\w]+$/.test(name)) {
      throw new DOMException(`The protocol '${name}' is not a token (RFC 9110, section 5.6.2).`, 'SyntaxError');
    }
    if (list.indexOf(name) < i) {
      throw new DOMException(`The protocol '${name}' comes twice.`, 'SyntaxError');
    }
  }
  return list;
}

/** An unsigned short with `[Clamp]` (Web IDL, section 3.2.4.9): of two that are as near, the even one. */
function clamp(value: number): number {
  const below = Math.floor(Math.min(Math.max(value || 0, 0), 65_535));
  const rest = value - below;
  return rest > 0.5 || (rest === 0.5 && below % 2 === 1) ? below + 1 : below;
}

/** What is sent is what it was when it was sent. */
function copy(data: Payload): string | ArrayBuffer | Blob {
  // By its brand, as what is of another frame is no `instanceof` ours.
  const brand = Object.prototype.toString.call(data).slice(8, -1);
  if (brand === 'Blob' || brand === 'File') return data as Blob;
  if (ArrayBuffer.isView(data)) {
    return new Uint8Array(data.buffer, data.byteOffset, data.byteLength).slice().buffer;
  }
  if (brand === 'ArrayBuffer' || brand === 'SharedArrayBuffer') return new Uint8Array(data as ArrayBuffer).slice().buffer;
  // A USVString: halves of surrogate pairs become U+FFFD on the way through UTF-8.
  return `${data as string}`;
}

function sizeOf(data: string | ArrayBuffer | Blob): number {
  if (typeof data === 'string') return encode(data).length;
  return 'size' in data ? data.size : data.byteLength;
}

function closeEvent(code: number, reason: string, wasClean: boolean): Event {
  if (typeof CloseEvent === 'function') return new CloseEvent('close', { code, reason, wasClean });
  // Node.js has none.
  return Object.assign(new Event('close'), { code, reason, wasClean });
}

/** What a session of `/ws` takes is a line each: in JSON, line breaks are nothing but space. */
function oneLine(bytes: Uint8Array): Uint8Array {
  const line = bytes.map((byte) => (byte === 10 || byte === 13 ? 32 : byte));
  return line.length > 0 ? line : encode(' ');
}

const encode = (text: string) => new TextEncoder().encode(text);
const decode = (bytes: Uint8Array) => new TextDecoder().decode(bytes);

const POLL = '/connection/poll';
/** What follows is the server's behind the tunnel. */
const TUNNEL = /\/tunnel\/[\w.-]+(\/|$)/;
/** The subprotocols of the doors. */
const NAMES = { protobuf: 'centrifuge-protobuf', json: 'centrifuge-json', plain: 'tautline' };
/** Below the 5 s that the SDK gives an attempt, so that what follows can still be in time. */
const OPEN_TIMEOUT = 3_000;
/** Below the 5 s that the SDK gives a command, so that it is known why it got no answer. */
const SILENCE_TIMEOUT = 4_000;
const LINE_PATIENCE = 10_000;
const CLOSE_PATIENCE = 5_000;
const REMEMBER = 30 * 60 * 1000;
