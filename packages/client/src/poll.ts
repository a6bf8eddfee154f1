// A session over long-polling, as docs/long-polling.md describes it: frames of bytes in, messages
// out, nothing lost and nothing twice while requests and answers get lost on the way.

export type PollEvents = {
  /** The session is there. */
  opened(): void;
  /** A message of the server. */
  message(data: Uint8Array): void;
  /** So many frames that `send` took, oldest first, are with the session. */
  sent(frames: number): void;
  /** Said once, as the last thing. */
  ended(code: number, reason: string, clean: boolean): void;
};

type Answer = { status: number; head: Record<string, unknown>; data: Uint8Array };

export class PollLine {
  readonly #url: string;
  readonly #binary: boolean;
  readonly #fetch: typeof fetch;
  readonly #events: PollEvents;
  readonly #gone = new AbortController();
  #session = '';
  #next = 0;
  #idle = IDLE;
  #frame = 0;
  #queue: Uint8Array[] = [];
  #pumping = false;
  #closing = false;
  #over = false;

  /** Begins at once. `binary`: the frames are Protobuf. `patience`, in milliseconds, is for the first answer. */
  constructor(
    url: string,
    binary: boolean,
    request: typeof fetch,
    patience: number,
    events: PollEvents,
  ) {
    this.#url = url;
    this.#binary = binary;
    this.#fetch = request;
    this.#events = events;
    void this.#open(patience);
  }

  /** Frames go in this order; those that wait for a request share the next one. */
  send(frame: Uint8Array): void {
    this.#queue.push(frame);
    void this.#pump();
  }

