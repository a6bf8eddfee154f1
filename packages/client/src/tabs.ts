// One connection for all tabs of a browser: an elected tab (Web Locks) has it, and the others are served by
// that one (BroadcastChannel).
//
// Each tab knows by itself what it wants, and the position of the last publication that it gave to its page.
// The leader may therefore end at any point: whoever follows asks all tabs, goes on in each channel from the
// oldest of their positions, and each tab drops what it has already. Where a publication doesn't follow the one
// before it, a tab doesn't take it, but asks again from where it is. Who shares is told by the names of lock and
// channel, which have the identity in them: nothing of one identity is ever said where another listens.

import type { Centrifuge, Subscription, SubscriptionOptions } from 'centrifuge';

export type SharedOptions = {
  /**
   * Whose connection it is: tabs share one exactly if they say the same here. Name the server, the user and the
   * login, such as `https://example.com/alice/<session id>`. Never the same for two users.
   */
  identity: string;
  /** Makes the client; called in the tab that has the connection, whenever it comes to have it. */
  client: () => Centrifuge;
  /** Options of a channel's subscription, such as `getToken`; asked in that tab too. */
  subscription?: (channel: string) => Partial<SubscriptionOptions>;
};

/** `closed` is the end: by `close`, or by the `logout` of any tab of the identity. */
export type SharedState = 'connecting' | 'connected' | 'disconnected' | 'closed';

export type Position = { readonly offset: number; readonly epoch: string };

export type Publication = {
  readonly channel: string;
  readonly data: unknown;
  /** Where the channel has a history. */
  readonly offset?: number | undefined;
  readonly tags?: Record<string, string> | undefined;
  readonly info?: unknown;
};

/** What a call came to. `code` is the protocol's, or 0: it is not known whether it was done, or it can't be any more. */
export class SharedError extends Error {
  constructor(
    readonly code: number,
    message: string,
  ) {
    super(message);
    this.name = 'SharedError';
  }
}

type Method = 'publish' | 'history' | 'presence' | 'presenceStats' | 'rpc' | 'send';
type Message =
  | { kind: 'lead'; leader: string }
  | { kind: 'state'; leader: string; state: SharedState }
  | { kind: 'pub'; leader: string; epoch: string; pub: Publication }
  | { kind: 'subscribed'; leader: string; to: string | null; channel: string; position: Position | null; recovered: boolean }
  | { kind: 'failed'; leader: string; channel: string; code: number; reason: string; final: boolean }
  | { kind: 'answer'; leader: string; to: string; id: number; result?: unknown; error?: { code: number; message: string } }
  | { kind: 'want'; tab: string; channel: string; position: Position | null }
  | { kind: 'hello'; tab: string }
  | { kind: 'drop'; tab: string; channel: string }
  | { kind: 'bye'; tab: string }
  | { kind: 'call'; tab: string; leader: string; id: number; method: Method; args: unknown[] }
  | { kind: 'logout' };

/** This tab's part of a shared connection. Events: `state`, `logout`. */
export class SharedClient extends EventTarget {
  readonly #options: SharedOptions;
  readonly #tab = crypto.randomUUID?.() ?? String(Math.random()).slice(2) + Date.now();
  readonly #name: string;
  readonly #bus: BroadcastChannel | null;
  readonly #channels = new Map<string, Wanted>();
  readonly #calls = new Map<number, Call>();
  readonly #stop = new AbortController();
  #lives = false;
  #call = 0;
  #state: SharedState = 'connecting';
  #leader: string | null = null;
  #lead: Lead | null = null;
  #release: (() => void)[] = [];

