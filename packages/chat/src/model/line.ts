// The line to the server: one connection of the SDK, what is known of its state, and the room that
// is talked in over it.

import { batch, effect, signal, type ReadonlySignal } from '@preact/signals';
import { Centrifuge, UnauthorizedError } from 'centrifuge';
import type { Identity } from './identity';
import { Room } from './room';
import { Wire, type Cut } from './wire';

/** How long the button cuts the line, in milliseconds. */
export const CUT = 5000;
/**
 * Pauses between measurements of the round trip, in milliseconds. The first one after a connection
 * is made finds the page busy with drawing what came; the second is not long in coming.
 */
const PROBE = { first: 800, then: 5000 };
/**
 * The server's word for a token that it did not sign (centrifugal protocol, disconnect codes). A
 * development server which was started anew has a new key, and then this is about our old token.
 */
const INVALID_TOKEN = 3500;
/** How long the server may take to give a token, in milliseconds. */
const TOKEN_TIMEOUT = 10_000;

export type LineState =
  | { readonly kind: 'connecting'; readonly again: boolean }
  | { readonly kind: 'connected'; readonly transport: string }
  /** The server, or we, ended it for good. */
  | { readonly kind: 'closed'; readonly code: number; readonly reason: string };

export class Line {
  readonly state = signal<LineState>({ kind: 'connecting', again: false });
  /** Last measured round trip in milliseconds, null while none is known. */
  readonly roundTrip = signal<number | null>(null);
  readonly #room = signal<Room | null>(null);
  readonly #wire: Wire;
  readonly #client: Centrifuge;
  /** Rooms that were left with messages still waiting to go out. */
  readonly #lingering = new Map<string, Room>();
  /** Why the server gave us no token, in its own words. */
  #refusal: string | null = null;

  /** `endpoint` is the server's WebSocket address. */
  constructor(
    endpoint: string,
    private readonly me: Identity,
  ) {
    this.#wire = new Wire(WebSocket, window);
    this.#client = new Centrifuge(endpoint, {
      getToken: () => this.#getToken(),
      websocket: this.#wire.Socket,
      networkEventTarget: this.#wire.network,
      // A chat is looked at while it waits: try again soon.
      minReconnectDelay: 300,
      maxReconnectDelay: 5000,
    });
    let connectedOnce = false;
    let renewed = false;
    this.#client
      .on('connected', ({ transport }) => {
        connectedOnce = true;
        renewed = false;
        this.state.value = { kind: 'connected', transport };
      })
      .on('connecting', () => {
        this.roundTrip.value = null;
        this.state.value = { kind: 'connecting', again: connectedOnce };
      })
      .on('disconnected', ({ code, reason }) => {
        this.roundTrip.value = null;
        if (code === INVALID_TOKEN && !renewed) {
          renewed = true;
          queueMicrotask(() => this.dial());
          return;
        }
        this.state.value = { kind: 'closed', code, reason: this.#refusal ?? reason };
      });
    this.#client.connect();
    this.#probe();
  }

  /** The room that is talked in. */
  get room(): ReadonlySignal<Room | null> {
    return this.#room;
  }

  /** The cut which is under way, if one is. */
  get cut(): ReadonlySignal<Cut | null> {
    return this.#wire.cut;
  }

  /** Goes to another room. */
  enter(name: string): void {
    const left = this.#room.value;
    if (left?.name === name) return;
    const waiting = this.#lingering.get(name);
    this.#lingering.delete(name);
    this.#room.value = waiting ?? new Room(this.#client, name, this.me);
    if (left !== null) this.#leave(left);
  }

  /** Cuts the line for `CUT` milliseconds. */
  sever(): void {
    this.#wire.sever(CUT);
  }

  /** Ends the cut before its time. */
  splice(): void {
    this.#wire.splice();
  }

  /** Dials again after the end, with a new token. */
  dial(): void {
    this.#client.setToken('');
    this.#client.connect();
  }

  /**
   * Takes another name. The name is in the token, and a connection has one token for life: so there
   * is a new one.
   */
  rename(name: string): void {
    const before = this.me.name.value;
    if (!this.me.rename(name)) return;
    this.#client.setToken('');
    for (const room of this.#rooms()) {
      room.renamed(before, this.me.author);
      room.expectBreak();
    }
    if (this.state.value.kind === 'closed') return;
    batch(() => {
      this.#client.disconnect();
      this.#client.connect();
    });
  }

  /** Whether something that was said has not reached the server yet, as far as is known. */
  get unsent(): boolean {
    return this.#rooms().some(({ outbox }) => outbox.unsent);
  }

  #rooms(): Room[] {
    return [...(this.#room.value === null ? [] : [this.#room.value]), ...this.#lingering.values()];
  }

  /** Leaves a room, as soon as nothing waits in it. */
  #leave(room: Room): void {
    if (!room.outbox.unsent) {
      room.leave();
      return;
    }
    this.#lingering.set(room.name, room);
    const stop = effect(() => {
      const done = !room.outbox.unsent;
      const back = this.#room.value === room;
      if (!done && !back) return;
      queueMicrotask(() => {
        stop();
        if (this.#lingering.get(room.name) !== room) return;
        this.#lingering.delete(room.name);
        room.leave();
      });
    });
  }

  async #getToken(): Promise<string> {
    this.#refusal = null;
    const response = await fetch('/dev/token', {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({ name: this.me.name.value, user: this.me.user }),
      signal: AbortSignal.timeout(TOKEN_TIMEOUT),
    });
    // A refusal will be the same next time; anything else is worth another attempt, which the SDK
    // makes.
    if (response.status >= 400 && response.status < 500 && response.status !== 429) {
      this.#refusal =
        (await response.text()).slice(0, 300).trim() ||
        `POST /dev/token answered ${response.status}`;
      throw new UnauthorizedError(this.#refusal);
    }
    if (!response.ok) throw new Error(`POST /dev/token answered ${response.status}`);
    const answer: unknown = await response.json();
    if (
      typeof answer === 'object' &&
      answer !== null &&
      'token' in answer &&
      typeof answer.token === 'string'
    )
      return answer.token;
    throw new Error('POST /dev/token answered without a token');
  }

  /** Measures the round trip now and then, while somebody looks. */
  #probe(): void {
    let timer: ReturnType<typeof setTimeout> | undefined;
    let measuring = false;
    const measure = async () => {
      clearTimeout(timer);
      const room = this.#room.value;
      if (room === null || room.state.value.kind !== 'joined' || document.hidden || measuring)
        return;
      measuring = true;
      const pause = this.roundTrip.value === null ? PROBE.first : PROBE.then;
      try {
        this.roundTrip.value = await room.ping();
      } catch {
        // The last figure stands, and the state says what is wrong.
      }
      measuring = false;
      timer = setTimeout(measure, pause);
    };
    document.addEventListener('visibilitychange', measure);
    effect(() => {
      if (this.#room.value?.state.value.kind === 'joined') queueMicrotask(measure);
    });
  }
}
