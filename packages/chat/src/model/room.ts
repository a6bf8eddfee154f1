// One room: a channel's subscription, and what the page knows from it. The views read its signals
// and call its methods.

import { signal } from '@preact/signals';
import type { Centrifuge, PublicationContext, SubscribedContext, Subscription } from 'centrifuge';
import { Outbox, type Attempt, type Outgoing } from './outbox';
import { authorOf, keyOf, People, type Author, type ClientInfo, type Person } from './people';
import type { Identity } from './identity';
import { randomId, readMessage } from './text';
import { KEPT, Timeline, type Entry, type Post } from './timeline';
import { PAUSE, Throttle, Typists } from './typing';

/** Messages of the past that a newcomer is shown. */
const PAST = 50;
/** People who left that are remembered, so that they are greeted as old friends. */
const REMEMBERED = 200;
/**
 * Somebody whose connection is back within this time (milliseconds) never left, as far as readers
 * are concerned.
 */
const GRACE = 2000;

export type RoomState =
  | { readonly kind: 'joining' }
  | { readonly kind: 'joined' }
  /** The server ended the subscription for good. */
  | { readonly kind: 'refused'; readonly code: number; readonly reason: string };

/** A room that was entered. It tries to stay in it, over broken lines, until `leave`. */
export class Room {
  readonly state = signal<RoomState>({ kind: 'joining' });
  readonly entries = signal<readonly Entry[]>([]);
  /** Null where the server doesn't tell who is in the room. */
  readonly people = signal<readonly Person[] | null>([]);
  /** Whether the past has been read, so that an empty room is known to be empty. */
  readonly settled = signal(false);
  readonly typists = new Typists();
  readonly outbox = new Outbox((message) => this.#publish(message));

  readonly #client: Centrifuge;
  readonly #subscription: Subscription;
  readonly #typing: Subscription;
  readonly #me: Identity;
  readonly #timeline = new Timeline();
  readonly #here: People;
  /** Those who left a moment ago, and what will say so unless they are back soon. */
  readonly #leaving = new Map<
    string,
    { readonly author: Author; readonly timer: ReturnType<typeof setTimeout> }
  >();
  /** Those who left, and were not back soon. */
  readonly #gone = new Set<string>();
  readonly #throttle = new Throttle(PAUSE);
  /**
   * Publications that wait for the history which belongs before them; null while none is being
   * read.
   */
  #held: Post[] | null = null;
  #reading = false;
  /** When the line broke, and by whose hand; null while it holds. */
  #down: { readonly since: number; readonly planned: boolean } | null = null;
  /** Publications of the recovery that is being handed out; null outside of one. */
  #recovered: number | null = null;

  /** Enters the room `name` of `client` as `me`. */
  constructor(
    client: Centrifuge,
    readonly name: string,
    me: Identity,
  ) {
    this.#client = client;
    this.#me = me;
    this.#here = new People(me.user);
    this.#subscription = client.newSubscription(name, {
      recoverable: true,
      positioned: true,
      joinLeave: true,
    });
    this.#subscription
      .on('subscribed', (context) => this.#subscribed(context))
      .on('subscribing', () => this.#lost())
      .on('unsubscribed', ({ code, reason }) => this.#refused(code, reason))
      .on('publication', (publication) => this.#received(publication))
      .on('join', ({ info }) => this.#joined(info))
      .on('leave', ({ info }) => this.#left(info));
    this.#typing = client.newSubscription(`typing:${name}`);
    this.#typing.on('publication', ({ info }) => {
      if (info !== undefined && info.user !== me.user) this.typists.heard(authorOf(info));
    });
    this.#subscription.subscribe();
    this.#typing.subscribe();
  }

  /** Says something. Returns whether it was taken: it isn't while too much is waiting already. */
  say(text: string): boolean {
    this.#throttle.reset();
    return this.outbox.add(randomId(), text, Date.now());
  }

  /** The person types. Others are told, now and then. Losing such a word matters to nobody. */
  typed(): void {
    if (this.state.value.kind !== 'joined' || !this.#throttle.ready(performance.now())) return;
    this.#typing.publish({}).catch(() => {});
  }

  /**
   * Measures a round trip, in milliseconds: the time of a small question to the server about this
   * room. It is asked twice, and the shorter time counts: the longer one tells how busy the page
   * was.
   */
  async ping(): Promise<number> {
    const start = performance.now();
    await this.#subscription.presenceStats();
    const middle = performance.now();
    const { numClients } = await this.#subscription.presenceStats();
    const time = Math.min(middle - start, performance.now() - middle);
    // The answer also tells whether news of somebody got lost on the way: join and leave are sent
    // once, and not kept.
    if (!this.#here.matches(numClients)) void this.#lookAround();
    return time;
  }

  /** The next break of the line is ours, and not worth a word unless something got lost. */
  expectBreak(): void {
    this.#down ??= { since: performance.now(), planned: true };
  }

  /** Notes who is now called differently. */
  renamed(from: string, who: Author): void {
    this.#timeline.note({ kind: 'renamed', from, who }, Date.now());
    this.#show();
  }

  /** Leaves the room. */
  leave(): void {
    for (const subscription of [this.#subscription, this.#typing]) {
      subscription.removeAllListeners();
      subscription.unsubscribe();
      this.#client.removeSubscription(subscription);
    }
    for (const { timer } of this.#leaving.values()) clearTimeout(timer);
    this.typists.clear();
  }

  #subscribed({ recovered, streamPosition }: SubscribedContext): void {
    const now = Date.now();
    const down = this.#down;
    this.#down = null;
    this.state.value = { kind: 'joined' };
    this.#recovered = recovered && down !== null && !down.planned ? 0 : null;
    const missed = down !== null && !recovered;
    if (missed) {
      const away = performance.now() - down.since;
      this.#timeline.note({ kind: 'unrecovered', away }, now);
    }
    if (streamPosition !== undefined) {
      const { epoch, offset } = streamPosition;
      this.#timeline.start(epoch, offset, now);
    }
    if (missed || !this.settled.value) void this.#readHistory();
    void this.#lookAround();
    // The SDK hands out what was recovered right after this event, in the same turn.
    queueMicrotask(() => {
      if (this.#recovered !== null && down !== null) {
        const away = performance.now() - down.since;
        this.#timeline.note({ kind: 'recovered', away, count: this.#recovered }, now);
      }
      this.#recovered = null;
      if (this.#held === null) this.outbox.open();
      this.#show();
    });
  }

  #lost(): void {
    this.outbox.close();
    this.typists.clear();
    if (this.state.value.kind !== 'joined') return;
    this.state.value = { kind: 'joining' };
    if (this.#down === null) {
      this.#down = { since: performance.now(), planned: false };
      this.#timeline.note({ kind: 'down' }, Date.now());
      this.#show();
    }
  }

  #refused(code: number, reason: string): void {
    this.outbox.close();
    this.typists.clear();
    this.state.value = { kind: 'refused', code, reason };
  }

  #received(publication: PublicationContext): void {
    const post = this.#postOf(publication);
    if (this.#recovered !== null) this.#recovered++;
    if (this.#held !== null) {
      this.#held.push(post);
      // More than is shown has come in the meantime: then the past may come when it likes.
      if (this.#held.length >= KEPT) this.#settle();
      return;
    }
    this.#timeline.add(post, Date.now(), this.#recovered !== null);
    this.#delivered(post);
    this.#show();
  }

  /** What follows from having seen a message. */
  #delivered({ author, message, you }: Post): void {
    if (author !== null) this.typists.stopped(author.key);
    if (you && message.id !== null) this.outbox.settle(message.id);
  }

  /**
   * Reads the end of the stream: the past for a newcomer, what can still be had for someone who was
   * away too long.
   */
  async #readHistory(): Promise<void> {
    this.#held ??= [];
    if (this.#reading) return;
    this.#reading = true;
    this.outbox.close();
    while (this.state.value.kind === 'joined') {
      try {
        const { publications, epoch, offset } = await this.#subscription.history({
          limit: PAST,
          reverse: true,
        });
        const page = publications.map((publication) => this.#postOf(publication)).reverse();
        this.#timeline.addHistory(page, epoch, offset, Date.now());
        page.forEach((post) => this.#delivered(post));
        this.#settle();
        break;
      } catch (error) {
        // No answer: asked again as long as the line holds, and otherwise by the next subscription.
        // A refusal is an answer: then there is no past.
        if (isSilence(error)) continue;
        this.#settle();
        break;
      }
    }
    this.#reading = false;
  }

  /** The past is known, as far as it can be: what came since goes after it. */
  #settle(): void {
    const now = Date.now();
    for (const post of this.#held ?? []) {
      this.#timeline.add(post, now);
      this.#delivered(post);
    }
    this.#held = null;
    // What the server accepted, but no longer remembers, was said all the same.
    for (const { id, text, at, state } of this.outbox.messages.value) {
      if (state !== 'accepted') continue;
      this.#timeline.add(
        { message: { id, text, at, raw: false }, author: this.#me.author, you: true, offset: null },
        now,
      );
      this.outbox.settle(id);
    }
    this.settled.value = true;
    this.outbox.open();
    this.#show();
  }

  async #lookAround(): Promise<void> {
    try {
      const { clients } = await this.#subscription.presence();
      this.#here.replace(Object.values(clients));
      this.people.value = this.#here.list();
    } catch (error) {
      if (!isSilence(error)) this.people.value = null;
    }
  }

  #joined(info: ClientInfo): void {
    const key = keyOf(info);
    const left = this.#leaving.get(key);
    clearTimeout(left?.timer);
    this.#leaving.delete(key);
    const news = this.#here.join(info);
    if (news !== null && info.user !== this.#me.user) {
      if (left === undefined) {
        this.#timeline.note(
          { kind: this.#gone.delete(key) ? 'returned' : 'joined', who: [news], more: 0 },
          Date.now(),
        );
      } else if (left.author.name !== news.name) {
        this.renamed(left.author.name, news);
      }
    }
    this.#show();
  }

  #left(info: ClientInfo): void {
    const author = this.#here.leave(info);
    if (author !== null && info.user !== this.#me.user) {
      this.typists.stopped(author.key);
      const announce = () => {
        this.#leaving.delete(author.key);
        if (this.#here.has(author.key)) return;
        if (this.#gone.size < REMEMBERED) this.#gone.add(author.key);
        this.#timeline.note({ kind: 'left', who: [author], more: 0 }, Date.now());
        this.#show();
      };
      this.#leaving.set(author.key, { author, timer: setTimeout(announce, GRACE) });
    }
    this.#show();
  }

  async #publish({ id, text, at }: Outgoing): Promise<Attempt> {
    try {
      await this.#subscription.publish({ id, text, at });
      return { kind: 'accepted' };
    } catch (error) {
      return isSilence(error) ? { kind: 'unknown' } : { kind: 'refused', reason: messageOf(error) };
    }
  }

  #postOf({ data, info, offset }: PublicationContext): Post {
    return {
      message: readMessage(data),
      author: info === undefined ? null : authorOf(info),
      you: info !== undefined && info.user === this.#me.user,
      offset: offset ?? null,
    };
  }

  #show(): void {
    this.entries.value = this.#timeline.entries;
    if (this.people.value !== null) this.people.value = this.#here.list();
  }
}

/**
 * Whether a call failed without an answer from the server. The SDK numbers its own reasons below
 * 100, a server's from 100 on.
 */
function isSilence(error: unknown): boolean {
  return (
    typeof error === 'object' &&
    error !== null &&
    'code' in error &&
    typeof error.code === 'number' &&
    error.code < 100
  );
}

function messageOf(error: unknown): string {
  return typeof error === 'object' &&
    error !== null &&
    'message' in error &&
    typeof error.message === 'string'
    ? error.message
    : 'unknown reason';
}
