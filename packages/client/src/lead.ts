// What the one with the connection does for all tabs, and how it comes to have it: whoever holds the lock of the
// identity's name leads.
//
// It has no state that counts. A new one hears from all tabs what they want and from where, and goes on in each
// channel from the oldest of their positions.

import type { Centrifuge, Subscription, SubscriptionOptions } from 'centrifuge';

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

export type Method = 'publish' | 'history' | 'presence' | 'presenceStats' | 'rpc' | 'send';

/** What tabs and their leader say to one another. */
export type Message =
  | { kind: 'lead'; leader: string }
  | { kind: 'state'; leader: string; state: SharedState }
  | { kind: 'pub'; leader: string; epoch: string; pub: Publication }
  | { kind: 'subscribed'; leader: string; to: string | null; channel: string; position: Position | null; recovered: boolean }
  | { kind: 'failed'; leader: string; channel: string; code: number; reason: string; final: boolean }
  | { kind: 'answer'; leader: string; to: string; id: number; result?: unknown; error?: { code: number; message: string } }
  | { kind: 'want'; tab: string; channel: string; position: Position | null }
  | { kind: 'hello'; tab: string }
  | { kind: 'ask' }
  | { kind: 'drop'; tab: string; channel: string }
  | { kind: 'bye'; tab: string }
  | { kind: 'call'; tab: string; leader: string; id: number; method: Method; args: unknown[] }
  | { kind: 'logout' };

/** How the leader makes the client, and its subscriptions. */
export type LeadOptions = {
  client: () => Centrifuge;
  subscription?: ((channel: string) => Partial<SubscriptionOptions>) | undefined;
};

/** The name of an identity's lock and channel: nothing of one identity is ever said where another listens. */
export const nameOf = (identity: string) => `tautline ${identity}`;

/** The lock that makes a leader. Whoever stands gets it when nobody else has it any more. */
export class Election {
  readonly #name: string;
  readonly #won: () => void;
  readonly #lost: () => void;
  #candidacy: AbortController | null = null;
  #release: () => void = () => {};

  /** `lost` is for a lock that was stolen; the candidate stands again by itself. */
  constructor(name: string, won: () => void, lost: () => void) {
    this.#name = name;
    this.#won = won;
    this.#lost = lost;
  }

  /** `steal`: at once, from whoever has it. */
  stand(steal = false): void {
    this.leave();
    const candidacy = (this.#candidacy = new AbortController());
    let leads = false;
    navigator.locks
      .request(this.#name, steal ? { steal } : { signal: candidacy.signal }, () => {
        if (this.#candidacy !== candidacy) return;
        leads = true;
        this.#won();
        return new Promise<void>((resolve) => (this.#release = resolve));
      })
      .catch(() => {
        // Left by itself; or it was stolen.
        if (this.#candidacy !== candidacy) return;
        if (leads) this.#lost();
        this.stand();
      });
  }

  /** Gives back what there is. */
  leave(): void {
    const candidacy = this.#candidacy;
    this.#candidacy = null;
    candidacy?.abort();
    this.#release();
    this.#release = () => {};
  }
}

export class Lead {
  /** Of two leaders the later is the greater. */
  readonly id: string;
  readonly #tab: string;
  readonly #name: string;
  readonly #options: LeadOptions;
  readonly #say: (message: Message) => void;
  readonly #client: Centrifuge;
  readonly #channels = new Map<string, Led>();
  readonly #known = new Set<string>();
  readonly #stop = new AbortController();
  #closed = false;
  #state: SharedState = 'connecting';

  /** `tab` is the one it is in, `before` the leader that it knows of, whom it follows whatever the clock says. */
  constructor(
    tab: string,
    name: string,
    before: string | null,
    options: LeadOptions,
    say: (message: Message) => void,
  ) {
    const now = Math.max(Date.now(), parseInt(before ?? '0', 10) + 1);
    this.id = `${String(now).padStart(15, '0')} ${tab}`;
    this.#tab = tab;
    this.#name = name;
    this.#options = options;
    this.#say = say;
    this.#client = options.client();
  }

  start(): void {
    this.#say({ kind: 'lead', leader: this.id });
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
        if (message.tab !== this.#tab) this.#sayState();
        return;
      case 'ask':
        return this.#sayState();
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
    if (!this.#closed) this.#say({ kind: 'state', leader: this.id, state: this.#state });
  }

  /** The lock that a tab holds is ours when that tab is gone. */
  #watch(tab: string): void {
    if (tab === this.#tab || this.#known.has(tab)) return;
    this.#known.add(tab);
    navigator.locks
      .request(`${this.#name} ${tab}`, { signal: this.#stop.signal }, () => this.#left(tab))
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
    this.#say({ kind: 'subscribed', leader: this.id, to: tab, channel, position: at, recovered });
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
      ...this.#options.subscription?.(channel),
      ...(since === null ? {} : { since }),
    });
    const led: Led = { subscription, tabs, since, at: undefined };
    const { id: leader } = this;
    subscription.on('subscribed', ({ streamPosition, recovered }) => {
      const position = streamPosition ? { offset: streamPosition.offset, epoch: streamPosition.epoch } : null;
      led.at = position;
      this.#say({ kind: 'subscribed', leader, to: null, channel, position, recovered });
    });
    subscription.on('publication', ({ data, offset, tags, info }) => {
      const epoch = led.at?.epoch ?? '';
      if (led.at && offset && offset > led.at.offset) led.at = { offset, epoch };
      this.#say({ kind: 'pub', leader, epoch, pub: { channel, data, offset, tags, info } });
    });
    subscription.on('error', ({ error }) => {
      this.#say({ kind: 'failed', leader, channel, code: error.code, reason: error.message, final: false });
    });
    subscription.on('unsubscribed', ({ code, reason }) => {
      // Not by us, whose listeners are off by then.
      this.#channels.delete(channel);
      this.#forget(subscription);
      this.#say({ kind: 'failed', leader, channel, code, reason, final: true });
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
      this.#say({ kind: 'answer', leader, to, id, result });
    } catch (failure) {
      const { code = 0, message = String(failure) } = (failure ?? {}) as { code?: number; message?: string };
      this.#say({ kind: 'answer', leader, to, id, error: { code, message } });
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
