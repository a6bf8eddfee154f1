// The WebSocket that the SDK is given: a real one, on a line which the person in front of the page
// can cut.
//
// A cut is what a pulled cable looks like to the SDK: the socket dies at once (no closing handshake
// is waited for, whatever was on its way is lost) and each new one is refused, until the line is
// spliced. Nothing in the SDK or on the server knows of it, so what happens afterwards is the real
// recovery.

import { signal, type ReadonlySignal } from '@preact/signals';

/** Whether the line is cut, and until when (`performance.now()` milliseconds). */
export type Cut = { readonly since: number; readonly until: number };

export class Wire {
  /** What the SDK needs of a WebSocket class. */
  readonly Socket: new (url: string) => WireSocket;

  /**
   * Tells the SDK of the network going away and coming back (events `offline` and `online`): the
   * browser's own news, and ours after a splice, so that it dials at once instead of sitting out
   * its back-off.
   */
  readonly network = new EventTarget();

  readonly #cut = signal<Cut | null>(null);
  readonly #sockets = new Set<WireSocket>();
  #timer: ReturnType<typeof setTimeout> | undefined;

  constructor(Real: new (url: string) => WebSocket, window?: EventTarget) {
    const wire = this;
    this.Socket = class extends WireSocket {
      constructor(url: string) {
        super(wire.#cut.value === null ? new Real(url) : null, (socket) =>
          wire.#sockets.delete(socket),
        );
        wire.#sockets.add(this);
      }
    };
    for (const news of ['online', 'offline']) {
      window?.addEventListener(news, () => this.network.dispatchEvent(new Event(news)));
    }
  }

  /** The cut which is under way, if one is. */
  get cut(): ReadonlySignal<Cut | null> {
    return this.#cut;
  }

  /** Cuts the line for `duration` milliseconds. While it is cut already, that does nothing. */
  sever(duration: number): void {
    if (this.#cut.value !== null) return;
    const since = performance.now();
    this.#cut.value = { since, until: since + duration };
    this.#timer = setTimeout(() => this.splice(), duration);
    for (const socket of [...this.#sockets]) socket.drop();
  }

  /** Makes the line whole again, if it is cut. */
  splice(): void {
    if (this.#cut.value === null) return;
    clearTimeout(this.#timer);
    this.#cut.value = null;
    this.network.dispatchEvent(new Event('online'));
  }
}

type Handler<E> = ((event: E) => void) | null;

/** A socket on the wire, with the part of the WebSocket interface that the SDK uses. */
export class WireSocket {
  onopen: Handler<Event> = null;
  onmessage: Handler<MessageEvent> = null;
  onerror: Handler<Event> = null;
  onclose: Handler<CloseEvent> = null;

  #real: WebSocket | null;
  readonly #gone: (socket: WireSocket) => void;

  /**
   * `real` is null where the line is cut: the socket then fails as an unreachable server makes it
   * fail.
   */
  constructor(real: WebSocket | null, gone: (socket: WireSocket) => void) {
    this.#real = real;
    this.#gone = gone;
    if (real === null) {
      setTimeout(() => this.#fail());
      return;
    }
    real.onopen = (event) => this.onopen?.(event);
    real.onmessage = (event) => this.onmessage?.(event);
    real.onerror = (event) => this.onerror?.(event);
    real.onclose = (event) => {
      gone(this);
      this.onclose?.(event);
    };
  }

  send(data: string): void {
    this.#real?.send(data);
  }

  close(): void {
    this.#real?.close();
  }

  /** Dies now, without a word to the other side that the SDK could wait for. */
  drop(): void {
    const real = this.#real;
    if (real === null) return;
    real.onopen = real.onmessage = real.onerror = real.onclose = null;
    this.#real = null;
    real.close();
    this.#fail();
  }

  #fail(): void {
    this.#gone(this);
    this.onerror?.(new Event('error'));
    // 1006: closed without a close frame (RFC 6455, section 7.1.5).
    this.onclose?.(new CloseEvent('close', { code: 1006 }));
  }
}