  /** Ends the session when all that was sent is with it, or `LINGER` later. */
  close(): void {
    if (this.#over || this.#closing) return;
    this.#closing = true;
    if (this.#session === '' || (!this.#pumping && this.#queue.length === 0)) this.#leave();
    else setTimeout(() => this.#leave(), LINGER);
  }

  /** Ends it at once; what was not sent yet is lost. For a page that goes. */
  drop(): void {
    this.#leave();
  }

  async #open(patience: number): Promise<void> {
    const answer = await this.#request({ open: 1 }, undefined, patience);
    if (this.#over) {
      // Given up meanwhile: nobody will poll it.
      const session = answer?.head.session;
      if (typeof session === 'string') this.#sayClose(session);
      return;
    }
    const { session, next, idle } = answer?.head ?? {};
    if (answer?.status !== 200 || typeof session !== 'string' || typeof next !== 'number') {
      this.#end(1006, '', false);
      return;
    }
    this.#session = session;
    this.#next = next;
    if (typeof idle === 'number' && idle > 0) this.#idle = idle * 1000;
    this.#events.opened();
    this.#deliver(answer);
    void this.#poll();
  }

  async #poll(): Promise<void> {
    while (!this.#over) {
      const answer = await this.#persist(
        () => ({ session: this.#session, poll: this.#next, hold: HOLD }),
        undefined,
        HOLD * 1000 + PATIENCE,
        // 409: another poll of this session began, which can only be one that we gave up.
        (status) => status === 200 || REFUSED.has(status),
      );
      if (answer === null || this.#over) return;
      if (answer.status !== 200) {
        this.#end(1006, '', false);
        return;
      }
      this.#deliver(answer);
    }
  }

  /** Takes the answer's messages and its place in one step. */
  #deliver({ head, data }: Answer): void {
    if (typeof head.next === 'number') this.#next = head.next;
    if (this.#binary) {
      // The lengths are there as on a WebSocket, where a message may hold several of them too.
      if (data.length > 0) this.#events.message(data);
    } else {
      for (let from = 0; from < data.length && !this.#over; ) {
        const feed = data.indexOf(LINE_FEED, from);
        const end = feed < 0 ? data.length : feed;
        if (end > from) this.#events.message(data.subarray(from, end));
        from = end + 1;
      }
    }
    const end = head.end as { code?: unknown; reason?: unknown } | undefined;
    if (end !== undefined && end !== null) {
      this.#end(Number(end.code) || 1005, String(end.reason ?? ''), true);
    }
  }

  async #pump(): Promise<void> {
    if (this.#pumping || this.#session === '') return;
    this.#pumping = true;
    while (this.#queue.length > 0 && !this.#over) {
      let count = 0;
      let size = 0;
      for (const { length } of this.#queue) {
        if (count > 0 && size + length + 1 > BATCH) break;
        size += length + 1;
        count += 1;
      }
      const data = join(this.#queue.slice(0, count), this.#binary);
      const send = ++this.#frame;
      const answer = await this.#persist(
        () => ({ session: this.#session, send }),
        data,
        PATIENCE,
        (status) => status === 204 || status === 409 || REFUSED.has(status),
      );
      if (answer === null || this.#over) break;
      if (answer.status !== 204) {
        // 1009: message too big (RFC 6455, section 7.4.1).
        this.#end(answer.status === 413 ? 1009 : 1006, '', false);
        break;
      }
      this.#queue.splice(0, count);
      this.#events.sent(count);
    }
    this.#pumping = false;
    if (this.#closing) this.#leave();
  }

  /**
   * The same request again and again until it gets an answer of the server's, for as long as the
   * session lives without one. Null: it came to nothing, and the end was said.
   */
  async #persist(
    head: () => object,
    data: Uint8Array | undefined,
    patience: number,
    ours: (status: number) => boolean,
  ): Promise<Answer | null> {
    let since = 0;
    for (let pause = PAUSE; ; pause = Math.min(2 * pause, LONGEST_PAUSE)) {
      const answer = await this.#request(head(), data, patience);
      if (this.#over) return null;
      if (answer !== null && ours(answer.status)) return answer;
      since ||= Date.now();
      if (Date.now() - since > this.#idle) {
        this.#end(1006, '', false);
        return null;
      }
      await new Promise((resolve) => setTimeout(resolve, pause * (0.5 + Math.random() / 2)));
      if (this.#over) return null;
    }
  }

  /** One request. Null: no answer, or none of the server's. */
  async #request(head: object, data?: Uint8Array, patience = PATIENCE): Promise<Answer | null> {
    const stop = new AbortController();
    const abort = () => stop.abort();
    const timer = setTimeout(abort, patience);
    this.#gone.signal.addEventListener('abort', abort);
    try {
      const response = await this.#fetch.call(globalThis, this.#url, {
        method: 'POST',
        // `text/plain` spares the browser's question before each request to another origin.
        headers: { 'Content-Type': this.#binary ? BINARY : 'text/plain' },
        body: join([encode(JSON.stringify(head)), data ?? new Uint8Array()], false) as BodyInit,
        cache: 'no-store',
        signal: stop.signal,
      });
      const bytes = new Uint8Array(await response.arrayBuffer());
      if (response.status !== 200) return { status: response.status, head: {}, data: NOTHING };
      // Whatever else answers with 200 (a portal's page) was not the server.
      const type = response.headers.get('Content-Type') ?? '';
      const feed = bytes.indexOf(LINE_FEED);
      if (feed < 0 || !type.startsWith(this.#binary ? BINARY : LINES)) return null;
      const told: unknown = JSON.parse(decode(bytes.subarray(0, feed)));
      if (typeof told !== 'object' || told === null) return null;
      return {
        status: 200,
        head: told as Record<string, unknown>,
        data: bytes.subarray(feed + 1),
      };
    } catch {
      return null;
    } finally {
      clearTimeout(timer);
      this.#gone.signal.removeEventListener('abort', abort);
    }
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
      body: JSON.stringify({ session, close: true }),
      // Outlives the page.
      keepalive: true,
    });
    // If it gets lost, the session ends by itself.
    request.then(({ body }) => body?.cancel()).catch(() => {});
  }

  #end(code: number, reason: string, clean: boolean): void {
    if (this.#over) return;
    this.#over = true;
    // A request to open is let through, so that the session that it begins can be closed.
    if (this.#session !== '') this.#gone.abort();
    this.#events.ended(code, reason, clean);
  }
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

const encode = (text: string) => new TextEncoder().encode(text);
const decode = (bytes: Uint8Array) => new TextDecoder().decode(bytes);
const NOTHING = new Uint8Array();

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
