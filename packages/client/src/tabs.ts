// One connection for all tabs of a browser: a shared worker has it, or an elected tab (Web Locks), and all tabs
// are served by that one (BroadcastChannel).
//
// Each tab knows by itself what it wants, and the position of the last publication that it gave to its page.
// The leader may therefore end at any point, or stop answering: whoever follows asks all tabs, goes on in each
// channel from the oldest of their positions, and each tab drops what it has already. Where a publication doesn't
// follow the one before it, a tab doesn't take it, but asks again from where it is. Who shares is told by the
// names of lock and channel, which have the identity in them.

import type { Centrifuge, SubscriptionOptions } from 'centrifuge';
import { Election, Lead, nameOf } from './lead';
import type { Message, Method, Position, Publication, SharedState } from './lead';
import { hasLeft, leave } from './memory';
import { SharedSubscription } from './subscription';

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
  /**
   * Starts the worker that has the connection, whose script calls `leadTabs`:
   * `(name) => new SharedWorker(url, { name, type: 'module' })`. Called where there are shared workers. If it
   * doesn't come up, or ends, a tab takes its place.
   */
  worker?: (name: string) => SharedWorker;
  /** Milliseconds within which the leader has to answer, or another takes its place. 5,000. */
  patience?: number;
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

/** This tab's part of a shared connection. Events: `state`, `logout`. */
export class SharedClient extends EventTarget {
  readonly #options: SharedOptions;
  readonly #name: string;
  readonly #patience: number;
  readonly #shares: boolean;
  readonly #election: Election;
  readonly #channels = new Map<string, Wanted>();
  readonly #calls = new Map<number, Call>();
  readonly #ends = new AbortController();
  /** Another one each time that it joins: what is still said of the one before isn't meant. */
  #tab = '';
  #bus: BroadcastChannel | null = null;
  #worker: SharedWorker | null = null;
  /** Whether it has the lock by which the leader hears of its end. */
  #lives = false;
  #release: () => void = () => {};
  /** Since when it isn't there, having been put away by the browser. */
  #away: number | null = null;
  #call = 0;
  #state: SharedState = 'connecting';
  #leader: string | null = null;
  #lead: Lead | null = null;
  #watch: ReturnType<typeof setTimeout> | undefined;
  #heard = false;

  /**
   * Joins, and connects if nobody else has. Where a page has no Web Locks (they need a secure context), the
   * tab has a connection of its own and all else is the same.
   */
  constructor(options: SharedOptions) {
    super();
    this.#options = options;
    this.#name = nameOf(options.identity);
    this.#patience = (options.patience ?? PATIENCE) * (1 + Math.random() / 4);
    this.#shares = globalThis.navigator?.locks !== undefined && typeof BroadcastChannel === 'function';
    this.#election = new Election(
      this.#name,
      () => this.#becomeLeader(),
      () => this.#stepDown(),
    );
    this.#join();
    if (this.#shares) this.#listen();
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
    this.#end();
  }

