// A session over long-polling, as docs/long-polling.md and docs/tunnel.md describe it: frames of bytes in, messages
// out, nothing lost and nothing twice while requests and answers get lost on the way.
//
// A poll asks for an answer that goes on, which saves a request for each thing that is said. Where something on the
// way holds answers back until they are whole, its beginning doesn't come in time, and it polls for whole ones.

export type PollEvents = {
  /** The session is there; with the subprotocol that the server behind a tunnel has chosen. */
  opened(protocol: string): void;
  /** A message of the server; in a tunnel, text where `text` says so. */
  message(data: Uint8Array, text: boolean): void;
  /** So many frames that `send` took, oldest first, are with the session. */
  sent(frames: number): void;
  /** Answers that go on don't get through here. */
  buffered(): void;
  /** Said once, as the last thing. */
  ended(code: number, reason: string, clean: boolean): void;
};

/** How a session is carried. */
export type PollOptions = {
  /** What frames are: lines of JSON, Protobuf, or whatever goes through a tunnel. */
  kind: 'json' | 'protobuf' | 'tunnel';
  /** Subprotocols that are offered to the server behind a tunnel, or with a token among them. */
  protocols: readonly string[];
  /** What stands behind the `?` of `/ws`, where a session is one of that door's. */
  ws?: string | undefined;
  fetch: typeof fetch;
  /** Milliseconds for the first answer. */
  patience: number;
  /** Milliseconds within which an answer that goes on has to begin; `null`: none is asked for. */
  streams: number | null;
};

/** What waits to be sent: a frame, or a part of one, the last of which `ends` it. */
type Piece = { data: Uint8Array; ends: boolean };
type Answer = { status: number; head: Record<string, unknown>; data: Uint8Array };

export class PollLine {
  readonly #url: string;
  readonly #kind: PollOptions['kind'];
  readonly #binary: boolean;
  readonly #fetch: typeof fetch;
  readonly #events: PollEvents;
  readonly #gone = new AbortController();
  /** Within which time an answer that goes on has to begin, if any is asked for. */
  #begins: number | null;
  #flows = false;
  #session = '';
  #next = 0;
  #idle = IDLE;
  #frame = 0;
  #queue: Piece[] = [];
  /** Frames that end in the request on its way. */
  #flying = 0;
  #pumping = false;
  #closing = false;
  #said: object = {};
  #over = false;

  /** Begins at once. */
  constructor(url: string, { kind, protocols, ws, fetch, patience, streams }: PollOptions, events: PollEvents) {
    this.#url = url;
    this.#kind = kind;
    this.#binary = kind !== 'json';
    this.#fetch = fetch;
    this.#begins = streams;
    this.#events = events;
    void this.#open(patience, protocols, ws);
  }

  /** Whether answers are known to go on. */
  get streams(): boolean {
    return this.#flows;
  }

  /** Frames go in this order; those that wait for a request share the next one. In a tunnel, a frame is `text` or not. */
  send(frame: Uint8Array, text = false): void {
    let rest = this.#kind === 'tunnel' ? framed(frame, text) : frame;
    // Through a tunnel goes a stream of bytes, which may be cut anywhere.
    while (this.#kind === 'tunnel' && rest.length > BATCH) {
      this.#queue.push({ data: rest.subarray(0, BATCH), ends: false });
      rest = rest.subarray(BATCH);
    }
    this.#queue.push({ data: rest, ends: true });
    void this.#pump();
  }

