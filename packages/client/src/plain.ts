// The door for plain WebSockets (`/ws?channel=…`), spoken over a session of the client protocol:
// what lies between a page that sends and gets data, and commands and replies.

type Told = { code: number; message: string };
type Pub = { data: unknown; offset?: number; info?: unknown; tags?: unknown };
type Reply = {
  id?: number;
  error?: Told;
  subscribe?: { offset?: number; epoch?: string; recovered?: boolean; publications?: Pub[] };
  push?: { channel?: string; pub?: Pub; unsubscribe?: { code: number; reason: string } };
};
type Place = { name: string; since: string; offset: number; epoch: string };

export type PlainEvents = {
  command(command: object): void;
  message(text: string): void;
  end(code: number, reason: string): void;
};

export class Plain {
  readonly #events: PlainEvents;
  readonly #places: Place[];
  readonly #envelope: boolean;
  #id = FIRST_SUBSCRIBE;

  constructor(url: URL, protocols: readonly string[], events: PlainEvents) {
    this.#events = events;
    const query = url.searchParams;
    const since = query.getAll('since');
    this.#places = query
      .getAll('channel')
      .map((name, i) => ({ name, since: since[i] ?? '', offset: 0, epoch: '' }));
    const asked = query.get('envelope');
    this.#envelope = asked === null ? this.#places.length > 1 : asked === '1' || asked === 'true';
    const offered = protocols.find((name) => name.startsWith(TOKEN))?.slice(TOKEN.length);
    const token = query.get('token') ?? offered;
    events.command({ id: 1, connect: token === undefined ? {} : { token } });
    for (const { name: channel, since } of this.#places) {
      const [, offset, epoch] = /^(\d+),(.+)$/.exec(since) ?? [];
      const position = epoch === undefined ? {} : { recover: true, offset: Number(offset), epoch };
      events.command({ id: this.#id++, subscribe: { channel, positioned: true, recoverable: true, ...position } });
    }
  }

  /** What the page sends: JSON, to be published. */
  send(text: string): void {
    let message: unknown;
    try {
      message = JSON.parse(text);
    } catch {
      // Said below.
    }
    const named = (message ?? {}) as { channel?: unknown; data?: unknown };
    const whole = this.#envelope
      ? typeof named.channel === 'string' && named.data !== undefined
      : message !== undefined;
    if (!whole) {
      const expected = this.#envelope ? '{"channel":"news","data":…}' : 'JSON';
      return this.#refuse({ code: 107, message: `expected ${expected} to publish` });
    }
    const { channel, data } = this.#envelope ? named : { channel: this.#places[0]?.name, data: message };
    this.#events.command({ id: this.#id++, publish: { channel, data } });
  }

  /** A message of the server's. */
  receive(line: string): void {
    const reply = JSON.parse(line) as Reply;
    if (reply.id === undefined && reply.push === undefined) return this.#events.command({});
    const place = this.#places[(reply.id ?? 0) - FIRST_SUBSCRIBE];
    if (reply.error !== undefined) {
      const message = place ? `${place.name}: ${reply.error.message}` : reply.error.message;
      if (place || reply.id === 1 || !this.#envelope) {
        return this.#refuse({ code: reply.error.code, message });
      }
      return this.#say({ event: 'error', code: reply.error.code, message });
    }
    if (reply.subscribe !== undefined && place) this.#subscribed(place, reply.subscribe);
    const { channel, pub, unsubscribe } = reply.push ?? {};
    const pushed = this.#places.find(({ name }) => name === channel);
    if (pub && pushed) this.#publication(pushed, pub);
    // The channel is the page's only reason to be here.
    if (unsubscribe && pushed) this.#events.end(unsubscribe.code, unsubscribe.reason);
  }

  #subscribed(place: Place, told: NonNullable<Reply['subscribe']>): void {
    place.offset = told.offset ?? 0;
    place.epoch = told.epoch ?? '';
    const position = place.epoch === '' ? {} : { offset: place.offset, epoch: place.epoch };
    const { name: channel, since } = place;
    if (since !== '' && !told.recovered) {
      if (!this.#envelope) {
        const message = `what came behind ${since} in ${channel} is not kept any more: begin anew, without \`since\``;
        return this.#refuse({ code: 112, message });
      }
      this.#say({ event: 'gap', channel, since, ...position });
    } else if (this.#envelope) {
      this.#say({ event: 'subscribed', channel, ...position });
    }
    for (const pub of told.publications ?? []) this.#publication(place, pub);
  }

  #publication(place: Place, { data, offset, info, tags }: Pub): void {
    if (!this.#envelope) return this.#say(data);
    const position = place.epoch === '' ? {} : { offset, epoch: place.epoch };
    this.#say({ channel: place.name, ...position, data, info, tags });
  }

  #say(value: unknown): void {
    this.#events.message(JSON.stringify(value));
  }

  /** The codes of the door: 4000 and the protocol's error. */
  #refuse({ code, message }: Told): void {
    this.#events.end(4000 + code, message);
  }
}

/** Commands' numbers: 1 is the connect, those from here on are the subscriptions in their order. */
const FIRST_SUBSCRIBE = 2;
const TOKEN = 'tautline.token.';