  /** The user leaves: the connection ends, and all tabs of this identity are closed. */
  logout(): void {
    if (this.#state === 'closed') return;
    // For tabs that were put away, and can't be told.
    leave(this.#name);
    this.#say({ kind: 'logout' });
    this.#loggedOut();
  }

  #loggedOut(): void {
    this.#end();
    this.dispatchEvent(new Event('logout'));
  }

  #end(): void {
    this.#part();
    this.#ends.abort();
    this.#worker?.port.close();
    for (const call of this.#calls.values()) call.reject(new SharedError(0, 'the connection is closed'));
    this.#calls.clear();
    this.#channels.clear();
    this.#setState('closed');
  }

  /** A page that is put away holds nothing, so that it may be kept, and others go on without it. */
  #listen(): void {
    const { signal } = this.#ends;
    const on = (target: EventTarget | undefined, type: string, does: () => void, kept = false) =>
      target?.addEventListener(
        type,
        (event) => {
          if (!kept || (event as PageTransitionEvent).persisted) does();
        },
        { signal },
      );
    const [away, back] = [() => this.#goAway(), () => this.#comeBack()];
    on(globalThis, 'pagehide', away, true);
    on(globalThis, 'pageshow', back, true);
    on(globalThis.document, 'freeze', away);
    on(globalThis.document, 'resume', back);
  }

  #goAway(): void {
    if (this.#away !== null || this.#state === 'closed') return;
    this.#away = Date.now();
    this.#part();
    this.#setState('disconnected');
  }

  #comeBack(): void {
    const since = this.#away;
    if (since === null || this.#state === 'closed') return;
    this.#away = null;
    if (hasLeft(this.#name, since)) return this.#loggedOut();
    this.#setState('connecting');
    this.#join();
  }

  #join(): void {
    this.#tab = crypto.randomUUID?.() ?? String(Math.random()).slice(2) + Date.now();
    if (!this.#shares) return this.#becomeLeader();
    this.#bus = new BroadcastChannel(this.#name);
    this.#bus.onmessage = ({ data }) => this.#receive(data as Message);
    // Held for as long as the tab is there: the leader waits for it, and so hears of a tab that died.
    const tab = this.#tab;
    void navigator.locks.request(`${this.#name} ${tab}`, () => {
      if (this.#tab !== tab || this.#bus === null) return;
      this.#lives = true;
      this.#sayHello();
      return new Promise<void>((resolve) => (this.#release = resolve));
    });
    this.#startWorker();
    this.#keepWatch(false);
  }

  /** Leaves the others, with all that is held. */
  #part(): void {
    clearTimeout(this.#watch);
    if (this.#tab !== '') this.#say({ kind: 'bye', tab: this.#tab });
    this.#stepDown();
    this.#election.leave();
    this.#release();
    this.#lives = false;
    this.#bus?.close();
    this.#bus = null;
    this.#tab = '';
    // Whose answers to what was asked before don't come any more.
    this.#leader = null;
  }

  /** Stands for election, but lets the worker go first. */
  #startWorker(): void {
    const stand = () => {
      clearTimeout(timer);
      if (this.#bus !== null && tab === this.#tab) this.#election.stand();
    };
    const { worker } = this.#options;
    const tab = this.#tab;
    if (worker === undefined || typeof SharedWorker === 'undefined') {
      this.#election.stand();
      return;
    }
    const timer = setTimeout(stand, WORKER_PATIENCE);
    try {
      this.#worker?.port.close();
      this.#worker = worker(this.#name);
      this.#worker.onerror = stand;
      this.#worker.port.onmessage = stand;
    } catch {
      // Forbidden, say by a policy of the page.
      stand();
    }
  }

  #becomeLeader(): void {
    if (this.#state === 'closed') return;
    const say = (message: Message) => this.#say(message);
    this.#lead = new Lead(this.#tab, this.#name, this.#leader, this.#options, say);
    this.#lead.start();
  }

  #stepDown(): void {
    this.#lead?.close();
    this.#lead = null;
  }

  /**
   * Asks the leader for a sign of life where none has come for a while, and takes the place of one that gives
   * none: its page hangs, or is frozen. If it wakes up it finds its lock gone.
   */
  #keepWatch(asked: boolean): void {
    const begun = Date.now();
    this.#heard = false;
    const judge = () => {
      const hangs = asked && !this.#heard && !this.leads;
      if (hangs) this.#election.stand(true);
      const asks = !this.#heard && !this.leads && !hangs;
      if (asks) this.#say({ kind: 'ask' });
      this.#keepWatch(asks);
    };
    this.#watch = setTimeout(() => {
      // Late: it was this page that hung, and signs of life are waiting for their turn.
      if (Date.now() - begun > this.#patience * 1.5) this.#watch = setTimeout(judge, BREATH);
      else judge();
    }, this.#patience);
  }

  /** To all tabs, and to this one. */
  #say(message: Message): void {
    this.#bus?.postMessage(message);
    queueMicrotask(() => this.#receive(message));
  }

  #receive(message: Message): void {
    if (this.#state === 'closed' || this.#away !== null) return;
    if (message.kind === 'logout') return this.#loggedOut();
    if (!('leader' in message) || message.kind === 'call') {
      this.#lead?.receive(message);
      return;
    }
    if (message.kind === 'lead') {
      this.#heard = true;
      return this.#follow(message.leader);
    }
    if (message.leader !== this.#leader) {
      // Of one who leads no more; or of one whose first word this tab wasn't there to hear.
      if (this.#leader !== null && message.leader < this.#leader) return;
      this.#follow(message.leader);
    }
    this.#heard = true;
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
          new SharedError(0, 'the one with the connection is gone, or this page was away: it is not known whether this was done'),
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
    if (this.#lives || !this.#shares) this.#say({ kind: 'hello', tab: this.#tab });
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

const PATIENCE = 5_000;
/** How long a worker has before tabs stand for election themselves, in milliseconds. */
const WORKER_PATIENCE = 2_000;
/** In which a page that hung takes what waits for it, in milliseconds. */
const BREATH = 100;