  /** Ends the session when all that was sent is with it, or `LINGER` later. Tunnels pass on what `said` has. */
  close(said: { code?: number; reason?: string } = {}): void {
    if (this.#over || this.#closing) return;
    this.#closing = true;
    if (this.#kind === 'tunnel') this.#said = said;
    if (this.#session === '' || (!this.#pumping && this.#queue.length === 0)) this.#leave();
    else setTimeout(() => this.#leave(), LINGER);
  }

  /** Ends it at once; what was not sent yet is lost. A page that goes says so. */
  drop(goes = false): void {
    if (goes && this.#kind === 'tunnel') this.#said = { code: 1001 };
    this.#leave();
  }

  async #open(patience: number, protocols: readonly string[], ws?: string): Promise<void> {
    const offers = protocols.length > 0 && (this.#kind === 'tunnel' || ws !== undefined);
    const open = { open: 1, ws, protocols: offers ? protocols : undefined };
    const answer = await this.#request(open, undefined, patience);
    if (this.#over) {
      // Given up meanwhile: nobody will poll it.
      const session = answer?.head.session;
      if (typeof session === 'string') this.#sayClose(session);
      return;
    }
    const { session, next, idle, stream, protocol } = answer?.head ?? {};
    if (answer?.status !== 200 || typeof session !== 'string' || typeof next !== 'number') {
      return this.#refused(answer);
    }
    this.#session = session;
    this.#next = next;
    // A server of before knows nothing of it.
    if (stream !== true) this.#begins = null;
    if (typeof idle === 'number' && idle > 0) this.#idle = idle * 1000;
    this.#events.opened(typeof protocol === 'string' ? protocol : '');
    this.#deliver(answer);
    void this.#poll();
  }

  async #poll(): Promise<void> {
    let buffers = false;
    while (!this.#over) {
      const begins = this.#begins;
      const answer = await this.#persist(
        () =>
          begins === null
            ? this.#request(this.#head(false), undefined, HOLD * 1000 + PATIENCE)
            : this.#listen(this.#head(true), begins),
        // 409: another poll of this session began, which can only be one that we gave up.
        (status) => status === 200 || REFUSED.has(status),
      );
      if (answer === null || this.#over) return;
      if (answer === LATE) {
        this.#begins = null;
        this.#flows = false;
        buffers = true;
        continue;
      }
      if (answer.status !== 200) return this.#refused(answer);
      if (begins === null) this.#deliver(answer);
      // Whole ones do: it wasn't the network that was away.
      if (buffers) this.#events.buffered();
      buffers = false;
    }
  }

  #head(stream: boolean): object {
    return { session: this.#session, poll: this.#next, hold: HOLD, ...(stream ? { stream } : {}) };
  }

  /** A poll whose answer goes on: delivers what comes. An answer is what it came to, `LATE` that it didn't begin. */
  async #listen(head: object, begins: number): Promise<Answer | null> {
    const stop = new AbortController();
    const abort = () => stop.abort();
    this.#gone.signal.addEventListener('abort', abort);
    let isLate = false;
    let timer = setTimeout(() => {
      isLate = true;
      abort();
    }, begins);
    let parts = 0;
    try {
      const response = await this.#post(head, undefined, stop.signal);
      if (response.status !== 200) return { status: response.status, head: {}, data: NOTHING };
      const reader = this.#isOurs(response) ? response.body?.getReader() : undefined;
      if (reader === undefined) return null;
      // What came and is no whole part: joined once there is one, as a long one comes in many pieces.
      let pieces: Uint8Array[] = [];
      for (let missing = 0; ; ) {
        const { done, value } = await reader.read();
        if (done || this.#over) break;
        pieces.push(value);
        missing -= value.length;
        if (missing > 0) continue;
        let bytes = join(pieces, true);
        for (;;) {
          const part = cut(bytes);
          if (typeof part === 'number') {
            missing = part;
            break;
          }
          bytes = part.rest;
          parts += 1;
          clearTimeout(timer);
          timer = setTimeout(abort, HOLD * 1000 + PATIENCE);
          this.#flows = true;
          this.#deliver(part.answer);
          if (this.#over) return null;
        }
        pieces = [bytes];
      }
    } catch {
      // What came of it counts.
      if (isLate && parts === 0) return LATE;
    } finally {
      clearTimeout(timer);
      this.#gone.signal.removeEventListener('abort', abort);
      stop.abort();
    }
    return parts > 0 ? { status: 200, head: {}, data: NOTHING } : null;
  }

  /** Takes the answer's messages and its place in one step. */
  #deliver({ head, data }: Answer): void {
    if (typeof head.next === 'number') this.#next = head.next;
    if (this.#kind === 'tunnel') {
      for (let from = 0; from < data.length && !this.#over; ) {
        const { text, start, end } = unframed(data, from);
        this.#events.message(data.subarray(start, end), text);
        from = end;
      }
    } else if (this.#binary) {
      // The lengths are there as on a WebSocket, where a message may hold several of them too.
      if (data.length > 0) this.#events.message(data, false);
    } else {
      for (let from = 0; from < data.length && !this.#over; ) {
        const feed = data.indexOf(LINE_FEED, from);
        const end = feed < 0 ? data.length : feed;
        if (end > from) this.#events.message(data.subarray(from, end), true);
        from = end + 1;
      }
    }
    const end = head.end as { code?: unknown; reason?: unknown } | undefined;
    if (end !== undefined && end !== null) {
      const code = Number(end.code) || 1005;
      this.#end(code, String(end.reason ?? ''), code !== 1006);
    }
  }

  async #pump(): Promise<void> {
    if (this.#pumping || this.#session === '') return;
    this.#pumping = true;
    while (this.#queue.length > 0 && !this.#over) {
      let count = 0;
      let size = 0;
      for (const { data } of this.#queue) {
        if (count > 0 && size + data.length + 1 > BATCH) break;
        size += data.length + 1;
        count += 1;
      }
      const frames = this.#queue.slice(0, count);
      const data = join(frames.map(({ data }) => data), this.#binary);
      const send = ++this.#frame;
      this.#flying = frames.filter(({ ends }) => ends).length;
      const answer = await this.#persist(
        () => this.#request({ session: this.#session, send }, data),
        (status) => status === 204 || status === 409 || REFUSED.has(status),
      );
      if (answer === null || this.#over) break;
      if (answer.status !== 204) return this.#refused(answer);
      this.#queue.splice(0, count);
      this.#arrived();
    }
    this.#pumping = false;
    if (this.#closing) this.#leave();
  }

  /**
   * The same request again and again until it gets an answer of the server's, for as long as the
   * session lives without one. Null: it came to nothing, and the end was said.
   */
  async #persist(
    request: () => Promise<Answer | null>,
    ours: (status: number) => boolean,
  ): Promise<Answer | null> {
    let since = 0;
    for (let pause = PAUSE; ; pause = Math.min(2 * pause || PAUSE, LONGEST_PAUSE)) {
      const answer = await request();
      if (this.#over) return null;
      if (answer !== null && ours(answer.status)) return answer;
      // 202: it is there, and has no room yet.
      if (answer?.status === 202) {
        since = pause = 0;
        continue;
      }
      since ||= Date.now();
      if (Date.now() - since > this.#idle) {
        this.#end(1006, '', false);
        return null;
      }
      await new Promise((resolve) => setTimeout(resolve, pause * (0.5 + Math.random() / 2)));
      if (this.#over) return null;
    }
  }

  /** One request with a whole answer. Null: no answer, or none of the server's. */
  async #request(head: object, data?: Uint8Array, patience = PATIENCE): Promise<Answer | null> {
    const stop = new AbortController();
    const abort = () => stop.abort();
    const timer = setTimeout(abort, patience);
    this.#gone.signal.addEventListener('abort', abort);
    try {
      const response = await this.#post(head, data, stop.signal);
      const bytes = new Uint8Array(await response.arrayBuffer());
      if (response.status !== 200) {
        // Whatever is in between says pages.
        return { status: response.status, head: {}, data: type(response).startsWith('text/plain') ? bytes : NOTHING };
      }
      const feed = bytes.indexOf(LINE_FEED);
      if (feed < 0 || !this.#isOurs(response)) return null;
      const told = parse(bytes.subarray(0, feed));
      return told && { status: 200, head: told, data: bytes.subarray(feed + 1) };
    } catch {
      return null;
    } finally {
      clearTimeout(timer);
      this.#gone.signal.removeEventListener('abort', abort);
    }
  }

  /** A WebSocket has the cookies of its server wherever the page is from: so has what stands for it. */
  #post(head: object, data: Uint8Array | undefined, signal: AbortSignal): Promise<Response> {
    return this.#fetch.call(globalThis, this.#url, {
      method: 'POST',
      // `text/plain` spares the browser's question before each request to another origin.
      headers: { 'Content-Type': this.#binary ? BINARY : 'text/plain' },
      body: join([encode(JSON.stringify(head)), data ?? NOTHING], false) as BodyInit,
      cache: 'no-store',
      signal,
      credentials: 'include',
    });
  }

  /** Whatever else answers with 200 (a portal's page) was not the server. */
  #isOurs(response: Response): boolean {
    return type(response).startsWith(this.#binary ? BINARY : LINES);
  }

  #leave(): void {
    if (this.#over) return;
    if (this.#session !== '') this.#sayClose(this.#session);
    this.#end(1005, '', true);
  }

  #sayClose(session: string): void {
    const request = this.#fetch.call(globalThis, this.#url, {
      method: 'POST',
      headers: { 'Content-Type': this.#binary ? BINARY : 'text/plain' },
      body: JSON.stringify({ session, close: true, ...this.#said }),
      credentials: 'include',
      // Outlives the page.
      keepalive: true,
    });
    // If it gets lost, the session ends by itself.
    request.then(({ body }) => body?.cancel()).catch(() => {});
  }

  /** The server, or something in between, has none of it. */
  #refused(answer: Answer | null): void {
    const said = decode(answer?.data ?? NOTHING).trim();
    // Message too big (RFC 6455, section 7.4.1): that a WebSocket is told by a Close.
    if (answer?.status === 413) return this.#end(1009, said, true);
    if (said !== '') console.warn(`${this.#url}: ${said}`);
    this.#end(1006, '', false);
  }

  /** What was in the request on its way is no more. */
  #arrived(): void {
    this.#events.sent(this.#flying);
    this.#flying = 0;
  }

  #end(code: number, reason: string, clean: boolean): void {
    if (this.#over) return;
    this.#over = true;
    // It has left, whether or not it has arrived.
    this.#arrived();
    // A request to open is let through, so that the session that it begins can be closed.
    if (this.#session !== '') this.#gone.abort();
    this.#events.ended(code, reason, clean);
  }
}

/** The first part of an answer that goes on; where it isn't whole, how many bytes are missing at least. */
function cut(bytes: Uint8Array): { answer: Answer; rest: Uint8Array } | number {
  const feed = bytes.indexOf(LINE_FEED);
  if (feed < 0) return 1;
  const head = parse(bytes.subarray(0, feed));
  const end = feed + 1 + Number(head?.size);
  if (bytes.length < end) return end - bytes.length;
  if (head === null || !(end > feed)) throw new Error('A part has a head with its size.');
  return { answer: { status: 200, head, data: bytes.subarray(feed + 1, end) }, rest: bytes.subarray(end) };
}

function parse(line: Uint8Array): Record<string, unknown> | null {
  const told: unknown = JSON.parse(decode(line));
  return typeof told === 'object' && told !== null ? (told as Record<string, unknown>) : null;
}

function join(parts: Uint8Array[], binary: boolean): Uint8Array {
  const seam = binary ? 0 : 1;
  const whole = new Uint8Array(
    parts.reduce((size, { length }) => size + length + seam, -seam),
  );
  let at = 0;
  for (const part of parts) {
    if (seam && at > 0) whole[at++] = LINE_FEED;
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}

/** A message of a tunnel: its kind, its length, and what is in it. */
function framed(payload: Uint8Array, text: boolean): Uint8Array {
  const head = [text ? TEXT : BINARY_MESSAGE];
  let left = payload.length;
  for (; left > 0x7f; left = Math.floor(left / 0x80)) head.push((left & 0x7f) | 0x80);
  head.push(left);
  return join([new Uint8Array(head), payload], true);
}

/** Where the message at a place is. */
function unframed(bytes: Uint8Array, at: number): { text: boolean; start: number; end: number } {
  const text = bytes[at] === TEXT;
  let start = at + 1;
  let length = 0;
  for (let factor = 1, byte = 0x80; byte > 0x7f && start < bytes.length; factor *= 0x80) {
    byte = bytes[start++]!;
    length += (byte & 0x7f) * factor;
  }
  return { text, start, end: start + length };
}

const type = (response: Response) => response.headers.get('Content-Type') ?? '';
const encode = (text: string) => new TextEncoder().encode(text);
const decode = (bytes: Uint8Array) => new TextDecoder().decode(bytes);
const NOTHING = new Uint8Array();
const LATE: Answer = { status: 200, head: {}, data: NOTHING };

/** The op codes of RFC 6455. */
const TEXT = 1;
const BINARY_MESSAGE = 2;
const LINE_FEED = 0x0a;
const BINARY = 'application/octet-stream';
const LINES = 'application/x-ndjson';
/** Statuses that end a session: the request is wrong, forbidden, too long, or there is no such session or place. */
const REFUSED = new Set([400, 403, 404, 405, 410, 413]);
/** Seconds that a poll is held. Short enough for what cuts idle requests after 30 s. */
const HOLD = 25;
/** Milliseconds for an answer that isn't held. */
const PATIENCE = 10_000;
/** How long a session lives without a poll, if the server doesn't say, in milliseconds. */
const IDLE = 20_000;
/** How long unsent frames are waited for after `close`, in milliseconds. */
const LINGER = 3_000;
/** Bytes of frames in a request, unless one alone is longer; the server's limit is 64 KiB. */
const BATCH = 60 * 1024;
/** Between two attempts, in milliseconds. */
const PAUSE = 100;
const LONGEST_PAUSE = 3_000;