  /**
   * Joins, and connects if no other tab has. Where a page has no Web Locks (they need a secure context), the
   * tab has a connection of its own and all else is the same.
   */
  constructor(options: SharedOptions) {
    super();
    this.#options = options;
    this.#name = `tautline ${options.identity}`;
    const locks = globalThis.navigator?.locks;
    const shares = locks !== undefined && typeof BroadcastChannel === 'function';
    this.#bus = shares ? new BroadcastChannel(this.#name) : null;
    if (this.#bus === null) {
      this.#becomeLeader();
      return;
    }
    this.#bus.onmessage = ({ data }) => this.#receive(data as Message);
    // Held for as long as the tab lives: the leader waits for it, and so hears of a tab that died.
    this.#hold(`${this.#name} ${this.#tab}`, () => {
      this.#lives = true;
      this.#sayHello();
    });
    this.#hold(this.#name, () => this.#becomeLeader());
  }

  get state(): SharedState {
    return this.#state;
  }

  /** Whether this tab has the connection. */
  get leads(): boolean {
    return this.#lead !== null;
  }

  /**
   * A subscription of this tab's. Several to one channel are independent of one another, in one tab as in many,
   * and cost the server one. With `since` it begins with what came behind that position.
   */
  subscribe(channel: string, since: Position | null = null): SharedSubscription {
    if (this.#state === 'closed') throw new SharedError(0, 'the connection is closed');
    let wanted = this.#channels.get(channel);
    if (wanted === undefined || since !== null) {
      // What comes for one position is of no use to another.
      const known = wanted?.all ?? new Set();
      wanted = { all: known, asking: true };
      this.#channels.set(channel, wanted);
    }
    const subscription = new SharedSubscription(channel, since, (gone) => this.#drop(gone));
    wanted.all.add(subscription);
    this.#want(channel, since);
    return subscription;
  }

  publish(channel: string, data: unknown): Promise<unknown> {
    return this.#ask('publish', [channel, data]);
  }
  history(channel: string, options: object = {}): Promise<unknown> {
    return this.#ask('history', [channel, options]);
  }
  presence(channel: string): Promise<unknown> {
    return this.#ask('presence', [channel]);
  }
  presenceStats(channel: string): Promise<unknown> {
    return this.#ask('presenceStats', [channel]);
  }
  rpc(method: string, data: unknown): Promise<unknown> {
    return this.#ask('rpc', [method, data]);
  }

  /** This tab leaves; the others stay. */
  close(): void {
    if (this.#state === 'closed') return;
    this.#say({ kind: 'bye', tab: this.#tab });
    this.#end();
  }

  /** The user leaves: the connection ends, and all tabs of this identity are closed. */
  logout(): void {
    if (this.#state === 'closed') return;
    this.#say({ kind: 'logout' });
    this.#loggedOut();
  }

  #loggedOut(): void {
    this.#end();
    this.dispatchEvent(new Event('logout'));
  }

  #end(): void {
    this.#lead?.close();
    this.#lead = null;
    this.#stop.abort();
    for (const release of this.#release) release();
    this.#bus?.close();
    for (const call of this.#calls.values()) call.reject(new SharedError(0, 'the connection is closed'));
    this.#calls.clear();
    this.#channels.clear();
    this.#setState('closed');
  }

  #hold(name: string, held: () => void): void {
    const { signal } = this.#stop;
    navigator.locks
      .request(name, { signal }, () => {
        held();
        return new Promise<void>((resolve) => this.#release.push(resolve));
      })
      // Aborted by the end.
      .catch(() => {});
  }

  #becomeLeader(): void {
    if (this.#state === 'closed') return;
    const say = (message: Message) => this.#say(message);
    this.#lead = new Lead(this.#tab, this.#name, this.#options, say);
    say({ kind: 'lead', leader: this.#lead.id });
    this.#lead.start();
  }

  /** To all tabs, and to this one. */
  #say(message: Message): void {
    this.#bus?.postMessage(message);
    queueMicrotask(() => this.#receive(message));
  }

  #receive(message: Message): void {
    if (this.#state === 'closed') return;
    if (message.kind === 'logout') return this.#loggedOut();
    if (!('leader' in message) || message.kind === 'call') {
      this.#lead?.receive(message);
      return;
    }
    if (message.kind === 'lead') return this.#follow(message.leader);
    if (message.leader !== this.#leader) {
      // Of one who leads no more; or of one whose first word this tab wasn't there to hear.
      if (this.#leader !== null && message.leader < this.#leader) return;
      this.#follow(message.leader);
    }
    switch (message.kind) {
      case 'state':
        return this.#setState(message.state);
      case 'pub':
        return this.#publication(message.epoch, message.pub);
      case 'subscribed':
        if (message.to === null || message.to === this.#tab) this.#subscribed(message);
        return;
      case 'failed': {
        const { channel, code, reason, final } = message;
        const all = [...(this.#channels.get(channel)?.all ?? [])];
        if (final) this.#channels.delete(channel);
        for (const subscription of all) subscription.failed(code, reason, final);
        return;
      }
      case 'answer':
        if (message.to !== this.#tab) return;
        this.#answered(message.id, message.result, message.error);
    }
  }

  /** A new leader: it is told all that this tab wants, and from where. */
  #follow(leader: string): void {
    if (leader === this.#leader) return;
    this.#leader = leader;
    for (const [id, call] of this.#calls) {
      if (call.asked) {
        this.#calls.delete(id);
        call.reject(
          new SharedError(0, 'the tab that had the connection was closed: it is not known whether this was done'),
        );
      } else {
        this.#sendCall(id, call);
      }
    }
    this.#sayHello();
    for (const channel of this.#channels.keys()) this.#wantAgain(channel);
  }

  #wantAgain(channel: string): void {
    const wanted = this.#channels.get(channel);
    if (wanted === undefined) return;
    wanted.asking = true;
    const places = [...wanted.all].map(({ position }) => position);
    for (const position of places) this.#want(channel, position);
  }

  /** Not before this tab has its lock: whoever gets it takes the tab for dead. */
  #sayHello(): void {
    if (this.#lives || this.#bus === null) this.#say({ kind: 'hello', tab: this.#tab });
  }

  #want(channel: string, position: Position | null): void {
    this.#say({ kind: 'want', tab: this.#tab, channel, position });
  }

  #subscribed({ channel, position, recovered }: Message & { kind: 'subscribed' }): void {
    const wanted = this.#channels.get(channel);
    if (wanted === undefined) return;
    wanted.asking = false;
    for (const subscription of [...wanted.all]) subscription.begins(position, recovered);
  }

  #publication(epoch: string, pub: Publication): void {
    const wanted = this.#channels.get(pub.channel);
    if (wanted === undefined) return;
    let missed = false;
    for (const subscription of [...wanted.all]) missed = !subscription.take(epoch, pub) || missed;
    // Once: until the leader has gone back, what comes is still ahead of us.
    if (missed && !wanted.asking) this.#wantAgain(pub.channel);
  }

  #drop(subscription: SharedSubscription): void {
    const wanted = this.#channels.get(subscription.channel);
    if (!wanted?.all.delete(subscription) || wanted.all.size > 0) return;
    this.#channels.delete(subscription.channel);
    this.#say({ kind: 'drop', tab: this.#tab, channel: subscription.channel });
  }

  #ask(method: Method, args: unknown[]): Promise<unknown> {
    if (this.#state === 'closed') return Promise.reject(new SharedError(0, 'the connection is closed'));
    return new Promise((resolve, reject) => {
      const id = ++this.#call;
      const call: Call = { method, args, resolve, reject, asked: false };
      this.#calls.set(id, call);
      // Otherwise when there is somebody to ask.
      if (this.#leader !== null) this.#sendCall(id, call);
    });
  }

  #sendCall(id: number, call: Call): void {
    call.asked = true;
    const { method, args } = call;
    this.#say({ kind: 'call', tab: this.#tab, leader: this.#leader ?? '', id, method, args });
  }

  #answered(id: number, result: unknown, error?: { code: number; message: string }): void {
    const call = this.#calls.get(id);
    this.#calls.delete(id);
    if (error === undefined) call?.resolve(result);
    else call?.reject(new SharedError(error.code, error.message));
  }

  #setState(state: SharedState): void {
    if (this.#state === state || this.#state === 'closed') return;
    this.#state = state;
    this.dispatchEvent(new Event('state'));
  }
}

type Wanted = { readonly all: Set<SharedSubscription>; /** Of a leader that hasn't answered yet. */ asking: boolean };
type Call = {
  method: Method;
  args: unknown[];
  resolve: (result: unknown) => void;
  reject: (error: SharedError) => void;
  asked: boolean;
};

/**
 * One of a tab's subscriptions. Events: `publication` (a `MessageEvent` whose data is a `Publication`),
 * `subscribed` (data: `{ recovered }`; if that is false, something may be missing: load it anew) and `error`
 * (data: `{ code, reason, final }`; if that is true, it is over).
 */
export class SharedSubscription extends EventTarget {
  #position: Position | null;
  #leave: ((subscription: SharedSubscription) => void) | null;

  /** @internal */
  constructor(
    readonly channel: string,
    since: Position | null,
    leave: (subscription: SharedSubscription) => void,
  ) {
    super();
    this.#position = since;
    this.#leave = leave;
  }

  /** Up to where this subscription has all; `null` before it is known, and where there is no history. */
  get position(): Position | null {
    return this.#position;
  }

  unsubscribe(): void {
    const leave = this.#leave;
    this.#leave = null;
    leave?.(this);
  }

  /** @internal The channel is at `position`, and what came behind ours comes, if it was recovered. */
  begins(position: Position | null, recovered: boolean): void {
    const mine = this.#position;
    const whole =
      mine === null || position === null
        ? mine === null
        : mine.epoch === position.epoch && (recovered || mine.offset === position.offset);
    if (mine === null || !whole) this.#position = position;
    this.#tell('subscribed', { recovered: whole });
  }

  /** @internal Whether it follows what we have; if not, it isn't taken. */
  take(epoch: string, pub: Publication): boolean {
    const mine = this.#position;
    // Without an epoch there are no positions to go by, only what comes.
    if (epoch !== '' && pub.offset !== undefined && pub.offset > 0) {
      // What is missed before the position is known comes behind it.
      if (mine === null) return true;
      if (epoch !== mine.epoch || pub.offset > mine.offset + 1) return false;
      if (pub.offset <= mine.offset) return true;
      this.#position = { offset: pub.offset, epoch };
    }
    this.#tell('publication', pub);
    return true;
  }

  /** @internal */
  failed(code: number, reason: string, final: boolean): void {
    if (final) this.#leave = null;
    this.#tell('error', { code, reason, final });
  }

  #tell(type: string, data: unknown): void {
    if (this.#leave !== null || type === 'error') this.dispatchEvent(new MessageEvent(type, { data }));
  }
}

/** What the tab with the connection does for all. */
class Lead {
  /** Of two leaders the later is the greater. */
  readonly id: string;
  readonly #client: Centrifuge;
  readonly #channels = new Map<string, Led>();
  readonly #known = new Set<string>();
  readonly #stop = new AbortController();
  #closed = false;
  #state: SharedState = 'connecting';

  constructor(
    readonly tab: string,
    readonly name: string,
    readonly options: SharedOptions,
    readonly say: (message: Message) => void,
  ) {
    this.id = `${String(Date.now()).padStart(15, '0')} ${tab}`;
    this.#client = options.client();
  }

  start(): void {
    this.#client.on('state', ({ newState }) => {
      this.#state = newState;
      this.#sayState();
    });
    this.#sayState();
    this.#client.connect();
  }

  close(): void {
    this.#closed = true;
    this.#stop.abort();
    this.#client.disconnect();
  }

  receive(message: Message): void {
    if (this.#closed) return;
    switch (message.kind) {
      case 'hello':
        this.#watch(message.tab);
        if (message.tab !== this.tab) this.#sayState();
        return;
      case 'want':
        return this.#want(message.tab, message.channel, message.position);
      case 'drop':
        return this.#drop(message.tab, message.channel);
      case 'bye':
        return this.#left(message.tab);
      case 'call':
        if (message.leader === this.id) void this.#call(message);
    }
  }

  #sayState(): void {
    if (!this.#closed) this.say({ kind: 'state', leader: this.id, state: this.#state });
  }

  /** The lock that a tab holds is ours when that tab is gone. */
  #watch(tab: string): void {
    if (tab === this.tab || this.#known.has(tab)) return;
    this.#known.add(tab);
    navigator.locks
      .request(`${this.name} ${tab}`, { signal: this.#stop.signal }, () => this.#left(tab))
      .catch(() => {});
  }

  #left(tab: string): void {
    this.#known.delete(tab);
    for (const channel of [...this.#channels.keys()]) this.#drop(tab, channel);
  }

  #drop(tab: string, channel: string): void {
    const led = this.#channels.get(channel);
    if (!led?.tabs.delete(tab) || led.tabs.size > 0) return;
    this.#channels.delete(channel);
    this.#forget(led.subscription);
  }

  #want(tab: string, channel: string, position: Position | null): void {
    const led = this.#channels.get(channel);
    if (led === undefined) {
      this.#channels.set(channel, this.#begin(channel, new Set([tab]), position));
      return;
    }
    led.tabs.add(tab);
    const since = position ?? led.since;
    if (led.at === undefined) {
      // Not there yet. Whoever is further behind says from where it begins.
      if (position !== null && isBefore(position, led.since)) this.#rewind(channel, led, position);
      return;
    }
    const at = led.at;
    if (position !== null && at !== null && position.epoch === at.epoch && position.offset < at.offset) {
      this.#rewind(channel, led, since);
      return;
    }
    const recovered = position === null || (at !== null && position.epoch === at.epoch);
    this.say({ kind: 'subscribed', leader: this.id, to: tab, channel, position: at, recovered });
  }

  /** Subscribes anew, from further back; each tab drops what it has. */
  #rewind(channel: string, led: Led, since: Position | null): void {
    this.#forget(led.subscription);
    this.#channels.set(channel, this.#begin(channel, led.tabs, since));
  }

  #begin(channel: string, tabs: Set<string>, since: Position | null): Led {
    const subscription = this.#client.newSubscription(channel, {
      positioned: true,
      recoverable: true,
      ...this.options.subscription?.(channel),
      ...(since === null ? {} : { since }),
    });
    const led: Led = { subscription, tabs, since, at: undefined };
    const { id: leader } = this;
    subscription.on('subscribed', ({ streamPosition, recovered }) => {
      const position = streamPosition ? { offset: streamPosition.offset, epoch: streamPosition.epoch } : null;
      led.at = position;
      this.say({ kind: 'subscribed', leader, to: null, channel, position, recovered });
    });
    subscription.on('publication', ({ data, offset, tags, info }) => {
      const epoch = led.at?.epoch ?? '';
      if (led.at && offset && offset > led.at.offset) led.at = { offset, epoch };
      this.say({ kind: 'pub', leader, epoch, pub: { channel, data, offset, tags, info } });
    });
    subscription.on('error', ({ error }) => {
      this.say({ kind: 'failed', leader, channel, code: error.code, reason: error.message, final: false });
    });
    subscription.on('unsubscribed', ({ code, reason }) => {
      // Not by us, whose listeners are off by then.
      this.#channels.delete(channel);
      this.#forget(subscription);
      this.say({ kind: 'failed', leader, channel, code, reason, final: true });
    });
    subscription.subscribe();
    return led;
  }

  #forget(subscription: Subscription): void {
    subscription.removeAllListeners();
    this.#client.removeSubscription(subscription);
  }

  async #call({ tab: to, id, method, args }: Message & { kind: 'call' }): Promise<void> {
    const { id: leader } = this;
    try {
      const does = this.#client[method] as (...args: unknown[]) => Promise<unknown>;
      const result = await does.apply(this.#client, args);
      this.say({ kind: 'answer', leader, to, id, result });
    } catch (failure) {
      const { code = 0, message = String(failure) } = (failure ?? {}) as { code?: number; message?: string };
      this.say({ kind: 'answer', leader, to, id, error: { code, message } });
    }
  }
}

type Led = {
  subscription: Subscription;
  tabs: Set<string>;
  since: Position | null;
  /** Where the stream is, as far as the tabs were told; undefined before it is subscribed. */
  at: Position | null | undefined;
};

const isBefore = (one: Position, other: Position | null) =>
  other === null || (one.epoch === other.epoch && one.offset < other.offset);
